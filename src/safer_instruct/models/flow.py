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
        slot.succeeded(response.headers)     # names in lower case; what they tell of limits is heeded
        slot.used(response.total_tokens)     # corrects the estimate below
        return response.answer

    answer = await flow.call(send, tokens=estimated_tokens)

`flow.state.message` says what a run waits for, in words to show. What is decided here, and why:

- **Concurrency** starts at 8, or an eighth of the most: two or three round trips from all of it. Every success adds one
  until the first trouble, or until more calls in flight only make answers slower; later less than one per round
  trip. Every HTTP 503, 529, 502, 504 or timeout takes half a place away: a round trip of nothing else halves it.
- **HTTP 429 speaks of a rate**, so a rate is learned from it, which rises a little with each call and falls with each
  rejection. Concurrency alone would swing between half of the rate and too much of it. It falls only where it was full.
- **Failures by chance lower nothing** (`chance`): what fewer calls did not avoid does not count, and they become more again.
- **A pause is for all** where most answers say so: after `Retry-After`, or with growing waits where none is named.
- **Being told to wait is no failed attempt** (429, 503, 529), nor is an outage: neither uses up the retries of the request
  that happened to meet it. Both are bounded by time, `Limits.max_pause_s`.
- **Time is the event loop's** (`loop.time()`, monotonic): a wall clock set anew changes nothing, and tests bring their own loop.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from safer_instruct.models.calls import Limits, can_pass
from safer_instruct.models.dispatch import Dispatcher, Slot
from safer_instruct.models.gate import Gate, State
from safer_instruct.models.retries import AttemptError
from safer_instruct.models.sharing import Lesson, Lot

__all__ = ["AttemptError", "Flow", "Limits", "Slot", "State", "can_pass"]

T = TypeVar("T")


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
        self.gate = Gate(name, self.limits, on_stall, rng or random.Random())
        self.dispatcher = Dispatcher([self.gate])

    def slot(self, tokens: int = 0) -> Slot:
        """Leave to send one call, as an async context manager; what the call comes to must be reported to it.

        Args:
            tokens: Estimate of what the call will take, prompt and answer together.

        Raises:
            ModelError: On entering: the endpoint has answered nobody for `Limits.max_pause_s`, or asks for a longer pause.
        """
        return Slot(self.dispatcher, tokens)

    async def call(self, send: Callable[[Slot], Awaitable[T]], *, tokens: int = 0) -> T:
        """Send one request until it is answered, as often as may help.

        Args:
            send: Makes one attempt: returns the answer, or raises `AttemptError` for what may pass.
            tokens: Estimate of what the call will take.

        Raises:
            ModelError: The retries are used up, or the endpoint answers nobody; or whatever else `send` raises.
        """
        return await self.dispatcher.call(lambda index, slot: send(slot), tokens)

    def lesson(self) -> Lesson:
        """What callers of the same endpoint in other processes are to know."""
        return self.gate.endpoint.lesson(len(self.gate.held) + self.dispatcher.waiting, asyncio.get_running_loop().time())

    def heed(self, lot: Lot) -> None:
        """Keep to what came of it."""
        self.gate.endpoint.heed(lot, asyncio.get_running_loop().time())
        self.dispatcher.look()

    @property
    def state(self) -> State:
        """How the flow is doing at this moment; cheap enough to ask for several times a second."""
        return self.gate.state(self.dispatcher.now(), self.dispatcher.waiting, self.dispatcher.ready_at(self.gate))
