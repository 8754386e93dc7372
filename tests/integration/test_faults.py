"""Everything that can go wrong with an endpoint, at once: each call is answered in the end, saved, and paid for once.

The calls go as in a run, through ledger and budget, to a server that misbehaves and keeps books of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from misbehaving import Server, serve

from safer_instruct.budget import Budget
from safer_instruct.errors import BudgetError, ModelError
from safer_instruct.ledger import Ledger, Meter, Recorded, read_calls, read_totals
from safer_instruct.models.flow import Limits
from safer_instruct.models.openai import OpenAIModel
from safer_instruct.models.protocol import Generated, Generation, Sampling, Turn
from safer_instruct.models.spending import Spending
from safer_instruct.prices import Price
from safer_instruct.running import run_to_end
from safer_instruct.spent import Spent, earlier_spent, read_spent, write_spent

TIMEOUT_S = 5.0  # far above what an answer takes on a busy machine: a good answer that comes too late would be paid twice
PRICE = Price(prompt=1.0, completion=2.0)
FAULTS: dict[str, Any] = {
    "error": 0.20,
    "truncated": 0.05,
    "cut": 0.02,
    "empty": 0.02,
    "hang": 0.02,
    "reset": 0.03,
    "slow": 0.03,
    "drip": 0.03,
    "slow_s": 0.3,
}
TOO_MANY: dict[str, Any] = {"rate_limit": 0.10, "retry_after": ("0", "0.2", "date:0", "1", "3")}


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
            self.budget.begin(earlier_spent(self.spent, self.paid()), lambda total: write_spent(self.spent, total))
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


def check_books(servers: Sequence[Server], sitting: Sitting, answered: int, *, twice: int = 0) -> None:
    """Ledger, budget and servers agree on what was answered, what it cost, and that no more than `twice` was paid for again."""
    calls = list(read_calls(sitting.ledger))
    assert len({call.key for call in calls}) == len(calls) == answered
    delivered = sum((server.good for server in servers), Counter[str]())
    assert len(delivered) == answered and delivered.total() - answered <= twice
    assert sitting.paid().cost == pytest.approx(sum(price(c.usage.prompt_tokens, c.usage.completion_tokens) for c in calls), abs=1e-9)
    assert read_spent(sitting.spent) == sitting.budget.spent
    assert sum(map(billed, servers)) < sitting.budget.spent.cost + 1e-9


def test_everything_at_once(tmp_path: Path) -> None:
    """No end to the faults of one request, nor does it matter to them how many calls there are: two in five attempts fail."""
    count = 3000
    with serve() as undisturbed:
        (tmp_path / "undisturbed").mkdir()
        wanted = texts(Sitting(tmp_path / "undisturbed", [undisturbed]).ask(range(count)))
    with serve(**FAULTS, **TOO_MANY, seed=1) as server:
        began = time.monotonic()
        sitting = Sitting(tmp_path, [server])
        assert texts(sitting.ask(range(count))) == wanted
        most = max(server.attempts.values())
        print(f"{server.requests} requests, up to {most} for one of {count} calls in {time.monotonic() - began:.1f} s: {dict(server.status)}")
        check_books([server], sitting, count)
        assert sitting.budget.spent.cost == pytest.approx(sitting.paid().cost + sitting.budget.forfeited.cost, abs=1e-9)
        requests = server.requests
        again = Sitting(tmp_path, [server])
        assert texts(again.ask(range(count))) == wanted
        assert server.requests == requests and again.meter.replayed == count
    assert all(server.status[fault] for fault in ("500", "429", "truncated", "cut", "empty", "hang", "reset", "slow", "drip"))
    assert most > 8  # more than a request has where nothing else fails


def test_a_cap_stops_the_calls_and_a_higher_one_lets_the_rest_through(tmp_path: Path) -> None:
    cap, count = 0.05, 400
    with serve(**{**FAULTS, "hang": 0.0}, seed=2) as server:
        first = Sitting(tmp_path, [server], max_cost=cap)
        answers = first.ask(range(count))
        wrong = [answer for answer in answers if isinstance(answer, Exception)]
        assert 0 < len(wrong) < count and {type(error) for error in wrong} == {BudgetError}
        assert "raise budget.max_cost and give the same command again" in str(wrong[0])
        check_books([server], first, count - len(wrong))
        assert billed(server) < first.budget.spent.cost <= cap
        second = Sitting(tmp_path, [server], max_cost=1.0)
        texts(second.ask(range(count)))
        check_books([server], second, count)
        assert second.meter.replayed == count - len(wrong)
        lost = first.budget.forfeited.cost + second.budget.forfeited.cost
        assert second.budget.spent.cost == pytest.approx(second.paid().cost + lost, abs=1e-9)


class Disturber(threading.Thread):
    """Does something to the servers once so many calls have been answered."""

    def __init__(self, servers: Sequence[Server], answered: int, action: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._servers, self._answered, self._action = servers, answered, action
        self.start()

    def run(self) -> None:
        while sum(server.answered for server in self._servers) < self._answered:
            time.sleep(0.005)
        self._action()


def test_a_server_that_restarts_in_the_middle(tmp_path: Path) -> None:
    count, concurrency = 600, 16
    with serve(latency_s=0.02) as server:

        def restart() -> None:
            server.crash()
            time.sleep(2.5)
            server.listen()

        disturber = Disturber([server], 200, restart)
        sitting = Sitting(tmp_path, [server], concurrency=concurrency)
        texts(sitting.ask(range(count)))
        disturber.join(10)
        check_books([server], sitting, count, twice=concurrency)  # those that it had written when the connections broke


def test_one_of_two_endpoints_dies(tmp_path: Path) -> None:
    count, concurrency = 600, 8
    with serve(latency_s=0.02) as one, serve(latency_s=0.02) as other:
        Disturber([one, other], 200, one.crash).join(0)
        began = time.monotonic()
        sitting = Sitting(tmp_path, [one, other], concurrency=concurrency)
        texts(sitting.ask(range(count)))
        took_s = time.monotonic() - began
        print(f"{took_s:.1f} s; answered {one.answered} and {other.answered}")
        check_books([one, other], sitting, count, twice=concurrency)
    assert 50 < one.answered < 200 + concurrency < other.answered
    assert took_s < 30  # an outage is waited for twice as long


def test_all_endpoints_are_down(tmp_path: Path) -> None:
    count, max_pause_s = 400, 3.0
    with serve(latency_s=0.02) as one, serve(latency_s=0.02) as other:
        servers = [one, other]
        disturber = Disturber(servers, 100, lambda: [server.crash() for server in servers])
        began, waits = time.monotonic(), set[str]()
        first = Sitting(tmp_path, servers, concurrency=8, max_pause_s=max_pause_s)
        answers = first.ask(range(count), waits.add)
        took_s = time.monotonic() - began
        wrong = [answer for answer in answers if isinstance(answer, Exception)]
        print(f"{took_s:.1f} s; {len(wrong)} calls unanswered: {Counter(map(str, wrong))}; waits: {waits}")
        disturber.join(10)
        for server in servers:
            server.listen()
        second = Sitting(tmp_path, servers, concurrency=8)
        texts(second.ask(range(count)))
        check_books(servers, second, count, twice=2 * 8)
        assert second.meter.replayed == count - len(wrong)
    assert wrong and {type(error) for error in wrong} == {ModelError}
    for error in map(str, wrong):
        assert error.startswith("none of 2 endpoints answers: ") and error.count(" has failed for ") == 2 and "asks for a pause" not in error
        assert error.endswith("; nothing is lost: give the same command again once the endpoint answers")
    assert max_pause_s < took_s < max_pause_s + 20
    assert any("Connection refused" in message for message in waits)
