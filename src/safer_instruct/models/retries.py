"""Whether one request is tried again after a failed attempt, and after what wait."""

from __future__ import annotations

import math
from collections.abc import Mapping

from safer_instruct.errors import ModelError
from safer_instruct.models.calls import AGAIN, BUSY, NO_HEADERS, backoff_s, span
from safer_instruct.models.gate import Gate
from safer_instruct.models.ratelimits import lowered, retry_after_s

_USUAL = 0.02  # of first attempts fail: up to here, each failure counts in full
_LONGEST_ALONE_S = 60.0  # most that one request waits at a time because its own answer asks for it


class AttemptError(ModelError):
    """One attempt failed and another may succeed; flow control lets it out only as the cause of a `ModelError`."""

    def __init__(self, reason: str, status: int | None = None, headers: Mapping[str, str] = NO_HEADERS) -> None:
        super().__init__(reason)
        self.reason, self.status, self.headers = reason, status, headers


class Retries:
    """What one request has met so far.

    Failures count by how unlikely they are. Where a share f of all requests fails at first, one that can be answered fails k
    times in a row with probability f^k; it is given up where that falls below 0.02^(retries + 1), which is 1 in 10^12 for six
    retries. So a failure counts log f / log 0.02, and in full where fewer fail: a request that alone fails each time ends
    after `retries` more attempts, and no answerable one ends where many do.
    """

    def __init__(self) -> None:
        self._attempts = self._busy = 0
        self._charged = self._backed_off = 0.0
        self._busy_since = math.inf
        self._previous = -math.inf  # when the last attempt that counted began
        self._names: dict[str, None] = {}  # of the endpoints that failed, in order

    def wait_s(self, gate: Gate, started: float, failure: AttemptError, now: float, *, elsewhere: bool) -> float:
        """Seconds until the next attempt.

        Args:
            gate: Where the last attempt failed.
            started: When it went out.
            failure: How it failed.
            now: The time.
            elsewhere: Whether another endpoint can take the next attempt.

        Raises:
            ModelError: There is none.
        """
        self._attempts += 1
        self._names[gate.name] = None
        if failure.status in BUSY:
            return self._when_busy(gate, started, failure, now)
        answers_others = gate.endpoint.succeeded_at >= self._previous
        charge = min(1.0, math.log(gate.failing_share) / math.log(_USUAL)) if gate.failing_share else 1.0
        if answers_others or (gate.endpoint.succeeded_at == -math.inf and not ((failure.status is None or failure.status < 300) and gate.endpoint.awaited)):
            self._charged += charge
        if self._charged > gate.limits.retries:
            names = " and ".join(self._names)
            never_reached = failure.status is None and gate.endpoint.succeeded_at == -math.inf
            check = "check that it is up and that its address is right; " if never_reached else ""
            raise ModelError(f"{names} gave no usable answer in {self._attempts} attempts; the last one: {failure.reason}; {check}{AGAIN}") from failure
        self._previous = started
        wait_s = backoff_s(self._backed_off, gate.rng)
        self._backed_off += charge if answers_others else 1
        return wait_s + (0.0 if elsewhere else gate.spend_retry(now))

    def _when_busy(self, gate: Gate, started: float, failure: AttemptError, now: float) -> float:
        self._busy += 1
        self._busy_since = min(self._busy_since, started)
        waited_s = now - self._busy_since
        if waited_s >= gate.limits.max_pause_s and self._busy > gate.limits.retries:
            names = " and ".join(self._names)
            raise ModelError(f"{names}: too busy for one request for {span(waited_s)}, the last time: {failure.reason}; {AGAIN}") from failure
        if gate.endpoint.paused(now):
            return 0.0  # a pause holds all up; otherwise this request alone waits
        asked_s = min(_LONGEST_ALONE_S, retry_after_s(lowered(failure.headers)) or 0.0)
        return max(asked_s, backoff_s(self._busy - 1, gate.rng))
