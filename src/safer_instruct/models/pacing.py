"""The arithmetic of `flow`: rates given, told and learned, and the number of calls worth having in flight.

No clocks and no waiting in here: every method is told what time it is, in seconds of any monotonic clock.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

from safer_instruct.models.ratelimits import Allowance

_START = 8  # calls in flight at first, or an eighth of the most
_SATURATED = 0.8  # twice the concurrency that makes answers 2 ** 0.8 = 1.7 times slower brings a sixth more of them
_SATURATED_FOR_S = 300.0
_QUICK_S = 0.5  # answers that come sooner have no queue worth avoiding; what slows them may be this program itself
_TOLD_FOR_S = 60.0  # headers may hold calls up no longer than this; a `Retry-After` may
_HEARD_AT_ONCE = 8  # rejections that count, of those of calls which were on their way together
_BREAK_AFTER = (10, 60.0)  # failures in a row, and seconds since the first of them
_PROBE_S = (5.0, 60.0)  # waits between tries in an outage: first and longest
_EARLY_S = 0.1  # timers are no more exact than that
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

    def hold(self, until: float) -> None:
        """Do not rise before then."""
        self._hold_until = max(self._hold_until, until)

    def take(self, now: float) -> None:
        """Send a call."""
        if self._next_at > now - 0.01 and now >= self._hold_until:  # it waited for this rate and nothing else
            self._calls += 1
            eager = self._calls > 20 and now - self._clean_since > 2 * _MINUTE
            self.per_s *= 1 + (10 if eager else 1) * min(0.0025, 0.2 / self.per_s)
        self._next_at = max(self._next_at, now) + 1 / self.per_s

    def rejected(self, started: float, now: float, *, floor: float, costly: bool = False) -> None:
        """A call sent at `started` was rejected, so the rate falls, but not below `floor`.

        Calls sent before the first rejection was heard of can lower it by a third at most, however many they are. Where a
        rejection is followed by a long pause (`costly`), one of them lowers it by a quarter.
        """
        if started >= self._heard_at:
            self._heard_at, self._heard = now, 0
        self._heard += 1
        if self._heard <= (1 if costly else _HEARD_AT_ONCE):
            self.per_s = max((0.75 if costly else 0.95) * self.per_s, min(floor, self.per_s))
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


class Window:
    """How many calls to have in flight: additive increase, proportional decrease, as in DCTCP (RFC 8257).

    Slow start: 8 or an eighth of `most` at first, and one more for each success, so twice as many after each round trip,
    until the first failure or until that makes answers slower instead of more. Then less than one more per round trip, the
    longer without a failure the more. A failure takes half a place away: a round trip of nothing but failures halves the
    size, one with few of them lowers it by little.
    """

    def __init__(self, most: int) -> None:
        self._most, self._size = most, float(min(most, max(_START, most // 8)))
        self._cap, self._capped_until = most, math.inf
        self._threshold = math.inf  # below it, slow start
        self._wanted = self._failing = False
        self._successes = 0  # since the last failure
        self._cohorts: dict[int, Cohort] = {}  # by level: the bits of the number in flight
        self._measured: dict[int, Cohort] = {}

    @property
    def size(self) -> int:
        """How many calls may be in flight."""
        return int(self._size)

    def want_more(self) -> None:
        """A call waits for nothing else; the size rises only where that is so."""
        self._wanted = True

    def sent(self, in_flight: int) -> Cohort:
        """A call goes out as one of so many; `ended` must be told when it has ended."""
        level = in_flight.bit_length()
        cohort = self._cohorts.get(level)
        if cohort is None or cohort.sent == cohort.full:
            cohort = self._cohorts[level] = Cohort(level)
        cohort.sent += 1
        cohort.in_flight += in_flight
        return cohort

    def ended(self, cohort: Cohort, latency_s: float | None, now: float) -> None:
        """A call is no longer in flight; it took so long if it succeeded."""
        cohort.ended += 1
        if latency_s is not None:
            cohort.answers, cohort.seconds = cohort.answers + 1, cohort.seconds + latency_s
        if cohort.ended == cohort.full and cohort.answers > cohort.full // 2:
            self._compare(cohort, now)

    def succeeded(self) -> None:
        """A call has succeeded."""
        self._failing = False
        if self._wanted:
            self._wanted, self._successes = False, self._successes + 1
            rise = max(min(0.5, self._size / 8), self._size / 64) / self._size * (1 + self._successes / self._size)
            self._size = min(self._cap, self._size + (1 if self._size < self._threshold else rise))

    def failed(self, *, rise_slowly: bool = True) -> None:
        """A call found the endpoint overloaded; without `rise_slowly` a slow start goes on."""
        self._successes = 0
        if rise_slowly and not self._failing:
            self._failing, self._threshold = True, min(0.9 * self._size, self._size - 1)
        self._size = max(1.0, self._size - 0.5)

    def _compare(self, cohort: Cohort, now: float) -> None:
        """Stop rising where more calls in flight only make a longer queue; after five minutes look again, from below."""
        if now >= self._capped_until:
            self._size, self._cap, self._capped_until = max(1.0, self._size / 2), self._most, math.inf
            self._measured.clear()
        cohort.measured_at, self._measured[cohort.level] = now, cohort
        below = self._measured.get(cohort.level - 1)
        if below is None or cohort.level < 5 or cohort.latency_s < _QUICK_S or self._capped_until < math.inf:
            return
        if now - below.measured_at > 60 + 4 * cohort.latency_s:
            return
        ratio = (cohort.in_flight / cohort.full) / (below.in_flight / below.full)
        if ratio > 1.5 and cohort.latency_s > below.latency_s * ratio**_SATURATED:
            self._cap, self._capped_until = 2 ** (cohort.level - 1), now + _SATURATED_FOR_S
            self._size = min(self._size, self._cap)


class Cohort:
    """Calls that went out in a row while about as many were in flight; all must have ended, or the quick ones would count alone."""

    __slots__ = ("answers", "ended", "full", "in_flight", "level", "measured_at", "seconds", "sent")

    def __init__(self, level: int) -> None:
        self.level, self.full = level, min(64, 2**level)
        self.sent = self.ended = self.answers = self.in_flight = 0
        self.seconds = self.measured_at = 0.0

    @property
    def latency_s(self) -> float:
        """How long an answer took, on average."""
        return self.seconds / self.answers


class Outage:
    """Failures with no success in between, and, once they are many and last long, when to try again: a circuit breaker.

    Attributes:
        failures: How many in a row.
        since: When the first of them was.
        reason: What the last of them was.
        broken: Whether calls are held up, but for a try now and then.
        next_try: When the next one may go out.
    """

    def __init__(self) -> None:
        self.end()

    def end(self) -> None:
        """The endpoint has answered."""
        self.failures, self.since, self.reason = 0, math.inf, ""
        self.broken, self.next_try, self._wait_s = False, -math.inf, _PROBE_S[0]

    def fail(self, reason: str, started: float, now: float, jitter: float) -> None:
        """A call sent at `started` has failed; `jitter` is a factor on the wait for the next try."""
        self.failures, self.since, self.reason = self.failures + 1, min(self.since, now), reason
        many = self.failures >= _BREAK_AFTER[0] and now - self.since >= _BREAK_AFTER[1]
        if many and (not self.broken or started >= self.next_try - _EARLY_S):
            self.broken, self.next_try = True, now + self._wait_s * jitter
            self._wait_s = min(2 * self._wait_s, _PROBE_S[1])
