"""Whether one request is tried again after a failed attempt, and after what wait."""

from __future__ import annotations

import math
from collections.abc import Mapping

from safer_instruct.errors import ModelError
from safer_instruct.models.endpoint import AGAIN, BUSY, backoff_s, span
from safer_instruct.models.gate import Gate

_NO_HEADERS: Mapping[str, str] = {}


class AttemptError(ModelError):
    """One attempt failed and another may succeed; flow control lets it out only as the cause of a `ModelError`."""

    def __init__(self, reason: str, status: int | None = None, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        super().__init__(reason)
        self.reason, self.status, self.headers = reason, status, headers


class Retries:
    """What one request has met so far."""

    def __init__(self) -> None:
        self._attempts = self._charged = self._busy = 0
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
        self._charged += answers_others or gate.endpoint.succeeded_at == -math.inf
        if self._charged > gate.limits.retries:
            names = " and ".join(self._names)
            raise ModelError(f"{names} gave no usable answer in {self._attempts} attempts; the last one: {failure.reason}") from failure
        self._previous = started
        return backoff_s(self._attempts - 1, gate.rng) + (0.0 if elsewhere else gate.spend_retry(now))

    def _when_busy(self, gate: Gate, started: float, failure: AttemptError, now: float) -> float:
        self._busy += 1
        self._busy_since = min(self._busy_since, started)
        waited_s = now - self._busy_since
        if waited_s >= gate.limits.max_pause_s and self._busy > gate.limits.retries:
            names = " and ".join(self._names)
            raise ModelError(f"{names}: too busy for one request for {span(waited_s)}, the last time: {failure.reason}; {AGAIN}") from failure
        # a pause holds all up; otherwise this request alone waits
        return 0.0 if gate.endpoint.paused(now) else backoff_s(self._busy - 1, gate.rng)
