"""The calls in flight to one endpoint, and the watch over them."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from safer_instruct.models.calls import KEEPING_TO_RATE, Call, Limits, span
from safer_instruct.models.endpoint import Endpoint

Kind = Literal["flowing", "limited", "paused", "outage", "stalled"]

_SPARE_RETRIES = 50.0  # beyond one retry per success, which is always there
_SPREAD_S = 60.0  # most that a retry beyond those waits; they go out one a second
_FIRST_ATTEMPTS = 50  # over which the share of failures among them is taken
_STALL = 2.0  # times the timeout


@dataclass(frozen=True, slots=True)
class State:
    """How a flow, or a pool of them, is doing.

    Attributes:
        kind: `flowing`; `limited` by a rate for the next seconds; `paused` because the endpoint is too busy; `outage`:
            nothing but failures, so that one call is tried now and then; `stalled`: calls are in flight and none ends.
        message: What is waited for and how long, empty while `flowing`.
        in_flight: Calls that hold a slot.
        concurrency: How many may at present.
        waiting: Calls that wait for a slot.
    """

    kind: Kind
    message: str
    in_flight: int
    concurrency: int
    waiting: int


class Gate:
    """Where calls pass on their way to one endpoint.

    Attributes:
        endpoint: What is known of it.
        held: The calls in flight.
        index: Which of the endpoints of a pool it is.
        failing_share: How many requests fail at the first attempt, of the last fifty or so; later attempts tell more of the
            request than of the endpoint.
    """

    def __init__(self, name: str, limits: Limits, on_stall: Callable[[], None] | None, rng: random.Random) -> None:
        self.name, self.limits, self.rng = name, limits, rng
        self.endpoint = Endpoint(name, limits, rng)
        self.held: set[Call] = set()
        self.index = 0
        self.failing_share = 0.0
        self._on_stall, self._stall_s = on_stall, _STALL * limits.timeout_s
        self._watch: asyncio.TimerHandle | None = None
        self._ended_at = -math.inf  # when a call last ended, or the first of those in flight went out
        self._spare_retries, self._spare_at = _SPARE_RETRIES, -math.inf

    def reset(self) -> None:
        """Forget the calls of an event loop that is gone."""
        self.held.clear()
        self._watch = None

    def let_out(self, call: Call, now: float) -> None:
        """A call goes out."""
        if not self.held:
            self._ended_at = now
        self.held.add(call)
        self.endpoint.send(call, len(self.held), now)

    def end(self, call: Call, now: float, *, sent: bool) -> None:
        """A call is over, or never went out."""
        self.held.discard(call)
        if sent:
            self._ended_at = now
            self.endpoint.end(call, now)
        else:
            self.endpoint.take_back(call, now)

    def watch(self, loop: asyncio.AbstractEventLoop, on_stall: Callable[[], None]) -> None:
        """See to it that a stall is noticed as long as calls are in flight; `on_stall` is called, too."""
        if self._watch is None:
            self._watch = loop.call_at(loop.time() + self._stall_s, self._look, loop, on_stall)

    def stalled(self, now: float) -> bool:
        """Whether calls are in flight and none has ended for long."""
        return now - self._ended_at >= self._stall_s and bool(self.held)

    def usable(self, now: float) -> bool:
        """Whether nothing speaks against sending it a call soon."""
        return not (self.endpoint.failing or self.endpoint.paused(now) or self.stalled(now))

    def first_attempt(self, *, failed: bool) -> None:
        """A request has been tried for the first time."""
        self.failing_share += (failed - self.failing_share) / _FIRST_ATTEMPTS

    def earn_retry(self) -> None:
        """A call has succeeded: there may be one more retry."""
        self._spare_retries = min(_SPARE_RETRIES, self._spare_retries + 1)

    def spend_retry(self, now: float) -> float:
        """Seconds that a retry waits because there have been too many of them for the successes there were."""
        self._spare_retries = min(_SPARE_RETRIES, self._spare_retries + now - max(self._spare_at, now - _SPARE_RETRIES)) - 1
        self._spare_at = now
        return min(_SPREAD_S, max(0.0, -self._spare_retries))

    def given_up(self, now: float) -> str:
        """Why nobody need wait for the endpoint any longer; empty if that is not so."""
        if self.held and now - self._ended_at >= self.limits.max_pause_s + self._stall_s:
            return self._stall(now)
        return self.endpoint.given_up(now)

    def state(self, now: float, waiting: int = 0, ready_at: float = -math.inf) -> State:
        """How it is doing, where `waiting` calls wait, the first of them until `ready_at`."""
        kind, message = self._describe(now, ready_at)
        return State(kind, message, len(self.held), self.endpoint.concurrency, waiting)

    def _describe(self, now: float, ready_at: float) -> tuple[Kind, str]:
        if self.stalled(now):
            return "stalled", self._stall(now)
        if trouble := self.endpoint.trouble(len(self.held), now):
            return trouble
        if ready_at > now + 1:
            return "limited", f"{self.name}: next call in {span(ready_at - now)}, {KEEPING_TO_RATE}"
        return "flowing", ""

    def _stall(self, now: float) -> str:
        return f"{self.name}: {len(self.held)} calls in flight, none has ended for {span(now - self._ended_at)}"

    def _look(self, loop: asyncio.AbstractEventLoop, on_stall: Callable[[], None]) -> None:
        now, self._watch = loop.time(), None
        if not self.held:
            return
        stalled = self.stalled(now)
        self._watch = loop.call_at((now if stalled else self._ended_at) + self._stall_s, self._look, loop, on_stall)
        if stalled:
            on_stall()
            if self._on_stall:
                self._on_stall()
