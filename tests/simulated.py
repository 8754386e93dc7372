"""An event loop whose time is simulated, and servers that live in it: hours pass in milliseconds, and every run is the same.

    simulated.run(main())        # asyncio.run, but waiting takes no time

A program that waits for something that can never happen is a `Hang` at once, and so is one that runs in circles.
"""

from __future__ import annotations

import asyncio
import math
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from safer_instruct.models.flow import AttemptError, Flow, Slot, can_pass

T = TypeVar("T")

_HANG_S = 5.0  # no answer
_ROUNDS_AT_ONCE = 100_000  # of the loop, without time going on


class Hang(BaseException):
    """Nothing will ever happen again; no `except Exception` swallows it."""


class Loop(asyncio.SelectorEventLoop):
    """An event loop that jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        """Seconds since some moment, as always."""
        return self.now


class _Jump(selectors.SelectSelector):
    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop, self._rounds = loop, 0

    def select(self, timeout: float | None = None) -> list[Any]:
        self._rounds = 0 if timeout else self._rounds + 1
        if timeout is None or self._rounds > _ROUNDS_AT_ONCE:
            raise Hang("nothing is scheduled, and the program still waits" if timeout is None else "the program runs in circles")
        self._loop.now += max(0.0, timeout)
        return []


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in simulated time."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(main)


def now() -> float:
    """The simulated time."""
    return asyncio.get_running_loop().time()


class Limiter(Protocol):
    """How a server counts."""

    def admit(self, t: float) -> bool:
        """Whether a call at this time is within the limit; if so it counts."""

    def wait_s(self, t: float) -> float:
        """Seconds until the next one will be."""


class Sliding:
    """So many in any 60 seconds."""

    def __init__(self, limit: int) -> None:
        self._limit, self._taken = limit, deque[float]()

    def admit(self, t: float) -> bool:
        while self._taken and self._taken[0] <= t - 60:
            self._taken.popleft()
        if len(self._taken) >= self._limit:
            return False
        self._taken.append(t)
        return True

    def wait_s(self, t: float) -> float:
        return self._taken[0] + 60 - t


class Fixed:
    """So many in each minute of the clock."""

    def __init__(self, limit: int) -> None:
        self._limit, self._minute, self._count = limit, -1.0, 0

    def admit(self, t: float) -> bool:
        if t // 60 != self._minute:
            self._minute, self._count = t // 60, 0
        self._count += self._count < self._limit
        return self._count < self._limit

    def wait_s(self, t: float) -> float:
        return 60 - t % 60


class Bucket:
    """A bucket that fills evenly."""

    def __init__(self, per_s: float, size: float) -> None:
        self.per_s, self.size, self.level, self._at = per_s, size, size, 0.0

    def admit(self, t: float) -> bool:
        self.fill(t)
        if self.level < 1:
            return False
        self.level -= 1
        return True

    def fill(self, t: float) -> None:
        self.level, self._at = min(self.size, self.level + (t - self._at) * self.per_s), t

    def wait_s(self, t: float) -> float:
        return (1 - self.level) / self.per_s


class Server:
    """A server with limits: what they reject is answered quickly, everything else takes its time.

    By chance calls fail, too, with this probability for each status (None: no answer), whatever their rate.

    Attributes:
        answered: When good answers were sent.
        rejected: When rejections were.
    """

    def __init__(
        self,
        limiter: Limiter | None = None,
        *,
        concurrency: float = math.inf,
        latency_s: Callable[[int, random.Random], float] = lambda in_flight, rng: rng.uniform(0.5, 1.5),
        status: int = 429,
        retry_after: bool = False,
        headers: Callable[[float], dict[str, str]] = lambda t: {},
        chance: Mapping[int | None, float] | None = None,
        chance_retry_after: Sequence[str] = (),
    ) -> None:
        self._limiter, self._concurrency, self._latency_s, self._status = limiter, concurrency, latency_s, status
        self._retry_after, self._headers, self._rng = retry_after, headers, random.Random(7)
        self._chance, self._chance_retry_after, self._dice = dict(chance or {}), chance_retry_after, random.Random(5)
        self._in_flight = 0
        self.answered: list[float] = []
        self.rejected: list[float] = []

    async def ask(self) -> tuple[int | None, dict[str, str]]:
        """One call: status and headers."""
        await asyncio.sleep(0.02)
        (status,) = self._dice.choices([*self._chance, 200], [*self._chance.values(), 1 - sum(self._chance.values())])
        if status != 200:
            await asyncio.sleep(_HANG_S if status is None else 0.05)
            told = status == 429 and self._chance_retry_after
            return status, {"Retry-After": self._dice.choice(self._chance_retry_after)} if told else {}
        if self._in_flight >= self._concurrency or (self._limiter and not self._limiter.admit(now())):
            self.rejected.append(now())
            hint = {"Retry-After": str(math.ceil(self._limiter.wait_s(now())))} if self._retry_after and self._limiter else {}
            await asyncio.sleep(0.05)
            return self._status, {**hint, **self._headers(now())}
        headers = self._headers(now())
        self._in_flight += 1
        try:
            await asyncio.sleep(self._latency_s(self._in_flight, self._rng))
        finally:
            self._in_flight -= 1
        self.answered.append(now())
        return 200, headers

    @property
    def share_rejected(self) -> float:
        """Of all calls."""
        return len(self.rejected) / max(1, len(self.rejected) + len(self.answered))


async def drive(flow: Flow, server: Server, seconds: float, *, workers: int | None = None) -> None:
    """Ask `server` through `flow` with all its might for so long."""

    async def send(slot: Slot) -> None:
        status, headers = await server.ask()
        if status is None or can_pass(status):
            raise AttemptError(f"HTTP {status}", status, headers)
        slot.succeeded(headers)

    async def work() -> None:
        while True:
            await flow.call(send)

    tasks = [asyncio.create_task(work()) for _ in range(workers or 4 * flow.limits.concurrency)]
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    await stop(tasks)
    for task in done:
        task.result()


async def stop(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and see them end."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
