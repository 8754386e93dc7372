"""The bootstrap: bounds that hold what they should, the same for the same seed, paired between systems."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from safer_instruct.analysis.bootstrap import Bootstrap, Interval


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation_for_many_examples() -> None:
    rng = random.Random(0)
    values = [rng.gauss(10.0, 2.0) for _ in range(400)]
    mean = sum(values) / 400
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / 400) / math.sqrt(400)
    found = Bootstrap(400).mean(values)
    assert found.estimate == mean
    assert found.low == pytest.approx(mean - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(mean + 1.96 * error, abs=0.2 * error)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = random.Random(1)
    held = 0
    for trial in range(200):
        found = Bootstrap(60, resamples=300, level=0.9, seed=trial).mean([rng.random() for _ in range(60)])
        held += found.low <= 0.5 <= found.high
    assert 165 <= held <= 193, "90% of 200, give or take three standard errors"


def test_equal_seeds_give_equal_bounds_and_others_do_not() -> None:
    values = [1 / (1 + i) for i in range(30)]
    assert Bootstrap(30, seed=3).mean(values) == Bootstrap(30, seed=3).mean(values) != Bootstrap(30, seed=4).mean(values)


def test_a_paired_difference_is_surer_than_either_side() -> None:
    base = [float(i % 17) for i in range(100)]
    better = [value - 1.0 for value in base]
    bootstrap = Bootstrap(100)
    assert bootstrap.mean(base).overlaps(bootstrap.mean(better))
    assert bootstrap.mean([a - b for a, b in zip(better, base, strict=True)]) == Interval(-1.0, -1.0, -1.0)


def test_a_ratio_weighs_examples_by_their_size() -> None:
    found = Bootstrap(3).ratio([10.0, 1.0, 1.0], [10.0, 1.0, 2.0])
    assert found.estimate == pytest.approx(12 / 13) and found.low <= found.estimate <= found.high
    assert Bootstrap(2).ratio([0.0, 3.0], [0.0, 3.0]) == Interval(1.0, 1.0, 1.0), "a resample without any token says nothing"


def test_equal_values_leave_no_doubt_and_none_are_refused() -> None:
    assert Bootstrap(5).mean([0.5] * 5) == Interval(0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="at least one"):
        Bootstrap(0)


def test_the_bounds_are_the_quantiles_of_the_resampled_statistics() -> None:
    """Against numpy's, whose linear interpolation is the one meant."""
    import numpy as np

    values = [math.sqrt(2 + i) for i in range(12)]
    seen: list[float] = []

    def statistic(indices: Sequence[int]) -> float:
        seen.append(sum(values[i] for i in indices))
        return seen[-1]

    found = Bootstrap(12, resamples=52, level=0.8, seed=2).interval(statistic)
    *drawn, estimate = seen
    assert len(set(drawn)) == 52, "no two alike, or a wrong rank would not be seen"
    assert estimate == found.estimate == sum(values)
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, [0.1, 0.9]), rel=1e-12)


def test_statistics_computed_together_have_the_intervals_that_each_has_by_itself() -> None:
    rng = random.Random(5)
    first, second = [rng.random() for _ in range(20)], [rng.gauss(3, 1) for _ in range(20)]
    bootstrap = Bootstrap(20, resamples=300, level=0.9)
    together = bootstrap.intervals(lambda indices: (sum(first[i] for i in indices) / len(indices), sum(second[i] for i in indices) / len(indices)), 2)
    for one, alone in zip(together, (bootstrap.mean(first), bootstrap.mean(second)), strict=True):
        assert (one.estimate, one.low, one.high) == pytest.approx((alone.estimate, alone.low, alone.high))


def test_another_number_of_examples_gets_a_bootstrap_of_the_same_kind_and_the_same_number_this_one() -> None:
    values = [float(i) for i in range(12)]
    bootstrap = Bootstrap(30, resamples=100, level=0.5, seed=9)
    assert bootstrap.over(30) is bootstrap
    assert bootstrap.over(12).mean(values) == Bootstrap(12, resamples=100, level=0.5, seed=9).mean(values) != Bootstrap(12).mean(values)


def test_intervals_overlap_where_they_have_a_number_in_common() -> None:
    low, high = Interval(1.0, 0.0, 2.0), Interval(3.0, 2.0, 4.0)
    assert low.overlaps(high) and high.overlaps(low), "2 is in both"
    apart = Interval(5.0, 4.5, 6.0)
    assert not high.overlaps(apart) and not apart.overlaps(high)


def test_one_example_has_an_interval_and_what_is_never_a_number_has_none() -> None:
    assert Bootstrap(1).mean([2.0]) == Interval(2.0, 2.0, 2.0)
    found = Bootstrap(3).ratio([0.0] * 3, [0.0] * 3)
    assert all(math.isnan(value) for value in (found.estimate, found.low, found.high))


def test_without_a_seed_the_bounds_are_those_of_seed_0() -> None:
    values = [1 / (1 + i) for i in range(30)]
    assert Bootstrap(30).mean(values) == Bootstrap(30, seed=0).mean(values)


def test_one_resample_is_both_bounds() -> None:
    found = Bootstrap(4, resamples=1).mean([1.0, 2.0, 3.0, 4.0])
    assert found.low == found.high
