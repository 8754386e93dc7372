"""One score against labels: how well it separates, how well it can be turned into a probability, and where to cut.

Everything is deterministic: folds and bootstrap draws come from a fixed seed. scikit-learn does the fitting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from safer_instruct.analysis.proportion import wilson
from safer_instruct.errors import ConfigError
from safer_instruct.extras import require
from safer_instruct.settings.scoremap import ScoreMap
from safer_instruct.thresholds import CHANCE

Method = Literal["auto", "isotonic", "logistic"]
Interval = tuple[float, float, float]
"""An estimate, and the ends of its 95% interval."""

LEAST_OF_EACH = 5  # labels that say good, and bad: with fewer there are no folds to fit on
_ENOUGH_FOR_ISOTONIC = 1_000  # Niculescu-Mizil and Caruana 2005, section 5: below that, it follows noise
_FOLDS, _BINS, _RESAMPLES, _SEED = 5, 10, 1_000, 0
_DIGITS = 6  # more than anybody is shown: a figure that is rounded twice is not what people count


@dataclass(frozen=True, slots=True)
class Fit:
    """What labels say of one score.

    Attributes:
        count: Labelled examples.
        good: How many of them are good.
        map: From the score to the probability of being good.
        auc: Probability that a good example scores above a bad one.
        ece: Expected calibration error of the fitted probability, on examples that it was not fitted to.
        curve: Score -> fitted probability of being good, at five points of the score's range, for people.
    """

    count: int
    good: int
    map: ScoreMap
    auc: Interval
    ece: Interval
    curve: tuple[tuple[float, float], ...]

    @property
    def tells(self) -> bool:
        """Whether it tells good from bad: the interval of its AUC ends above that of chance."""
        return self.auc[1] > CHANCE


@dataclass(frozen=True, slots=True)
class Cut:
    """A bound on a score, and what it keeps of the labelled examples.

    Attributes:
        threshold: Scores from here on are kept.
        kept: How many labelled examples it keeps.
        precision: Share of the kept that is good.
        recall: Share of the good that is kept.
    """

    threshold: float
    kept: int
    precision: Interval
    recall: Interval


def fit(values: Sequence[float], good: Sequence[bool], method: Method = "auto") -> Fit:
    """Fit the probability of being good to a score.

    Args:
        values: The score of each example.
        good: Its label.
        method: `logistic` (Platt 1999), `isotonic` (Zadrozny and Elkan 2002), or `auto`: isotonic from 1,000 labels on.

    Raises:
        ConfigError: There are too few labels of a kind.
        MissingExtraError: The extra `calibrate` is not installed.
    """
    numpy = _numpy()
    positives = sum(good)
    if min(positives, len(good) - positives) < LEAST_OF_EACH:
        raise ConfigError(f"{positives} good and {len(good) - positives} bad labels are too few; {LEAST_OF_EACH} of each are the least, and 100 tell something")
    chosen = method if method != "auto" else "isotonic" if len(values) >= _ENOUGH_FOR_ISOTONIC else "logistic"
    x, y = numpy.asarray(values, dtype=float), numpy.asarray(good, dtype=bool)
    unseen = _out_of_fold(x, y, chosen)
    found = _fitted(x, y, chosen)
    points = numpy.quantile(x, [0.05, 0.25, 0.5, 0.75, 0.95])
    return Fit(
        len(values),
        int(positives),
        found,
        _bootstrapped(lambda rows: auc(x[rows], y[rows]), y),
        _bootstrapped(lambda rows: expected_calibration_error(unseen[rows], y[rows]), y),
        tuple((round(float(p), 4), round(found.probability(float(p)), 4)) for p in points),
    )


def cut_for_precision(values: Sequence[float], good: Sequence[bool], precision: float) -> Cut | None:
    """The lowest bound from which on the kept examples are good to at least `precision`; None where no bound gives that.

    The point estimate decides; its interval says how sure that is. For a guarantee see `conformal`.
    """
    numpy = _numpy()
    x, y = numpy.asarray(values, dtype=float), numpy.asarray(good, dtype=bool)
    for threshold in sorted(set(values)):
        if y[x >= threshold].mean() >= precision:
            return describe_cut(values, good, float(threshold))
    return None


def describe_cut(values: Sequence[float], good: Sequence[bool], threshold: float) -> Cut:
    """What a bound keeps; the intervals are Wilson's: rows drawn anew would say of one row that is kept and good that all such are."""
    kept = [label for value, label in zip(values, good, strict=True) if value >= threshold]
    return Cut(threshold, len(kept), _share(sum(kept), len(kept)), _share(sum(kept), sum(good)))


def auc(values: Any, good: Any) -> float:
    """Probability that a good example scores above a bad one, ties counted half (Mann and Whitney 1947); by ranks, as the bootstrap asks often."""
    numpy = _numpy()
    order = numpy.sort(values)
    ranks = (numpy.searchsorted(order, values, "left") + numpy.searchsorted(order, values, "right") + 1) / 2
    positives = good.sum()
    return float((ranks[good].sum() - positives * (positives + 1) / 2) / (positives * (len(good) - positives)))


def expected_calibration_error(probabilities: Any, good: Any) -> float:
    """Mean distance between predicted and observed share of good, over ten bins of equal size (Naeini et al. 2015)."""
    numpy = _numpy()
    order = numpy.argsort(probabilities, kind="stable")
    starts = numpy.unique(numpy.arange(_BINS) * len(order) // _BINS)
    return float(numpy.abs(numpy.add.reduceat(probabilities[order] - good[order], starts)).sum() / len(order))


def _share(count: int, of: int) -> Interval:
    if not of:
        return math.nan, math.nan, math.nan
    found = wilson(int(count), int(of))
    return round(found.estimate, _DIGITS), round(found.low, _DIGITS), round(found.high, _DIGITS)


def _fitted(x: Any, y: Any, method: str) -> ScoreMap:
    """A score that falls as examples get better gets a flat curve from isotonic, a falling one from logistic."""
    lowest, highest = float(x.min()), float(x.max())
    if method == "isotonic":
        isotonic = require("sklearn.isotonic", extra="calibrate", purpose="calibration").IsotonicRegression(y_min=0, y_max=1).fit(x, y)
        knots = zip(isotonic.X_thresholds_.tolist(), isotonic.y_thresholds_.tolist(), strict=True)
        return ScoreMap(method="isotonic", knots=tuple(knots), lowest=lowest, highest=highest)
    linear = require("sklearn.linear_model", extra="calibrate", purpose="calibration")
    mean, spread = float(x.mean()), float(x.std()) or 1.0
    model = linear.LogisticRegression(C=1e3).fit(((x - mean) / spread).reshape(-1, 1), y)
    slope = float(model.coef_[0][0]) / spread
    return ScoreMap(method="logistic", slope=slope, intercept=float(model.intercept_[0]) - slope * mean, lowest=lowest, highest=highest)


def _out_of_fold(x: Any, y: Any, method: str) -> Any:
    """For each example the probability that a fit to the other folds gives it."""
    numpy, selection = _numpy(), require("sklearn.model_selection", extra="calibrate", purpose="calibration")
    found = numpy.zeros(len(x))
    for train, test in selection.StratifiedKFold(_FOLDS, shuffle=True, random_state=_SEED).split(x, y):
        fitted = _fitted(x[train], y[train], method)
        found[test] = [fitted.probability(score) for score in x[test].tolist()]
    return found


def _bootstrapped(statistic: Callable[[Any], float], y: Any) -> Interval:
    """A statistic of all rows, and its 95% percentile interval over rows drawn anew (Efron 1979); draws of one label are passed over."""
    numpy = _numpy()
    draw, count, seen = numpy.random.default_rng(_SEED), len(y), []
    for _ in range(_RESAMPLES):
        rows = draw.integers(0, count, count)
        if y[rows].any() and not y[rows].all() and not math.isnan(value := statistic(rows)):
            seen.append(value)
    low, high = numpy.quantile(seen, [0.025, 0.975]) if seen else (math.nan, math.nan)
    return round(float(statistic(numpy.arange(count))), _DIGITS), round(float(low), _DIGITS), round(float(high), _DIGITS)


def _numpy() -> Any:
    return require("numpy", extra="calibrate", purpose="calibration")
