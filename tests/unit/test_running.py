"""Coroutines run to their end: the interpreter is left as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from safer_instruct.running import run_to_end


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
