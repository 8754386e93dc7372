"""A bound on a score with a guarantee: of what it keeps, at most a given share is bad, with a given confidence.

Learn then Test (Angelopoulos, Bates, Candes, Jordan and Lei 2021, arXiv 2110.01052) with fixed sequence testing: bounds are
tried from the strictest to the loosest, each by the exact binomial test (Clopper and Pearson 1934), and the first that fails ends
the search, so that trying many costs no confidence. What is tried follows from the scores alone, never from the labels.

It holds for examples drawn like the labelled ones; a sheet by `calibrate --sheet` is drawn so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from safer_instruct.extras import require


@dataclass(frozen=True, slots=True)
class Guarantee:
    """A bound that passed.

    Attributes:
        threshold: Scores from here on are kept.
        kept: Labelled examples that it keeps.
        bad: How many of them are bad.
        most_bad: Upper end of the exact interval of the share of bad ones, at the confidence asked for.
    """

    threshold: float
    kept: int
    bad: int
    most_bad: float


def guaranteed_cut(values: Sequence[float], good: Sequence[bool], max_bad: float, confidence: float, *, steps: int = 50) -> Guarantee | None:
    """The loosest bound that passes, or None where not even the strictest does.

    Args:
        values: The score of each labelled example.
        good: Its label.
        max_bad: Greatest share of bad ones among the kept.
        confidence: Probability that the guarantee holds, over the draw of the labelled examples.
        steps: How many bounds are tried at most.
    """
    passed: Guarantee | None = None
    for threshold in _sequence(values, least_to_pass(max_bad, confidence), steps):
        labels = [g for v, g in zip(values, good, strict=True) if v >= threshold]
        bad = labels.count(False)
        upper = upper_bound(bad, len(labels), confidence)
        if upper > max_bad:
            return passed
        passed = Guarantee(threshold, len(labels), bad, round(upper, 6))
    return passed


def least_to_pass(max_bad: float, confidence: float) -> int:
    """How many examples must be kept, all of them good, for the test to pass: 59 for 5% at 95%."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - max_bad))


def upper_bound(bad: int, count: int, confidence: float) -> float:
    """Upper end of the one-sided Clopper-Pearson interval of a share."""
    if bad >= count:
        return 1.0
    special = require("scipy.special", extra="calibrate", purpose="calibration")
    return float(special.betaincinv(bad + 1, count - bad, confidence))


def _sequence(values: Sequence[float], least: int, steps: int) -> list[float]:
    """Bounds from the strictest that keeps `least` examples down to the lowest score, evenly over the ranks between."""
    order = sorted(values, reverse=True)
    if len(order) < least:
        return []
    ranks = [least - 1 + round(i * (len(order) - least) / max(1, steps - 1)) for i in range(steps)]
    return list(dict.fromkeys(order[rank] for rank in ranks))
