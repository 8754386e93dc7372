"""Coroutines run to their end from ordinary code, also where an event loop is running already."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from safer_instruct.models.transport import event_loop
from safer_instruct.stopping import endings_heard

T = TypeVar("T")

_START_S = 5.0  # more than a thread takes to start, where an interrupt came before it had
_OBJECTS_PER_COLLECTION = 20_000  # hundreds of calls in flight are thousands of objects, which would be looked at after every 700 new ones


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """What `work` comes to, in an event loop of the kind that the transport runs best under.

    Raises:
        KeyboardInterrupt: It was stopped; what it asked for by `stopping.before_a_stop` is done, unless it was stopped twice.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(_stoppable(work))
    return _run_apart(work)  # a notebook has a loop running already


def _run(work: Coroutine[Any, Any, T]) -> T:
    with seldom_collected(), asyncio.Runner(loop_factory=event_loop) as runner:
        return runner.run(work)


async def _stoppable(work: Coroutine[Any, Any, T]) -> T:
    with endings_heard() as end:
        task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await end()
        task.cancel()
        return await task  # which may be done by now, or have failed over what was saved last


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Look for garbage seldom, and not among the modules and whatever else is there before a run: together a tenth of the CPU of a call."""
    thresholds, frozen_before = gc.get_threshold(), gc.get_freeze_count()
    gc.set_threshold(max(_OBJECTS_PER_COLLECTION, thresholds[0]), *thresholds[1:])
    gc.freeze()
    try:
        yield
    finally:
        if not frozen_before:
            gc.unfreeze()
        gc.set_threshold(*thresholds)


def _run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run in a thread with a loop of its own; an interrupt here cancels it there, and waits until it has closed its files."""
    result: Future[T] = Future()
    begun: list[Callable[[], object]] = []
    started, interrupted = threading.Event(), threading.Event()

    async def cancellable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        begun.append(lambda: loop.call_soon_threadsafe(task.cancel) if task else None)
        if interrupted.is_set():
            work.close()
            raise asyncio.CancelledError
        return await _stoppable(work)

    def in_thread() -> None:
        started.set()
        try:
            result.set_result(_run(cancellable()))
        except BaseException as exc:  # noqa: BLE001 - not swallowed: `result` raises it
            result.set_exception(exc)

    thread = threading.Thread(target=in_thread, name="run")
    try:
        thread.start()  # an interrupt here finds it running already
        return result.result()
    finally:
        interrupted.set()
        for cancel in begun if not result.done() else ():
            with suppress(RuntimeError):  # its loop has closed just now
                cancel()
        if started.wait(_START_S):
            thread.join()
