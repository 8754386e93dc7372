"""What the parts of flow control share: the limits that hold, a call, how long to wait, and the words for it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from safer_instruct.errors import ConfigError
from safer_instruct.models.chance import Trial
from safer_instruct.models.ratelimits import lowered
from safer_instruct.models.window import Cohort

BUSY = (429, 503, 529)  # HTTP statuses that say: not now
AGAIN = "nothing is lost: give the same command again once the endpoint answers"
KEEPING_TO_RATE = "to keep to its rate limit"  # how the message ends where a wait is no trouble
MAX_PAUSE_S = 900.0
NO_HEADERS: Mapping[str, str] = {}

_BACKOFF_S = (0.5, 30.0)  # first and longest; each wait is drawn between 0 and that ("full jitter")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a flow keeps to.

    Attributes:
        concurrency: Most calls in flight at once.
        requests_per_min: Most requests in any minute; None where the endpoint's answers are to tell.
        tokens_per_min: Most tokens a minute, prompts and answers together.
        retries: Further attempts of one request after its first; those that meet a busy endpoint or an outage do not count.
        timeout_s: Cap on one attempt, which the caller sees to; twice that without any call ending is a stall.
        max_pause_s: Longest wait for an endpoint that answers nobody.
        first_answer_s: Wait for the first answer of an endpoint that may still start up, where it is more than a minute; None, and one that has
            answered nobody is given up after a minute and ten failures, and a single request after its retries.

    Raises:
        ConfigError: A number is not positive (`retries` may be 0).
    """

    concurrency: int = 32
    requests_per_min: float | None = None
    tokens_per_min: float | None = None
    retries: int = 6
    timeout_s: float = 120.0
    max_pause_s: float = MAX_PAUSE_S
    first_answer_s: float | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not (value > 0 or (name == "retries" and value == 0)):
                raise ConfigError(f"{name} must be a positive number, not {value}")


class Call:
    """One call.

    Attributes:
        tokens: What it was estimated to take, then what it took.
        started: When it went out.
        serial: How many had before it, itself included.
        tokens_sent: How many tokens those took.
        in_flight: How many were in flight then, itself included.
        latency_s: How long it took, if it has succeeded.
        cohort: The calls it is measured with.
        trial: The calls it fails with, if the endpoint is in trouble at all.
    """

    __slots__ = ("cohort", "in_flight", "latency_s", "serial", "started", "tokens", "tokens_sent", "trial")

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.started = 0.0
        self.serial = self.tokens_sent = self.in_flight = 0
        self.latency_s: float | None = None
        self.cohort: Cohort | None = None
        self.trial: Trial | None = None


def can_pass(status: int, headers: Mapping[str, str] = NO_HEADERS) -> bool:
    """Whether an answer with this HTTP status may turn out better another time; `x-should-retry: false` says that it may not."""
    return (status in (408, 409, 425, 429) or status >= 500) and lowered(headers).get("x-should-retry") != "false"


def backoff_s(attempt: float, rng: random.Random) -> float:
    """Seconds to wait after the failure of attempt 0, 1, 2 ...: between none and a bound that doubles ("full jitter")."""
    first, longest = _BACKOFF_S
    return rng.uniform(0, min(longest, first * 2 ** min(attempt, 32)))


def span(seconds: float) -> str:
    """A time as a person would say it: 32 s, 15 min, 5 h 33 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
