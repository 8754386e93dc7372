"""The bound with a guarantee, step by step: which bounds are tried, where the search ends, what is told of the last that passed."""

from __future__ import annotations

import math

import pytest
from scipy.stats import binomtest

from safer_instruct.calibration.conformal import Guarantee, guaranteed_cut, least_to_pass, upper_bound


@pytest.mark.parametrize(("bad", "count", "confidence"), [(0, 10, 0.9), (2, 100, 0.95), (5, 6, 0.8), (9, 10, 0.99)])
def test_the_upper_end_is_clopper_and_pearsons(bad: int, count: int, confidence: float) -> None:
    one_sided = binomtest(bad, count, alternative="less").proportion_ci(confidence_level=confidence, method="exact")
    assert upper_bound(bad, count, confidence) == pytest.approx(one_sided.high, abs=1e-9)
    assert upper_bound(count, count, confidence) == upper_bound(0, 0, confidence) == 1.0


@pytest.mark.parametrize(("max_bad", "confidence"), [(0.05, 0.95), (0.1, 0.9), (0.3, 0.8)])
def test_so_many_good_ones_just_pass_and_one_less_does_not(max_bad: float, confidence: float) -> None:
    least = least_to_pass(max_bad, confidence)
    assert upper_bound(0, least, confidence) <= max_bad < upper_bound(0, least - 1, confidence)
    assert guaranteed_cut([1.0] * least, [True] * least, max_bad, confidence) == Guarantee(1.0, least, 0, round(1 - (1 - confidence) ** (1 / least), 6))
    assert guaranteed_cut([1.0] * (least - 1), [True] * (least - 1), max_bad, confidence) is None


def test_where_all_are_good_the_loosest_bound_keeps_all() -> None:
    scores = [float(i) for i in range(200)]
    found = guaranteed_cut(scores, [True] * 200, 0.1, 0.9)
    assert found and (found.threshold, found.kept, found.bad) == (0.0, 200, 0)


def test_the_search_ends_at_the_first_bound_that_fails_though_a_looser_one_would_pass() -> None:
    """Thirty bad ones in the middle: with a thousand good ones below them the share is small again, but nobody looks there."""
    scores = [float(2000 - i) for i in range(1130)]
    good = [not 100 <= i < 130 for i in range(1130)]
    found = guaranteed_cut(scores, good, 0.1, 0.9, steps=1130)
    assert found and found.bad < 30 and found.kept < 130
    assert upper_bound(30, 1130, 0.9) < 0.1
    kept = [g for v, g in zip(scores, good, strict=True) if v >= found.threshold]
    assert (found.kept, found.bad, found.most_bad) == (len(kept), kept.count(False), round(upper_bound(found.bad, found.kept, 0.9), 6))
    assert upper_bound(found.bad + 1, found.kept + 1, 0.9) > 0.1 >= found.most_bad


def test_the_bounds_tried_are_spread_evenly_from_the_strictest_that_can_pass_to_the_lowest_score() -> None:
    least = least_to_pass(0.1, 0.9)
    scores = [float(-i) for i in range(least + 8)]
    bad_at = least + 2  # the bounds tried keep least, least + 4 and least + 8
    good = [i != bad_at for i in range(len(scores))]
    found = guaranteed_cut(scores, good, 0.1, 0.9, steps=3)
    assert found and (found.kept, found.threshold) == (least, float(1 - least))
    assert guaranteed_cut(scores, [True] * len(scores), 0.1, 0.9, steps=1) == guaranteed_cut(scores[:least], [True] * least, 0.1, 0.9)


def test_a_share_that_just_reaches_what_is_allowed_passes() -> None:
    most = upper_bound(2, 100, 0.95)
    found = guaranteed_cut([1.0] * 100, [False] * 2 + [True] * 98, most, 0.95)
    assert found and (found.kept, found.bad) == (100, 2)


def test_of_two_bounds_the_second_keeps_all() -> None:
    least = least_to_pass(0.1, 0.9)
    found = guaranteed_cut([float(-i) for i in range(2 * least)], [True] * 2 * least, 0.1, 0.9, steps=2)
    assert found and found.kept == 2 * least


def test_the_strictest_bound_alone_may_fail_and_then_there_is_none() -> None:
    least = least_to_pass(0.1, 0.9)
    assert guaranteed_cut([1.0] * 2 * least, [False] + [True] * (least - 1) + [False] * least, 0.1, 0.9) is None
    assert math.isclose(upper_bound(0, 22, 0.9), 1 - 0.1 ** (1 / 22))
