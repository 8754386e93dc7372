"""How far judges agree beyond chance, and how often one of them contradicts itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import combinations
from typing import Literal

Level = Literal["nominal", "interval"]


def observed_agreement(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Share of items that two judges label alike.

    Raises:
        ValueError: There is no item, or not the same number on both sides.
    """
    _check(first, second)
    return sum(a == b for a, b in zip(first, second, strict=True)) / len(first)


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Cohen's kappa (1960): agreement of two judges over what their label frequencies alone would give.

    None where both give one and the same label throughout: then chance explains everything and nothing can be told.

    Raises:
        ValueError: There is no item, or not the same number on both sides.
    """
    observed, count = observed_agreement(first, second), len(first)
    ours, theirs = Counter(first), Counter(second)
    expected = sum(n * theirs[label] for label, n in ours.items()) / count**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def krippendorff_alpha(units: Sequence[Sequence[float | None]], level: Level = "nominal") -> float | None:
    """Krippendorff's alpha (2011, "Computing Krippendorff's Alpha-Reliability"): 1 - observed / expected disagreement.

    Any number of judges, and not every judge need have seen every unit.

    Args:
        units: For each unit what each judge said, None where it said nothing; units with fewer than two values are passed over.
        level: `nominal` for labels, where values differ or do not; `interval` for scales, where the square of the difference counts.

    Returns:
        Alpha: 1 is full agreement, 0 what chance gives; None where all values are the same, or none can be compared.
    """
    distance = _DISTANCES[level]
    paired = [values for unit in units if len(values := [v for v in unit if v is not None]) > 1]
    totals = Counter(value for values in paired for value in values)
    count = sum(totals.values())
    if len(totals) < 2:
        return None
    observed = sum(2 * sum(distance(a, b) for a, b in combinations(values, 2)) / (len(values) - 1) for values in paired) / count
    expected = sum(2 * n * m * distance(a, b) for (a, n), (b, m) in combinations(totals.items(), 2)) / (count * (count - 1))
    return 1 - observed / expected


def flip_rate(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Share of questions that one judge answers differently when only order or wording changes; None of no question."""
    return sum(a != b for a, b in pairs) / len(pairs) if pairs else None


def _check(first: Sequence[Hashable], second: Sequence[Hashable]) -> None:
    if not first or len(first) != len(second):
        raise ValueError(f"two judges must have labelled the same items, at least one: {len(first)} and {len(second)} were given")


_DISTANCES: dict[Level, Callable[[float, float], float]] = {
    "nominal": lambda a, b: float(a != b),
    "interval": lambda a, b: (a - b) ** 2,
}
