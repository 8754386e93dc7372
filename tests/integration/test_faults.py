"""Everything that can go wrong with an endpoint, at once: each call is answered in the end, saved, and paid for once.

The calls go as in a run, through ledger and budget, to a server that misbehaves and keeps books of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from misbehaving import Server, serve

from safer_instruct.budget import Budget, Spent, earlier_spent, read_spent, write_spent
from safer_instruct.errors import BudgetError, ModelError
from safer_instruct.ledger import Ledger, Meter, Recorded, read_calls, read_totals
from safer_instruct.models.flow import Limits
from safer_instruct.models.openai import OpenAIModel
from safer_instruct.models.protocol import Generated, Generation, Sampling, Turn
from safer_instruct.models.spending import Spending
from safer_instruct.prices import Price
from safer_instruct.running import run_to_end

CALLS = 2_000
TIMEOUT_S = 6.0  # far above what an answer takes on a busy machine: a good answer that comes too late would be paid twice
PRICE = Price(prompt=1.0, completion=2.0)
RETRIES = Limits().retries
FAULTS: dict[str, Any] = {
    "error": 0.20,
    "rate_limit": 0.10,
    "retry_after": ("0", "0.2", "date:0", "1"),
    "truncated": 0.05,
    "cut": 0.02,
    "empty": 0.02,
    "hang": 0.02,
    "reset": 0.03,
    "slow": 0.03,
    "drip": 0.03,
    "slow_s": 0.3,
    "per_body": RETRIES,  # so each call can be answered
}


def prompt(number: int) -> tuple[Turn, ...]:
    return (Turn("system", "Answer in a few words."), Turn("user", f"Where is parcel number {number}?"))


def price(read: int, written: int) -> float:
    return (read * 1.0 + written * 2.0) / 1e6


def billed(server: Server) -> float:
    """What a provider who takes money for every request that it worked on would ask for."""
    return sum(price(*tokens) for tokens in server.worked.values())


class Sitting:
    """Calls through ledger and budget in a folder, as one process of a run makes them."""

    def __init__(self, folder: Path, servers: Sequence[Server], *, max_cost: float | None = None, **limits: Any) -> None:
        self.ledger, self.spent = folder / "ledger.sqlite", folder / "spent.json"
        self.budget = Budget(max_cost)
        self._limits = Limits(**{"timeout_s": TIMEOUT_S, "concurrency": 64, **limits})
        self._urls = [server.base_url for server in servers]
        self.meter = Meter()

    def ask(self, numbers: Sequence[int], watch: Callable[[str], None] = lambda status: None) -> list[Generated | Exception]:
        """The answers in order, or in the place of one the error; `watch` is told a few times a second what is waited for."""
        return run_to_end(self._ask(numbers, watch))

    async def _ask(self, numbers: Sequence[int], watch: Callable[[str], None]) -> list[Generated | Exception]:
        model = OpenAIModel("m", base_url=self._urls, revision="1", limits=self._limits, spending=Spending(PRICE, self.budget))

        async def watching() -> None:
            while True:
                watch(model.status)
                await asyncio.sleep(0.1)

        with Ledger(self.ledger) as ledger:
            self.budget.begin(earlier_spent(self.spent, self.paid), lambda total: write_spent(self.spent, total))
            recorded = Recorded(model, ledger, "stage", self.meter)
            watcher = asyncio.create_task(watching())
            try:
                requests = [Generation(prompt(number), Sampling(max_tokens=64), number) for number in numbers]
                answers = await asyncio.gather(*(recorded.generate(r) for r in requests), return_exceptions=True)
            finally:
                watcher.cancel()
                await model.close()
                self.budget.close()
        return [answer for answer in answers if isinstance(answer, Generated | Exception)]

    def paid(self) -> Spent:
        """What the ledger's calls add up to."""
        totals = [t.usage for t in read_totals(self.ledger)]
        return Spent(sum(u.cost for u in totals), sum(u.prompt_tokens + u.completion_tokens for u in totals))


def texts(answers: Sequence[Generated | Exception]) -> list[str]:
    wrong = [answer for answer in answers if isinstance(answer, Exception)]
    assert not wrong, f"{len(wrong)} calls were not answered, the first: {wrong[0]}"
    return [answer.completions[0].text for answer in answers if isinstance(answer, Generated)]


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the calls are answered where nothing goes wrong."""
    with serve() as server:
        return texts(Sitting(tmp_path_factory.mktemp("undisturbed"), [server]).ask(range(CALLS)))


def check_books(server: Server, sitting: Sitting, answered: int) -> None:
    """Ledger, budget and server agree on what was delivered, what it cost, and that nothing was paid twice."""
    assert len({call.key for call in read_calls(sitting.ledger)}) == answered
    assert (server.distinct, server.asked_twice) == (answered, 0)
    spent, paid = sitting.budget.spent, sitting.paid()
    assert read_spent(sitting.spent) == spent
    assert billed(server) <= spent.cost + 1e-9
    assert paid.cost == pytest.approx(price(*_tokens(sitting.ledger)), abs=1e-9)


def _tokens(ledger: Path) -> tuple[int, int]:
    usages = [call.usage for call in read_calls(ledger)]
    return sum(u.prompt_tokens for u in usages), sum(u.completion_tokens for u in usages)


def test_everything_at_once(tmp_path: Path, wanted: list[str]) -> None:
    with serve(**FAULTS, seed=1) as server:
        began = time.monotonic()
        sitting = Sitting(tmp_path, [server])
        assert texts(sitting.ask(range(CALLS))) == wanted
        print(f"{server.requests} requests for {CALLS} calls in {time.monotonic() - began:.1f} s: {dict(server.status)}")
        check_books(server, sitting, CALLS)
        assert sitting.budget.spent.cost == pytest.approx(sitting.paid().cost + sitting.budget.forfeited.cost, abs=1e-9)
        requests = server.requests
        again = Sitting(tmp_path, [server])
        assert texts(again.ask(range(CALLS))) == wanted
        assert server.requests == requests and again.meter.replayed == CALLS
    assert all(server.status[fault] for fault in ("500", "429", "truncated", "cut", "empty", "hang", "reset", "slow", "drip"))
