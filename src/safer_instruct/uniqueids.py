"""Ids of examples: each is given once, however many rows ask for it; what was given lies on disk, so memory does not grow with it."""

from __future__ import annotations

import hashlib

from safer_instruct.ledger.known import KnownKeys
from safer_instruct.scratch import scratch_database

_CACHE_KB = 4_096


class UniqueIds:
    """A scratch database, with a filter before it for ids that are new, as nearly all are."""

    def __init__(self) -> None:
        self._known = KnownKeys()
        tables = "CREATE TABLE given (digest BLOB PRIMARY KEY, times INTEGER NOT NULL) WITHOUT ROWID;"
        self._db = scratch_database(tables, cache_kb=_CACHE_KB, several_threads=True)

    def of(self, wanted: str) -> str:
        """`wanted`, with a number behind it where it is taken."""
        unique, times = wanted, self._times(wanted)
        if times:
            while self._times(unique):
                times += 1
                unique = f"{wanted}-{times}"
            self._note(wanted, times)
        self._note(unique, 1)
        return unique

    def close(self) -> None:
        """Forget everything; the database goes with it."""
        self._db.close()

    def _times(self, id_: str) -> int:
        digest = _digest(id_)
        if digest not in self._known:
            return 0
        row = self._db.execute("SELECT times FROM given WHERE digest = ?", (digest,)).fetchone()
        return row[0] if row else 0

    def _note(self, id_: str, times: int) -> None:
        digest = _digest(id_)
        self._known.add(digest)
        self._db.execute("INSERT OR REPLACE INTO given VALUES (?, ?)", (digest, times))


def _digest(id_: str) -> bytes:
    return hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=16).digest()
