"""What a model's calls cost, and what they set aside: the same with a budget and without, with a price and without."""

from __future__ import annotations

import asyncio

import pytest

from safer_instruct.bounds import bound
from safer_instruct.budget import Budget
from safer_instruct.models.protocol import Generation, Sampling, Usage
from safer_instruct.models.spending import Spending, Tokens
from safer_instruct.prices import LongRates, Price, show_usd
from safer_instruct.spent import Spent

PRICE = Price(prompt=2.0, completion=8.0, cached=0.5, cache_write=2.5, batch_discount=0.5)
REQUEST = Generation("Where is my parcel?", Sampling(max_tokens=100), 0)
TOKENS = Tokens(1000, 100, 400, 200)


def test_an_answer_costs_what_its_tokens_cost_each_at_its_own_rate() -> None:
    dollars = (400 * 2.0 + 400 * 0.5 + 200 * 2.5 + 100 * 8.0) / 1e6
    assert Spending(PRICE).usage(TOKENS, 1.5) == Usage(1000, 100, dollars, 1.5, 400)
    assert Spending(PRICE, batch=True).usage(TOKENS, 1.5).cost == dollars / 2


def test_without_a_price_nothing_is_counted_and_that_is_said() -> None:
    assert Spending().usage(TOKENS, 1.5) == Usage(1000, 100, 0.0, 1.5, 400)
    assert not Spending().priced and Spending(PRICE).priced
    assert Spending().bound(REQUEST)[0] is None


def test_tokens_that_an_endpoint_does_not_tell_are_none() -> None:
    assert Spending(PRICE).usage(Tokens(), 0.5) == Usage(0, 0, 0.0, 0.5, 0)


def test_with_a_budget_the_bound_of_a_request_is_set_aside_and_without_one_nothing_waits() -> None:
    async def work() -> None:
        budget = Budget(max_cost=1.0)
        spending = Spending(PRICE, budget)
        cost, tokens = spending.bound(REQUEST)
        assert (cost, tokens) == bound(REQUEST, PRICE) and cost
        with await spending.reserve(REQUEST) as first:
            second = spending.reserve_at_once(REQUEST)
            assert second and budget.reserved == Spent(2 * cost, 2 * tokens)
            with second as held:
                held.settle(0.0, 0)
            first.settle(0.0, 0)
        assert budget.spent == Spent()
        for unlimited in (await Spending(PRICE).reserve(REQUEST), Spending(PRICE).reserve_at_once(REQUEST)):
            assert unlimited
            with unlimited as free:
                free.settle(5.0, 5)

    asyncio.run(work())


def test_a_batch_sets_aside_its_discounted_bound() -> None:
    whole, batch = Spending(PRICE).bound(REQUEST), Spending(PRICE, batch=True).bound(REQUEST)
    assert whole[0] and batch == (pytest.approx(whole[0] / 2), whole[1])


def test_long_prompts_have_their_own_rates_from_the_token_after_the_bound_on() -> None:
    price = Price(prompt=1.0, completion=1.0, long=LongRates(prompt=2.0, completion=3.0, above=1000))
    assert price.cost(1000, 10) == 1010 / 1e6 and price.cost(1001, 10) == (2002 + 30) / 1e6
    assert price.bound(1000, 10) == 1010 / 1e6 and price.bound(1001, 10) == (2002 + 30) / 1e6


def test_the_bound_takes_the_dearest_that_a_cache_may_do() -> None:
    assert PRICE.bound(1000, 0) == 2500 / 1e6, "writing to the cache is dearest"
    assert Price(prompt=1.0, completion=0.0, cached=3.0).bound(1000, 0) == 3000 / 1e6
    assert Price(prompt=1.0, completion=0.0, long=LongRates(prompt=0.5, completion=0.0, above=10)).bound(1000, 0) == 1000 / 1e6


@pytest.mark.parametrize(
    ("cost", "shown"),
    [
        (None, "unknown"), (0.0, "0.00"), (1234.5, "1,234.50"), (1.0, "1.00"), (0.999, "1.00"), (0.1, "0.10"), (0.05, "0.050"),
        (0.01, "0.010"), (0.0012, "0.0012"), (0.00000012, "0.00000012"), (0.000000012, "0.000000012"), (0.0000000004, "0.000000000"),
    ],
)  # fmt: skip
def test_dollars_show_two_decimals_and_two_digits_of_what_is_small(cost: float | None, shown: str) -> None:
    assert show_usd(cost) == shown
