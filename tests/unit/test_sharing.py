"""Several processes before one endpoint, in simulated time: what one of them learns of its limits holds for all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from simulated import Bucket, Server, drive, now, run, stop

from safer_instruct.models.flow import Flow, Limits
from safer_instruct.models.sharing import Lesson, Lot, Shares
from safer_instruct.runners.ray.coordinator import Coordinator
from safer_instruct.runners.ray.link import Link
from safer_instruct.spent import Spent

NAME = "openai:gpt-x at https://api.example.com/v1"
PER_S = 20.0


def flows(count: int) -> list[Flow]:
    return [Flow(NAME, Limits(concurrency=32), rng=random.Random(number)) for number in range(count)]


async def share(flow: Flow, shares: Shares, every_s: float = 0.25) -> None:
    while True:
        exchange(shares, flow)
        await asyncio.sleep(every_s)


def exchange(shares: Shares, *several: Flow) -> None:
    for flow in several:
        flow.heed(shares.tell(str(id(flow)), [flow.lesson()], now())[0])


async def crowd(callers: Sequence[Flow], server: Server, seconds: float, shares: Shares | None) -> None:
    """All of them ask with all their might."""
    sharing = [asyncio.create_task(share(flow, shares)) for flow in callers] if shares else []
    await asyncio.gather(*(drive(flow, server, seconds) for flow in callers))
    await stop(sharing)


def limited() -> Server:
    return Server(Bucket(PER_S, PER_S))


def test_a_rate_that_all_learn_is_held_with_half_of_the_rejections_that_each_for_itself_meets() -> None:
    async def main(shares: Shares | None) -> Server:
        server = limited()
        await crowd(flows(8), server, 60, shares)
        return server

    together, apart = run(main(Shares())), run(main(None))
    assert len(together.answered) >= 0.95 * PER_S * 60
    assert len(together.rejected) <= 0.6 * len(apart.rejected)


def test_one_who_comes_later_knows_the_rate_before_its_first_rejection_and_nobody_sends_more_for_it() -> None:
    async def main() -> tuple[int, int, float]:
        (first, second), server, shares = flows(2), limited(), Shares()
        await crowd([first], server, 60, shares)
        before = len(server.rejected)
        await crowd([first, second], server, 20, shares)
        return before, len(server.rejected) - before, second.gate.endpoint.lesson(0, now()).per_s or 0.0

    before, after, per_s = run(main())
    assert before > 20 and after <= 0.12 * PER_S * 20, (before, after)
    assert 0.3 * PER_S < per_s < 0.8 * PER_S


def test_the_part_of_one_who_is_lost_goes_to_the_others() -> None:
    async def main() -> list[float]:
        callers, server, shares = flows(4), limited(), Shares()
        await crowd(callers, server, 60, shares)
        began = now()
        await crowd(callers[:1], server, 60, shares)
        return [at - began for at in server.answered]

    answered = run(main())
    assert sum(0 <= at < 10 for at in answered) < 0.7 * PER_S * 10, "for a while its part is kept"
    assert sum(40 <= at < 60 for at in answered) > 0.9 * PER_S * 20


def test_a_pause_that_the_endpoint_asks_one_for_holds_all_up_and_no_longer() -> None:
    async def main() -> tuple[float, float]:
        (first, second), shares, began = flows(2), Shares(), now()
        async with second.slot() as slot:
            slot.succeeded()
        async with first.slot() as slot:
            slot.failed("HTTP 429", 429, {"Retry-After": "30"})
        exchange(shares, first, second)
        held = asyncio.create_task(let_out(second))
        while not held.done():
            await asyncio.sleep(0.25)
            exchange(shares, first, second)
        return held.result() - began, await let_out(first) - began

    second, first = run(main())
    assert 30 <= second < 36 and 30 <= first < 36


async def let_out(flow: Flow) -> float:
    async with flow.slot() as slot:
        slot.succeeded()
    return now()


def test_of_what_the_endpoint_says_is_left_each_takes_its_part() -> None:
    """Sixty in a minute, and all of them say so: nobody is rejected although both hear of the same sixty."""

    def headers(bucket: Bucket) -> dict[str, str]:
        bucket.fill(now())
        full_s = (bucket.size - bucket.level) / bucket.per_s
        return {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": f"{int(bucket.level)}", "x-ratelimit-reset-requests": f"{full_s:.3f}s"}

    async def main(shares: Shares | None) -> Server:
        bucket = Bucket(1.0, 60.0)
        server = Server(bucket, headers=lambda _: headers(bucket))
        await crowd(flows(6), server, 120, shares)
        return server

    together, apart = run(main(Shares())), run(main(None))
    assert len(together.answered) >= 160
    assert len(together.rejected) < 0.5 * len(apart.rejected), (len(together.rejected), len(apart.rejected))


def test_parts_are_as_if_all_calls_waited_in_one_line_and_make_up_the_whole() -> None:
    shares = Shares()
    for name, wanted in (("a", 30), ("b", 10), ("c", 0)):
        shares.tell(name, [Lesson(NAME, wanted)], 0.0)
    lots = {name: shares.tell(name, [Lesson(NAME, wanted)], 1.0)[0] for name, wanted in (("a", 30), ("b", 10), ("c", 0))}
    assert sum(lot.part for lot in lots.values()) == pytest.approx(1)
    assert lots["a"].part == pytest.approx(3 * lots["b"].part) and 0 < lots["c"].part < 0.05
    shares.forget("a")
    assert shares.tell("b", [Lesson(NAME, 10)], 2.0)[0].part > 0.9


def test_other_endpoints_have_nothing_to_do_with_it_and_whoever_is_alone_goes_on_as_before() -> None:
    shares = Shares()
    first, second = shares.tell("a", [Lesson(NAME, 5, per_s=3.0, pause_s=9.0), Lesson("another", 5)], 0.0)
    assert first == Lot(1.0, 3.0, 9.0) and second == Lot()
    assert shares.tell("b", [Lesson("another", 5)], 1.0) == [Lot(0.5)]


def test_what_many_hear_of_one_burst_of_rejections_is_one_piece_of_news() -> None:
    shares, names = Shares(), [str(number) for number in range(16)]
    lots = {name: shares.tell(name, [Lesson(NAME, 5, peak_per_s=2.0)], 0.0)[0] for name in names}
    shares.tell("0", [Lesson(NAME, 5, 2.0, per_s=4.0)], 1.0)
    lots = {name: shares.tell(name, [Lesson(NAME, 5, 2.0)], 1.5)[0] for name in names[1:]}
    whole = (lots["1"].per_s or 0.0) * 16
    assert whole == pytest.approx(64)
    for name in names[1:]:
        shares.tell(name, [Lesson(NAME, 5, 2.0, per_s=0.66 * (lots[name].per_s or 0.0))], 2.0)
    assert shares.tell("0", [Lesson(NAME, 5, 2.0)], 2.1)[0].per_s == pytest.approx(0.66 * whole / 16, rel=0.01)


def test_workers_tell_the_coordinator_and_heed_it_without_a_call_for_each_call(tmp_path: Path) -> None:
    class Handle:
        """The coordinator, called as an actor is."""

        def __init__(self, coordinator: Coordinator) -> None:
            self.asked, self.limits = 0, self
            self._coordinator = coordinator

        async def remote(self, name: str, lessons: list[Lesson]) -> tuple[list[Lot], float]:
            self.asked += 1
            return await self._coordinator.limits(name, lessons)

    async def main() -> tuple[Server, int]:
        handle, callers, server = Handle(Coordinator(None, None, tmp_path / "spent.json", Spent())), flows(8), limited()
        tellers = [asyncio.create_task(Link(handle, str(number)).share([flow])) for number, flow in enumerate(callers)]
        await asyncio.gather(*(drive(flow, server, 20) for flow in callers))
        await stop(tellers)
        return server, handle.asked

    server, asked = run(main())
    assert len(server.answered) >= 0.9 * PER_S * 20
    assert asked <= 8 * (20 / 0.25 + 1)
    alone = run(of_eight_apart())
    assert len(server.rejected) < 0.7 * len(alone.rejected)


async def of_eight_apart() -> Server:
    server = limited()
    await crowd(flows(8), server, 20, None)
    return server
