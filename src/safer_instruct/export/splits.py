"""Train and test apart: what shares a prompt or a source text, or nearly so, never stands in both."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

from safer_instruct.conversation import as_turns, told_apart
from safer_instruct.errors import ConfigError
from safer_instruct.filters.near import deduplicate
from safer_instruct.seeds import derive_seed

WHOLE = "train"
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which split each pair is in.

    Attributes:
        names: The splits, `train` first.
        places: [pairs] Index into `names`.
    """

    names: tuple[str, ...]
    places: array[int]

    def of(self, number: int) -> str:
        """The split of pair `number`."""
        return self.names[self.places[number]]

    @property
    def counts(self) -> dict[str, int]:
        """Pairs by split."""
        return {name: self.places.count(i) for i, name in enumerate(self.names)}


def parse_splits(given: Sequence[str]) -> dict[str, float]:
    """Shares by name, from `NAME=SHARE`.

    Raises:
        ConfigError: One is not of that form, stands twice, or nothing would be left to train on.
    """
    shares: dict[str, float] = {}
    for text in given:
        name, _, share = text.partition("=")
        if wrong := _wrong(name, share, shares):
            remedy = f"write NAME=SHARE with a share between 0 and 1, such as test=0.1; '{WHOLE}' gets what the others leave"
            raise ConfigError(f"split '{text}': {wrong}; {remedy}")
        shares[name] = float(share)
    if sum(shares.values()) >= 1:
        raise ConfigError(f"the splits {', '.join(given)} leave nothing for '{WHOLE}'; give smaller shares")
    return shares


def _wrong(name: str, share: str, shares: Mapping[str, float]) -> str:
    """What is wrong with a split beside those before it; empty where nothing is."""
    if not _NAME.fullmatch(name):
        return f"'{name}' cannot name a split: small letters, digits and '_', a letter first"
    if name == WHOLE:
        return f"'{WHOLE}' is what is left"
    if name in shares:
        return f"'{name}' is given twice"
    if not share:
        return "it gives no share"
    try:
        return "" if 0 < float(share) < 1 else f"its share is {share}"
    except ValueError:
        return f"'{share}' is no number"


def assign(
    read: Callable[[], Iterable[Mapping[str, Any]]], shares: Mapping[str, float], seed: int, near: float = 0.0, *, source: str = "rejected"
) -> Assignment:
    """Divide pairs by cluster, as near to the shares as whole clusters allow.

    Clusters are taken in an order that hangs on the seed and on their content, not on where they stand.

    Args:
        read: Gives the pairs, from the first on each time it is called. What is kept of them are numbers, no text.
        shares: By name, for all splits but `train`.
        seed: Another one takes other clusters.
        near: Jaccard similarity of word trigrams from which two prompts, or two source texts, belong together; 0 asks for
            the same words only.
        source: The column that holds the source text. Responses that were written link nothing: a model may give many prompts nearly the
            same one. A row with a `twin_of` was made from no source text, and stands with the pair of that id.

    Raises:
        ConfigError: A split would be empty.
    """
    clusters = _Clusters()
    for row in read():
        clusters.add(_keys(row, source))
    for compared in (_prompt, lambda row: _source(row, source)) if near else ():
        _join_near(clusters, (compared(row) for row in read()), near)
    roots = array("q", clusters.roots())
    sizes = array("q", bytes(8 * len(roots)))
    for root in roots:
        sizes[root] += 1
    wanted = [round(share * len(roots)) for share in shares.values()]
    if none := [name for name, count in zip(shares, wanted, strict=True) if not count and len(roots)]:
        raise ConfigError(f"the split '{none[0]}' would be empty: {shares[none[0]]:g} of {len(roots)} pairs is less than one; give a larger share")
    chosen = array("B", bytes(len(roots)))
    for root in sorted((i for i, size in enumerate(sizes) if size), key=lambda i: derive_seed(seed, clusters.marks[i])):
        place = next((i for i, left in enumerate(wanted) if sizes[root] <= left), None)
        if place is not None:
            wanted[place] -= sizes[root]
            chosen[root] = place + 1
    assignment = Assignment((WHOLE, *shares), array("B", (chosen[root] for root in roots)))
    if empty := [name for name, count in assignment.counts.items() if not count and len(roots)]:
        count = sum(map(bool, sizes))
        remedy = "give another share" + (", or a higher --near" if count < len(roots) else "")
        raise ConfigError(f"the split '{empty[0]}' of {len(roots)} pairs in {count} clusters would be empty; {remedy}")
    return assignment


def _join_near(clusters: _Clusters, texts: Iterable[str | None], near: float) -> None:
    """Link rows whose texts are near; those without a text link to none."""
    has = bytearray()  # [rows] Whether a row has one

    def noted() -> Iterator[str]:
        for text in texts:
            has.append(text is not None)
            if text is not None:
                yield text

    found = deduplicate(noted(), threshold=near).cluster.tolist()
    rows = range(len(has)) if all(has) else array("q", compress(range(len(has)), has))
    for at, first in enumerate(found):
        clusters.join(rows[at], rows[first])


def _keys(row: Mapping[str, Any], source: str) -> Iterator[int]:
    """What two pairs of one cluster have in common: prompt or source text, but for case and white space; a conversation; or that one is the other's twin."""
    for column, text in (("prompt", _prompt(row)), ("source", _source(row, source))):
        if text is not None:
            yield _key(column, " ".join(text.split()).casefold())
    if "history" in row:
        yield _key("conversation", row["conversation"])
    if "twin_of" in row:
        yield _key("family", row["twin_of"] or row["id"])
    if row.get("history"):
        yield _key("history", repr([(turn["role"], turn["content"]) for turn in row["history"]]))


def _key(column: str, text: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{column}:{text}".encode(), digest_size=8).digest(), "big")


def _prompt(row: Mapping[str, Any]) -> str:
    """It is another one after another history."""
    return told_apart(as_turns(row.get("history")), row["prompt"])


def _source(row: Mapping[str, Any], column: str) -> str | None:
    return None if row.get("twin_of") else row[column]


class _Clusters:
    """Rows linked by common keys, directly or through others (union-find)."""

    def __init__(self) -> None:
        self.marks = array("Q")
        self._parents = array("q")
        self._first: dict[int, int] = {}

    def add(self, keys: Iterable[int]) -> None:
        """Take the next row."""
        row = len(self._parents)
        self._parents.append(row)
        for number, key in enumerate(keys):
            if not number:
                self.marks.append(key)
            self.join(row, self._first.setdefault(key, row))

    def join(self, row: int, other: int) -> None:
        """Link a row with another one, or with itself."""
        low, high = sorted((self._root(row), self._root(other)))
        self._parents[high] = low

    def roots(self) -> Iterator[int]:
        """For each row the first row of its cluster."""
        return map(self._root, range(len(self._parents)))

    def _root(self, row: int) -> int:
        parents = self._parents
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row
