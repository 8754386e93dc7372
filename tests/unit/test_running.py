"""Coroutines run to their end, or stopped before it: the interpreter is left as it was."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from safer_instruct.running import run_to_end
from safer_instruct.stopping import before_a_stop, stop_told_to


@pytest.fixture
def collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def state() -> tuple[tuple[int, int, int], bool]:
    return gc.get_threshold(), gc.get_freeze_count() > 0


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("fails", [False, True])
def test_garbage_is_looked_for_seldom_during_a_run_and_as_before_after_it(fails: bool) -> None:
    async def work() -> tuple[tuple[int, int, int], bool]:
        if fails:
            raise ValueError("no")
        return state()

    gc.set_threshold(500, 7, 8)
    if fails:
        with pytest.raises(ValueError, match="no"):
            run_to_end(work())
    else:
        (first, *rest), frozen = run_to_end(work())
        assert first > 10_000 and rest == [7, 8] and frozen
    assert state() == ((500, 7, 8), False)


@pytest.mark.usefixtures("collector")
def test_what_the_caller_has_frozen_stays_so() -> None:
    async def work() -> int:
        return 1

    gc.freeze()
    before = gc.get_freeze_count()
    assert run_to_end(work()) == 1 and gc.get_freeze_count() >= before


class TestStop:
    """Ctrl-C while `work` is under way, sent by it itself."""

    @staticmethod
    def stopped(*, meanwhile: Callable[[], BaseException | None] = lambda: None) -> list[str]:
        """What happened, in order; `meanwhile` may say what the work fails with while its ending goes on."""
        happened: list[str] = []
        go_on: list[asyncio.Event] = []

        async def ending(tell: Callable[[str], None]) -> None:
            tell("waiting")
            go_on[0].set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            happened.append("ended")

        async def work() -> str:
            go_on.append(asyncio.Event())
            before_a_stop(ending)
            os.kill(os.getpid(), signal.SIGINT)
            try:
                await go_on[0].wait()
                if failure := meanwhile():
                    raise failure
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                happened.append("cancelled")
                raise
            return ""

        with stop_told_to(happened.append):
            try:
                run_to_end(work())
            except BaseException as exc:  # noqa: BLE001 - told by its kind
                happened.append(type(exc).__name__)
        return happened

    def test_what_is_asked_for_before_it_is_done_while_the_work_goes_on(self) -> None:
        assert self.stopped() == ["waiting", "ended", "cancelled", "KeyboardInterrupt"]

    def test_what_the_work_fails_with_meanwhile_is_told(self) -> None:
        assert self.stopped(meanwhile=lambda: OSError("disk full")) == ["waiting", "ended", "OSError"]

    def test_work_that_is_done_meanwhile_has_not_been_stopped(self) -> None:
        done = asyncio.Event()

        async def ending(tell: Callable[[str], None]) -> None:
            done.set()
            await asyncio.sleep(0.01)

        async def work() -> str:
            before_a_stop(ending)
            os.kill(os.getpid(), signal.SIGINT)
            await done.wait()
            return "all"

        assert run_to_end(work()) == "all"

    def test_a_second_one_waits_for_nothing(self) -> None:
        code = """
import asyncio, os, signal
from safer_instruct.running import run_to_end
from safer_instruct.stopping import before_a_stop

async def ending(tell):
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.Event().wait()

async def work():
    before_a_stop(ending)
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.Event().wait()

try:
    run_to_end(work())
except KeyboardInterrupt:
    print("stopped")
"""
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
        assert (ended.stdout, ended.stderr) == ("stopped\n", "")

    def test_one_within_another_loop_does_the_same(self) -> None:
        happened: list[str] = []

        async def ending(tell: Callable[[str], None]) -> None:
            happened.append("ended")

        async def work() -> None:
            before_a_stop(ending)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()

        async def notebook() -> None:
            run_to_end(work())

        loop = asyncio.new_event_loop()  # which leaves Ctrl-C to Python, as that of a notebook does
        with closing(loop), pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(notebook())
        assert happened == ["ended"]

    def test_one_that_comes_while_the_thread_starts_leaves_nothing_running(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Interrupted(threading.Thread):
            def start(self) -> None:
                super().start()
                raise KeyboardInterrupt

        async def work() -> None:
            await asyncio.Event().wait()

        async def notebook() -> None:
            with pytest.raises(KeyboardInterrupt):
                run_to_end(work())

        monkeypatch.setattr(threading, "Thread", Interrupted)
        asyncio.run(notebook())
        assert not [thread for thread in threading.enumerate() if thread.name == "run"]
