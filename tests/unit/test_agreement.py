"""Statistics of agreement, against figures worked out by hand or published."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safer_instruct.analysis.agreement import cohen_kappa, flip_rate, krippendorff_alpha, observed_agreement

NONE = None
# The worked example of Krippendorff 2011 ("Computing Krippendorff's Alpha-Reliability", section D): 4 observers, 12 units
UNITS = [
    [1, 1, NONE, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4],
    [4, 4, 4, 4], [1, 1, 2, 1], [2, 2, 2, 2], [NONE, 5, 5, 5], [NONE, NONE, 1, 1], [NONE, NONE, 3, NONE],
]  # fmt: skip


def test_kappa_is_agreement_beyond_chance() -> None:
    yes, no = "yes", "no"
    first = [yes] * 25 + [no] * 25
    second = [yes] * 20 + [no] * 5 + [yes] * 10 + [no] * 15  # agreement 0.7, by chance 0.5
    assert observed_agreement(first, second) == 0.7
    kappa = cohen_kappa(first, second)
    assert kappa is not None and math.isclose(kappa, 0.4)
    assert cohen_kappa([1, 0], [0, 1]) == -1


def test_kappa_of_two_judges_who_always_say_the_same_one_thing_is_not_told() -> None:
    assert cohen_kappa([1, 1], [1, 1]) is None and cohen_kappa([1, 1], [1, 0]) == 0


@pytest.mark.parametrize("labels", [([], []), ([1], [1, 2])])
def test_judges_of_different_items_are_refused(labels: tuple[list[int], list[int]]) -> None:
    with pytest.raises(ValueError, match="the same items"):
        cohen_kappa(*labels)


def test_alpha_is_that_of_the_published_example() -> None:
    nominal, interval = krippendorff_alpha(UNITS), krippendorff_alpha(UNITS, "interval")
    assert nominal is not None and round(nominal, 3) == 0.743
    assert interval is not None and round(interval, 3) == 0.849


def test_alpha_of_two_labels_is_worked_out_by_hand() -> None:
    alpha = krippendorff_alpha([[1, 1], [0, 0], [1, 0], [1, 1]])
    assert alpha is not None and math.isclose(alpha, 1 - (2 / 8) / (2 * 5 * 3 / (8 * 7)))


def test_alpha_passes_over_what_cannot_be_compared() -> None:
    assert krippendorff_alpha([[1, NONE], [NONE, 2]]) is None and krippendorff_alpha([[1, 1], [1, 1]]) is None


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=2, max_size=4), min_size=1, max_size=20))
def test_alpha_is_one_of_full_agreement_and_never_more(units: list[list[float]]) -> None:
    alpha = krippendorff_alpha([list(unit) for unit in units])
    assert alpha is None or alpha <= 1
    agreeing = krippendorff_alpha([[unit[0]] * len(unit) for unit in units])
    assert agreeing in (None, 1)


def test_flips_are_counted() -> None:
    assert flip_rate([(True, True), (True, False), (False, False), (False, True)]) == 0.5 and flip_rate([]) is None
