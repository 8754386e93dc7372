"""The one actor that knows of all workers: budget, limits of endpoints, calls that two of them want, and who is gone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safer_instruct.budget import Budget, Reservation
from safer_instruct.errors import SaferInstructError
from safer_instruct.ledger.places import Place, Places
from safer_instruct.models.sharing import Lesson, Lot, Shares
from safer_instruct.runners.ray.allowance import Settled
from safer_instruct.spent import Spent, write_spent

_CALLS_PER_GRANT = 32  # a piece of the budget holds so many calls like the one that asks for it
_SHARE_OF_REST = 4  # and no more than this part of a worker's share of what is left
_SILENT_S, _LOOK_EVERY_S = 120.0, 2.0
_SHARED_EVERY_S, _LESSONS_PER_S = 0.25, 400  # of limits of endpoints: by each worker, and at most by all
Failure = tuple[str, str]
"""Name of an error of `errors.py`, and its message."""


@dataclass(slots=True)
class _Worker:
    actor: str
    node: str
    heard_at: float
    shard: str
    grants: dict[int, Reservation] = field(default_factory=dict)
    claimed: set[bytes] = field(default_factory=set)
    status: list[str] = field(default_factory=list)
    under_way: int | None = None  # calls, once it has heard that the run is stopped


class Coordinator:
    """An asyncio actor; all of it runs in one event loop.

    A worker that is gone (its node is, or it was started anew, or it has said nothing for two minutes) forfeits its pieces of
    the budget: what it did not tell may have been paid for, so all of it counts as spent.
    """

    def __init__(self, max_cost: float | None, max_tokens: int | None, spent: Path, earlier: Spent) -> None:
        """Take charge of a run's budget, of which `earlier` is spent; `spent` is the file that keeps it."""
        self._budget = Budget(max_cost, max_tokens)
        self._budget.begin(earlier, lambda total: write_spent(spent, total))
        self._workers: dict[str, _Worker] = {}
        self._begun: dict[tuple[str, int], str] = {}  # part of the work and chunk -> who had it last
        self._gone: dict[str, _Worker] = {}
        self._lost: list[str] = []  # shards of those who are gone
        self._making: dict[bytes, list[asyncio.Future[Place | None]]] = {}  # calls under way, and who waits for them
        self._made = Places()
        self._shares = Shares()
        self._grants = 0
        self._failure: Failure | None = None
        self._watch: asyncio.Task[None] | None = None
        self._stopping, self._told, self._over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def join(self, name: str, actor: str, node: str, shard: str) -> list[str]:
        """A worker begins; it is told the shards of those who are gone."""
        self._watch = self._watch or asyncio.create_task(self._look_after())
        for other in [other for other, worker in self._workers.items() if worker.actor == actor]:
            self._bury(other, replaced=True)  # the same actor, started anew
        self._workers[name] = _Worker(actor, node, time.monotonic(), shard)
        return list(self._lost)

    async def begin(self, name: str, part: str, chunk: int) -> list[str]:
        """A worker takes up a chunk; where another had it before, it is told the shards in which calls for it may stand."""
        before = self._begun.get((part, chunk))
        self._begun[part, chunk] = name
        if before is None:
            return []
        known = self._workers.get(before)
        return [*self._lost, *([known.shard] if known else [])]

    async def grant(self, name: str, cost: float, tokens: int) -> tuple[int, Spent] | Failure:
        """A piece of the budget with room for a call that may take so much."""
        many = self._many(cost, tokens)
        try:
            reservation = self._budget.reserve_at_once(*many) if many else None
            room = many if reservation and many else (cost, tokens)
            reservation = reservation or await self._budget.reserve(cost, tokens)
        except SaferInstructError as exc:
            return type(exc).__name__, str(exc)
        worker = self._heard(name)
        if worker is None:  # it has gone while it waited: nobody will send anything
            reservation.settle(0.0, 0)
            return "RunnerError", "this worker was started anew elsewhere"
        self._grants += 1
        worker.grants[self._grants] = reservation
        return self._grants, Spent(*room)

    async def tell(self, name: str, settled: list[Settled], finished: list[tuple[bytes, Place]], given_up: list[bytes], status: list[str] | None) -> None:
        """What has happened at a worker."""
        worker = self._heard(name)
        if worker is None:
            return
        worker.status = worker.status if status is None else status
        for piece in settled:
            if reservation := worker.grants.pop(piece.grant, None):
                reservation.settle(piece.spent.cost, piece.spent.tokens, unanswered=piece.unanswered)
        for key, place in finished:
            self._made.add([key], place)
            self._wake(worker, key, place)
        for key in given_up:
            self._wake(worker, key, None)

    async def claim(self, name: str, keys: list[bytes]) -> list[Place | bool]:
        """For each call where it stands, True where it is the worker's to make, False where another is making it (`wait`)."""
        worker = self._heard(name)
        answers: list[Place | bool] = []
        for key in keys:
            if place := self._made.get(key):
                answers.append(place)
            elif key in self._making or worker is None:
                answers.append(worker is None)
            else:
                self._making[key] = []
                worker.claimed.add(key)
                answers.append(True)
        return answers

    async def wait(self, key: bytes) -> Place | None:
        """Where a call stands that another worker makes, once it does; None where it came to nothing, and may be claimed anew."""
        if key not in self._making:
            return self._made.get(key)
        future: asyncio.Future[Place | None] = asyncio.get_running_loop().create_future()
        self._making[key].append(future)
        return await future

    async def limits(self, name: str, lessons: list[Lesson]) -> tuple[list[Lot], float]:
        """What a worker has learned of its endpoints; gives its part of what all have, and the seconds until it tells again."""
        lots = self._shares.tell(name, lessons, asyncio.get_running_loop().time())
        return lots, max(_SHARED_EVERY_S, len(self._workers) / _LESSONS_PER_S)

    async def fail(self, failure: Failure) -> None:
        """A worker has met an error that ends the run; the first counts."""
        self._failure = self._failure or failure

    async def stop(self) -> int:
        """Have workers let nothing more in; gives how many calls they have under way, once all have told."""
        self._stopping.set()
        await self._until(lambda calls: calls is not None)
        return sum(worker.under_way or 0 for worker in self._workers.values())

    async def stopped(self) -> None:
        """Wait until no worker has a call under way any more, and their answers are on disk."""
        await self._until(lambda calls: calls == 0)

    async def stopping(self) -> None:
        """For a worker: wait until somebody stops the run."""
        await self._stopping.wait()

    async def under_way(self, name: str, calls: int) -> None:
        """A worker lets nothing more in, and has so many calls under way."""
        if worker := self._heard(name):
            worker.under_way = calls
            self._told.set()

    async def over(self) -> None:
        """For a worker: wait until the run has ended."""
        await self._over.wait()

    async def figures(self) -> dict[str, Any]:
        """For the driver: what is spent, what workers wait for, and what has ended the run."""
        budget = self._budget
        waits = sorted({message for worker in self._workers.values() for message in worker.status})
        return {"spent": budget.spent, "reserved": budget.reserved, "forfeited": budget.forfeited, "waits": waits, "failure": self._failure}

    async def close(self) -> None:
        """All workers have ended, or will be ended: what they have not given back is forfeited, and the exact sum recorded."""
        if self._watch:
            self._watch.cancel()
        self._over.set()
        for name in list(self._workers):
            self._bury(name)
        self._budget.close()
        self._made.close()

    async def _until(self, told: Callable[[int | None], bool]) -> None:
        while not all(told(worker.under_way) for worker in self._workers.values()):
            self._told.clear()
            await self._told.wait()

    def _many(self, cost: float, tokens: int) -> tuple[float, int] | None:
        """A piece for many calls, as far as there is room for one at every worker; None near the end of the budget."""
        budget, parts = self._budget, _SHARE_OF_REST * max(1, len(self._workers))
        many_cost, many_tokens = cost * _CALLS_PER_GRANT, tokens * _CALLS_PER_GRANT
        if budget.max_cost is not None:
            many_cost = min(many_cost, (budget.max_cost - budget.spent.cost - budget.reserved.cost) / parts)
        if budget.max_tokens is not None:
            many_tokens = min(many_tokens, (budget.max_tokens - budget.spent.tokens - budget.reserved.tokens) // parts)
        return (many_cost, many_tokens) if many_cost >= cost and many_tokens >= tokens else None

    def _wake(self, worker: _Worker, key: bytes, place: Place | None) -> None:
        worker.claimed.discard(key)
        for future in self._making.pop(key, []):
            if not future.done():
                future.set_result(place)

    def _heard(self, name: str) -> _Worker | None:
        """The worker that speaks; one that was only slow is back, without what it has forfeited."""
        if name in self._gone:
            self._workers[name] = self._gone.pop(name)
        if worker := self._workers.get(name):
            worker.heard_at = time.monotonic()
        return worker

    def _bury(self, name: str, *, replaced: bool = False) -> None:
        worker = self._workers.pop(name)
        self._shares.forget(name)
        self._told.set()
        if worker.shard not in self._lost:
            self._lost.append(worker.shard)
        for reservation in worker.grants.values():
            reservation.forfeit()
        worker.grants.clear()
        for key in list(worker.claimed):
            self._wake(worker, key, None)
        if not replaced:
            self._gone[name] = worker

    async def _look_after(self) -> None:
        import ray

        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            with contextlib.suppress(ray.exceptions.RayError):
                nodes = await asyncio.to_thread(ray.nodes)
                there = {node["NodeID"] for node in nodes if node["Alive"]}
                silent = time.monotonic() - _SILENT_S
                for name, worker in list(self._workers.items()):
                    if worker.node not in there or worker.heard_at < silent:
                        self._bury(name)
