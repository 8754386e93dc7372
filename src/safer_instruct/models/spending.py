"""What a model's calls cost, and leave from the run's budget to make them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from safer_instruct.bounds import bound
from safer_instruct.budget import Budget, Reservation
from safer_instruct.models.protocol import Generation, Scoring, Usage
from safer_instruct.prices import Price


class Tokens(NamedTuple):
    """What an endpoint says a call took; `cached` and `cache_written` are part of `read`."""

    read: int = 0
    written: int = 0
    cached: int = 0
    cache_written: int = 0


def reported(*counts: Any) -> list[int] | None:
    """What an endpoint says it has counted, 0 where it leaves one out; None where it tells none, or one that no count can be."""
    if any(count is not None and (type(count) is not int or count < 0) for count in counts) or all(count is None for count in counts):
        return None
    return [count or 0 for count in counts]


class Unlimited:
    """What stands for a reservation where there is no budget."""

    def settle(self, cost: float | None, tokens: int) -> None:
        """Nothing was set aside."""

    def keep(self) -> None:
        """The same."""

    def __enter__(self) -> Unlimited:
        return self

    def __exit__(self, *_: object) -> None:
        pass


_UNLIMITED = Unlimited()


@dataclass(frozen=True, slots=True)
class Spending:
    """One model's price, None when it is not known, the budget that its calls draw on, if any, and whether they go in batches."""

    price: Price | None = None
    budget: Budget | None = None
    batch: bool = False

    @property
    def priced(self) -> bool:
        """Whether it is known what a call costs."""
        return self.price is not None

    @property
    def billed(self) -> bool:
        """Whether what a call costs depends on the tokens it took, as it does but for a price of 0."""
        return self.price is None or bool(self.price.prompt or self.price.completion)

    async def reserve(self, request: Generation | Scoring) -> Reservation | Unlimited:
        """Set aside what one attempt may cost at most.

        Raises:
            BudgetError: There is not so much left.
        """
        return _UNLIMITED if self.budget is None else await self.budget.reserve(*self.bound(request))

    def reserve_at_once(self, request: Generation | Scoring) -> Reservation | Unlimited | None:
        """The same where there is nothing to wait for; None where there is."""
        return _UNLIMITED if self.budget is None else self.budget.reserve_at_once(*self.bound(request))

    def bound(self, request: Generation | Scoring) -> tuple[float | None, int]:
        """The most that one attempt can cost, None where the price is not known, and the most tokens that it can take."""
        return bound(request, self.price, batch=self.batch)

    def usage(self, tokens: Tokens, seconds: float) -> Usage:
        """What an answered call took; its cost is 0 where the price is not known (see `Model.priced`)."""
        cost = 0.0
        if self.price:
            cost = self.price.cost(tokens.read, tokens.written, cached_tokens=tokens.cached, written_tokens=tokens.cache_written, batch=self.batch)
        return Usage(tokens.read, tokens.written, cost, seconds, tokens.cached)
