"""Whether failures come from having too many calls, or by chance: whether fewer calls would have a smaller share of them.

Of a server that turns away what is beyond its limit, half as many calls let half as many be turned away or none at all. Of one
that fails now and then, or of a proxy before it that does, they change nothing, and a flow that made way each time would come
to a standstill. Calls are counted in trials; two of them at different levels are an experiment. Where the level has come to rest
and some calls fail, a higher one is tried on purpose.
"""

from __future__ import annotations

import math

_CALLS = 64  # of a trial, or as many as are in flight
_APART = 1.25  # times: two levels that make an experiment
_HIGHER = 1.3  # times: the level that is tried on purpose
_AT_REST = 16  # trials at about one level
_KEPT = 32  # trials, for so long one can be compared with
_MOST = 1 / 2  # by chance; what fails more often has too many calls whatever the share depends on
_SLACK = 1.25  # times the share is forgiven: it is an estimate
_SAVED = 4.0  # most failures that are forgiven in a row
_FORGET = 1 / 16  # of the share, with each trial that is no experiment: what was so once need not be so still


class Tally:
    """Failures of one kind in a trial: how many, and how many of them came right after another one."""

    __slots__ = ("count", "in_a_row")

    def __init__(self) -> None:
        self.count = self.in_a_row = 0


class Trial:
    """Calls that went out one after the other, the sum of how many were in flight, and how they failed."""

    __slots__ = ("began", "calls", "full", "in_flight", "overloads", "rejections")

    def __init__(self, now: float, in_flight: int) -> None:
        self.began, self.full = now, max(_CALLS, in_flight)
        self.calls = self.in_flight = 0
        self.rejections, self.overloads = Tally(), Tally()


class Chance:
    """Failures of one kind that fewer calls would not have avoided.

    Attributes:
        share: Of all calls, how many fail by chance.
        proved: Whether the last experiment said that they do so by chance, and all since could be put down to it.
    """

    def __init__(self) -> None:
        self.share, self.proved = 0.0, False
        self._credit, self._failed = 0.0, False  # the last call
        self._trial = self._at_rest = 0
        self._past: dict[int, tuple[int, float, float]] = {}  # trials at about one level, the latest last: number, level and share

    def ended(self, tally: Tally, *, failed: bool) -> None:
        """A call has ended, well or not."""
        self._credit = min(_SAVED, self._credit + _SLACK * self.share)
        if failed:
            tally.count, tally.in_a_row = tally.count + 1, tally.in_a_row + self._failed
        self._failed = failed

    def excuses(self) -> bool:
        """Whether the failure at hand may be put down to chance: there have been no more than that explains."""
        if self._credit < 1:
            self.proved = False
            return False
        self._credit -= 1
        return True

    def weigh(self, level: float, calls: int, tally: Tally) -> float:
        """Learn from a trial at this level, in calls a second or in flight.

        Returns:
            The level to go up to: one that was left in vain, for it is no worse than a lower one, or one to try; 0 for neither.
        """
        share = min(1.0, tally.count / calls)
        by_chance = share * tally.count
        if tally.in_a_row > by_chance + 2 * math.sqrt(by_chance) + 1:  # bunched: a limit is reached, and all fail until it is no more
            self.share, self.proved = self.share / 2, False
            return 0.0
        other = self._other(level)
        level, share = self._remember(level, share)
        if other is None:
            self.share -= self.share * _FORGET + max(0.0, self.share - share) / 4
            self._at_rest += 1
            if self._at_rest < _AT_REST or not 0 < share <= _MOST:
                return 0.0
            self._at_rest = 0
            return _HIGHER * level
        self._at_rest = 0
        low, high = sorted(((level, share), other))
        of_a_limit = max(0.0, 1 - (1 - high[1]) * high[0] / low[0])  # what the lower level would have if as many were accepted as at the higher
        self.proved = max(low[1], high[1]) <= _MOST and (of_a_limit + high[1]) / 2 < low[1] <= 2 * high[1]
        if self.proved:
            self.share = (low[1] + high[1]) / 2
            return high[0]
        self.share = min(self.share, low[1])
        return 0.0

    def _other(self, level: float) -> tuple[float, float] | None:
        """The latest trial that was at quite another level."""
        for number, other, share in reversed(self._past.values()):
            if self._trial - number < _KEPT and max(level, other) >= _APART * min(level, other):
                return other, share
        return None

    def _remember(self, level: float, share: float) -> tuple[float, float]:
        """Take a trial together with the last one at about its level."""
        self._trial += 1
        step = round(math.log(level, _APART))
        number, before, share_before = self._past.pop(step, (self._trial, level, share))
        if self._trial - number < _KEPT:
            level, share = (level + before) / 2, (share + share_before) / 2
        self._past[step] = self._trial, level, share
        return level, share


class Trials:
    """The trials of one endpoint, for two questions: does it help to send fewer calls a second, and to have fewer in flight?

    Attributes:
        go_up_to: The rate and the number in flight that the last trial speaks for; 0 for neither.
    """

    def __init__(self, now: float) -> None:
        self.by_rate, self.by_load = Chance(), Chance()
        self.go_up_to = 0.0, 0.0
        self._trial, self._last = Trial(now, 0), Trial(now, 0)

    def sent(self, in_flight: int, now: float) -> Trial:
        """A call goes out as one of so many, as part of the trial that is returned."""
        trial = self._trial
        if trial.calls == trial.full:
            self._weigh(self._last)  # the calls of which have had time to end
            trial, self._last = Trial(now, in_flight), trial
            self._trial = trial
        trial.calls, trial.in_flight = trial.calls + 1, trial.in_flight + in_flight
        return trial

    def ended(self, trial: Trial | None, *, rejected: bool = False, overloaded: bool = False) -> None:
        """A call has ended: as it should, or rejected for a rate, or as one too many in flight."""
        if trial is not self._last:
            trial = self._trial
        self.by_rate.ended(trial.rejections, failed=rejected)
        self.by_load.ended(trial.overloads, failed=overloaded)

    def _weigh(self, trial: Trial) -> None:
        if trial.calls:
            rate, load = trial.calls / max(1e-3, self._trial.began - trial.began), trial.in_flight / trial.calls
            self.go_up_to = self.by_rate.weigh(rate, trial.calls, trial.rejections), self.by_load.weigh(load, trial.calls, trial.overloads)
