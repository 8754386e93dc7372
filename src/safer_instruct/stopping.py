"""What is done when work is stopped, by Ctrl-C say, before it is cancelled, and who is told what it waits for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from safer_instruct.oneline import many

Tell = Callable[[str], None]
Ending = Callable[[Tell], Awaitable[None]]
STOP_S = 20.0  # that calls under way are waited for once somebody stops the run: schedulers kill after 30, as a rule

_endings: ContextVar[list[Ending] | None] = ContextVar("endings", default=None)
_tell: ContextVar[Tell] = ContextVar("tell", default=lambda _: None)


def before_a_stop(ending: Ending) -> None:
    """Have this done when the work that calls it is stopped; nothing where it was not run by `running.run_to_end`."""
    endings = _endings.get()
    if endings is not None:
        endings.append(ending)


def waiting_for(calls: int, patience_s: float) -> str:
    """What `tell` is told where there is something to wait for."""
    under_way = f"{many(calls, 'call')} under way, which may be billed"
    return f"stopping: waiting up to {patience_s:.0f} s for {under_way}; a second signal ends it at once"


@contextmanager
def stop_told_to(tell: Tell) -> Iterator[None]:
    """Have `tell` told what work that is begun within the block waits for when it is stopped."""
    before = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(before)


@contextmanager
def endings_heard() -> Iterator[Callable[[], Awaitable[None]]]:
    """Yields what does all that work which is begun within the block asks for by `before_a_stop`."""
    endings: list[Ending] = []
    before = _endings.set(endings)

    async def end() -> None:
        for ending in endings:
            await ending(_tell.get())

    try:
        yield end
    finally:
        _endings.reset(before)
