"""How many calls to have in flight.

No clocks in here: every method is told what time it is, in seconds of any monotonic clock.
"""

from __future__ import annotations

import math

_START = 8  # calls in flight at first, or an eighth of the most
_SATURATED = 0.8  # twice the concurrency that makes answers 2 ** 0.8 = 1.7 times slower brings a sixth more of them
_SATURATED_FOR_S = 300.0
_QUICK_S = 0.5  # answers that come sooner have no queue worth avoiding; what slows them may be this program itself


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

    def go_up_to(self, size: float, *, freely: bool) -> None:
        """Fewer in flight had as many failures, or it is to be seen whether they have; `freely`: rise on as at the start."""
        self._size = max(self._size, min(size, self._cap))
        if freely:
            self._threshold = math.inf

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
