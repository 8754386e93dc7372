"""One endpoint, many callers in processes of their own: what one of them learns of its limits holds for all.

Each caller tells now and then what it has learned (`Lesson`), and is told its part (`Lot`). Nobody asks before a call. In
between each keeps to its part, and goes on learning: what it finds moves the rate of all by as much. So a caller that is lost
takes nothing with it, its part goes to the others, and a new one need not be rejected to know the rate.

No clocks and no messages in here: every method is told what time it is, in seconds of any monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

_SILENT_S = 15.0  # whoever was not heard for so long has no part any more
_IDLE = 0.05  # of an average part has whoever has nothing to do, so as to begin at once
_FALL, _FALL_S = 0.66, 1.0  # most that the rate falls in so long: rejections of calls that were on their way together are one piece of news
_ACCEPTED, _BEST = 0.75, 0.25  # of what was accepted over the last minute, and over the best one: the rate does not fall below that


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a caller has learned.

    Attributes:
        endpoint: Names it for all callers alike.
        wanted: Calls that are in flight or wait; parts are in proportion to them, as if all waited in one line.
        peak_per_s: Most calls in a second that were accepted, of the last minute; 0 where none were sent.
        accepted_per_s: Calls accepted over the last minute.
        per_s: The rate that rejections have taught it, of its own calls; None as long as there were none.
        pause_s: Seconds of a pause that the endpoint has asked for since the last lesson, as far as they are not over.
    """

    endpoint: str
    wanted: int = 0
    peak_per_s: float = 0.0
    accepted_per_s: float = 0.0
    per_s: float | None = None
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Lot:
    """What a caller is to keep to until it is told anew.

    Attributes:
        part: Of what the endpoint says is left.
        per_s: Its rate; None as long as nobody was rejected.
        pause_s: Seconds in which nobody sends anything.
    """

    part: float = 1.0
    per_s: float | None = None
    pause_s: float = 0.0


@dataclass(slots=True)
class _Caller:
    heard_at: float
    lesson: Lesson
    per_s: float | None = None  # as it was told


@dataclass(slots=True)
class _Shared:
    callers: dict[tuple[str, int], _Caller] = field(default_factory=dict)
    paused_until: float = -math.inf
    per_s: float | None = None  # of all callers together
    fallen_from: float = 0.0  # what it was a moment ago
    fallen_at: float = -math.inf
    best_per_s: float = 0.0  # accepted over a minute

    def learn(self, per_s: float, before: float | None, now: float) -> None:
        """A caller's rate has become `per_s` from what it was `before`, by its own calls; that of all moves by the same factor."""
        lessons = [caller.lesson for caller in self.callers.values()]
        if self.per_s is None:  # as with one caller (`Endpoint`): from twice of what was accepted down to the rate
            self.per_s = max(per_s, 2 * sum(lesson.peak_per_s for lesson in lessons))
        elif before:
            if now >= self.fallen_at + _FALL_S:
                self.fallen_from, self.fallen_at = self.per_s, now
            accepted = sum(lesson.accepted_per_s for lesson in lessons)
            self.best_per_s = max(self.best_per_s, accepted)
            least = max(_FALL * self.fallen_from, _ACCEPTED * accepted, _BEST * self.best_per_s)
            self.per_s = max(self.per_s * per_s / before, min(least, self.per_s))


class Shares:
    """Who calls which endpoint, and what they have learned together."""

    def __init__(self) -> None:
        self._endpoints: dict[str, _Shared] = {}

    def tell(self, name: str, lessons: Sequence[Lesson], now: float) -> list[Lot]:
        """What a process has learned of its endpoints; gives a lot for each of them, in their order."""
        return [self._tell((name, at), lesson, now) for at, lesson in enumerate(lessons)]

    def forget(self, name: str) -> None:
        """A process is gone: its part is for the others."""
        for shared in self._endpoints.values():
            for key in [key for key in shared.callers if key[0] == name]:
                del shared.callers[key]

    def _tell(self, key: tuple[str, int], lesson: Lesson, now: float) -> Lot:
        shared = self._endpoints.setdefault(lesson.endpoint, _Shared())
        for silent in [other for other, caller in shared.callers.items() if caller.heard_at < now - _SILENT_S]:
            del shared.callers[silent]
        before = shared.callers.get(key)
        own = shared.callers[key] = _Caller(now, lesson)
        if lesson.per_s is not None:
            shared.learn(lesson.per_s, before.per_s if before else None, now)
        if lesson.pause_s:
            shared.paused_until = max(shared.paused_until, now + lesson.pause_s)
        part = _part(lesson.wanted, [caller.lesson.wanted for caller in shared.callers.values()])
        own.per_s = None if shared.per_s is None else part * shared.per_s
        return Lot(part, own.per_s, max(0.0, shared.paused_until - now))


def _part(own: int, wanted: Sequence[int]) -> float:
    """In proportion to what is wanted; those who want nothing have a little."""
    least = _IDLE * max(1.0, sum(wanted) / len(wanted))
    return max(least, own) / sum(max(least, one) for one in wanted)
