"""A thread that commits finished calls in groups, and the calls in flight that others wait for.

Whatever finished while the last fsync ran goes into the next commit together. While most of the calls in flight are
still out, a commit waits 5 ms for more to join it: an fsync takes about 200 microseconds of CPU, whatever it carries, and
calls that went out together come back together.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from pathlib import Path

from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger import schema
from safer_instruct.ledger.content import Call
from safer_instruct.ledger.rows import DamagedRowError

_JOINED_FOR_S, _FULL_GROUP = 0.005, 256
Waiting = tuple[Call, "asyncio.Future[None]"]
Outcome = tuple[bytes, "asyncio.Future[None]", RunDirectoryError | None]


class Commits(ABC):
    """Where finished calls are kept, whatever the files are: in groups, each on disk before anybody sees its answers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.in_flight: dict[bytes, asyncio.Future[None] | None] = {}  # sent and not yet committed, and what those who want them wait for
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._unsaved: list[Call] = []  # which found no room
        self._failure: RunDirectoryError | None = None  # of the last commit
        self._cause: Exception | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._write_loop, name="ledger", daemon=True)

    @abstractmethod
    def get(self, key: bytes) -> Call | None:
        """The call of that key, or None when it may be made.

        Raises:
            RunDirectoryError: The file is damaged; or the last commit failed, so what this call is paid for might be lost.
        """

    def check(self) -> None:
        """Whether a call that is made now could be saved.

        Raises:
            RunDirectoryError: The last commit failed, so what it is paid for might be lost.
        """
        if self._failure:
            raise RunDirectoryError(str(self._failure))

    def lost(self) -> RunDirectoryError | None:
        """What to say at the end where calls could not be saved at first for the state of the file or the disk: of those that are lost, if any are."""
        if not self._cause:
            return None
        return schema.explain(self.path, self._cause, _not_saved(len(self._unsaved)) if self._unsaved else "finished calls could be saved only just")

    async def claim(self, key: bytes, stage: str) -> Call | None:
        """Ask, where others may be making the same call elsewhere: None leaves it to the caller, who makes it now."""
        return None

    def put(self, call: Call) -> asyncio.Future[None]:
        """Commit one finished call; done when it is on disk, and only then its key is given free.

        Raises:
            RunDirectoryError: The ledger is closed; from the future: it could not be written.
        """
        if self._closed:
            self.release(call.key)
            raise RunDirectoryError(f"{self.path}: a call finished after the ledger was closed and is not saved")
        self._about_to_commit(call)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put((call, future))
        return future

    async def end_of(self, key: bytes) -> None:
        """Wait until a call in flight is committed, or will not be."""
        mark = self.in_flight[key] or asyncio.get_running_loop().create_future()
        self.in_flight[key] = mark
        await asyncio.shield(mark)

    def release(self, key: bytes) -> None:
        """Wake up who waits for a call in flight: it is committed now, or will not be."""
        if mark := self.in_flight.pop(key, None):
            mark.set_result(None)

    def close(self) -> None:
        """Commit what is queued and close the file."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _write_loop(self) -> None:
        open_ = True
        while open_:
            group = [self._queue.get()]
            self._drain(group)
            if len(group) < min(len(self.in_flight) // 2, _FULL_GROUP) and None not in group:
                time.sleep(_JOINED_FOR_S)
                self._drain(group)
            open_ = None not in group
            if calls := [waiting for waiting in group if waiting is not None]:
                self._commit(calls)
        self._save_again()
        self._end()

    def _save_again(self) -> None:
        """Try what found no room once more, one by one: other files of the run have gone by now, and small commits may fit where a large one did not."""
        if isinstance(self._cause, sqlite3.OperationalError):
            self._unsaved = [call for call in self._unsaved if not self._is_saved(call)]

    def _is_saved(self, call: Call) -> bool:
        try:
            self._append([call])
        except sqlite3.IntegrityError:  # it has been made, and saved, since
            return True
        except (sqlite3.Error, OSError):
            return False
        return True

    def _drain(self, group: list[Waiting | None]) -> None:
        for _ in range(self._queue.qsize()):
            group.append(self._queue.get_nowait())

    def _commit(self, group: list[Waiting]) -> None:
        """Save all, and wake up each event loop that waits for some of them once."""
        loops = defaultdict(list)
        for (call, future), error in zip(group, self._save([call for call, _ in group]), strict=True):
            loops[future.get_loop()].append((call.key, future, error))
        for loop, outcomes in loops.items():
            try:
                loop.call_soon_threadsafe(self._settle, outcomes)
            except RuntimeError:  # the loop is closed: nobody waits any more
                for key, *_ in outcomes:
                    self.in_flight.pop(key, None)

    def _save(self, calls: list[Call]) -> list[RunDirectoryError | None]:
        """One transaction for all; if one of them makes no row, one for each, so that the others are not lost with it."""
        try:
            self._append(calls)
        except Exception as exc:  # noqa: BLE001 - not swallowed: everyone who waits for this commit is given it
            if len(calls) > 1 and _is_of_one_call(exc):
                return [error for call in calls for error in self._save([call])]
            error = schema.explain(self.path, exc, _not_saved(len(calls)))
            if not _is_of_one_call(exc):
                self._failure, self._cause = error, exc
                self._unsaved += calls
            return [error] * len(calls)
        self._failure = None
        return [None] * len(calls)

    def _settle(self, outcomes: list[Outcome]) -> None:
        for key, future, error in outcomes:
            self.release(key)
            if not future.done():
                future.set_exception(error) if error else future.set_result(None)

    @abstractmethod
    def _about_to_commit(self, call: Call) -> None:
        """A call has come to its end; told on the event loop, as soon as that is so."""

    @abstractmethod
    def _append(self, calls: list[Call]) -> None:
        """Write all of them, durably, or none."""

    @abstractmethod
    def _end(self) -> None:
        """Nothing more will be written."""


def _not_saved(count: int) -> str:
    return f"{count} finished calls could not be saved"


def _is_of_one_call(exc: Exception) -> bool:
    """Whether a commit failed for what a call holds, and not for the state of the file or the disk."""
    if isinstance(exc, sqlite3.Error):
        return isinstance(exc, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.ProgrammingError)
    return not isinstance(exc, DamagedRowError | OSError | MemoryError)
