"""The desk of a run as it stands now: another one is set up when the run was made again while its review is open."""

from __future__ import annotations

import threading
from contextlib import ExitStack, closing
from pathlib import Path

from safer_instruct.review.desk import Desk, Plan, made_mark
from safer_instruct.review.store import Store


class Desks:
    """Gives the desk of a run to each request; its methods may be called from any thread."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path, self._plan = path, plan
        self._desk: Desk | None = None
        self._opened = ExitStack()  # earlier desks too, as long as a request may still be at one
        self._changing = threading.Lock()

    def now(self) -> Desk:
        """The desk of the run as it stands; where that is another run than a moment ago, its index is made first.

        Raises:
            RunDirectoryError: The run is in progress, or was not ended, or one of its files is damaged.
        """
        with self._changing:
            if self._desk is None or self._desk.made != made_mark(self.path):
                self._desk = self._set_up()
            return self._desk

    def close(self) -> None:
        """Close all files."""
        self._opened.close()

    def _set_up(self) -> Desk:
        with ExitStack() as opening:
            store = opening.enter_context(closing(Store(self.path)))
            desk = opening.enter_context(closing(Desk(self.path, self._plan, store)))
            self._opened.enter_context(opening.pop_all())
            return desk
