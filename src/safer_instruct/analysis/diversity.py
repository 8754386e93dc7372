"""How varied many texts are: self-BLEU, the Vendi score, near-duplicate clusters, and a picture of where they lie."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

from safer_instruct.detect.words import words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

_ORDERS = 4
_EPSILON = 0.1  # of an n-gram count of zero: method 1 of Chen and Cherry (2014), which published self-BLEU figures use
_HASHED_DIMENSIONS = 512


def self_bleu(texts: Sequence[str]) -> float:
    """Mean BLEU-4 of each text against all the others, 0 to 1; higher is more alike (Zhu et al. 2018, section 3.2).

    Nearly equal texts give nearly 1. It grows with the number of texts, so compare sets at equal numbers.
    """
    split = [parts for text in texts if (parts := words(text))]
    if len(split) < 2:
        return 0.0
    grams = [[Counter(zip(*(parts[i:] for i in range(order)), strict=False)) for order in range(1, _ORDERS + 1)] for parts in split]
    most = [_two_largest([of_text[order] for of_text in grams]) for order in range(_ORDERS)]
    lengths = Counter(len(parts) for parts in split)
    return sum(_bleu(i, grams[i], most, len(split[i]), lengths) for i in range(len(split))) / len(split)


def vendi(vectors: Vectors) -> float:
    """The effective number of different texts: exp of the entropy of the similarities' eigenvalues (Friedman and Dieng 2023, definition 3.1).

    Args:
        vectors: [n, d] of length 1, so that the kernel is the cosine.
    """
    import numpy as np

    if not len(vectors):
        return 0.0
    x = vectors.astype(np.float64)
    values = np.linalg.eigvalsh(x.T @ x / len(x) if x.shape[1] < len(x) else x @ x.T / len(x))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


@dataclass(frozen=True, slots=True)
class Clusters:
    """Groups of near-duplicates.

    Attributes:
        texts: How many were looked at.
        clustered: Those that stand in a group of two or more.
        sizes: Of the groups, largest first.
        examples: Position of the first text of each group, in the same order.
    """

    texts: int
    clustered: int
    sizes: tuple[int, ...]
    examples: tuple[int, ...]


def near_clusters(texts: Sequence[str], threshold: float = 0.7) -> Clusters:
    """Groups linked by a Jaccard similarity of word trigrams of at least `threshold`."""
    from safer_instruct.filters.near import deduplicate

    if not texts:
        return Clusters(0, 0, (), ())
    counts = Counter(deduplicate(texts, threshold=threshold).cluster.tolist())
    groups = sorted(((size, first) for first, size in counts.items() if size > 1), key=lambda group: (-group[0], group[1]))
    return Clusters(len(texts), sum(size for size, _ in groups), tuple(size for size, _ in groups), tuple(first for _, first in groups))


def hashed(texts: Sequence[str]) -> Vectors:
    """[n, 512] Words hashed into counts, weighted by rarity, of length 1: likeness of wording, for where no embedder is installed."""
    import numpy as np

    found = np.zeros((len(texts), _HASHED_DIMENSIONS), np.float32)
    for row, text in enumerate(texts):
        for word in words(text):
            found[row, crc32(word.encode("utf-8", "replace")) % _HASHED_DIMENSIONS] += 1
    rarity = np.log((1 + len(texts)) / (1 + (found > 0).sum(axis=0)))
    weighted = np.log1p(found) * rarity.astype(np.float32)
    return np.asarray(weighted / np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-12), np.float32)


def plane(vectors: Vectors) -> tuple[Vectors, float]:
    """[n, 2] The two directions in which the vectors differ most (PCA), and the share of the variance that they show."""
    import numpy as np

    if len(vectors) < 3:
        return np.zeros((len(vectors), 2), np.float32), 0.0
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    values, directions = np.linalg.eigh(centred.T @ centred)
    both = directions[:, -2:][:, ::-1]
    both *= np.sign(both[np.abs(both).argmax(axis=0), [0, 1]])  # the sign of an eigenvector is arbitrary; fix it
    total = float(values.sum())
    return np.asarray(centred @ both, np.float32), float(values[-2:].sum() / total) if total > 0 else 0.0


_Gram = tuple[str, ...]
_Largest = dict[_Gram, tuple[int, int, int]]


def _two_largest(counts: Sequence[Counter[_Gram]]) -> _Largest:
    """N-gram -> its largest count in a text, that text, and the largest in any other."""
    found: _Largest = {}
    for owner, own in enumerate(counts):
        for gram, n in own.items():
            first, who, second = found.get(gram, (0, -1, 0))
            found[gram] = (n, owner, first) if n > first else (first, who, max(second, n))
    return found


def _bleu(owner: int, grams: Sequence[Counter[_Gram]], most: Sequence[_Largest], length: int, lengths: Counter[int]) -> float:
    """BLEU-4 of one text with all others as references."""
    logs = 0.0
    for own, largest in zip(grams, most, strict=True):
        hits = 0
        for gram, n in own.items():
            first, who, second = largest[gram]
            hits += min(n, second if who == owner else first)
        logs += math.log((hits or _EPSILON) / max(1, own.total())) / _ORDERS
    nearest = min((abs(other - length), other) for other, n in lengths.items() if n > (other == length))[1]
    return math.exp(logs + min(0.0, 1 - nearest / length))
