"""When a call to an endpoint may go out: how many at a time, how many a minute, when to try again, and when to give up.

One `Flow` stands before one endpoint. It holds no HTTP: the caller sends, and reports what came of it.

    flow = Flow("openai:gpt-x at https://api.example.com/v1", Limits(concurrency=64, requests_per_min=600))

    async def send(slot: Slot) -> Answer:
        try:
            response = await post(body)
        except TimeoutError as exc:
            raise AttemptError("no answer within 120 s") from exc
        if can_pass(response.status, response.headers):
            raise AttemptError(f"HTTP {response.status}", response.status, response.headers)
        if response.status != 200:
            raise RequestError(...)          # can never succeed: not tried again
        slot.succeeded(response.headers)     # what they tell of limits is heeded
        slot.used(response.total_tokens)     # corrects the estimate below
        return response.answer

    answer = await flow.call(send, tokens=estimated_tokens)

`flow.state.message` says what a run waits for, in words to show. What is decided here, and why:

- **Concurrency** starts at 8: few enough for any endpoint, enough not to be slow, two round trips from 32. Every success
  adds one until the first trouble, or until more calls in flight only make answers slower; later less than one per round
  trip. Every HTTP 503, 529, 502, 504 or timeout takes half a place away: a round trip of nothing else halves it.
- **HTTP 429 speaks of a rate**, so a rate is learned from it, which rises a little with each call and falls with each
  rejection. Concurrency alone would swing between half of the rate and too much of it. It falls only where it was full.
- **A pause is for all**: after `Retry-After`, or with growing waits where an endpoint that is too busy does not say.
- **Being told to wait is no failed attempt** (429, 503, 529), nor is an outage: neither uses up the retries of the request
  that happened to meet it. Both are bounded by time, `Limits.max_pause_s`.
- **Time is the event loop's** (`loop.time()`, monotonic): a wall clock set anew changes nothing, and tests bring their own loop.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, TypeVar

from safer_instruct.errors import ModelError
from safer_instruct.models.endpoint import AGAIN, BUSY, Call, Endpoint, Limits, backoff_s, can_pass, span

Kind = Literal["flowing", "limited", "paused", "outage", "stalled"]

__all__ = ["AttemptError", "Flow", "Limits", "Slot", "State", "can_pass"]

T = TypeVar("T")

_FORGET_S = 120.0  # an outage that nobody has met for so long may be over
_SPARE_RETRIES = 50.0  # beyond one retry per success, which is always there
_SPREAD_S = 60.0  # most that a retry beyond those waits; they go out one a second
_STALL = 2.0  # times the timeout
_TICK_S = 0.001  # timers are no more exact than that
_NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class State:
    """How a flow is doing.

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


class AttemptError(ModelError):
    """One attempt failed and another may succeed; `Flow.call` lets it out only as the cause of a `ModelError`."""

    def __init__(self, reason: str, status: int | None = None, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        super().__init__(reason)
        self.reason, self.status, self.headers = reason, status, headers


class Slot:
    """Leave to send one call, from `Flow.slot`. What came of it is reported while it is held; of several reports the first counts."""

    __slots__ = ("_call", "_flow", "_refusal", "_reported", "_wake")

    def __init__(self, flow: Flow, tokens: int) -> None:
        self._flow, self._call = flow, Call(max(0, tokens))
        self._reported, self._refusal = False, ""
        self._wake: asyncio.Future[None] | None = None

    @property
    def started(self) -> float:
        """When the call was let out, by the event loop's clock."""
        return self._call.started

    def succeeded(self, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        """The endpoint gave a usable answer with these headers."""
        if self._first_report():
            self._flow._succeeded(self._call, headers)

    def refused(self) -> None:
        """The endpoint answered, and will never answer this request otherwise (HTTP 400, 401, 404): no trouble of the endpoint's."""
        if self._first_report():
            self._flow._endpoint.answered()

    def failed(self, reason: str, status: int | None = None, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        """The attempt failed and another may succeed.

        Args:
            reason: What happened, for messages: 'HTTP 503: overloaded', 'no answer within 120 s'.
            status: HTTP status, None where there was no answer.
            headers: Of the answer; `Retry-After` and what they tell of limits are heeded.
        """
        if self._first_report():
            self._flow._endpoint.failed(self._call, reason, status, headers, self._flow._now())

    def used(self, tokens: int) -> None:
        """The call took so many tokens in fact; the rate is corrected by the difference to the estimate."""
        self._flow._endpoint.correct(self._call, max(0, tokens), self._flow._now())

    async def __aenter__(self) -> Slot:
        self._flow._enter(self)
        if self not in self._flow._held and not self._refusal:
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            except BaseException:
                self._flow._leave(self, sent=False)
                raise
        if self._refusal:
            raise ModelError(self._refusal)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self._flow._leave(self, sent=True)

    def _first_report(self) -> bool:
        first, self._reported = not self._reported, True
        return first

    def _decide(self, refusal: str = "") -> None:
        """Let the waiter go on, with leave or with a refusal."""
        self._refusal = refusal
        if self._wake and not self._wake.done():
            self._wake.set_result(None)


class Flow:
    """Lets calls to one endpoint out, first come, first served, as fast as it takes them."""

    def __init__(self, name: str, limits: Limits | None = None, *, on_stall: Callable[[], None] | None = None, rng: random.Random | None = None) -> None:
        """Start with nothing known about the endpoint.

        Args:
            name: The endpoint in messages: 'openai:gpt-x at https://...'.
            limits: What to keep to.
            on_stall: Called when calls are in flight and none has ended for twice the timeout, and again after each such
                time: the place to replace connections.
            rng: Draws the jitter.
        """
        self.name, self.limits = name, limits or Limits()
        self._on_stall, self._rng = on_stall, rng or random.Random()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._watch: asyncio.TimerHandle | None = None
        self._queue: OrderedDict[Slot, None] = OrderedDict()
        self._held: set[Slot] = set()
        self._endpoint = Endpoint(name, self.limits, self._rng)
        self._next_at = math.inf  # when the first of those who wait may go, if that is known
        self._active_at = -math.inf
        self._ended_at = -math.inf  # when a call last ended, or the first of those in flight went out
        self._spare_retries, self._spare_at = _SPARE_RETRIES, -math.inf

    def slot(self, tokens: int = 0) -> Slot:
        """Leave to send one call, as an async context manager; what the call comes to must be reported to it.

        Args:
            tokens: Estimate of what the call will take, prompt and answer together.

        Raises:
            ModelError: On entering: the endpoint has answered nobody for `Limits.max_pause_s`, or asks for a longer pause.
        """
        return Slot(self, tokens)

    async def call(self, send: Callable[[Slot], Awaitable[T]], *, tokens: int = 0) -> T:
        """Send one request until it is answered, as often as may help.

        Args:
            send: Makes one attempt: returns the answer, or raises `AttemptError` for what may pass.
            tokens: Estimate of what the call will take.

        Raises:
            ModelError: The retries are used up, or the endpoint answers nobody; or whatever else `send` raises.
        """
        attempts, charged, busy, busy_since, previous = 0, 0, 0, math.inf, -math.inf
        while True:
            async with self.slot(tokens) as slot:
                try:
                    answer = await send(slot)
                    slot.succeeded()
                    return answer
                except AttemptError as exc:
                    slot.failed(exc.reason, exc.status, exc.headers)
                    failure = exc
                except ModelError:
                    slot.refused()
                    raise
            attempts += 1
            if failure.status in BUSY:
                busy += 1
                busy_since = min(busy_since, slot.started)
                if (waited := self._now() - busy_since) >= self.limits.max_pause_s and busy > self.limits.retries:
                    raise ModelError(f"{self.name} was too busy for one request for {span(waited)}, the last time: {failure.reason}; {AGAIN}") from failure
                if not self._endpoint.paused(self._now()):  # a pause holds all up; otherwise this request alone waits
                    await asyncio.sleep(backoff_s(busy - 1, self._rng))
                continue
            others_answered = self._endpoint.succeeded_at >= previous
            charged += others_answered or self._endpoint.succeeded_at == -math.inf
            if charged > self.limits.retries:
                raise ModelError(f"{self.name} gave no usable answer in {attempts} attempts; the last one: {failure.reason}") from failure
            previous = slot.started
            await asyncio.sleep(backoff_s(attempts - 1, self._rng) + self._spend_retry())

    @property
    def state(self) -> State:
        """How the flow is doing at this moment; cheap enough to ask for several times a second."""
        kind, message = self._describe(self._now())
        return State(kind, message, len(self._held), self._endpoint.concurrency, len(self._queue))

    def _now(self) -> float:
        return self._loop.time() if self._loop else 0.0

    def _enter(self, slot: Slot) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # a run of its own, under asyncio.run: what the last one has left behind is dead
            self._loop, self._timer, self._watch = loop, None, None
            self._queue.clear()
            self._held.clear()
        now = loop.time()
        if not self._held and not self._queue and now - self._active_at > _FORGET_S:
            self._endpoint.forget_outage()
        self._active_at = now
        self._queue[slot] = None
        self._pump(now)

    def _leave(self, slot: Slot, *, sent: bool) -> None:
        """A slot is given back, or its waiter was cancelled: while it waited, or after it was let through unawares."""
        now = self._active_at = self._now()
        self._queue.pop(slot, None)
        if slot in self._held:
            self._held.discard(slot)
            if sent:
                self._ended_at = now
                self._endpoint.end(slot._call, now)
            else:
                self._endpoint.take_back(slot._call, now)
        self._pump(now)

    def _pump(self, now: float) -> None:
        """Let through whoever may go, in order; see to it that the next one is thought of when the time comes."""
        if not self._loop or self._loop.is_closed():
            return
        at = math.inf  # when to look again: by default when a call has ended
        while self._queue:
            slot = next(iter(self._queue))
            ready_at = self._endpoint.ready_at(slot._call.tokens)
            if ready_at > now + _TICK_S:
                at = ready_at
                break
            if len(self._held) >= self._endpoint.concurrency:
                self._endpoint.want_more()
                break
            del self._queue[slot]
            self._grant(slot, now, self._loop)
        self._next_at = at
        if self._queue and (refusal := self._given_up(now)):
            waiting, self._active_at = list(self._queue), now
            self._queue.clear()
            for slot in waiting:
                slot._decide(refusal)
        if self._endpoint.give_up_at > now:
            at = min(at, self._endpoint.give_up_at)
        self._arm(at if self._queue else math.inf, self._loop)

    def _arm(self, at: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer and self._timer_at != at:
            self._timer.cancel()
            self._timer = None
        if not self._timer and at < math.inf:
            self._timer, self._timer_at = loop.call_at(at, self._on_timer), at

    def _on_timer(self) -> None:
        self._timer = None
        self._pump(self._now())

    def _grant(self, slot: Slot, now: float, loop: asyncio.AbstractEventLoop) -> None:
        if not self._held:
            self._ended_at = now
        self._held.add(slot)
        self._endpoint.send(slot._call, len(self._held), now)
        if not self._watch:
            self._watch = loop.call_at(now + self._stall_s, self._on_watch)
        slot._decide()

    def _succeeded(self, call: Call, headers: Mapping[str, str]) -> None:
        self._spare_retries = min(_SPARE_RETRIES, self._spare_retries + 1)
        self._endpoint.succeeded(call, headers, self._now())

    def _spend_retry(self) -> float:
        """Seconds that a retry waits because there have been too many of them for the successes there were."""
        now = self._now()
        self._spare_retries = min(_SPARE_RETRIES, self._spare_retries + now - max(self._spare_at, now - _SPARE_RETRIES)) - 1
        self._spare_at = now
        return min(_SPREAD_S, max(0.0, -self._spare_retries))

    @property
    def _stall_s(self) -> float:
        return _STALL * self.limits.timeout_s

    def _on_watch(self) -> None:
        now, self._watch = self._now(), None
        if not self._held or not self._loop:
            return
        stalled = now - self._ended_at >= self._stall_s
        self._watch = self._loop.call_at((now if stalled else self._ended_at) + self._stall_s, self._on_watch)
        if stalled:
            self._pump(now)
            if self._on_stall:
                self._on_stall()

    def _given_up(self, now: float) -> str:
        """Why nobody need wait any longer; empty if that is not so."""
        if self._held and now - self._ended_at >= self.limits.max_pause_s + self._stall_s:
            return f"{self.name}: {self._stall(now)}; {AGAIN}"
        return self._endpoint.given_up(now)

    def _stall(self, now: float) -> str:
        return f"{len(self._held)} calls in flight, and none has ended for {span(now - self._ended_at)}"

    def _describe(self, now: float) -> tuple[Kind, str]:
        if self._held and now - self._ended_at >= self._stall_s:
            return "stalled", f"{self.name}: {self._stall(now)}"
        if trouble := self._endpoint.trouble(len(self._held), now):
            return trouble
        if now + 1 < self._next_at < math.inf:
            return "limited", f"{self.name}: next call in {span(self._next_at - now)}, to keep to the rate limit"
        return "flowing", ""
