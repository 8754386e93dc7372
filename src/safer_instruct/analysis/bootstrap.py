"""Confidence intervals by the bootstrap over examples (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13)."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Statistic = Callable[[Sequence[int]], float]
"""A number from the indices of the examples that it is computed on; an index may come more than once."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate on all examples, and the bounds of its confidence interval."""

    estimate: float
    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Whether the two intervals have a number in common."""
        return self.low <= other.high and other.low <= self.high


class Bootstrap:
    """Percentile intervals; every statistic sees the same resamples, so differences between systems are paired by example."""

    def __init__(self, count: int, *, resamples: int = 2_000, level: float = 0.95, seed: int = 0) -> None:
        """Draw `resamples` samples of `count` indices with replacement.

        Args:
            count: Examples; at least one.
            resamples: More give steadier bounds; 2,000 are steady to about a twentieth of the interval.
            level: Share of the resampled statistics between the bounds.
            seed: Equal seeds give equal bounds.
        """
        if count < 1:
            raise ValueError("a bootstrap needs at least one example")
        rng = random.Random(seed)
        self.count, self.level, self.resamples, self._seed = count, level, resamples, seed
        self._samples = [array("I", rng.choices(range(count), k=count)) for _ in range(resamples)]

    def over(self, count: int) -> Bootstrap:
        """One like this over `count` examples; this itself where it has so many, so that statistics of all examples see the same resamples."""
        return self if count == self.count else Bootstrap(count, resamples=self.resamples, level=self.level, seed=self._seed)

    def interval(self, statistic: Statistic) -> Interval:
        """The interval of any statistic of indices; resamples on which it is not a number are left out."""
        drawn = sorted(value for sample in self._samples if not math.isnan(value := statistic(sample)))
        estimate = statistic(range(self.count))
        tail = (1 - self.level) / 2
        return Interval(estimate, _quantile(drawn, tail), _quantile(drawn, 1 - tail))

    def intervals(self, statistics: Callable[[Sequence[int]], Iterable[float]], count: int) -> list[Interval]:
        """The intervals of `count` statistics that are computed together, each by itself."""
        drawn = [tuple(statistics(sample)) for sample in self._samples]
        estimates, tail = tuple(statistics(range(self.count))), (1 - self.level) / 2
        ordered = [sorted(float(values[at]) for values in drawn) for at in range(count)]
        return [Interval(float(estimates[at]), _quantile(ordered[at], tail), _quantile(ordered[at], 1 - tail)) for at in range(count)]

    def mean(self, values: Sequence[float]) -> Interval:
        """The interval of the mean of `values`, one per example."""
        return self.interval(lambda indices: sum(map(values.__getitem__, indices)) / len(indices))

    def ratio(self, numerators: Sequence[float], denominators: Sequence[float]) -> Interval:
        """The interval of sum(numerators) / sum(denominators), such as nats per token over a corpus."""

        def statistic(indices: Sequence[int]) -> float:
            below = sum(map(denominators.__getitem__, indices))
            return sum(map(numerators.__getitem__, indices)) / below if below else math.nan

        return self.interval(statistic)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between the closest ranks."""
    if not ordered:
        return math.nan
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
