"""Exact and near-duplicate detection in one pass, in input order: what was seen first stays."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from typing import NamedTuple

from safer_instruct.detect.words import words
from safer_instruct.example import Verdict
from safer_instruct.filters.minhash import band_keys, signature_of, trigrams_of
from safer_instruct.scratch import scratch_database

_SKETCH = 256  # smallest hashes that are kept of a text: all of most texts, so that most are compared exactly
_CACHE_KB = 4_096


class _Marks(NamedTuple):
    """What of a text is compared."""

    digest: bytes
    keys: list[int]
    sketch: array[int]


class Deduplicator:
    """Remembers what it was shown, in a private temporary database on disk (`TMPDIR`): memory does not grow with it.

    Candidates are found by MinHash (`filters.minhash`). They are then compared by their trigrams: exactly up to 256 of them,
    beyond that by the 256 smallest hashes (a bottom-k sketch, to about 0.03).
    """

    def __init__(self, field: str, threshold: float | None) -> None:
        """Start with nothing seen.

        Args:
            field: What is compared, for the verdict's name: `dedup.FIELD`.
            threshold: Jaccard similarity from which two texts count as one; None for exact duplicates only.
        """
        self._name, self._threshold = f"dedup.{field}", threshold
        tables = """
            CREATE TABLE text (number INTEGER PRIMARY KEY, id TEXT NOT NULL, sketch BLOB);
            CREATE TABLE exact (digest BLOB PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
            CREATE TABLE band (key INTEGER, number INTEGER, PRIMARY KEY (key, number)) WITHOUT ROWID;
        """
        self._db = scratch_database(tables, cache_kb=_CACHE_KB)

    def check(self, text: str, id_: str, *, near_to: str = "") -> Verdict:
        """Pass a text that was not seen before, or under `id_` only, and remember it under `id_`.

        Args:
            text: What is looked at.
            id_: Whose it is.
            near_to: Whose text it may be near, but not equal, to.
        """
        marks = self._marks(text)
        verdict = self._told(marks, id_, near_to)
        if not verdict.passed:
            return verdict
        number = self._db.execute("INSERT INTO text (id, sketch) VALUES (?, ?)", (id_, marks.sketch)).lastrowid
        self._db.execute("INSERT OR IGNORE INTO exact VALUES (?, ?)", (marks.digest, number))
        self._db.executemany("INSERT INTO band VALUES (?, ?)", [(key, number) for key in marks.keys])
        return verdict

    def look_up(self, text: str, *, near_to: str = "") -> Verdict:
        """As `check`, without remembering the text."""
        return self._told(self._marks(text), "", near_to)

    def close(self) -> None:
        """Forget everything; the database goes with it."""
        self._db.close()

    def _marks(self, text: str) -> _Marks:
        parts = words(text)
        digest = hashlib.blake2b((" ".join(parts) or text).encode("utf-8", "surrogatepass"), digest_size=12).digest()
        trigrams = trigrams_of(parts) if self._threshold is not None else []
        return _Marks(digest, band_keys(signature_of(trigrams)) if trigrams else [], _sketch(trigrams))

    def _told(self, marks: _Marks, own: str, near_to: str) -> Verdict:
        same = self._db.execute("SELECT id FROM exact JOIN text USING (number) WHERE digest = ?", (marks.digest,)).fetchone()
        if same and same[0] != own:
            return Verdict(self._name, False, None, f"has the same words as {same[0]}")
        near = self._near(marks.sketch, marks.keys, (own, near_to))
        return Verdict(self._name, False, near[0], f"is a near-duplicate of {near[1]}") if near else Verdict(self._name, True)

    def _near(self, sketch: array[int], keys: Sequence[int], but: tuple[str, ...]) -> tuple[float, str] | None:
        """The first text seen, `but` those of these ids, whose similarity reaches the threshold, and that similarity."""
        if not keys:
            return None
        marks = ",".join("?" * len(keys))
        query = f"SELECT id, sketch FROM text WHERE number IN (SELECT number FROM band WHERE key IN ({marks})) ORDER BY number"  # noqa: S608 - marks only
        own = set(sketch)
        for id_, blob in self._db.execute(query, keys):
            if id_ in but:
                continue
            similarity = _similarity(own, set(array("Q", blob)))
            if self._threshold is not None and similarity >= self._threshold:
                return round(similarity, 4), id_
        return None


class Deduplicators:
    """One memory for all texts, or one for each category, which then know nothing of each other."""

    def __init__(self, field: str, threshold: float | None, *, by_category: bool) -> None:
        """Start with nothing seen; see `Deduplicator`."""
        self._field, self._threshold, self._by_category = field, threshold, by_category
        self._memories: dict[str, Deduplicator] = {}

    def check(self, text: str, id_: str, category: str) -> Verdict:
        """See `Deduplicator.check`."""
        key = category if self._by_category else ""
        if key not in self._memories:
            self._memories[key] = Deduplicator(self._field, self._threshold)
        return self._memories[key].check(text, id_)

    def close(self) -> None:
        """Forget everything."""
        for memory in self._memories.values():
            memory.close()


def _sketch(trigrams: Sequence[str]) -> array[int]:
    """The smallest hashes, ascending; stable ones, for Python's own change from process to process."""
    from rensa import RMinHash

    return array("Q", sorted(set(RMinHash.hash_token_sets([trigrams])[0]))[:_SKETCH])


def _similarity(one: set[int], two: set[int]) -> float:
    """Jaccard similarity of two sets by their smallest hashes: exact where both are whole."""
    if len(one) < _SKETCH and len(two) < _SKETCH:
        return len(one & two) / len(one | two)
    smallest = sorted(one | two)[:_SKETCH]
    return sum(h in one and h in two for h in smallest) / len(smallest)
