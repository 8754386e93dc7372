"""Choosing N of M: good ones that together cover what there is.

What is maximised is (1 - w) * coverage + w * quality: coverage is facility location, the mean over all texts of the cosine to the
nearest chosen one; quality the mean rank of the chosen. Both are monotone and submodular, so picking one after the other the text
that adds most comes within 1 - 1/e of the best set (Nemhauser, Wolsey and Fisher 1978). Each step looks at a random sample of
what is left, `M / N * ln(1 / epsilon)` of it, which costs at most epsilon of that bound in expectation (stochastic greedy:
Mirzasoleiman et al., Lazier Than Lazy Greedy, AAAI 2015). With quotas it is greedy on a partition matroid (Fisher, Nemhauser and Wolsey 1978: 1/2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from safer_instruct.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from safer_instruct.embed import Vectors

_EPSILON = 0.01
_GROUND = 10_000  # texts that coverage is measured on; more make it slower and hardly another choice
_DIGITS = 10  # of a gain: what the order of a sum changes must not decide


def select(
    vectors: Vectors,
    quality: Sequence[float],
    target: int,
    *,
    groups: Sequence[str] = (),
    quotas: Mapping[str, int] | None = None,
    quality_weight: float = 0.2,
    seed: int = 0,
) -> list[int]:
    """Choose `target` of M texts; the same input gives the same choice.

    Args:
        vectors: [M, d] of length 1.
        quality: [M] Only its order counts; NaN is worst.
        target: How many; all, if there are no more.
        groups: [M] The category of each, for `quotas`.
        quotas: How many of each category, adding up to at most `target`; a category that has fewer leaves its places empty.
        quality_weight: w, from 0 (coverage alone) to 1 (quality alone).
        seed: Of the samples.

    Returns:
        Positions, in the order of their choice: any beginning of it is a smaller choice.
    """
    import numpy as np

    count = len(vectors)
    free = _places(groups, quotas, count, target)
    target = min(target, int(sum(free.values())))
    rng = np.random.default_rng(seed)
    ground = vectors if count <= _GROUND else vectors[np.sort(rng.choice(count, _GROUND, replace=False))]
    worth = quality_weight * _ranks(quality) / max(target, 1)
    covered = np.zeros(len(ground), np.float32)
    group_of = groups if quotas is not None else [""] * count
    left = np.array([i for i in range(count) if free[group_of[i]]], np.int64)
    chosen: list[int] = []
    while len(chosen) < target:
        size = min(len(left), math.ceil(count / target * math.log(1 / _EPSILON)))
        at = np.sort(rng.choice(len(left), size, replace=False))
        sample = left[at]
        near = ground @ vectors[sample].T
        gain = (1 - quality_weight) * np.maximum(near - covered[:, None], 0).mean(axis=0, dtype=np.float64) + worth[sample]
        best = min(range(size), key=lambda k: (-round(float(gain[k]), _DIGITS), int(sample[k])))
        chosen.append(int(sample[best]))
        covered = np.maximum(covered, near[:, best])
        left = np.delete(left, at[best])
        group = group_of[chosen[-1]]
        free[group] -= 1
        if not free[group]:
            left = left[[group_of[i] != group for i in left.tolist()]]
    return chosen


def share_out(target: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers that add up to `target`, as near to the shares as can be (largest remainder; a tie goes to the first name).

    Raises:
        ConfigError: No share is above 0.
    """
    total = sum(shares.values())
    if not total > 0:
        raise ConfigError("the quotas of 'select' add up to nothing; give at least one category a share above 0")
    exact = {name: target * share / total for name, share in shares.items()}
    whole = {name: math.floor(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: (whole[name] - exact[name], name))[: target - sum(whole.values())]:
        whole[name] += 1
    return whole


def coverage(vectors: Vectors, chosen: Sequence[int]) -> NDArray[np.float32]:
    """[M] Cosine of each text to the nearest chosen one, a block of texts in memory at a time."""
    import numpy as np

    centres = vectors[list(chosen)].T
    return np.concatenate([(vectors[begin : begin + 4_096] @ centres).max(axis=1) for begin in range(0, len(vectors), 4_096)])


def _places(groups: Sequence[str], quotas: Mapping[str, int] | None, count: int, target: int) -> dict[str, int]:
    """How many may be chosen of each group that has any."""
    if quotas is None:
        return {"": min(count, target)}
    there = dict.fromkeys(groups, 0)
    for group in groups:
        there[group] += 1
    return {group: min(number, quotas.get(group, 0)) for group, number in there.items()}


def _ranks(quality: Sequence[float]) -> NDArray[np.float64]:
    """[M] From 0 for the worst to 1 for the best; equals share a rank."""
    import numpy as np

    values = np.asarray(quality, np.float64)
    distinct, which = np.unique(np.where(np.isnan(values), -np.inf, values), return_inverse=True)
    return which / max(len(distinct) - 1, 1)
