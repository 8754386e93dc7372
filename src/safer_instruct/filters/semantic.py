"""Duplicates in meaning: texts whose vectors point the same way; the best of each group stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from safer_instruct.filters.near import Deduplicated, best_first

if TYPE_CHECKING:
    from safer_instruct.embed import Vectors

_BLOCK = 1_024


def deduplicate_vectors(vectors: Vectors, scores: Sequence[float] | None = None, *, threshold: float) -> Deduplicated:
    """Go through the texts, best first, and keep each whose cosine to all kept ones is below the threshold.

    Exact, a block at a time: n * kept * d multiplications, memory for one block beside the kept vectors. The cluster of a text is that of
    the one kept in its place.

    Args:
        vectors: [n, d] of length 1.
        scores: As for `near.deduplicate`.
        threshold: Cosine, above 0.
    """
    import numpy as np

    count = len(vectors)
    order = best_first(count, scores)
    kept, similarity = np.arange(count), np.ones(count)
    stay: list[int] = []
    for begin in range(0, count, _BLOCK):
        block = order[begin : begin + _BLOCK]
        others = np.array([*stay, *block.tolist()], np.int64)
        cosine = vectors[block] @ vectors[others].T
        open_ = np.arange(len(others)) < len(stay)  # whom a text may be dropped for: those kept so far
        for row, position in enumerate(block.tolist()):
            nearest = int(np.argmax(np.where(open_, cosine[row], -2.0)))
            if open_[nearest] and cosine[row, nearest] >= threshold:
                kept[position], similarity[position] = others[nearest], float(cosine[row, nearest])
                continue
            open_[len(stay) + row] = True
        stay = others[open_].tolist()
    first = np.full(count, count)
    np.minimum.at(first, kept, np.arange(count))
    return Deduplicated(kept == np.arange(count), first[kept], kept, similarity)
