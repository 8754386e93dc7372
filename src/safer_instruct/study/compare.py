"""From answers and judgements to figures: each arm over its seeds, and arms beside each other, paired by prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from safer_instruct.analysis.bootstrap import Bootstrap, Interval
from safer_instruct.analysis.proportion import mean_outcome, wilson
from safer_instruct.analysis.signtest import flip_test, holm

Outcomes = Sequence[float | None]
"""By prompt; None where it was not answered or not judged."""


@dataclass(frozen=True, slots=True)
class Beside:
    """An arm beside another one, by one measure.

    Attributes:
        arm: The one that is looked at.
        other: The one that it is compared with.
        value: What is compared, the mean over prompts of the mean over seeds: a win rate, or a difference of rates. With a paired bootstrap
            interval over prompts.
        by_seed: The same for each seed.
        prompts: That both have a judgement of.
        p: Paired randomisation test over prompts.
        p_adjusted: The same by Holm's method, for all comparisons of the measure.
        better: 1 where the arm is better, -1 where the other is, 0 where nobody can tell.
    """

    arm: str
    other: str
    value: Interval
    by_seed: tuple[float, ...]
    prompts: int
    p: float
    p_adjusted: float
    better: int


def over_seeds(by_seed: Sequence[Outcomes]) -> list[float | None]:
    """The mean over the seeds that have an outcome, by prompt."""
    found = [[value for value in values if value is not None] for values in zip(*by_seed, strict=True)]
    return [fmean(known) if known else None for known in found]


def mean_of(values: Outcomes, bootstrap: Bootstrap) -> Interval | None:
    """The mean with its interval over prompts, as `mean_outcome` has it; None where nothing is known."""
    known = [value for value in values if value is not None]
    return mean_outcome(known, bootstrap.over(len(known))) if known else None


def beside(outcomes: Mapping[tuple[str, str], Sequence[Outcomes]], bootstrap: Bootstrap, *, even: float, larger_is_better: bool, seed: int) -> list[Beside]:
    """All comparisons of one measure.

    Args:
        outcomes: (arm, other) -> for each seed, the outcome by prompt.
        bootstrap: Over all prompts.
        even: The value of two arms that are alike: 0.5 for win rates, 0 for differences.
        larger_is_better: Which side of `even` speaks for the arm.
        seed: Of the test.
    """
    found = []
    for (arm, other), by_seed in outcomes.items():
        values = [value for value in over_seeds(by_seed) if value is not None]
        if not values:
            continue
        p = flip_test([value - even for value in values], seed=seed)
        interval = _around(values, even, bootstrap) if len(set(values)) == 1 else bootstrap.over(len(values)).mean(values)
        each = tuple(fmean(known) for said in by_seed if (known := [value for value in said if value is not None]))
        found.append(Beside(arm, other, interval, each, len(values), p, p, 0))
    adjusted = holm([comparison.p for comparison in found])
    return [_told(c, p, even, larger_is_better, 1 - bootstrap.level) for c, p in zip(found, adjusted, strict=True)]


def differences(ours: Sequence[Outcomes], theirs: Sequence[Outcomes]) -> list[Outcomes]:
    """Outcome less the other's, by prompt, for each seed."""
    return [[None if a is None or b is None else a - b for a, b in zip(one, two, strict=True)] for one, two in zip(ours, theirs, strict=True)]


def _told(comparison: Beside, p: float, even: float, larger_is_better: bool, alpha: float) -> Beside:
    apart = comparison.value.estimate - even
    sign = 0 if p >= alpha or not apart else 1 if (apart > 0) == larger_is_better else -1
    return replace(comparison, p_adjusted=p, better=sign)


def _around(values: Sequence[float], even: float, bootstrap: Bootstrap) -> Interval:
    """The interval of values that are all alike, of which all resamples are: as far as Wilson's reaches from a share of 0."""
    value, spread = values[0], wilson(0, len(values), bootstrap.level).high
    return Interval(value, max(0.0 if even else -1.0, value - spread), min(1.0, value + spread))
