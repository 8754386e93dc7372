"""One step on many examples at a time, which come out in the order in which they went in."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from safer_instruct.budget import PATIENCE_S
from safer_instruct.errors import ModelError, RequestError, RunDirectoryError
from safer_instruct.example import Example, Verdict
from safer_instruct.models.protocol import Model
from safer_instruct.state import RunState, StageState, came_to, note_calls_of

Step = Callable[[Example], Awaitable[Example]]
Examples = AsyncGenerator[Example, None]

_REFUSALS_BEFORE_STOP = 10  # a setting that the endpoint does not take is refused every time
_REFUSED = ".refused"
_WITHIN = {"respond": ("verify",)}  # stages whose requests are made in a step that bears another one's name


async def in_order(examples: Examples, step: Step, name: str, model: Model, state: RunState) -> Examples:
    """Apply `step` to the living, a window of examples at a time, and yield all in input order."""
    stage, widest = state.stages[name], max(16, 4 * model.concurrency)
    pending: deque[asyncio.Task[Example]] = deque()
    failed: asyncio.Future[asyncio.Task[Example]] = asyncio.get_running_loop().create_future()

    def note(task: asyncio.Task[Example]) -> None:
        if not task.cancelled() and task.exception() and not failed.done():
            failed.set_result(task)

    try:
        async with aclosing(examples):
            async for example in examples:
                pending.append(asyncio.create_task(applied(example, step, name)))
                pending[-1].add_done_callback(note)
                while len(pending) >= min(widest, state.room) or (pending and pending[0].done()):
                    yield _counted(await _oldest(pending, failed), name, stage)
            while pending:
                yield _counted(await _oldest(pending, failed), name, stage)
    except RunDirectoryError as exc:  # a full disk: what is under way is paid for, and may still be saved
        await state.budget.wind_up(exc)
        raise
    except ModelError as exc:  # a refused key: what is under way is likely refused, too, and then costs nothing
        await state.budget.wind_up(exc, PATIENCE_S)
        raise
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def _oldest(pending: deque[asyncio.Task[Example]], failed: asyncio.Future[asyncio.Task[Example]]) -> Example:
    """What the first task comes to; a failure of any is told at once, for what stops one stops the run.

    Who stops waiting for the first task does not cancel it alone: the slot that it gave free would send another call.
    """
    if not pending[0].done():
        either: list[asyncio.Future[Any]] = [pending[0], failed]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    return failed.result().result() if failed.done() else pending.popleft().result()


async def applied(example: Example, step: Step, name: str) -> Example:
    """One step on one example; a request that the endpoint refuses for what is in it drops the example."""
    if not example.alive:
        return example
    note_calls_of(example.id)
    try:
        return await step(example)
    except RequestError as exc:
        stage = exc.stage if exc.stage in _WITHIN.get(name, ()) else name
        return example.with_verdicts(Verdict(f"{stage}.refused", False, None, str(exc)))


def _counted(example: Example, name: str, stage: StageState) -> Example:
    """Count an example on its way out, in input order; stop when nothing but refusals has come so far.

    A content filter speaks of the text and not of the settings: it stops nothing, and does not show that they are right.
    """
    dropped = example.dropped_by
    stage.since = stage.since or time.monotonic()
    stage.done += 1
    stage.dropped += dropped is not None
    refused = dropped is not None and dropped.name in _refusals(name)
    silent = refused or (dropped is not None and dropped.name == f"{name}.content_filter")
    stage.answered += dropped is None or (not silent and came_to(dropped, name))
    stage.refused += refused
    if dropped and refused and stage.refused >= _REFUSALS_BEFORE_STOP and not stage.answered:
        said = f"requests of stage '{dropped.name.removesuffix(_REFUSED)}' were all refused, the last one so: {dropped.reason}"
        raise ModelError(f"the first {stage.refused} {said}")
    return example


def _refusals(step: str) -> tuple[str, ...]:
    """The verdicts that say that a request of a step was refused."""
    return tuple(f"{stage}{_REFUSED}" for stage in (step, *_WITHIN.get(step, ())))


class Refusals:
    """What requests were refused, of examples that are through all stages: a run in which a stage met with nothing else has a wrong setting."""

    def __init__(self) -> None:
        self._by_step: dict[str, list[tuple[str, str]]] = {}
        self._filtered: set[str] = set()

    def note(self, example: Example) -> None:
        """An example is through."""
        if dropped := example.dropped_by:
            stage, _, what = dropped.name.rpartition(".")
            if what == "refused":
                step = next((step for step, stages in _WITHIN.items() if stage in stages), stage)
                self._by_step.setdefault(step, []).append((stage, dropped.reason))
            elif what == "content_filter":
                self._filtered.add(stage)

    def check(self, state: RunState) -> None:
        """Look at them at the end, when there are fewer than stop a run on its way.

        Raises:
            ModelError: All requests of a stage were refused.
        """
        for step, refused in self._by_step.items():
            if step in state.stages and not state.stages[step].answered and step not in self._filtered:
                stage, reason = refused[-1]
                if len(refused) == 1:
                    raise ModelError(f"the only request of stage '{stage}' was refused, so: {reason}")
                raise ModelError(f"all {len(refused)} requests of stage '{stage}' were refused, the last one so: {reason}")
