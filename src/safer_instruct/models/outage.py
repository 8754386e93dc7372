"""What holds all calls up: an endpoint that is too busy for the moment, or one that is out of order.

No clocks in here: every method is told what time it is, in seconds of any monotonic clock.
"""

from __future__ import annotations

import math
import random

from safer_instruct.models.calls import backoff_s

_BREAK_AFTER, BREAK_AFTER_S = 10, 60.0  # failures in a row, and seconds since the first of them
_PROBE_S = (5.0, 60.0)  # waits between tries in an outage: first and longest
_EARLY_S = 0.1  # timers are no more exact than that
_PAUSE_S = 8.0  # most that is waited for an endpoint that takes no calls at present and does not say for how long
_REOPENED_S = 5.0  # calls went out for so long before one was rejected: this is another pause, not the same one still


class Pause:
    """A time in which no call goes out: as long as the endpoint asks, or a wait that grows while no later call succeeds.

    Attributes:
        until: When it ends, or ended.
        in_a_row: How many there were without a call accepted that went out after the last but one.
    """

    def __init__(self, longest_s: float) -> None:
        self.until, self.in_a_row, self._longest_s = -math.inf, 0, min(_PAUSE_S, longest_s)
        self._last, self._last_but_one = -math.inf, -math.inf  # when they began
        self._asked_until = -math.inf  # by the endpoint, as far as nobody was told of it

    def accepted(self, started: float) -> None:
        """A call sent at `started` has succeeded."""
        if started > self._last:
            self.in_a_row = 0
        elif started > self._last_but_one:
            self.in_a_row = min(self.in_a_row, 1)

    def begin(self, started: float, now: float, asked_s: float, rng: random.Random) -> None:
        """A call sent at `started` was told to wait so long, 0 where that was not said: hold all up."""
        own_s = 0.0
        if started > self._last:  # otherwise it was sent before the last pause: no news
            if started > self.until + _REOPENED_S:
                self.in_a_row = 0
            own_s = min(self._longest_s, backoff_s(self.in_a_row, rng))
            self._last_but_one, self._last, self.in_a_row = self._last, now, self.in_a_row + 1
        self.until = max(self.until, now + max(own_s, asked_s))
        self._asked_until = now + asked_s if asked_s else self._asked_until

    def news_s(self, now: float) -> float:
        """Seconds that the endpoint has asked for and other callers do not know of yet; they are told once."""
        left_s, self._asked_until = max(0.0, self._asked_until - now), -math.inf
        return left_s


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
        many = self.failures >= _BREAK_AFTER and now - self.since >= BREAK_AFTER_S
        if many and (not self.broken or started >= self.next_try - _EARLY_S):
            self.broken, self.next_try = True, now + self._wait_s * jitter
            self._wait_s = min(2 * self._wait_s, _PROBE_S[1])
