"""How many calls a minute: rates that are given, told and learned.

No clocks and no waiting in here: every method is told what time it is, in seconds of any monotonic clock.
"""

from __future__ import annotations

import math
import random
from collections import deque
from typing import Protocol

from safer_instruct.models.ratelimits import Allowance

_TOLD_FOR_S = 60.0  # headers may hold calls up no longer than this; a `Retry-After` may
_HEARD_AT_ONCE = 8  # rejections that count, of those of calls which were on their way together
_MINUTE = 60
_MARGIN = 0.99  # of a limit is used: the network does not keep the distance between calls


class Rate(Protocol):
    """A limit of requests or tokens in a time."""

    def ready_at(self, units: float) -> float:
        """When `units` may be taken."""

    def take(self, units: float, now: float) -> None:
        """Take units, or give some back where `units` is negative."""


class Pace:
    """So many units a second and at most `burst` at once, evenly (the generic cell rate algorithm, ITU-T I.371)."""

    __slots__ = ("_full_at", "burst", "per_s")

    def __init__(self, per_s: float, burst: float, full_at: float = -math.inf) -> None:
        self.per_s, self.burst = per_s, burst
        self._full_at = full_at  # when all of `burst` could be taken again

    @classmethod
    def per_minute(cls, limit: float) -> Pace:
        """No minute, wherever it begins, holds more than `limit`; no moment more than a second's share of it."""
        burst = max(1.0, limit / _MINUTE)
        return cls(_MARGIN * (limit - burst + 1 if limit > 1 else limit) / _MINUTE, burst)

    def ready_at(self, units: float) -> float:
        """When `units` may be taken; more than `burst` may when all of it could, and those after them wait the longer."""
        return self._full_at - (self.burst - min(units, self.burst)) / self.per_s

    def take(self, units: float, now: float) -> None:
        """Take units, or give some back where `units` is negative."""
        self._full_at = (max(self._full_at, now) if units > 0 else self._full_at) + units / self.per_s


class Told:
    """What the endpoint's headers last said of one limit, and what has been taken since."""

    __slots__ = ("_pace", "_serial", "_until")

    def __init__(self) -> None:
        self._pace: Pace | None = None
        self._serial, self._until = -1, -math.inf

    def hear(self, allowance: Allowance, *, serial: int, taken_since: float, started: float, now: float) -> None:
        """Take over what the answer to call number `serial` says, unless a later call has said something.

        An endpoint counts when a call comes in. What was taken after that is still to be deducted, and what has flowed back
        since is to be added; where it counts when it answers, the two cancel out in the long run.
        """
        if serial < self._serial:
            return
        limit, remaining = allowance.limit, allowance.remaining
        self._serial, self._pace = serial, None
        self._until = now + min(allowance.reset_s, _TOLD_FOR_S)
        if limit is None and remaining < 1:
            self._pace = Pace(1e-9, 1.0, math.inf)  # nothing until the reset
        elif limit is not None and limit > remaining and allowance.reset_s > 0:
            per_s = (limit - remaining) / allowance.reset_s
            level = min(limit, remaining - taken_since + per_s * (now - started))
            self._pace = Pace(per_s, limit, now + (limit - level) / per_s)

    def ready_at(self, units: float) -> float:
        """When `units` may be taken."""
        return min(self._until, self._pace.ready_at(units)) if self._pace else -math.inf

    def take(self, units: float, now: float) -> None:
        """Take units, or give some back."""
        if self._pace:
            self._pace.take(units, now)


class Learned:
    """The rate at which an endpoint accepts calls, learned from those that it rejects.

    Each call lets it rise by a quarter of a percent, each rejection lowers it by a twentieth. So it settles where about one
    call in twenty is rejected, whether that rate is three a minute or a thousand a second.
    """

    __slots__ = ("_calls", "_clean_since", "_heard", "_heard_at", "_hold_until", "_next_at", "per_s")

    def __init__(self, per_s: float, now: float) -> None:
        self.per_s, self._next_at, self._hold_until = per_s, now, now
        self._heard_at, self._heard = now, _HEARD_AT_ONCE  # calls sent before now say nothing of this rate
        self._clean_since, self._calls = now, 0

    def ready_at(self) -> float:
        """When a call may be sent."""
        return self._next_at

    def scale(self, factor: float, now: float) -> None:
        """Take over a part of the rate that is so many times as large, for the call that waits as well."""
        self.per_s *= factor
        self._next_at = now + (self._next_at - now) / factor if self._next_at > now else self._next_at

    def spread(self, pause_until: float, rng: random.Random) -> None:
        """Do not send the first call after a pause when all others send theirs."""
        if self._next_at <= pause_until:
            self._next_at = pause_until + rng.random() / self.per_s

    def hold(self, until: float) -> None:
        """Do not rise before then."""
        self._hold_until = max(self._hold_until, until)

    def take(self, now: float, *, eager: bool = False) -> None:
        """Send a call; `eager` where rejections are known not to speak of a rate."""
        if self._next_at > now - 0.01 and (eager or now >= self._hold_until):  # it waited for this rate and nothing else
            self._calls += 1
            eager = eager or (self._calls > 20 and now - self._clean_since > 2 * _MINUTE)
            self.per_s *= 1 + (10 if eager else 1) * min(0.0025, 0.2 / self.per_s)
        self._next_at = max(self._next_at, now) + 1 / self.per_s

    def rejected(self, started: float, now: float, *, floor: float, costly: bool = False, held: bool = True) -> None:
        """A call sent at `started` was rejected, so the rate falls, but not below `floor`.

        Calls sent before the first rejection was heard of can lower it by a third at most, however many they are. Where a
        rejection asks for a long wait (`costly`), only one of them counts, and
        for a quarter where it holds all up (`held`).
        """
        if started >= self._heard_at:
            self._heard_at, self._heard = now, 0
        self._heard += 1
        if self._heard <= (1 if costly else _HEARD_AT_ONCE):
            self.per_s = max((0.75 if costly and held else 0.95) * self.per_s, min(floor, self.per_s))
        self._clean_since, self._calls = now, 0


class LastMinute:
    """How many calls were sent in the last minute, and how many of them met an endpoint that was too busy.

    Attributes:
        best_per_s: Most calls accepted in any minute that ended with a rejection, by the second.
    """

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque()  # [second, sent, rejected]
        self._sent = self._rejected = 0
        self._began = self.best_per_s = 0.0

    def send(self, now: float, calls: int = 1) -> None:
        """Count a call, or take one back."""
        self._at(now)[1] += calls
        self._sent += calls

    def reject(self, now: float) -> None:
        """Count a rejection."""
        self._at(now)[2] += 1
        self._rejected += 1
        self.best_per_s = max(self.best_per_s, (self._sent - self._rejected) / _MINUTE)

    def accepted_per_s(self, now: float) -> float:
        """Calls not rejected, over the last minute or since the first call after a minute of none."""
        self._forget(now)
        return max(0, self._sent - self._rejected) / min(_MINUTE, max(1.0, now - self._began))

    def peak_per_s(self) -> float:
        """Most calls in any one second that were not rejected in it, 1 at least."""
        return max([1, *(sent - rejected for _, sent, rejected in self._seconds)])

    def _at(self, now: float) -> list[int]:
        if self._seconds and self._seconds[-1][0] == int(now):
            return self._seconds[-1]
        self._forget(now)
        if not self._seconds:
            self._began = now
        self._seconds.append([int(now), 0, 0])
        return self._seconds[-1]

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] <= now - _MINUTE:
            _, sent, rejected = self._seconds.popleft()
            self._sent -= sent
            self._rejected -= rejected
