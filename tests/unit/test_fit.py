"""What labels say of a score: how well it tells good from bad, where a bound for a precision lies, and how sure that is."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy.stats import binomtest, mannwhitneyu

from safer_instruct.calibration.fit import LEAST_OF_EACH, auc, cut_for_precision, describe_cut, expected_calibration_error, fit
from safer_instruct.calibration.show import _shown
from safer_instruct.errors import ConfigError


def labelled(count: int, seed: int = 0) -> tuple[list[float], list[bool]]:
    draw = random.Random(seed)
    good = [draw.random() < 0.6 for _ in range(count)]
    return [round(draw.gauss(0.8 if g else -0.2, 0.7), 1) for g in good], good


def test_the_area_under_the_curve_is_mann_and_whitneys_with_ties() -> None:
    values, good = (np.array(column) for column in labelled(80))
    assert auc(values, good) == pytest.approx(mannwhitneyu(values[good], values[~good]).statistic / (good.sum() * (~good).sum()))
    assert auc(np.array([1.0, 2.0, 3.0]), np.array([False, True, True])) == 1.0 and auc(np.array([1.0, 1.0]), np.array([False, True])) == 0.5


def test_the_calibration_error_is_the_mean_distance_over_ten_bins_of_equal_size() -> None:
    good = np.array([True] * 10 + [False] * 10)
    assert expected_calibration_error(good.astype(float), good) == 0.0 and expected_calibration_error(1 - good.astype(float), good) == 1.0
    assert expected_calibration_error(np.full(20, 0.75), np.array([True] * 20)) == pytest.approx(0.25)
    draw = np.random.default_rng(0)
    probabilities, labels = draw.random(40), draw.random(40) < 0.5
    order = np.argsort(probabilities)
    wanted = np.mean([abs(probabilities[part].mean() - labels[part].mean()) for part in np.array_split(order, 10)])
    assert expected_calibration_error(probabilities, labels) == pytest.approx(wanted)


def test_the_bound_for_a_precision_is_the_lowest_that_keeps_it() -> None:
    values, good = [1.0, 2.0, 2.0, 3.0, 4.0], [False, True, False, True, True]
    for precision, threshold, kept in ((0.6, 1.0, 5), (0.61, 2.0, 4), (0.75, 2.0, 4), (0.76, 3.0, 2)):
        cut = cut_for_precision(values, good, precision)
        assert cut and (cut.threshold, cut.kept) == (threshold, kept)
    assert cut_for_precision(values, [False] * 5, 0.1) is None


def test_a_bound_is_described_by_precision_and_recall_with_intervals_that_hold_them() -> None:
    values, good = labelled(200)
    cut = describe_cut(values, good, 0.5)
    kept = [g for v, g in zip(values, good, strict=True) if v >= 0.5]
    assert cut.kept == len(kept)
    for interval, count, of in ((cut.precision, sum(kept), len(kept)), (cut.recall, sum(kept), sum(good))):
        estimate, low, high = interval
        wilsons = binomtest(count, of).proportion_ci(method="wilson")
        assert estimate == round(count / of, 6) and (low, high) == (round(wilsons.low, 6), round(wilsons.high, 6))
    nothing = describe_cut(values, good, 99.0)
    assert nothing.kept == 0 and math.isnan(nothing.precision[0]) and nothing.recall[0] == 0.0


def test_a_bound_that_keeps_good_ones_only_is_not_said_to_be_sure() -> None:
    cut = describe_cut([1.0, 2.0, 3.0, 4.0], [False, True, False, True], 4.0)
    assert (cut.kept, cut.precision) == (1, (1.0, 0.206549, 1.0)) and cut.recall[:2] == (0.5, 0.094531)


def test_a_share_is_shown_as_it_is_counted() -> None:
    """4 of 19 are 0.2105263: rounded to four digits and then to three it would read 0.210."""
    good = [True] * 19 + [False] * 19
    cut = describe_cut([float(i < 4) for i in range(38)], good, 1.0)
    assert _shown(cut.recall).splitlines()[0] == "0.211"


@pytest.mark.parametrize("bad", [LEAST_OF_EACH - 1, LEAST_OF_EACH])
def test_so_many_of_each_label_are_enough_and_one_less_is_told(bad: int) -> None:
    values, good = [float(i) for i in range(40 + bad)], [False] * bad + [True] * 40
    if bad < LEAST_OF_EACH:
        with pytest.raises(ConfigError, match=rf"40 good and {bad} bad labels are too few; {LEAST_OF_EACH} of each"):
            fit(values, good)
        with pytest.raises(ConfigError, match=f"{bad} good and 40 bad"):
            fit(values, [not g for g in good])
    else:
        assert fit(values, good).map.method == "logistic"


def test_a_fit_says_how_far_it_is_to_be_trusted_and_shows_itself_at_five_places() -> None:
    values, good = labelled(300)
    found = fit(values, good)
    assert (found.count, found.good) == (300, sum(good)) and found.map.method == "logistic"
    estimate, low, high = found.auc
    assert estimate == round(auc(np.array(values), np.array(good)), 6) and low < estimate < high and high - low < 0.2
    assert [score for score, _ in found.curve] == [round(float(q), 4) for q in np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])]
    assert [p for _, p in found.curve] == [round(found.map.probability(float(q)), 4) for q in np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])]
    error, _, most = found.ece
    assert 0 <= error <= most < 0.2


def test_isotonic_maps_are_fitted_from_a_thousand_labels_on() -> None:
    values, good = labelled(1000)
    assert fit(values, good).map.method == "isotonic" and fit(values[1:], good[1:]).map.method == "logistic"
    assert fit(values[:100], good[:100], "isotonic").map.method == "isotonic"
