"""The cap holds under every interleaving and across kills; nobody waits for ever and nothing leaks."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Coroutine
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from safer_instruct.budget import Budget
from safer_instruct.errors import BudgetError, RunDirectoryError
from safer_instruct.prices import Price
from safer_instruct.spent import Spent, earlier_spent, read_spent, write_spent

pytestmark = pytest.mark.filterwarnings("error")
T = TypeVar("T")
PRICE = Price(prompt=2.0, completion=8.0)


def within(work: Coroutine[Any, Any, T], seconds: float = 5.0) -> T:
    """Run to the end; a waiter that hangs is a failure, not a hung test."""
    return asyncio.run(asyncio.wait_for(work, seconds))


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# One attempt after the other


def test_what_is_settled_is_spent_and_the_rest_is_free_again() -> None:
    async def work() -> None:
        budget = Budget(max_cost=1.0, max_tokens=100)
        with await budget.reserve(0.6, 60) as reservation:
            assert (budget.spent, budget.reserved, budget.in_flight) == (Spent(), Spent(0.6, 60), 1)
            reservation.settle(0.1, 10)
        assert (budget.spent, budget.reserved, budget.in_flight, budget.forfeited) == (Spent(0.1, 10), Spent(), 0, Spent())
        with await budget.reserve(0.9, 90) as reservation:
            reservation.settle(0.9, 90)
        assert budget.spent == Spent(1.0, 100)

    within(work())


@pytest.mark.parametrize("how", ["forfeit", "leave", "raise"])
def test_an_attempt_without_an_answer_is_spent_whole(how: str) -> None:
    async def work() -> None:
        budget = Budget(max_cost=1.0)
        try:
            with await budget.reserve(0.25, 50) as reservation:
                if how == "forfeit":
                    reservation.forfeit()
                if how == "raise":
                    raise ConnectionError
        except ConnectionError:
            pass
        assert budget.spent == budget.forfeited == Spent(0.25, 50) and budget.in_flight == 0

    within(work())


def test_a_reservation_ends_once() -> None:
    async def work() -> None:
        budget = Budget(max_cost=1.0)
        reservation = await budget.reserve(0.25, 50)
        reservation.settle(0.0, 0)
        with pytest.raises(ValueError, match="already"):
            reservation.forfeit()
        with pytest.raises(ValueError, match="already"):
            reservation.settle(0.0, 0)
        assert budget.spent == Spent()

    within(work())


def test_ten_dimes_are_a_dollar_exactly() -> None:
    async def work() -> None:
        budget = Budget(max_cost=1.0)
        for _ in range(10):
            (await budget.reserve(0.1, 1)).settle(0.1, 1)
        assert budget.spent.cost == 1.0
        with pytest.raises(BudgetError):
            await budget.reserve(1e-9, 0)

    within(work())


@pytest.mark.parametrize(
    ("caps", "needs", "said"),
    [
        ((5.0, None), (0.05, 10), "budget of 5.00 USD used up: 4.98 spent, and the next call may take up to 0.050; nothing is lost: raise budget.max_cost"),
        (
            (None, 2000),
            (9.0, 1010),
            "budget of 2,000 tokens used up: 1,000 spent, and the next call may take up to 1,010; nothing is lost: raise budget.max_tokens",
        ),
    ],
)
def test_the_error_says_how_much_is_spent_and_what_to_raise(caps: tuple[float | None, int | None], needs: tuple[float, int], said: str) -> None:
    async def work() -> None:
        budget = Budget(*caps)
        (await budget.reserve(4.99, 1000)).settle(4.98, 1000)
        with pytest.raises(BudgetError) as caught:
            await budget.reserve(*needs)
        assert str(caught.value) == f"{said} and give the same command again"

    within(work())


def test_the_error_tells_what_may_have_been_billed_without_an_answer() -> None:
    async def work() -> None:
        budget = Budget(max_cost=1.0)
        (await budget.reserve(0.5, 1)).forfeit()
        (await budget.reserve(0.4, 1)).settle(0.4, 1)
        with pytest.raises(BudgetError, match=r"0\.90 spent \(0\.50 of it for calls whose answer never came"):
            await budget.reserve(0.2, 1)

    within(work())


def test_a_call_larger_than_the_whole_budget_is_told_so() -> None:
    async def work() -> None:
        with pytest.raises(BudgetError, match=r"1\.00 USD used up: nothing spent, and the next call may take up to 7\.20"):
            await Budget(max_cost=1.0).reserve(7.2, 1)

    within(work())


def test_once_used_up_it_stays_used_up() -> None:
    async def work() -> None:
        budget = Budget(max_cost=1.0)
        with pytest.raises(BudgetError):
            await budget.reserve(2.0, 1)
        with pytest.raises(BudgetError):
            await budget.reserve(0.1, 1)
        assert budget.in_flight == 0

    within(work())


def test_a_free_call_needs_no_room_in_money() -> None:
    async def work() -> None:
        budget = Budget(max_cost=1.0)
        budget.begin(Spent(1.5, 0), [].append)
        (await budget.reserve(0.0, 500)).settle(0.0, 400)
        assert budget.spent == Spent(1.5, 400)

    within(work())


def test_a_bound_that_did_not_hold_is_counted_in_full_and_stops_what_comes_after() -> None:
    async def work() -> None:
        recorded: list[Spent] = []
        budget = Budget(max_cost=1.0)
        budget.begin(Spent(), recorded.append)
        (await budget.reserve(0.9, 1)).settle(1.25, 9)
        assert budget.spent == Spent(1.25, 9) and recorded[-1].cost >= 1.25 and recorded[-1].tokens >= 9
        with pytest.raises(BudgetError):
            await budget.reserve(0.01, 1)

    within(work())


def test_a_cap_in_money_refuses_an_unknown_price_and_one_on_tokens_does_not() -> None:
    async def work() -> None:
        with pytest.raises(ValueError, match="needs a bound in money"):
            await Budget(max_cost=1.0).reserve(None, 10)
        budget = Budget(max_tokens=20)
        (await budget.reserve(None, 10)).settle(None, 8)
        assert budget.spent == Spent(0.0, 8)

    within(work())


@pytest.mark.parametrize("amount", [(-0.1, 1), (float("nan"), 1), (float("inf"), 1), (0.1, -1)])
def test_an_amount_that_is_none_is_refused(amount: tuple[float, int]) -> None:
    async def work() -> None:
        budget = Budget(max_cost=1.0)
        with pytest.raises(ValueError, match="no amount"):
            await budget.reserve(*amount)
        assert budget.in_flight == 0 and budget.reserved == Spent()

    within(work())


@pytest.mark.parametrize("caps", [(-1.0, None), (float("nan"), None), (None, -1)])
def test_a_cap_below_nothing_is_refused(caps: tuple[float | None, int | None]) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Budget(*caps)


def test_without_a_cap_everything_is_let_in_and_counted() -> None:
    async def work() -> None:
        budget = Budget()
        held = [await budget.reserve(1000.0, 10**9) for _ in range(50)]
        for reservation in held:
            reservation.settle(2.0, 3)
        assert budget.spent == Spent(100.0, 150) and str(budget) == "100.00 USD, 150 tokens"

    within(work())


def test_where_it_stands_fits_on_a_line() -> None:
    budget = Budget(5.0, 2000)
    budget.begin(Spent(1.239, 900), [].append)
    assert str(budget) == "1.24 of 5.00 USD, 900 of 2,000 tokens"


# Waiting


def test_what_does_not_fit_now_waits_for_what_comes_back() -> None:
    async def work() -> None:
        budget = Budget(max_cost=1.0)
        first = await budget.reserve(0.8, 1)
        second = asyncio.create_task(budget.reserve(0.8, 1))
        await turns(3)
        assert not second.done()
        first.settle(0.1, 1)
        (await second).settle(0.8, 1)
        assert budget.spent.cost == 0.9

    within(work())


def test_what_can_never_fit_lets_those_under_way_finish_first() -> None:
    """Their answers are paid for: the run must not stop, and cancel them, before they are in."""

    async def work() -> None:
        budget = Budget(max_cost=1.0)
        held = [await budget.reserve(0.3, 1) for _ in range(3)]
        refused = asyncio.create_task(budget.reserve(5.0, 1))
        for reservation in held:
            await turns(3)
            assert not refused.done()
            reservation.settle(0.3, 1)
        with pytest.raises(BudgetError):
            await refused

    within(work())


def test_waiters_are_let_in_in_order_whatever_they_need() -> None:
    async def work() -> None:
        budget, order = Budget(max_cost=1.0), []

        async def call(name: str, need: float) -> None:
            with await budget.reserve(need, 1) as reservation:
                order.append(name)
                await turns(2)
                reservation.settle(0.0, 1)

        first = await budget.reserve(0.5, 1)
        calls = [asyncio.create_task(call(name, need)) for name, need in (("large", 1.0), ("small", 0.1), ("other", 0.1))]
        await turns(5)
        assert order == []  # the small ones would fit, but then the large one might never
        first.settle(0.0, 1)
        await asyncio.gather(*calls)
        assert order == ["large", "small", "other"]

    within(work())


@pytest.mark.parametrize("moment", ["waiting", "granted"])
def test_a_cancelled_waiter_holds_up_nobody_and_keeps_nothing(moment: str) -> None:
    async def work() -> None:
        budget = Budget(max_cost=1.0)
        first = await budget.reserve(1.0, 1)
        second, third = asyncio.create_task(budget.reserve(1.0, 1)), asyncio.create_task(budget.reserve(1.0, 1))
        await turns(3)
        if moment == "granted":
            first.settle(0.0, 1)  # `second` has its reservation, but has not run since
            second.cancel()
        else:
            second.cancel()
            await turns(3)
            first.settle(0.0, 1)
        (await third).settle(1.0, 1)
        with pytest.raises(asyncio.CancelledError):
            await second
        assert budget.spent == Spent(1.0, 2) and budget.in_flight == 0 and budget.reserved == Spent()

    within(work())


def test_where_a_large_waiter_gives_up_the_smaller_ones_behind_it_are_let_in() -> None:
    async def work() -> None:
        budget = Budget(max_cost=1.0)
        first = await budget.reserve(0.5, 1)
        large, small = asyncio.create_task(budget.reserve(1.0, 1)), asyncio.create_task(budget.reserve(0.5, 1))
        await turns(3)
        large.cancel()
        await turns(3)
        assert small.done() and budget.in_flight == 2
        small.result().settle(0.5, 1)
        first.settle(0.5, 1)

    within(work())


def test_a_waiter_that_is_refused_and_cancelled_at_once_is_just_cancelled() -> None:
    async def work() -> None:
        budget = Budget(max_cost=1.0)
        first = await budget.reserve(1.0, 1)
        second = asyncio.create_task(budget.reserve(1.0, 1))
        await turns(3)
        first.settle(1.0, 1)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert budget.in_flight == 0

    within(work())


@dataclass(frozen=True)
class Call:
    """What one caller does: when it comes, what it needs, how long it works, how it ends."""

    start: int
    cost: int  # cents
    tokens: int
    works: int
    ends: str  # settle, forfeit, leave
    share: float  # of its bound that it takes
    cancelled_after: int | None


@dataclass
class Watched:
    """A budget and everything that was promised about it."""

    budget: Budget
    recorded: Spent = field(default_factory=Spent)
    expected: int = 0
    expected_tokens: int = 0
    outcomes: list[str] = field(default_factory=list)

    def record(self, spent: Spent) -> None:
        self.recorded = spent

    def check(self) -> None:
        spent, reserved = self.budget.spent, self.budget.reserved
        cost, tokens = spent.cost + reserved.cost, spent.tokens + reserved.tokens
        assert self.budget.max_cost is None or cost <= self.budget.max_cost + 1e-12
        assert self.budget.max_tokens is None or tokens <= self.budget.max_tokens
        assert cost <= self.recorded.cost + 1e-12 and tokens <= self.recorded.tokens
        assert self.budget.in_flight or reserved == Spent()


async def one(watched: Watched, call: Call) -> None:
    await turns(call.start)
    budget, bound_ = watched.budget, call.cost / 100
    try:
        reservation = await budget.reserve(bound_, call.tokens)
    except BudgetError:
        assert budget.in_flight == 0
        watched.outcomes.append("refused")
        return
    took, took_tokens = call.cost, call.tokens
    try:
        with reservation:
            watched.check()
            await turns(call.works)
            watched.check()
            if call.ends == "settle":
                took, took_tokens = int(call.cost * call.share), int(call.tokens * call.share)
                reservation.settle(took / 100, took_tokens)
            elif call.ends == "forfeit":
                reservation.forfeit()
    finally:
        watched.expected += took
        watched.expected_tokens += took_tokens
        watched.outcomes.append("done")
        watched.check()


async def all_of(calls: list[Call], max_cost: float | None, max_tokens: int | None, earlier: int) -> None:
    watched = Watched(Budget(max_cost, max_tokens))
    watched.recorded = Spent(earlier / 100, 0)
    watched.budget = Budget(max_cost, max_tokens)
    watched.budget.begin(watched.recorded, watched.record)
    watched.expected = earlier
    tasks = [asyncio.create_task(one(watched, call)) for call in calls]
    killers = [asyncio.create_task(cancel(task, call)) for task, call in zip(tasks, calls, strict=True)]
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(*killers)
    assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ends), ends
    budget = watched.budget
    assert budget.in_flight == 0 and budget.reserved == Spent() and not budget._waiting
    assert budget.spent.cost == pytest.approx(watched.expected / 100, abs=1e-9) and budget.spent.tokens == watched.expected_tokens
    if earlier <= 100 * (max_cost or 1e9):
        watched.check()
    budget.close()
    assert watched.recorded == budget.spent


async def cancel(task: asyncio.Task[None], call: Call) -> None:
    if call.cancelled_after is not None:
        await turns(call.cancelled_after)
        task.cancel()


calls = st.lists(
    st.builds(
        Call,
        start=st.integers(0, 6),
        cost=st.integers(0, 60),
        tokens=st.integers(0, 60),
        works=st.integers(0, 6),
        ends=st.sampled_from(["settle", "settle", "settle", "forfeit", "leave"]),
        share=st.floats(0, 1),
        cancelled_after=st.none() | st.integers(0, 12),
    ),
    max_size=12,
)


@settings(max_examples=300)
@given(calls, st.none() | st.integers(0, 200), st.none() | st.integers(0, 200), st.integers(0, 50))
@example([Call(0, 60, 1, 3, "leave", 1.0, None)] * 4, 100, None, 0)
@example([Call(0, 60, 1, 3, "settle", 0.0, 2)] * 4, 100, None, 0)
def test_under_every_interleaving_the_cap_holds_nobody_hangs_and_nothing_leaks(
    calls: list[Call], max_cents: int | None, max_tokens: int | None, earlier: int
) -> None:
    if max_cents is not None:
        earlier = min(earlier, max_cents)
    within(all_of(calls, None if max_cents is None else max_cents / 100, max_tokens, earlier))


def test_a_thousand_callers_come_to_an_end() -> None:
    draw = random.Random(7)
    many = [Call(draw.randrange(9), draw.randrange(1, 9), 5, draw.randrange(5), "settle", draw.random(), draw.choice([None, None, 20])) for _ in range(1000)]
    within(all_of(many, 30.0, None, 0), 20)


# Recording


def test_it_records_before_it_lets_anything_be_sent_and_seldom() -> None:
    async def work() -> None:
        recorded: list[Spent] = []
        budget = Budget(max_cost=100.0)
        budget.begin(Spent(), recorded.append)
        for _ in range(5000):
            with await budget.reserve(0.01, 100) as reservation:
                assert recorded[-1].cost >= budget.spent.cost + budget.reserved.cost
                assert recorded[-1].tokens >= budget.spent.tokens + budget.reserved.tokens
                reservation.settle(0.005, 50)
        assert len(recorded) < 200 and recorded[-1].cost < 1.02 * 25 + 1024 * 0.01
        assert all(a.cost <= b.cost <= 100 for a, b in pairwise(recorded))
        budget.close()
        assert recorded[-1] == budget.spent == Spent(25.0, 250_000)

    within(work())


def test_what_takes_nothing_is_not_recorded() -> None:
    async def work() -> None:
        recorded: list[Spent] = []
        budget = Budget()
        budget.begin(Spent(0.5, 5), recorded.append)
        (await budget.reserve(0.0, 0)).settle(0.0, 0)
        assert recorded == []

    within(work())


def test_it_never_records_more_than_the_cap_allows() -> None:
    async def work() -> None:
        recorded: list[Spent] = []
        budget = Budget(max_cost=1.0, max_tokens=1000)
        budget.begin(Spent(), recorded.append)
        for _ in range(10):
            (await budget.reserve(0.1, 90)).settle(0.1, 90)
        assert budget.spent == Spent(1.0, 900) and recorded[-1] == Spent(1.0, 1000)

    within(work())


def test_what_cannot_be_recorded_is_not_let_in_whether_it_waited_or_not() -> None:
    async def work() -> None:
        full = False

        def record(spent: Spent) -> None:
            if full:
                raise RunDirectoryError("disk full")

        budget = Budget(max_cost=1.0)
        budget.begin(Spent(), record)
        first = await budget.reserve(0.01, 1)
        full = True
        asked, waiting = (asyncio.create_task(budget.reserve(cost, 1)) for cost in (0.9, 1.0))
        await turns(3)
        assert not asked.done() and not waiting.done(), "what is under way comes back first, and is saved"
        first.settle(0.0, 1)
        for refused in (asked, waiting):
            with pytest.raises(RunDirectoryError):
                await refused
        with pytest.raises(RunDirectoryError):
            await budget.reserve(0.9, 1)
        assert budget.in_flight == 0 and budget.reserved == Spent()
        full = False
        (await budget.reserve(1.0, 1)).settle(0.5, 1)

    within(work())


def test_where_answers_cannot_be_saved_nothing_is_let_in_although_there_is_room() -> None:
    async def work() -> None:
        full = False

        def check() -> None:
            if full:
                raise RunDirectoryError("disk full")

        budget = Budget(max_cost=1.0)
        budget.begin(Spent(), lambda _: None, check=check)
        first = await budget.reserve(0.01, 1)
        full = True
        waiting = asyncio.create_task(budget.reserve(0.01, 1))
        await turns(3)
        assert not waiting.done() and budget.in_flight == 1
        first.settle(0.01, 1)
        with pytest.raises(RunDirectoryError):
            await waiting
        full = False
        (await budget.reserve(0.01, 1)).settle(0.01, 1)

    within(work())


def test_a_run_that_ends_over_a_disk_lets_nothing_more_in_and_waits_for_what_is_under_way() -> None:
    async def work(*, patient: bool) -> None:
        budget = Budget(max_cost=1.0)
        budget.begin(Spent(), lambda _: None)
        first = await budget.reserve(0.01, 1)
        ending = asyncio.create_task(budget.wind_up(RunDirectoryError("disk full"), 60.0 if patient else 0.01))
        await turns(3)
        refused = asyncio.create_task(budget.reserve(0.01, 1))
        await turns(3)
        assert not ending.done() and not refused.done()
        if patient:
            first.settle(0.01, 1)
        await ending
        with pytest.raises(RunDirectoryError, match="disk full"):
            await refused
        with pytest.raises(RunDirectoryError, match="disk full"):
            await budget.reserve(0.01, 1)
        assert budget.in_flight == (0 if patient else 1)

    within(work(patient=True))
    within(work(patient=False))


def test_once_calm_has_come_the_exact_sum_is_on_record_and_while_calls_go_on_it_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safer_instruct.budget._CALM_S", 0.05)

    async def work() -> None:
        kept: list[Spent] = []
        budget = Budget()
        budget.begin(Spent(), kept.append)
        (await budget.reserve(0.001, 10)).settle(0.0005, 4)
        batch = await budget.reserve(0.002, 20, lasting=True)
        assert kept[-1].tokens > 24, "room for the next calls"
        while kept[-1].tokens > 24:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        assert kept[-1] == Spent(0.0025, 24) and len(kept) == 2
        batch.settle(0.001, 9)
        while kept[-1].tokens > 13:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert kept[-1] == Spent(0.0015, 13) and len(kept) == 3
        budget.close()
        assert len(kept) == 3

    within(work())


def test_a_run_that_is_stopped_lets_nothing_more_in_and_waits_for_what_is_under_way_but_no_batch() -> None:
    async def work(*, patient: bool) -> None:
        told: list[str] = []
        budget = Budget(max_cost=1.0)
        budget.begin(Spent(), lambda _: None)
        first, second, batch = await budget.reserve(0.01, 1), await budget.reserve(0.01, 1), await budget.reserve(0.01, 1, lasting=True)
        stopping = asyncio.create_task(budget.stop(told.append, 60.0 if patient else 0.01))
        await turns(3)
        assert told[0].startswith(f"stopping: waiting up to {60 if patient else 0} s for 2 calls under way")
        late = asyncio.create_task(budget.reserve(0.01, 1))
        first.settle(0.01, 1)
        await turns(3)
        assert not stopping.done() and not late.done()
        if patient:
            second.settle(0.01, 1)
        await stopping
        await turns(3)
        assert not late.done() and budget.in_flight == (1 if patient else 2), "what was not let in waits until it is cancelled"
        late.cancel()
        batch.settle(0.0, 0)

    within(work(patient=True))
    within(work(patient=False))


def test_a_run_that_has_what_it_needs_lets_what_is_under_way_finish_and_may_go_on() -> None:
    async def work() -> None:
        budget = Budget(max_cost=1.0)
        budget.begin(Spent(), lambda _: None)
        await budget.finish_under_way()
        budget.go_on()
        first, batch = await budget.reserve(0.01, 1), await budget.reserve(0.01, 1, lasting=True)
        finishing = asyncio.create_task(budget.finish_under_way())
        late = asyncio.create_task(budget.reserve(0.01, 1))
        await turns(3)
        assert not finishing.done() and not late.done()
        first.settle(0.01, 1)
        await finishing
        assert not late.done()
        budget.go_on()
        (await late).settle(0.0, 0)
        batch.settle(0.0, 0)

    within(work())


def test_a_run_that_is_stopped_with_nothing_but_a_batch_under_way_waits_for_nothing_and_says_nothing() -> None:
    async def work() -> None:
        told: list[str] = []
        budget = Budget()
        budget.begin(Spent(tokens=5), lambda _: None)
        budget.resume(None, 5)
        await budget.stop(told.append)
        assert not told

    within(work())


def test_a_bound_that_did_not_hold_is_on_record_at_once_whether_in_money_or_in_tokens() -> None:
    async def work(cost: float, tokens: int) -> None:
        kept: list[Spent] = []
        budget = Budget()
        budget.begin(Spent(), kept.append)
        (await budget.reserve(0.001, 10)).settle(cost, tokens)
        assert kept[-1].cost >= cost and kept[-1].tokens >= tokens, "a kill now must not forget what was spent"
        assert len(kept) == 2

    for took in ((5.0, 1), (0.0001, 50_000)):
        within(work(*took))


def test_where_there_is_nothing_to_wait_for_a_reservation_is_had_at_once_and_else_not() -> None:
    async def work() -> None:
        budget = Budget(max_tokens=100)
        first = budget.reserve_at_once(None, 60)
        assert first and budget.reserved == Spent(0.0, 60)
        assert budget.reserve_at_once(None, 60) is None, "it does not fit yet"
        waiter = asyncio.create_task(budget.reserve(None, 60))
        await turns(2)
        assert budget.reserve_at_once(None, 10) is None, "it would pass by who waits"
        first.settle(0.0, 0)
        (await waiter).settle(0.0, 100)
        with pytest.raises(BudgetError):
            await budget.reserve(None, 1)
        assert budget.reserve_at_once(None, 0) is None, "it is used up"

    within(work())


def test_what_earlier_sittings_spent_is_told_once_and_before_anything_is_reserved() -> None:
    async def work() -> None:
        budget, kept = Budget(max_tokens=100), list[Spent]()
        budget.begin(Spent(0.5, 40), kept.append)
        assert budget.spent == Spent(0.5, 40) and budget.forfeited == Spent()
        with pytest.raises(ValueError, match="in use"):
            budget.begin(Spent(), kept.append)
        (await budget.reserve(0.0, 60)).settle(0.0, 60)
        assert kept and kept[-1].cost >= 0.5 and kept[-1].tokens == 100, "to the one who keeps record now"
        other = Budget()
        open_ = await other.reserve(0.0, 1)
        with pytest.raises(ValueError, match="in use"):
            other.begin(Spent(), kept.append)
        open_.settle(0.0, 0)
        other.begin(Spent(0.25, 0), kept.append)
        assert other.spent == Spent(0.25, 0)

    within(work())


def test_what_is_still_open_at_the_end_counts_as_spent_and_can_be_taken_up_again(tmp_path: Path) -> None:
    path = tmp_path / "budget.json"

    async def sitting() -> None:
        budget = Budget(max_cost=1.0)
        budget.begin(earlier_spent(path, Spent()), lambda s: write_spent(path, s))
        (await budget.reserve(0.2, 10)).settle(0.1, 5)
        await budget.reserve(0.7, 70)  # a batch, which the provider works on while nobody runs here
        budget.close()

    async def next_sitting() -> None:
        budget = Budget(max_cost=1.0)
        budget.begin(earlier_spent(path, Spent()), lambda s: write_spent(path, s))
        assert budget.spent == Spent(0.8, 75)
        batch = budget.resume(0.7, 70)
        assert (budget.spent, budget.reserved) == (Spent(0.1, 5), Spent(0.7, 70))
        waiting = asyncio.create_task(budget.reserve(0.5, 1))
        await turns(3)
        assert not waiting.done()
        batch.settle(0.3, 30)
        (await waiting).settle(0.0, 0)
        budget.close()
        assert read_spent(path) == Spent(0.4, 35)

    within(sitting())
    within(next_sitting())


KILLED = """
import asyncio, sys
from pathlib import Path
from safer_instruct.budget import Budget
from safer_instruct.spent import Spent, earlier_spent, write_spent

path = Path(sys.argv[1])

async def call(budget):
    with await budget.reserve(0.01, 7) as reservation:
        sys.stdout.write("sent\\n")  # whatever is printed may have been billed in full
        sys.stdout.flush()
        await asyncio.sleep(0.001)
        reservation.settle(0.01, 7)

async def main():
    budget = Budget(max_cost=1000.0)
    budget.begin(earlier_spent(path, Spent()), lambda spent: write_spent(path, spent))
    while True:
        await asyncio.gather(*(call(budget) for _ in range(8)))

asyncio.run(main())
"""


def test_after_a_kill_no_less_counts_than_was_sent_and_not_much_more(tmp_path: Path) -> None:
    path, sent = tmp_path / "budget.json", 0
    for after in (40, 75):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(after):
                process.stdout.readline()
            os.kill(process.pid, signal.SIGKILL)
            sent += after + process.stdout.read().count("sent\n")
        spent = read_spent(path)
        assert spent is not None and spent.cost >= sent * 0.01 - 1e-9 and spent.tokens >= sent * 7
        assert spent.cost <= sent * 0.0101 + 2 * (64 + 8) * 0.01


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=5), st.integers(0, 10**12))
def test_a_kept_sum_comes_back_as_it_was(nanos: list[int], tokens: int) -> None:
    async def work(path: Path) -> None:
        budget = Budget()
        budget.begin(Spent(), lambda spent: write_spent(path, spent))
        for nano in nanos:
            (await budget.reserve(nano / 10**9, tokens)).settle(nano / 10**9, tokens)
        budget.close()
        assert (read_spent(path) or Spent()) == budget.spent == Spent(sum(nanos) / 10**9, tokens * len(nanos))
        again = Budget()
        again.begin(budget.spent, [].append)
        assert again.spent == budget.spent

    with TemporaryDirectory() as folder:
        within(work(Path(folder) / "budget.json"))


def test_an_answer_without_usage_is_spent_whole_and_not_for_nothing() -> None:
    async def work() -> None:
        budget = Budget(max_cost=1.0)
        with await budget.reserve(0.25, 50) as reservation:
            reservation.keep()
        assert budget.spent == budget.unreported == Spent(0.25, 50) and budget.forfeited == Spent() and budget.in_flight == 0
        with pytest.raises(BudgetError, match=r"0\.25 spent \(0\.25 of it set aside for calls whose usage was not reported\)"):
            await budget.reserve(0.9, 1)

    within(work())
