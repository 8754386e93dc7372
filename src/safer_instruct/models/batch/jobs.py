"""Batches on disk: a SQLite file in the run directory that knows what may be at the provider, and what has come back.

A batch goes through these states; each is on disk, fsynced, before the step that it names is taken:

    planned     its rows are listed, nothing has been sent that costs money
    creating    the call that creates it at the provider has been sent, or is about to be: it may exist there
    open        it exists there, and its id is known
    ended       its answers are in `answers`, in the same transaction

A batch that is found `planned` after a restart never was; one that is `creating` is looked for at the provider by its
token. Answers are kept as the provider sent them, for whoever asks for them, in this sitting or another: the ledger has an
answer only once somebody has asked. What went wrong with a row is not kept: it costs nothing to hear it again.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger.schema import open_file_to_read
from safer_instruct.scratch import kept_open
from safer_instruct.storage.attached import home_of

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY,
    token TEXT NOT NULL UNIQUE,       -- names it at the provider before the provider has named it
    model TEXT NOT NULL,              -- fingerprint
    path TEXT NOT NULL,               -- where its requests would go one by one
    state TEXT NOT NULL,              -- planned, creating, open, ended
    size INTEGER NOT NULL,            -- rows
    answered INTEGER NOT NULL,        -- rows that came back with an answer
    upload TEXT NOT NULL,             -- the provider's name of the uploaded rows
    remote TEXT NOT NULL,             -- the provider's name of the batch
    changed_at REAL NOT NULL          -- Unix time of the last change of state
);
CREATE TABLE IF NOT EXISTS rows (     -- of batches that have not ended
    batch INTEGER NOT NULL REFERENCES batches (id),
    row INTEGER NOT NULL,
    key BLOB NOT NULL,                -- SHA-256 of fingerprint and request
    part INTEGER NOT NULL,            -- which of the request's completions, where each is a row of its own
    cost REAL,                        -- the most that it can cost, NULL when unknown
    tokens INTEGER NOT NULL,          -- the most tokens that it can take
    PRIMARY KEY (batch, row)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rows_by_key ON rows (key);
CREATE TABLE IF NOT EXISTS answers (
    key BLOB NOT NULL,
    part INTEGER NOT NULL,
    line BLOB NOT NULL,               -- zlib of what the provider sent
    PRIMARY KEY (key, part)
) WITHOUT ROWID;
"""
State = Literal["planned", "creating", "open", "ended"]


@dataclass(frozen=True, slots=True)
class Row:
    """One request of a batch: what it is part of, and the most that it can take."""

    key: bytes
    part: int
    cost: float | None
    tokens: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch; `changed_at` says since when it is in its state."""

    id: int
    token: str
    path: str
    state: State
    size: int
    upload: str = ""
    remote: str = ""
    changed_at: float = 0.0


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What one model has under way at its provider.

    Attributes:
        model: Its fingerprint.
        batches: How many.
        size: Rows in them.
        since: When the oldest of them came into its state, as Unix time.
        creating: Those of them that may not be there: the call that creates them was on its way.
    """

    model: str
    batches: int
    size: int
    since: float
    creating: int


def read_under_way(path: Path) -> list[UnderWay]:
    """What is under way by the file of batches, model by model; none where there is no file. It may be in use, and nobody is asked.

    Raises:
        RunDirectoryError: It cannot be read.
    """
    if not path.is_file():
        return []
    query = """SELECT model, count(*), sum(size), min(changed_at), sum(state = 'creating') FROM batches
               WHERE state IN ('creating', 'open') GROUP BY model ORDER BY min(id)"""
    try:
        with closing(open_file_to_read(path)) as connection:
            return [UnderWay(*fields) for fields in connection.execute(query)] if _read_version(path, connection) else []
    except sqlite3.Error as exc:
        raise RunDirectoryError(f"{path}: the file of batches cannot be read: {exc}; to give up what is under way and pay for it again, delete it") from exc


def _read_version(path: Path, connection: sqlite3.Connection) -> int:
    """The schema version of the file, 0 for one that a run is only beginning.

    Raises:
        RunDirectoryError: It is newer than this program.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > _SCHEMA_VERSION:
        raise RunDirectoryError(f"{path} was written by a newer version of safer-instruct (schema {version}); upgrade to read it")
    return version


class Jobs:
    """The file of batches: one process writes it."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            RunDirectoryError: It is damaged, of a newer version, or cannot be written.
        """
        self.path = path
        self._lock = threading.Lock()
        with self._saying("cannot be opened"), kept_open(self._connect()) as self._reader, kept_open(self._connect()) as self._writer:
            _read_version(path, self._reader)
            self._writer.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT")

    def unfinished(self, model: str) -> list[Batch]:
        """The batches of a model that have not ended, oldest first."""
        query = "SELECT id, token, path, state, size, upload, remote, changed_at FROM batches WHERE model = ? AND state != 'ended' ORDER BY id"
        return [Batch(*fields) for fields in self._read(query, model)]

    def rows(self, batch: Batch) -> list[Row]:
        """The rows of a batch that has not ended, in their order."""
        return [Row(*fields) for fields in self._read("SELECT key, part, cost, tokens FROM rows WHERE batch = ? ORDER BY row", batch.id)]

    def batch_of(self, key: bytes) -> int | None:
        """The batch under way that holds a call, or None."""
        found = next(self._read("SELECT batch FROM rows WHERE key = ? LIMIT 1", key), None)
        return found[0] if found else None

    def answers(self, key: bytes) -> dict[int, bytes]:
        """What has come back for a call: part -> the provider's line."""
        try:
            return {part: zlib.decompress(line) for part, line in self._read("SELECT part, line FROM answers WHERE key = ?", key)}
        except zlib.error as exc:
            raise RunDirectoryError(f"{self.path} holds a damaged answer: {exc}; delete the file to send its rows again") from exc

    def remotes(self) -> set[str]:
        """The provider's names of all batches that this file knows."""
        return {remote for (remote,) in self._read("SELECT remote FROM batches WHERE remote != ''")}

    def plan(self, model: str, token: str, path: str, rows: Sequence[Row]) -> Batch:
        """List a batch before anything is sent."""
        now = time.time()
        with self._transaction() as write:
            cursor = write.execute("INSERT INTO batches VALUES (NULL, ?, ?, ?, 'planned', ?, 0, '', '', ?)", (token, model, path, len(rows), now))
            id_ = cursor.lastrowid or 0
            write.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)", [(id_, i, r.key, r.part, r.cost, r.tokens) for i, r in enumerate(rows)])
        return Batch(id_, token, path, "planned", len(rows), changed_at=now)

    def advance(self, batch: Batch, state: State, *, upload: str | None = None, remote: str | None = None) -> Batch:
        """Put a batch into another state, with what has become known of it."""
        upload, remote = batch.upload if upload is None else upload, batch.remote if remote is None else remote
        new = replace(batch, state=state, upload=upload, remote=remote, changed_at=time.time())
        with self._transaction() as write:
            values = (state, upload, remote, new.changed_at, batch.id)
            write.execute("UPDATE batches SET state = ?, upload = ?, remote = ?, changed_at = ? WHERE id = ?", values)
        return new

    def finish(self, batch: Batch, answers: Iterable[tuple[Row, bytes]]) -> None:
        """Keep the answers of a batch, and be done with it; all or nothing."""
        packed = [(row.key, row.part, zlib.compress(line)) for row, line in answers]
        with self._transaction() as write:
            write.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", packed)
            write.execute("DELETE FROM rows WHERE batch = ?", (batch.id,))
            write.execute("UPDATE batches SET state = 'ended', answered = ?, changed_at = ? WHERE id = ?", (len(packed), time.time(), batch.id))

    def discard(self, batch: Batch) -> None:
        """Forget a batch of which nothing is at the provider."""
        with self._transaction() as write:
            write.execute("DELETE FROM rows WHERE batch = ?", (batch.id,))
            write.execute("DELETE FROM batches WHERE id = ?", (batch.id,))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._writer.close()
        self._reader.close()

    def _connect(self) -> sqlite3.Connection:
        with kept_open(sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _read(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        with self._saying("is damaged"):
            return iter(self._reader.execute(query, values).fetchall())

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._saying("could not be written"):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            finally:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            if home := home_of(self.path.parent):
                home.keep(self.path.name, self._writer.serialize())

    @contextmanager
    def _saying(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise RunDirectoryError(f"{self.path}: the file of batches {what}: {exc}") from exc
