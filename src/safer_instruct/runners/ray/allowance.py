"""A worker's part of the budget: taken from the coordinator's in pieces worth some dozens of calls, and given back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from safer_instruct.budget import Budget, Reservation
from safer_instruct.spent import Spent


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of a piece: spent, the part of that for calls whose answer never came included."""

    grant: int
    spent: Spent
    unanswered: Spent


class Bank(Protocol):
    """Where pieces come from."""

    async def grant(self, cost: float, tokens: int) -> tuple[int, Spent]:
        """A piece with room for at least so much, and its number.

        Raises:
            BudgetError: There is not so much left.
        """


class Allowance(Budget):
    """A budget like any other to the models of this worker; its caps are those of the run."""

    def __init__(self, max_cost: float | None, max_tokens: int | None, bank: Bank) -> None:
        """Start with nothing; the first call asks for a piece."""
        super().__init__(max_cost, max_tokens)
        self._bank = bank
        self._piece: tuple[int, Budget] | None = None
        self._ending: list[tuple[int, Budget]] = []  # too small for the next call, with calls under way
        self._turn = asyncio.Lock()
        self._halted = False

    def reserve_at_once(self, cost: float | None, tokens: int, *, lasting: bool = False) -> Reservation | None:
        """See `Budget.reserve_at_once`."""
        if cost is None and self.max_cost is not None:
            raise ValueError("a cap in money needs a bound in money: see Prices.require")
        return self._piece[1].reserve_at_once(cost or 0.0, tokens, lasting=lasting) if self._piece and not self._halted else None

    async def reserve(self, cost: float | None, tokens: int, *, lasting: bool = False) -> Reservation:
        """See `Budget.reserve`."""
        async with self._turn:
            while (granted := self.reserve_at_once(cost, tokens, lasting=lasting)) is None:
                self.end_piece()
                if self._halted:
                    await asyncio.Event().wait()
                number, room = await self._bank.grant(cost or 0.0, tokens)
                self._piece = number, Budget(room.cost, room.tokens)
            return granted

    def end_piece(self) -> None:
        """Take no more from the present piece."""
        if self._piece:
            self._ending.append(self._piece)
            self._piece = None

    def halt(self) -> int:
        """Let nothing more in, as `Budget.stop` does; gives how many calls are under way."""
        self._halted = True
        self.end_piece()
        return sum(piece.in_flight for _, piece in self._ending)

    async def ended(self) -> None:
        """After `halt`: wait until what is under way has come back, but not for ever."""
        await asyncio.gather(*(piece.stop(lambda _: None) for _, piece in self._ending))

    def settled(self) -> list[Settled]:
        """Pieces that nothing is taken from any more, to be given back now; each is told once."""
        done = [Settled(number, piece.spent, piece.forfeited) for number, piece in self._ending if not piece.in_flight]
        self._ending = [(number, piece) for number, piece in self._ending if piece.in_flight]
        return done

    @property
    def idle(self) -> bool:
        """Whether no call is under way."""
        return not any(piece.in_flight for _, piece in [*self._ending, *([self._piece] if self._piece else [])])
