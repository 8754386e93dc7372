"""What is known of an endpoint, from its answers and from what the user said of it, and what follows for the next call.

Decisions only: no clock, no waiting, no HTTP. `flow` asks when the next call may go out, and tells what came of it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from safer_instruct.errors import ConfigError
from safer_instruct.models.pacing import Cohort, LastMinute, Learned, Outage, Pace, Rate, Told, Window
from safer_instruct.models.ratelimits import allowances, lowered, retry_after_s

BUSY = (429, 503, 529)  # HTTP statuses that say: not now

_OVERLOADED = (None, 408, 502, 504, *BUSY)  # None: no answer at all
_BACKOFF_S = (0.5, 30.0)  # first and longest; each wait is drawn between 0 and that ("full jitter")
_BUNCHED = 0.25  # of the last calls: not a stray one, but an endpoint that takes none at present
_IN_A_ROW = 10  # failures of any kind that hold up all but one call at a time
_PAUSE_S = 8.0  # most that is waited for an endpoint that takes no calls at present and does not say for how long
_REOPENED_S = 5.0  # calls went out for so long before one was rejected: this is another pause, not the same one still
_LONG_CLOSED = 4  # pauses in a row, so a few seconds, without a call accepted
_UNCONFIRMED_S = 60.0  # most that a single answer can hold up all, where it asks for more than a run waits
_JITTER_S = 1.0  # most that is added to a `Retry-After`, so that programs which were told the same do not come back together
_COSTLY_S = 5.0  # a `Retry-After` beyond this
_HELD_S = 600.0  # most that the learned rate is kept from rising after a `Retry-After`
_SLOWEST_PER_S = 1 / 60  # whoever allows less than one a minute says for how long
_HEAR_EVERY_S = 0.1  # what good answers tell of limits; the calls in between are deducted here
_REASON_CHARS = 120
AGAIN = "nothing is lost: give the same command again once the endpoint answers"
_NO_HEADERS: Mapping[str, str] = {}


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

    Raises:
        ConfigError: A number is not positive (`retries` may be 0).
    """

    concurrency: int = 32
    requests_per_min: float | None = None
    tokens_per_min: float | None = None
    retries: int = 6
    timeout_s: float = 120.0
    max_pause_s: float = 900.0

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
    """

    __slots__ = ("cohort", "in_flight", "latency_s", "serial", "started", "tokens", "tokens_sent")

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.started = 0.0
        self.serial = self.tokens_sent = self.in_flight = 0
        self.latency_s: float | None = None
        self.cohort: Cohort | None = None


def can_pass(status: int, headers: Mapping[str, str] = _NO_HEADERS) -> bool:
    """Whether an answer with this HTTP status may turn out better another time; `x-should-retry: false` says that it may not."""
    return (status in (408, 409, 425, 429) or status >= 500) and lowered(headers).get("x-should-retry") != "false"


def backoff_s(attempt: int, rng: random.Random) -> float:
    """Seconds to wait after the failure of attempt 0, 1, 2 ...: between none and a bound that doubles ("full jitter")."""
    first, longest = _BACKOFF_S
    return rng.uniform(0, min(longest, first * 2 ** min(attempt, 32)))


class Endpoint:
    """What is known of one endpoint.

    Attributes:
        succeeded_at: When a call last succeeded.
    """

    def __init__(self, name: str, limits: Limits, rng: random.Random) -> None:
        self.name, self._limits, self._rng = name, limits, rng
        self._window = Window(limits.concurrency)
        self._token_pace = Pace.per_minute(limits.tokens_per_min) if limits.tokens_per_min else None
        self._request_rates: list[Rate] = [Pace.per_minute(limits.requests_per_min)] if limits.requests_per_min else []
        self._token_rates: list[Rate] = [self._token_pace] if self._token_pace else []
        self._told: dict[str, Told] = {}
        self._heard_at = -math.inf  # what they tell
        self._learned: Learned | None = None
        self._minute = LastMinute()
        self._overload_share = 0.0  # of the last calls
        self._outage = Outage()
        self._known = False  # to be an endpoint: it has said something
        self._pause_until = -math.inf
        self._pauses, self._pauses_at = 0, (-math.inf, -math.inf)  # in a row; when the last two began
        self._serial = self._tokens_sent = 0
        self.succeeded_at = -math.inf

    @property
    def concurrency(self) -> int:
        """How many calls may be in flight at present."""
        return 1 if self._outage.failures >= _IN_A_ROW else self._window.size

    @property
    def failing(self) -> bool:
        """Whether it has lately given nothing but errors, so that one call tries at a time."""
        return self._outage.failures >= _IN_A_ROW

    def want_more(self) -> None:
        """A call waits for nothing but for another one to end."""
        self._window.want_more()

    def ready_at(self, tokens: int) -> float:
        """When pauses and rates let the next call out."""
        at = max(self._pause_until, self._outage.next_try)
        for rate in self._request_rates:
            at = max(at, rate.ready_at(1))
        for rate in self._token_rates:
            at = max(at, rate.ready_at(tokens))
        return max(at, self._learned.ready_at()) if self._learned else at

    def send(self, call: Call, in_flight: int, now: float) -> None:
        """A call goes out as one of so many."""
        self._take(1, call.tokens, now)
        if self._learned:
            self._learned.take(now)
        self._serial += 1
        call.started, call.serial, call.tokens_sent, call.in_flight = now, self._serial, self._tokens_sent, in_flight
        call.cohort = self._window.sent(in_flight)

    def take_back(self, call: Call, now: float) -> None:
        """A call did not go out after all."""
        self._take(-1, -call.tokens, now)
        self.end(call, now)

    def end(self, call: Call, now: float) -> None:
        """A call is no longer in flight, whatever came of it."""
        if call.cohort:
            self._window.ended(call.cohort, call.latency_s, now)

    def correct(self, call: Call, tokens: int, now: float) -> None:
        """A call took so many tokens in fact."""
        if self._token_pace:
            self._token_pace.take(tokens - call.tokens, now)
        call.tokens = tokens

    def forget_outage(self) -> None:
        """It is so long ago that nothing follows from it."""
        self._outage.end()

    def answered(self) -> None:
        """The endpoint has answered, as it should or with a refusal of the one request."""
        self._known = True
        if self._outage.failures:
            self._outage.end()

    def succeeded(self, call: Call, headers: Mapping[str, str], now: float) -> None:
        """A call got a usable answer with these headers, whose names are in lower case."""
        self.succeeded_at, call.latency_s = now, now - call.started
        self.answered()
        if call.started > self._pauses_at[1]:
            self._pauses = 0
        elif call.started > self._pauses_at[0]:
            self._pauses = min(self._pauses, 1)
        self._overload_share -= self._overload_share / self._horizon
        self._window.succeeded()
        if now - self._heard_at >= _HEAR_EVERY_S:
            self._hear(call, headers, now)

    def failed(self, call: Call, reason: str, status: int | None, headers: Mapping[str, str], now: float) -> None:
        """A call failed in a way that may pass."""
        headers, outage = lowered(headers), self._outage
        outage.fail(reason, call.started, now, self._rng.uniform(0.75, 1.25))
        self._known = self._known or status in BUSY
        asked_s = retry_after_s(headers)
        if status in _OVERLOADED or outage.failures >= _IN_A_ROW:
            self._overload_share += (1 - self._overload_share) / self._horizon
            self._minute.reject(now)
            self._make_way(call, status, asked_s or 0.0, now)
        self._hear(call, headers, now)
        if asked_s is not None or (status in BUSY and self._overload_share > _BUNCHED) or outage.failures >= _IN_A_ROW:
            self._pause(call, asked_s or 0.0, now)

    def paused(self, now: float) -> bool:
        """Whether calls are held up because the endpoint is too busy."""
        return now < self._pause_until

    def given_up(self, now: float) -> str:
        """Why nobody need wait for the endpoint any longer; empty if that is not so."""
        outage, most_s = self._outage, self._limits.max_pause_s
        if self._pause_until - now > most_s + _JITTER_S:
            asked = f"{self.name} asks for a pause of {span(self._pause_until - now)} ({clip(outage.reason)})"
            return f"{asked}, and a run waits {span(most_s)} at most"
        if outage.broken and not self._known:
            failures = f"{self.name} has answered none of {outage.failures} calls in {span(now - outage.since)}"
            return f"{failures}, the last one: {clip(outage.reason)}; check that it is up and that its address is right"
        if outage.failures > 1 and now - outage.since >= most_s:
            return f"{self.name} has failed for {span(now - outage.since)}, the last time: {clip(outage.reason)}"
        return ""

    @property
    def give_up_at(self) -> float:
        """When `given_up` may have something to say although nothing happens."""
        return self._outage.since + self._limits.max_pause_s

    def trouble(self, in_flight: int, now: float) -> tuple[Literal["outage", "paused"], str] | None:
        """What holds all calls up, in words to show."""
        outage, pause_s = self._outage, max(0.0, self._pause_until - now)
        reason = f" ({clip(outage.reason)})" if outage.reason else ""
        if outage.broken:
            coming = "a try is under way" if in_flight else f"next try in {span(max(0.0, outage.next_try - now, pause_s))}"
            return "outage", f"{self.name} has failed for {span(now - outage.since)}{reason}: {coming}"
        if pause_s:
            return "paused", f"{self.name} takes no calls{reason}: next try in {span(pause_s)}"
        return None

    def _take(self, requests: int, tokens: int, now: float) -> None:
        for rate in self._request_rates:
            rate.take(requests, now)
        for rate in self._token_rates:
            rate.take(tokens, now)
        self._minute.send(now, requests)
        self._tokens_sent += tokens

    @property
    def _horizon(self) -> float:
        """Over how many of the last calls the share of overloads is taken."""
        return max(20.0, self._window.size / 4)

    def _make_way(self, call: Call, status: int | None, asked_s: float, now: float) -> None:
        """The endpoint has too many calls at work, or, with 429, too many in a minute: lower the one, the other or both.

        With 429 it may be either. Fewer calls in flight are tried only where this one was the last that there was room for.
        """
        if status != 429 or call.in_flight >= self._window.size:
            self._window.failed(rise_slowly=status != 429 or self._learned is not None)
        if status != 429:
            return
        if self._learned is None:
            if self.succeeded_at > -math.inf:
                self._learned = Learned(2 * self._minute.peak_per_s(), now)  # to come down to the rate is quicker than to rise to it
        elif self._pauses < 2:
            floor = max(self._minute.best_per_s / 4, _SLOWEST_PER_S)
            self._learned.rejected(call.started, now, floor=floor, costly=asked_s > _COSTLY_S)
        elif self._pauses == _LONG_CLOSED:  # the quota of a minute is used up; at most what was accepted is the rate
            self._learned.per_s = max(_SLOWEST_PER_S, min(self._learned.per_s, self._minute.accepted_per_s(now) or math.inf))

    def _pause(self, call: Call, asked_s: float, now: float) -> None:
        """Hold all up for as long as the endpoint asks, and at least for a wait that grows while no later call succeeds."""
        own_s = 0.0
        if call.started > self._pauses_at[1]:  # otherwise it was sent before the last pause: no news
            if call.started > self._pause_until + _REOPENED_S:
                self._pauses = 0
            own_s = min(_PAUSE_S, self._limits.max_pause_s, backoff_s(self._pauses, self._rng))
            self._pauses_at, self._pauses = (self._pauses_at[1], now), self._pauses + 1
        if asked_s > self._limits.max_pause_s and self._outage.failures < 2:
            asked_s = _UNCONFIRMED_S
        asked_s += self._rng.uniform(0, min(_JITTER_S, asked_s / 10))
        self._pause_until = max(self._pause_until, now + max(own_s, asked_s))
        if self._learned and asked_s:
            self._learned.hold(self._pause_until + min(_HELD_S, 10 * asked_s))  # so that pauses are a tenth of the time at most

    def _hear(self, call: Call, headers: Mapping[str, str], now: float) -> None:
        self._heard_at = now
        for name, allowance in allowances(headers).items():
            of_tokens = name.endswith("tokens")
            if name not in self._told:
                self._told[name] = Told()
                (self._token_rates if of_tokens else self._request_rates).append(self._told[name])
            taken = self._tokens_sent - call.tokens_sent if of_tokens else self._serial - call.serial
            self._told[name].hear(allowance, serial=call.serial, taken_since=taken, started=call.started, now=now)


def span(seconds: float) -> str:
    """A time as a person would say it: 32 s, 15 min, 5 h 33 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def clip(reason: str) -> str:
    """As much of a reason as a line to show has room for: it may quote an answer of any length."""
    return reason if len(reason) <= _REASON_CHARS else f"{reason[: _REASON_CHARS - 1]}…"
