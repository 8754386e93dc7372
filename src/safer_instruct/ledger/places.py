"""Where in which shard a call stands, of millions of calls: on disk, so that memory does not grow with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from safer_instruct.ledger.known import KnownKeys
from safer_instruct.scratch import scratch_database

_CACHE_KB = 2_048


class Place(NamedTuple):
    """Where a call stands: the shard's file name, and the byte at which its group begins."""

    shard: str
    at: int


class Places:
    """A scratch database, with a filter before it for keys that are not there, as most are."""

    def __init__(self) -> None:
        self._known, self._shards, self._numbers = KnownKeys(), list[str](), dict[str, int]()
        tables = "CREATE TABLE place (key BLOB PRIMARY KEY, shard INTEGER NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;"
        self._db = scratch_database(tables, cache_kb=_CACHE_KB, several_threads=True)

    def add(self, keys: Iterable[bytes], place: Place) -> None:
        """Calls stand there; where one stood elsewhere before, that is forgotten."""
        if place.shard not in self._numbers:
            self._numbers[place.shard] = len(self._shards)
            self._shards.append(place.shard)
        rows = [(key, self._numbers[place.shard], place.at) for key in keys]
        self._db.executemany("INSERT OR REPLACE INTO place VALUES (?, ?, ?)", rows)
        for key, *_ in rows:  # last: what seems to be there is
            self._known.add(key)

    def get(self, key: bytes) -> Place | None:
        """Where a call stands, or None."""
        if key not in self._known:
            return None
        row = self._db.execute("SELECT shard, at FROM place WHERE key = ?", (key,)).fetchone()
        return Place(self._shards[row[0]], row[1]) if row else None

    def close(self) -> None:
        """Forget everything; the database goes with it."""
        self._db.close()
