"""Texts that overlap with a set of others: the same words, a near-duplicate, or a long run of words in common."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from safer_instruct.detect.words import words
from safer_instruct.filters.minhash import PERMUTATIONS, band_keys, signature_of, trigrams_of


class Overlap:
    """Looks texts up in a fixed set, held in memory: about 1 kB each.

    Near-duplicates are found by MinHash (`filters.minhash`), and their similarity is estimated from the signatures, to about 0.06:
    the filters compare exactly (`filters.dedup`), which takes two to five times as long.
    """

    def __init__(self, texts: Iterable[str], threshold: float | None, *, shared_run: int | None = None) -> None:
        """Remember `texts`.

        Args:
            texts: What others are compared with.
            threshold: Jaccard similarity from which a text overlaps; None to leave near-duplicates alone.
            shared_run: Length of a run of words in common from which it does; None for runs of any length.
        """
        self._threshold, self._run = threshold, shared_run
        self._exact: set[bytes] = set()
        self._runs: set[bytes] = set()
        self._signatures: list[Sequence[int]] = []
        self._bands: defaultdict[int, list[int]] = defaultdict(list)
        for text in texts:
            self._add(words(text))

    def why(self, text: str) -> str:
        """How `text` overlaps, in a few words; empty where it does not."""
        parts = words(text)
        if _digest(parts) in self._exact:
            return "has the same words"
        if self._run and any(run in self._runs for run in _runs(parts, self._run)):
            return f"shares a run of {self._run} words"
        if self._threshold is None or len(parts) < 3:
            return ""
        signature = signature_of(trigrams_of(parts))
        near = {number for key in band_keys(signature) for number in self._bands.get(key, ())}
        similar = max((sum(map(int.__eq__, signature, self._signatures[n])) / PERMUTATIONS for n in near), default=0.0)
        return f"is a near-duplicate ({similar:.2f})" if similar >= self._threshold else ""

    def _add(self, parts: list[str]) -> None:
        self._exact.add(_digest(parts))
        if self._run:
            self._runs.update(_runs(parts, self._run))
        if self._threshold is not None and len(parts) >= 3:
            signature = signature_of(trigrams_of(parts))
            for key in band_keys(signature):
                self._bands[key].append(len(self._signatures))
            self._signatures.append(signature)


def _digest(parts: Sequence[str]) -> bytes:
    return hashlib.blake2b(" ".join(parts).encode("utf-8", "surrogatepass"), digest_size=12).digest()


def _runs(parts: Sequence[str], length: int) -> Iterable[bytes]:
    return (_digest(parts[i : i + length]) for i in range(len(parts) - length + 1))
