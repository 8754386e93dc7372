"""Calls that wait, first come, first served, and the endpoints they can go to.

They wait in one line for all the endpoints of a model, not before each: so the quick endpoint gets more of them than the
slow one, nobody waits before one that has broken down, and one that came back is used at once.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from types import TracebackType
from typing import TypeVar

from safer_instruct.errors import AccessError, ModelError
from safer_instruct.models.calls import AGAIN, BUSY, NO_HEADERS, Call
from safer_instruct.models.gate import Gate
from safer_instruct.models.retries import AttemptError, Retries

T = TypeVar("T")

_FORGET_S = 120.0  # an outage that nobody has met for so long may be over
_TICK_S = 0.001  # timers are no more exact than that
_TRY_WITH = 8  # calls in flight: fewer may be the last of a run, which need not wait for the timeout of a dead endpoint


class Slot(Call):
    """Leave to send one call. What came of it is reported while it is held; of several reports the first counts.

    Attributes:
        gate: Which endpoint it goes to, once it has leave.
        failed_at: Where the last attempt of the same request failed; another endpoint is better.
    """

    __slots__ = ("_dispatcher", "_refusal", "_reported", "_wake", "failed_at", "gate")

    def __init__(self, dispatcher: Dispatcher, tokens: int, failed_at: Gate | None = None) -> None:
        super().__init__(max(0, tokens))
        self.gate: Gate | None = None
        self.failed_at, self._dispatcher = failed_at, dispatcher
        self._reported, self._refusal = False, ""
        self._wake: asyncio.Future[None] | None = None

    def succeeded(self, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """The endpoint gave a usable answer with these headers, whose names are in lower case."""
        if self.gate and not self._reported:
            self._reported = True
            self.gate.earn_retry()
            if self.failed_at is None and self.gate.failing_share:
                self.gate.first_attempt(failed=False)
            self.gate.endpoint.succeeded(self, headers, self._dispatcher.now())

    def refused(self) -> None:
        """The endpoint answered, and will never answer this request otherwise (HTTP 400, 401, 404): no trouble of the endpoint's."""
        if self.gate and not self._reported:
            self._reported = True
            self.gate.endpoint.answered()

    def failed(self, reason: str, status: int | None = None, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """The attempt failed and another may succeed.

        Args:
            reason: What happened, for messages: 'HTTP 503: overloaded', 'no answer within 120 s'.
            status: HTTP status, None where there was no answer.
            headers: Of the answer; `Retry-After` and what they tell of limits are heeded.
        """
        if self.gate and not self._reported:
            self._reported = True
            if self.failed_at is None and status not in BUSY:
                self.gate.first_attempt(failed=True)
            self.gate.endpoint.failed(self, reason, status, headers, self._dispatcher.now())

    def used(self, tokens: int) -> None:
        """The call took so many tokens in fact; the rate is corrected by the difference to the estimate."""
        if self.gate:
            self.gate.endpoint.correct(self, max(0, tokens), self._dispatcher.now())

    async def __aenter__(self) -> Slot:
        self._dispatcher.enter(self)
        if self.gate is None:
            await self.turn()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self._dispatcher.leave(self, sent=True)

    async def turn(self) -> Gate:
        """Wait for leave.

        Returns:
            Where to go.

        Raises:
            ModelError: There will be none.
        """
        if not self._refusal:
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            except BaseException:
                self._dispatcher.leave(self, sent=False)
                raise
        if self.gate is None:
            raise ModelError(self._refusal)
        return self.gate

    def decide(self, refusal: str = "") -> None:
        """Let the waiter go on, with leave or with a refusal."""
        self._refusal = refusal
        if self._wake and not self._wake.done():
            self._wake.set_result(None)


class Dispatcher:
    """Lets calls out to one of several endpoints, as fast as they take them."""

    def __init__(self, gates: Sequence[Gate]) -> None:
        self.gates = tuple(gates)
        for index, gate in enumerate(self.gates):
            gate.index = index
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: OrderedDict[Slot, None] = OrderedDict()
        self._shut: dict[tuple[int, Hashable], str] = {}  # by endpoint and kind of request, what was said when none can succeed
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._active_at = -math.inf

    async def call(self, send: Callable[[int, Slot], Awaitable[T]], tokens: int, asked: Hashable = None) -> T:
        """Send one request until it is answered, as often as may help; `send` is told which endpoint an attempt goes to; `asked` as for `Pool.call`."""
        retries: Retries | None = None
        gate: Gate | None = None
        while True:
            slot = Slot(self, tokens, failed_at=gate)
            self.enter(slot)
            gate = slot.gate or await slot.turn()
            try:
                if said := self._shut.get((gate.index, asked)):
                    raise AccessError(said)
                answer = await send(gate.index, slot)
                slot.succeeded()
                return answer
            except AttemptError as exc:
                slot.failed(exc.reason, exc.status, exc.headers)
                retries = retries or Retries()
                wait_s = retries.wait_s(gate, slot.started, exc, self.now(), elsewhere=self._elsewhere(gate))
                if refusal := self._given_up(self.now()):
                    raise ModelError(refusal) from exc
                patience_s = max(g.endpoint.give_up_at for g in self.gates) - self.now()
                wait_s = min(wait_s, patience_s) if patience_s > 0 else wait_s
            except ModelError as exc:
                if asked is not None and isinstance(exc, AccessError):  # nor will those be answered that wait for their turn
                    self._shut[gate.index, asked] = str(exc)
                slot.refused()
                raise
            finally:
                self.leave(slot, sent=True)
            if wait_s:
                await asyncio.sleep(wait_s)

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._queue)

    def ready_at(self, gate: Gate) -> float:
        """When the call that has waited longest may go to this endpoint, as far as rates go."""
        return gate.endpoint.ready_at(next(iter(self._queue)).tokens) if self._queue else -math.inf

    def now(self) -> float:
        """The event loop's time."""
        return self._loop.time() if self._loop else 0.0

    def enter(self, slot: Slot) -> None:
        """A call wants to go out: at once (`slot.gate` is set) or in its turn."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._begin(loop)
        now = loop.time()
        if now - self._active_at > _FORGET_S and not self._queue and not any(gate.held for gate in self.gates):
            for gate in self.gates:
                gate.endpoint.forget_outage()
        self._active_at = now
        if not self._queue and (free := self._choose(slot, now)[0]):
            self._let_out(slot, free, now)
            return
        self._queue[slot] = None
        if len(self._queue) == 1:  # those before it know already when to look again
            self._pump(now)

    def leave(self, slot: Slot, *, sent: bool) -> None:
        """A call is over, or its waiter was cancelled: while it waited, or after it was let through unawares."""
        now = self._active_at = self.now()
        if slot.gate is None:
            self._queue.pop(slot, None)
        elif slot in slot.gate.held:
            slot.gate.end(slot, now, sent=sent)
        if self._queue:
            self._pump(now)

    def look(self) -> None:
        """See whether anybody who waits may go."""
        self._pump(self.now())

    def _elsewhere(self, gate: Gate) -> bool:
        """Whether another endpoint takes calls."""
        return any(other is not gate and other.usable(self.now()) for other in self.gates)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """A run of its own, under asyncio.run: what the last one has left behind is dead."""
        self._loop, self._timer = loop, None
        self._queue.clear()
        for gate in self.gates:
            gate.reset()

    def _pump(self, now: float) -> None:
        """Let through whoever may go, in order; see to it that the next one is thought of when the time comes."""
        loop = self._loop
        if not loop or loop.is_closed():
            return
        at = math.inf  # when to look again: by default when a call has ended
        while self._queue:
            slot = next(iter(self._queue))
            gate, at = self._choose(slot, now)
            if gate is None:
                break
            del self._queue[slot]
            self._let_out(slot, gate, now)
            slot.decide()
        if self._queue and (refusal := self._given_up(now)):
            waiting, self._active_at = list(self._queue), now
            self._queue.clear()
            for slot in waiting:
                slot.decide(refusal)
        self._arm(at, now, loop)

    def _let_out(self, slot: Slot, gate: Gate, now: float) -> None:
        slot.gate = gate
        gate.let_out(slot, now)
        if self._loop:
            gate.watch(self._loop, self.look)

    def _choose(self, slot: Slot, now: float) -> tuple[Gate | None, float]:
        """The best endpoint that takes the call now; when one may that holds it up for a rate or a pause."""
        at, having_room = math.inf, []
        for gate in self.gates:
            ready_at = gate.endpoint.ready_at(slot.tokens)
            if ready_at > now + _TICK_S:
                at = min(at, ready_at)
            elif len(gate.held) >= gate.endpoint.concurrency:
                gate.endpoint.want_more()
            elif len(self.gates) == 1:
                return gate, at
            elif not gate.stalled(now):
                having_room.append(gate)
        if len(having_room) < 2:
            return (having_room[0] if having_room else None), at
        best = min(having_room, key=lambda gate: self._rank(gate, slot))
        for gate in having_room:
            if len(gate.held) < len(best.held):  # it would be the best one if it were taken to be as large
                gate.endpoint.want_more()
        return best, at

    def _rank(self, gate: Gate, slot: Slot) -> float:
        """The less, the better: how full the endpoint would be, after that whether it has just failed, this request or all."""
        if gate.endpoint.failing and sum(len(gate.held) for gate in self.gates) >= _TRY_WITH:
            return 0.0  # a try is due
        fullness = (len(gate.held) + 1) / gate.endpoint.concurrency
        return fullness + (gate is slot.failed_at) + 2 * gate.endpoint.failing

    def _given_up(self, now: float) -> str:
        """Why nobody need wait any longer; empty as long as one endpoint may answer."""
        reasons = []
        for gate in self.gates:
            if not (reason := gate.given_up(now)):
                return ""
            reasons.append(reason)
        return f"{reasons[0]}; {AGAIN}" if len(reasons) == 1 else f"none of {len(reasons)} endpoints answers: {'; '.join(reasons)}; {AGAIN}"

    def _arm(self, at: float, now: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._queue:
            for gate in self.gates:
                if gate.endpoint.give_up_at > now:
                    at = min(at, gate.endpoint.give_up_at)
        else:
            at = math.inf
        if self._timer and self._timer_at != at:
            self._timer.cancel()
            self._timer = None
        if not self._timer and at < math.inf:
            self._timer, self._timer_at = loop.call_at(at, self._on_timer), at

    def _on_timer(self) -> None:
        self._timer = None
        self.look()
