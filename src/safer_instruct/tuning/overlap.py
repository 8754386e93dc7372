"""Texts that overlap with a set of others: the same words, a near-duplicate, or a long run of words in common."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from safer_instruct.detect.words import words

_PERMUTATIONS, _BANDS, _SEED = 64, 16, 42  # four rows a band: at similarity 0.7, 99 of 100 pairs share one


class Overlap:
    """Looks texts up in a fixed set, held in memory: about 1 kB each.

    Near-duplicates are found by MinHash over word trigrams with locality-sensitive hashing (Leskovec, Rajaraman and Ullman,
    Mining of Massive Datasets, sections 3.3 and 3.4).
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
        self._bands: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
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
        signature = _signature(parts)
        near = {number for key in _keys(signature) for number in self._bands.get(key, ())}
        similar = max((sum(map(int.__eq__, signature, self._signatures[n])) / _PERMUTATIONS for n in near), default=0.0)
        return f"is a near-duplicate ({similar:.2f})" if similar >= self._threshold else ""

    def _add(self, parts: list[str]) -> None:
        self._exact.add(_digest(parts))
        if self._run:
            self._runs.update(_runs(parts, self._run))
        if self._threshold is not None and len(parts) >= 3:
            signature = _signature(parts)
            for key in _keys(signature):
                self._bands[key].append(len(self._signatures))
            self._signatures.append(signature)


def _digest(parts: Sequence[str]) -> bytes:
    return hashlib.blake2b(" ".join(parts).encode("utf-8", "surrogatepass"), digest_size=12).digest()


def _runs(parts: Sequence[str], length: int) -> Iterable[bytes]:
    return (_digest(parts[i : i + length]) for i in range(len(parts) - length + 1))


def _signature(parts: Sequence[str]) -> Sequence[int]:
    from rensa import RMinHash

    minhash: Any = RMinHash(_PERMUTATIONS, _SEED)
    minhash.update([" ".join(trigram) for trigram in zip(parts, parts[1:], parts[2:], strict=False)])
    signature: list[int] = minhash.digest()
    return signature


def _keys(signature: Sequence[int]) -> list[tuple[int, ...]]:
    rows = _PERMUTATIONS // _BANDS
    return [(at, *signature[at : at + rows]) for at in range(0, _PERMUTATIONS, rows)]
