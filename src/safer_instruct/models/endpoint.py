"""What is known of an endpoint, from its answers and from what the user said of it, and what follows for the next call.

Decisions only: no clock, no waiting, no HTTP. `flow` asks when the next call may go out, and tells what came of it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Literal

from safer_instruct.models.calls import BUSY, Call, Limits, span
from safer_instruct.models.chance import Trials
from safer_instruct.models.outage import BREAK_AFTER_S, Outage, Pause
from safer_instruct.models.pacing import LastMinute, Learned, Pace, Rate, Told
from safer_instruct.models.ratelimits import allowances, lowered, retry_after_s
from safer_instruct.models.sharing import Lesson, Lot
from safer_instruct.models.window import Window
from safer_instruct.oneline import shortened

_OVERLOADED = (None, 408, 502, 504, *BUSY)  # None: no answer at all
_MOST = 0.5  # of the last calls, told to wait: no stray ones, but an endpoint that takes none at present
_LAST = 10  # calls, of which that is the share
_BUNCHED = 1 / 3  # of the last calls, overloaded: they are too many
_IN_A_ROW = 10  # failures of any kind that hold up all but one call at a time
_LONG_CLOSED = 4  # pauses in a row, so a few seconds, without a call accepted
_UNCONFIRMED_S = 60.0  # most that a single answer can hold up all, where it asks for more than a run waits
_JITTER_S = 1.0  # most that is added to a `Retry-After`, so that programs which were told the same do not come back together
_COSTLY_S = 5.0  # a `Retry-After` beyond this
_HELD_S = 600.0  # most that the learned rate is kept from rising after a `Retry-After`
_SLOWEST_PER_S = 1 / 60  # whoever allows less than one a minute says for how long
_HEAR_EVERY_S = 0.1  # what good answers tell of limits; the calls in between are deducted here
_REASON_CHARS = 120
_UNUSABLE_S = 10.0  # of answers that cannot be used, and none that can, from an endpoint that has never given one: it is the wrong one


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
        self._trials: Trials | None = None  # since the first call that was one too many
        self._told_to_wait = 0.0  # share of the last calls
        self._overloaded = 0.0
        self._outage, self._pause = Outage(), Pause(limits.max_pause_s)
        self._known = False  # to be an endpoint: it has said something
        self._unusable = 0  # answers among the last failures, one after the other
        self._part = 1.0  # of what it says is left; other processes have the rest
        self._told_per_s: float | None = None  # the rate that they were told of
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
        at = max(self._pause.until, self._outage.next_try)
        for rate in self._request_rates:
            at = max(at, rate.ready_at(1))
        for rate in self._token_rates:
            at = max(at, rate.ready_at(tokens))
        return max(at, self._learned.ready_at()) if self._learned else at

    def send(self, call: Call, in_flight: int, now: float) -> None:
        """A call goes out as one of so many."""
        self._take(1, call.tokens, now)
        if self._trials:
            self._try_out(self._trials, call, in_flight, now)
        self._serial += 1
        call.started, call.serial, call.tokens_sent, call.in_flight = now, self._serial, self._tokens_sent, in_flight
        call.cohort = self._window.sent(in_flight)

    def _try_out(self, trials: Trials, call: Call, in_flight: int, now: float) -> None:
        call.trial = trials.sent(in_flight, now)
        if call.trial.calls == 1:  # one before it has been weighed
            rate, load = trials.go_up_to
            self._window.go_up_to(load, freely=trials.by_load.proved)
            if self._learned and self._alone:
                self._learned.per_s = max(self._learned.per_s, rate)
        if self._learned:
            self._learned.take(now, eager=trials.by_rate.proved and self._alone)

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

    @property
    def awaited(self) -> bool:
        """Whether its first answer is waited for, as long as `Limits.first_answer_s` says: it may be starting up."""
        return not self._known and (self._limits.first_answer_s or 0.0) > BREAK_AFTER_S

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
        if self._pause.in_a_row:
            self._pause.accepted(call.started)
            if call.started >= self._pause.until:
                self._told_to_wait = 0.0
        if self._trials:
            self._told_to_wait -= self._told_to_wait / _LAST
            self._overloaded -= self._overloaded / self._horizon
            self._trials.ended(call.trial)
        self._window.succeeded()
        if now - self._heard_at >= _HEAR_EVERY_S:
            self._hear(call, headers, now)

    def failed(self, call: Call, reason: str, status: int | None, headers: Mapping[str, str], now: float) -> None:
        """A call failed in a way that may pass."""
        headers, outage = lowered(headers), self._outage
        outage.fail(reason, call.started, now, self._rng.uniform(0.75, 1.25))
        self._unusable = self._unusable + 1 if status is not None and 200 <= status < 300 else 0
        self._known = self._known or status in BUSY
        asked_s = retry_after_s(headers)
        in_a_row = outage.failures >= _IN_A_ROW
        surplus = True
        if status in _OVERLOADED or in_a_row:
            surplus = self._make_way(call, status, asked_s or 0.0, now)
        elif self._trials:
            self._trials.ended(call.trial)
        told_to_wait = surplus and (status in BUSY or asked_s is not None)
        if told_to_wait:
            self._told_to_wait += (1 - self._told_to_wait) / min(_LAST, call.serial)
        self._hear(call, headers, now)
        if in_a_row or (told_to_wait and self._told_to_wait > _MOST):
            self._hold_up(call, asked_s or 0.0, now)

    def lesson(self, wanted: int, now: float) -> Lesson:
        """What other callers of the endpoint are to know, where `wanted` calls of this one are in flight or wait."""
        minute, self._told_per_s = self._minute, self._learned.per_s if self._learned else None
        peak = minute.peak_per_s() if self._serial else 0.0
        return Lesson(self.name, wanted, peak, minute.accepted_per_s(now), self._told_per_s, self._pause.news_s(now))

    def heed(self, lot: Lot, now: float) -> None:
        """Keep to what came of the last `lesson` and those of all others."""
        self._minute.best_per_s *= lot.part / self._part
        self._part = lot.part
        if lot.per_s and self._learned is None:
            self._learned, self._trials = Learned(lot.per_s, now), self._trials or Trials(now)
        elif lot.per_s and self._learned and self._told_per_s:  # what was learned since stays learned
            self._learned.scale(lot.per_s / self._told_per_s, now)
        if lot.pause_s:
            self._pause.until = max(self._pause.until, now + lot.pause_s)
        if self._learned and self._pause.until > now and not self._alone:
            self._learned.spread(self._pause.until, self._rng)

    @property
    def _alone(self) -> bool:
        """Whether nobody else calls the endpoint, as far as is known: only then do its rejections tell whether they depend on the rate from here."""
        return self._part == 1

    def paused(self, now: float) -> bool:
        """Whether calls are held up because the endpoint is too busy."""
        return now < self._pause.until

    def given_up(self, now: float) -> str:
        """Why nobody need wait for the endpoint any longer; empty if that is not so."""
        outage, most_s = self._outage, self._limits.max_pause_s
        if self._pause.until - now > most_s + _JITTER_S:
            asked = f"{self.name} asks for a pause of {span(self._pause.until - now)} ({shortened(outage.reason, _REASON_CHARS)})"
            return f"{asked}, and a run waits {span(most_s)} at most"
        failing_s = now - outage.since
        too_long = outage.failures > 1 and failing_s >= most_s
        broken = outage.broken or (self._unusable == outage.failures >= _IN_A_ROW and failing_s >= _UNUSABLE_S)
        if not self._known and (too_long or (broken and failing_s >= (self._limits.first_answer_s or 0.0))):
            said = shortened(outage.reason, _REASON_CHARS)
            if self._unusable:
                answers = f"{self.name} has given no answer that can be used to any of {outage.failures} calls in {span(failing_s)}"
                return f"{answers}, the last one: {said}; check that its address is that of the API, and that it speaks the API's language"
            failures = f"{self.name} has answered none of {outage.failures} calls in {span(failing_s)}"
            return f"{failures}, the last one: {said}; check that it is up and that its address is right"
        if too_long:
            return f"{self.name} has failed for {span(failing_s)}, the last time: {shortened(outage.reason, _REASON_CHARS)}"
        return ""

    @property
    def give_up_at(self) -> float:
        """When `given_up` may have something to say although nothing happens."""
        return self._outage.since + self._limits.max_pause_s

    def trouble(self, in_flight: int, now: float) -> tuple[Literal["outage", "paused"], str] | None:
        """What holds all calls up, in words to show."""
        outage, pause_s = self._outage, max(0.0, self._pause.until - now)
        reason = f" ({shortened(outage.reason, _REASON_CHARS)})" if outage.reason else ""
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

    def _make_way(self, call: Call, status: int | None, asked_s: float, now: float) -> bool:
        """The endpoint has too many calls at work, or, with 429, too many in a minute: lower the one, the other or both.

        With 429 it may be either. Fewer calls in flight are tried only where this one was the last that there was room for.
        What fewer calls would not have avoided lowers nothing.

        Returns:
            Whether fewer calls would have avoided it.
        """
        trials = self._trials = self._trials or Trials(now)
        self._overloaded += (1 - self._overloaded) / self._horizon
        self._minute.reject(now)
        rejected, overloaded = status == 429, status != 429 or call.in_flight >= self._window.size
        trials.ended(call.trial, rejected=rejected, overloaded=overloaded)
        too_many = overloaded and not trials.by_load.excuses()
        too_often = rejected and not (trials.by_rate.excuses() and self._alone)
        if too_many:
            self._window.failed(rise_slowly=self._overloaded > _BUNCHED and (not rejected or self._learned is not None))
        if too_often:
            self._slow_down(call, asked_s, now)
        return too_many or too_often

    def _slow_down(self, call: Call, asked_s: float, now: float) -> None:
        if self._learned is None:
            if self.succeeded_at > -math.inf:
                self._learned = Learned(2 * self._minute.peak_per_s(), now)  # to come down to the rate is quicker than to rise to it
        elif self._pause.in_a_row < 2:
            floor = max(self._minute.best_per_s / 4, _SLOWEST_PER_S)
            self._learned.rejected(call.started, now, floor=floor, costly=asked_s > _COSTLY_S, held=self._told_to_wait > _MOST)
        elif self._pause.in_a_row == _LONG_CLOSED:  # the quota of a minute is used up; at most what was accepted is the rate
            self._learned.per_s = max(_SLOWEST_PER_S, min(self._learned.per_s, self._minute.accepted_per_s(now) or math.inf))

    def _hold_up(self, call: Call, asked_s: float, now: float) -> None:
        """Hold all up for as long as the endpoint asks, and at least for a wait that grows while no later call succeeds."""
        if asked_s > self._limits.max_pause_s and self._outage.failures < 2:
            asked_s = _UNCONFIRMED_S
        self._pause.begin(call.started, now, asked_s + self._rng.uniform(0, min(_JITTER_S, asked_s / 10)), self._rng)
        if self._learned and asked_s:
            self._learned.hold(self._pause.until + min(_HELD_S, 10 * asked_s))  # so that pauses are a tenth of the time at most

    def _hear(self, call: Call, headers: Mapping[str, str], now: float) -> None:
        self._heard_at = now
        for name, allowance in allowances(headers).items():
            of_tokens = name.endswith("tokens")
            if name not in self._told:
                self._told[name] = Told()
                (self._token_rates if of_tokens else self._request_rates).append(self._told[name])
            taken = self._tokens_sent - call.tokens_sent if of_tokens else self._serial - call.serial
            self._told[name].hear(allowance.part(self._part), serial=call.serial, taken_since=taken, started=call.started, now=now)
