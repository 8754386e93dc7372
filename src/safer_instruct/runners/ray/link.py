"""A worker's line to the coordinator: what can wait for two milliseconds goes in one message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from safer_instruct import errors
from safer_instruct.errors import SaferInstructError
from safer_instruct.ledger.places import Place
from safer_instruct.models.flow import Flow
from safer_instruct.models.protocol import Model
from safer_instruct.runners.ray.allowance import Allowance
from safer_instruct.spent import Spent

_GATHERED_FOR_S = 0.002
_BEAT_S = 0.25
_BEATS_UNHEARD = 8  # unless there is something to give back, which others may wait for
_IDLE_BEATS = 4  # without a call under way: then the piece of the budget goes back


class Link:
    """All that a worker says to the coordinator and asks of it; lives in the worker's event loop."""

    def __init__(self, coordinator: Any, name: str) -> None:
        """Speak for the worker `name` to an actor handle."""
        self._coordinator, self.name = coordinator, name
        self._asked: dict[bytes, asyncio.Future[Place | bool]] = {}
        self._finished: list[tuple[bytes, Place]] = []
        self._given_up: list[bytes] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._flush_at: asyncio.TimerHandle | None = None

    async def claim(self, key: bytes) -> Place | None:
        """See `ledger.shards.Claims`."""
        while True:
            self._asked[key] = asked = asyncio.get_running_loop().create_future()
            self._soon()
            answer = await asked
            if answer is True:
                return None
            place: Place | None = answer or await self._coordinator.wait.remote(key)
            if place is not None:
                return place

    def finished(self, key: bytes, place: Place) -> None:
        """See `ledger.shards.Claims`."""
        self._finished.append((key, place))
        self._soon()

    def given_up(self, key: bytes) -> None:
        """See `ledger.shards.Claims`."""
        self._given_up.append(key)
        self._soon()

    async def grant(self, cost: float, tokens: int) -> tuple[int, Spent]:
        """See `allowance.Bank`."""
        granted, room = await self._coordinator.grant.remote(self.name, cost, tokens)
        if isinstance(granted, str):
            raise as_error(granted, room)
        return granted, room

    async def begin(self, part: str, chunk: int) -> list[str]:
        """Take up a chunk; gives the shards in which calls for it may stand."""
        shards: list[str] = await self._coordinator.begin.remote(self.name, part, chunk)
        return shards

    async def settle(self, allowance: Allowance) -> None:
        """Give back what nothing is taken from any more."""
        if settled := allowance.settled():
            await self._coordinator.tell.remote(self.name, settled, [], [], None)

    async def beat(self, allowance: Allowance, status: Callable[[], list[str]]) -> None:
        """Say now and then that this worker is there, what it waits for and what it does not need; until cancelled."""
        idle = 0
        for beat in count(1):
            await asyncio.sleep(_BEAT_S)
            idle = idle + 1 if allowance.idle else 0
            if idle >= _IDLE_BEATS:
                allowance.end_piece()
            settled = allowance.settled()
            if settled or beat % _BEATS_UNHEARD == 0:
                await self._coordinator.tell.remote(self.name, settled, [], [], status())

    async def share(self, flows: Sequence[Flow]) -> None:
        """Tell what was learned of the limits of endpoints, and keep to what all have learned; until cancelled."""
        while flows:
            lots, again_s = await self._coordinator.limits.remote(self.name, [flow.lesson() for flow in flows])
            for flow, lot in zip(flows, lots, strict=True):
                flow.heed(lot)
            await asyncio.sleep(again_s)

    async def heed_stop(self, allowance: Allowance, saved: Callable[[], Awaitable[None]]) -> None:
        """Once somebody stops the run, let nothing more in, and tell how many calls are under way, and when none is and all answers are `saved`."""
        await self._coordinator.stopping.remote()
        if calls := allowance.halt():
            await self._coordinator.under_way.remote(self.name, calls)
        await allowance.ended()
        await self.settle(allowance)
        await saved()
        await self._coordinator.under_way.remote(self.name, 0)

    async def over(self) -> None:
        """Wait until the run has ended, however it has."""
        await self._coordinator.over.remote()

    async def flushed(self) -> None:
        """Wait until all that was said has been heard."""
        self._flush()
        await asyncio.gather(*self._sending, return_exceptions=True)

    def _soon(self) -> None:
        if self._flush_at is None:
            self._flush_at = asyncio.get_running_loop().call_later(_GATHERED_FOR_S, self._flush)

    def _flush(self) -> None:
        if self._flush_at:
            self._flush_at.cancel()
        self._flush_at = None
        asked, self._asked = self._asked, {}
        finished, self._finished = self._finished, []
        given_up, self._given_up = self._given_up, []
        if asked or finished or given_up:
            task = asyncio.get_running_loop().create_task(self._exchange(asked, finished, given_up))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _exchange(self, asked: dict[bytes, asyncio.Future[Place | bool]], finished: list[tuple[bytes, Place]], given_up: list[bytes]) -> None:
        try:
            if finished or given_up:
                await self._coordinator.tell.remote(self.name, [], finished, given_up, None)
            answers = await self._coordinator.claim.remote(self.name, list(asked)) if asked else []
        except Exception as exc:  # noqa: BLE001 - not swallowed: everyone who asked is given it
            for future in asked.values():
                if not future.done():
                    future.set_exception(exc)
            return
        for future, answer in zip(asked.values(), answers, strict=True):
            if not future.done():
                future.set_result(answer)


def flows_of(models: Iterable[Model]) -> list[Flow]:
    """The ways to endpoints that other processes may call as well; a server that a process has started is its own."""
    distinct = {id(model): model for model in models}
    return [flow for model in distinct.values() for flow in getattr(model, "flows", ())]


def as_error(kind: str, message: str) -> SaferInstructError:
    """The error that another process has met."""
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, SaferInstructError):
        with suppress(TypeError):  # one whose message is made of parts
            return found(message)
    return SaferInstructError(message)
