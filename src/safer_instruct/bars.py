"""How far a long command is: a bar on a terminal; elsewhere a line now and then, so that a log shows that it goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console

from safer_instruct.models.calls import span

_FIRST_S, _RARELY_S = 10.0, 60.0


@dataclass
class Told:
    """What the work tells of itself; whoever draws it reads it.

    Attributes:
        doing: What is going on.
        done: So many pieces of it are done.
        of: In all; None while nobody knows.
        news: What else there is to say of the last piece.
        change: Called after each `tell`.
    """

    doing: str
    done: int = 0
    of: int | None = None
    news: str = ""
    change: Callable[[], None] = field(default=lambda: None, repr=False)

    def tell(self, done: int, of: int | None, *, doing: str | None = None, news: str = "") -> None:
        """So many are done, of so many."""
        self.doing, self.done, self.of, self.news = doing or self.doing, done, of, news
        self.change()


@contextmanager
def watched(console: Console, doing: str) -> Iterator[Told]:
    """Yields what the work tells its progress to; `console.print` in between stands above the bar.

    Off a terminal the first line comes after ten seconds, and the longer the work has taken, the rarer they become: one a minute at last.

    Args:
        console: A quiet one is told nothing.
        doing: What is going on until something else is told.
    """
    told = Told(doing)
    if console.is_terminal and not console.quiet:
        with _bar(console, told):
            yield told
        return
    stop = threading.Event()
    thread = threading.Thread(target=_print_now_and_then, args=(console, told, stop), daemon=True)
    thread.start()
    try:
        yield told
    finally:
        stop.set()
        thread.join()


@contextmanager
def _bar(console: Console, told: Told) -> Iterator[None]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    texts = [TextColumn(f"{{task.{name}}}", markup=False) for name in ("description", "fields[news]")]
    with Progress(texts[0], BarColumn(), MofNCompleteColumn(), texts[1], TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(told.doing, total=None, news="")

        def draw() -> None:
            bar.tasks[0].total = told.of  # `update` leaves it as it is where nobody knows it any more
            bar.update(task, completed=told.done, description=told.doing, news=told.news)

        told.change = draw
        yield


def _print_now_and_then(console: Console, told: Told, stop: threading.Event) -> None:
    begun = now = time.monotonic()
    since, doing, at = begun, told.doing, told.done
    while not stop.wait(min(_RARELY_S, max(_FIRST_S, (now - begun) / 10))):
        now = time.monotonic()
        if told.doing != doing or not at:  # another kind of work has another speed, and its first piece warms up
            since, doing, at = now, told.doing, told.done
        left = (now - since) / (told.done - at) * (told.of - told.done) if told.of and at < told.done < told.of else None
        count, coming = f"{told.done}/{told.of}" if told.of else "", "" if left is None else f"about {span(left)} left"
        parts = (f"[{now - begun:.0f} s] {told.doing}", count, told.news, coming)
        console.print("  ".join(filter(None, parts)), markup=False, highlight=False, soft_wrap=True)
