"""A window of examples at a time: out in the order in which they went in, counted there, stopped by what stops a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import pytest

from safer_instruct.errors import ModelError, RequestError
from safer_instruct.example import Example, Verdict
from safer_instruct.models.protocol import Model, Usage
from safer_instruct.ordered import Refusals, Step, in_order
from safer_instruct.state import RowMeter, RunState

WRONG = Verdict("text.words", False, 1, "too short")


class Served:
    """All that is asked of a model here."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency


def example(number: int) -> Example:
    return Example(str(number), "the parcel was late", "a", "f", number)


def run(
    step: Step, examples: list[Example], *, name: str = "induce", concurrency: int = 2, state: RunState | None = None, taken: Callable[[], None] | None = None
) -> list[Example]:
    async def stream() -> AsyncGenerator[Example, None]:
        for one in examples:
            if taken:
                taken()
            yield one

    async def collected() -> list[Example]:
        return [one async for one in in_order(stream(), step, name, cast(Model, Served(concurrency)), state or RunState())]

    return asyncio.run(asyncio.wait_for(collected(), 20))


def test_what_takes_longer_comes_out_where_it_went_in_and_the_dropped_are_left_as_they_are() -> None:
    seen: list[str] = []

    async def step(one: Example) -> Example:
        seen.append(one.id)
        await asyncio.sleep((5 - int(one.id)) / 500)
        return replace(one, prompt=f"prompt {one.id}")

    state = RunState()
    examples = [example(n) if n != 2 else example(n).with_verdicts(WRONG) for n in range(5)]
    out = run(step, examples, state=state)
    assert [one.id for one in out] == ["0", "1", "2", "3", "4"] and seen == ["0", "1", "3", "4"]
    assert [one.prompt for one in out] == ["prompt 0", "prompt 1", "", "prompt 3", "prompt 4"]
    stage = state.stages["induce"]
    assert (stage.done, stage.dropped, stage.answered, stage.refused) == (5, 1, 4, 0)


@pytest.mark.parametrize(("concurrency", "room", "window"), [(1, 1 << 30, 16), (8, 1 << 30, 32), (8, 3, 3)])
def test_so_many_are_under_way_at_once_as_keep_the_model_busy_and_no_more_than_there_is_room_for(concurrency: int, room: int, window: int) -> None:
    under_way, most = 0, 0

    async def step(one: Example) -> Example:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.002)
        under_way -= 1
        return one

    assert len(run(step, [example(n) for n in range(100)], concurrency=concurrency, state=RunState(room=room))) == 100
    assert most == window


def test_what_is_done_is_handed_on_before_more_is_taken_in() -> None:
    out: list[str] = []
    ahead: list[int] = []

    async def stream() -> AsyncGenerator[Example, None]:
        for n in range(6):
            ahead.append(n - len(out))
            yield example(n)
            await asyncio.sleep(0.005)

    async def step(one: Example) -> Example:
        return one

    async def collected() -> None:
        async for one in in_order(stream(), step, "induce", cast(Model, Served(4)), RunState()):
            out.append(one.id)

    asyncio.run(asyncio.wait_for(collected(), 20))
    assert out == ["0", "1", "2", "3", "4", "5"] and max(ahead) <= 2


def test_a_request_that_is_refused_drops_its_example_alone() -> None:
    async def step(one: Example) -> Example:
        if one.id == "1":
            raise RequestError("the prompt is too long")
        return one

    state = RunState()
    out = run(step, [example(n) for n in range(3)], state=state)
    assert [one.alive for one in out] == [True, False, True]
    assert out[1].dropped_by and out[1].dropped_by.name == "induce.refused" and "too long" in out[1].dropped_by.reason
    assert (state.stages["induce"].refused, state.stages["induce"].answered) == (1, 2)


def _refuse(but: set[int]) -> Step:
    async def step(one: Example) -> Example:
        if int(one.id) in but:
            return one
        raise RequestError("temperature is not supported")

    return step


def test_where_the_first_ten_are_all_refused_the_run_stops_and_says_why() -> None:
    with pytest.raises(ModelError, match=r"the first 10 requests of stage 'induce' were all refused, the last one so: .*temperature is not supported"):
        run(_refuse(set()), [example(n) for n in range(30)])
    assert len(run(_refuse(set()), [example(n) for n in range(9)])) == 9


def test_a_refusal_of_the_judge_is_told_as_the_judge_s() -> None:
    async def step(one: Example) -> Example:
        refused = RequestError("temperature is not supported")
        refused.stage = "verify"
        raise refused

    with pytest.raises(ModelError, match=r"the first 10 requests of stage 'verify' were all refused, the last one so: temperature is not supported"):
        run(step, [example(n) for n in range(30)], name="respond")
    few = run(step, [example(n) for n in range(9)], name="respond")
    assert {one.dropped_by.name for one in few if one.dropped_by} == {"verify.refused"}
    refusals, state = Refusals(), RunState()
    for one in few:
        refusals.note(one)
    with pytest.raises(ModelError, match=r"^all 9 requests of stage 'verify' were refused, the last one so: "):
        refusals.check(state)
    state.stages["respond"].answered = 1
    refusals.check(state)


def test_after_one_answer_refusals_drop_examples_and_stop_nothing() -> None:
    assert sum(one.alive for one in run(_refuse({4}), [example(n) for n in range(30)])) == 1


def test_an_example_that_failed_on_what_was_answered_shows_that_the_settings_are_right() -> None:
    refuse = _refuse(set())

    async def step(one: Example) -> Example:
        return one.with_verdicts(Verdict("induce.empty", False, None, "no instruction")) if one.id == "0" else await refuse(one)

    assert len(run(step, [example(n) for n in range(30)])) == 30


@pytest.mark.parametrize("before", ["induce.content_filter", "text.words"])
def test_a_content_filter_or_an_earlier_drop_does_not_show_that_the_settings_are_right(before: str) -> None:
    refuse = _refuse(set())

    async def step(one: Example) -> Example:
        return one.with_verdicts(Verdict(before, False, None, "no")) if one.id == "0" else await refuse(one)

    with pytest.raises(ModelError, match="the first 10 requests"):
        run(step, [example(n) for n in range(30)])


def test_a_failure_of_a_later_example_is_told_at_once_and_ends_what_is_under_way() -> None:
    ended: list[str] = []

    async def step(one: Example) -> Example:
        if one.id == "2":
            raise ModelError("the endpoint is gone")
        try:
            await asyncio.sleep(15)
        except asyncio.CancelledError:
            ended.append(one.id)
            raise
        return one

    with pytest.raises(ModelError, match="the endpoint is gone"):
        run(step, [example(n) for n in range(5)])
    assert ended == ["0", "1", "3", "4"]


def test_nothing_more_is_taken_from_the_source_after_a_failure() -> None:
    taken: list[int] = []

    async def step(one: Example) -> Example:
        await asyncio.sleep(0)
        raise ModelError("the endpoint is gone")

    arguments: dict[str, Any] = {"concurrency": 1, "taken": lambda: taken.append(1)}
    with pytest.raises(ModelError):
        run(step, [example(n) for n in range(200)], **arguments)
    assert len(taken) <= 17


def test_whoever_stops_listening_ends_what_is_under_way_without_an_error() -> None:
    ended: list[str] = []

    async def step(one: Example) -> Example:
        if one.id == "0":
            return one
        try:
            await asyncio.sleep(15)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            ended.append(one.id)
            raise
        return one

    async def stream() -> AsyncGenerator[Example, None]:
        for n in range(4):
            yield example(n)

    async def first() -> None:
        async with aclosing(in_order(stream(), step, "induce", cast(Model, Served(4)), RunState())) as listened:
            async for one in listened:
                assert one.id == "0"
                break
        assert ended == ["1", "2", "3"], "and nobody is left behind who could still send a call"

    asyncio.run(asyncio.wait_for(first(), 20))


def test_calls_are_counted_for_the_example_that_they_are_made_for() -> None:
    meter = RowMeter()

    async def step(one: Example) -> Example:
        await asyncio.sleep(0.001 * (3 - int(one.id)))
        meter.add(Usage(int(one.id), 0, 0.0, 0.0), replayed=False)
        return one

    run(step, [example(n) for n in range(3)])
    assert {id_: [usage.prompt_tokens for usage in calls] for id_, calls in meter.by_row.items()} == {"0": [0], "1": [1], "2": [2]}


def _dropped(*names: str) -> Refusals:
    refusals = Refusals()
    for n, name in enumerate(names):
        refusals.note(example(n).with_verdicts(Verdict(name, False, None, f"HTTP 400: unsupported parameter {n}")))
    return refusals


def test_a_run_that_ends_with_nothing_but_a_few_refusals_stops_all_the_same() -> None:
    with pytest.raises(ModelError, match=r"^all 4 requests of stage 'induce' were refused, the last one so: HTTP 400: unsupported parameter 3$"):
        _dropped(*["induce.refused"] * 4).check(RunState())
    with pytest.raises(ModelError, match=r"^the only request of stage 'respond' was refused, so: HTTP 400: unsupported parameter 1$"):
        _dropped("text.words", "respond.refused").check(RunState())


def test_a_run_in_which_something_else_came_ends_as_any() -> None:
    _dropped("induce.refused", "induce.content_filter").check(RunState())
    _dropped("text.words").check(RunState())
    state = RunState()
    state.stages["induce"].answered = 1
    _dropped("induce.refused").check(state)
