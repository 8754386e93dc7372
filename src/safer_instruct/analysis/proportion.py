"""Shares of yes-or-no outcomes, with intervals that hold for few of them and at 0 and 1."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from safer_instruct.analysis.bootstrap import Bootstrap, Interval


@dataclass(frozen=True, slots=True)
class Rate:
    """So many of so many; the share is None where there are none."""

    count: int
    of: int
    share: Interval | None


def rate(outcomes: Iterable[bool | None], level: float = 0.95) -> Rate:
    """The share of true among those that are known, with Wilson's score interval (1927, JASA 22(158))."""
    known = [outcome for outcome in outcomes if outcome is not None]
    count, of = sum(known), len(known)
    return Rate(count, of, wilson(count, of, level) if of else None)


def wilson(count: int, of: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion.

    Raises:
        ValueError: There is nothing to count, or more than there is.
    """
    if of < 1 or not 0 <= count <= of:
        raise ValueError(f"{count} of {of} is no proportion")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = count / of, z**2 / of
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / of + spread / (4 * of))
    return Interval(share, 0.0 if count == 0 else max(0.0, middle - half), 1.0 if count == of else min(1.0, middle + half))


def mean_outcome(outcomes: Sequence[float], bootstrap: Bootstrap) -> Interval:
    """The mean of outcomes from 0 to 1, with the bootstrap's interval; Wilson's where all are 0 or all are 1, as all resamples are alike then."""
    if set(outcomes) in ({0.0}, {1.0}):
        return wilson(round(sum(outcomes)), len(outcomes), bootstrap.level)
    return bootstrap.mean(outcomes)
