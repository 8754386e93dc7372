"""Exact and near-duplicate detection in one pass, in input order: what was seen first stays."""

from __future__ import annotations

import hashlib
from typing import Any

from safer_instruct.example import Verdict
from safer_instruct.filters.rules import words

_PERMUTATIONS, _BANDS, _SEED = 64, 16, 42


class Deduplicator:
    """Remembers what it was shown; memory grows with the number of texts, not with their length.

    Near-duplicates are found by MinHash over word trigrams with locality-sensitive hashing (Broder 1997; Leskovec,
    Rajaraman and Ullman, Mining of Massive Datasets, section 3.4), through rensa.
    """

    def __init__(self, field: str, threshold: float | None) -> None:
        """Start with nothing seen.

        Args:
            field: What is compared, for the verdict's name: `dedup.FIELD`.
            threshold: Jaccard similarity from which two texts count as one; None for exact duplicates only.
        """
        self._name, self._exact = f"dedup.{field}", dict[bytes, str]()
        self._near: Any = None
        if threshold is not None:
            from rensa import RMinHashDeduplicator

            self._near = RMinHashDeduplicator(threshold=threshold, num_perm=_PERMUTATIONS, use_lsh=True, num_bands=_BANDS, seed=_SEED)

    def check(self, text: str, id_: str) -> Verdict:
        """Pass a text that was not seen before, and remember it under `id_`."""
        parts = words(text)
        digest = hashlib.blake2b((" ".join(parts) or text).encode("utf-8", "surrogatepass"), digest_size=12).digest()
        if digest in self._exact:
            return Verdict(self._name, False, None, f"has the same words as {self._exact[digest]}")
        if self._near is not None and len(parts) >= 3:
            sketch = _sketch(parts)
            if self._near.is_duplicate(id_, sketch):
                return Verdict(self._name, False, None, f"is a near-duplicate of {min(self._near.get_duplicates(sketch))}")
            self._near.add(id_, sketch)
        self._exact[digest] = id_
        return Verdict(self._name, True)


def _sketch(parts: list[str]) -> Any:
    from rensa import RMinHash

    sketch = RMinHash(_PERMUTATIONS, _SEED)
    sketch.update([" ".join(trigram) for trigram in zip(parts, parts[1:], parts[2:], strict=False)])
    return sketch
