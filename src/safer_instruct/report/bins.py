"""Histograms: shares of values between round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_ROUNDING = 1e-9


def round_edges(columns: Sequence[Any], *, most: int, whole: bool) -> list[float]:
    """Edges of at most about `most` bins, at multiples of 1, 2 or 5 times a power of ten, that hold all but the outermost of each column, of 200 values one.

    Args:
        columns: The values of each series; each counts alike, however many it has.
        most: Bins.
        whole: Of whole numbers: no bin is narrower than 1.
    """
    import numpy as np

    filled = [np.asarray(column, np.float64) for column in columns if len(column)]
    low = min((float(np.percentile(column, 0.5, method="lower")) for column in filled), default=0.0)
    high = max((float(np.percentile(column, 99.5, method="higher")) for column in filled), default=1.0)
    if whole:
        low, high = math.floor(low), math.ceil(high)
    least = max((high - low) / most, 1.0 if whole else 0.0) or 1.0
    power = 10.0 ** math.floor(math.log10(least) + _ROUNDING)
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= least * (1 - _ROUNDING))
    return [round(step * i, 10) for i in range(math.floor(low / step), math.floor(high / step) + 2)]


def histogram(values: Sequence[Any], edges: Sequence[float], of: int | None = None) -> list[float]:
    """Percent in each bin; what lies outside counts in the first and the last.

    Args:
        values: What is counted.
        edges: Of the bins.
        of: How many make a hundred percent, where these values are a part of them; by default they themselves.
    """
    import numpy as np

    if not len(values):
        return [0.0] * (len(edges) - 1)
    counts, _ = np.histogram(np.clip(np.asarray(values, np.float64), edges[0], edges[-1]), edges)
    return [round(100 * int(n) / (of or len(values)), 3) for n in counts]


def spread(values: Sequence[Any]) -> tuple[float, float, float, float]:
    """10th percentile, median, mean, 90th percentile; zeros where there is nothing."""
    import numpy as np

    if not len(values):
        return 0.0, 0.0, 0.0, 0.0
    low, middle, high = np.percentile(np.asarray(values, np.float64), [10, 50, 90])
    return float(low), float(middle), float(np.mean(values)), float(high)
