"""What people said of a run's examples: `review.sqlite`, write-ahead logged, synced to disk before a click is acknowledged.

Every change is an event with the label as it was before and as it is since; the table of labels is what the events come
to. Undoing takes the last event back by writing what was before, so nothing that was ever said is lost. An event carries a
key that the page makes up: a click that was sent again after a lost answer counts once. A label is of texts, and not of an
example's id: what was said of texts that a run has replaced since stays beside what is said of the new ones, and counts again
where they come back.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from safer_instruct import rundir
from safer_instruct.errors import RunDirectoryError
from safer_instruct.scratch import kept_open

Decision = Literal["accept", "reject", "skip"]
SESSION_S = 7 * 86_400.0  # how long a browser is known
_VERSION = 2
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS annotator (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, joined REAL NOT NULL);
    CREATE TABLE IF NOT EXISTS session (digest TEXT PRIMARY KEY, annotator INTEGER NOT NULL, begun REAL NOT NULL);
    CREATE TABLE IF NOT EXISTS event (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,
        annotator INTEGER NOT NULL,
        id TEXT NOT NULL,
        undoes INTEGER,             -- the event that this one takes back
        undone INTEGER NOT NULL DEFAULT 0,
        before TEXT NOT NULL,
        after TEXT NOT NULL,
        seconds REAL NOT NULL,      -- how long the pair had been on the screen
        at REAL NOT NULL
    );
    CREATE INDEX IF NOT EXISTS event_of ON event (annotator, number);
    CREATE TABLE IF NOT EXISTS label (
        annotator INTEGER NOT NULL,
        id TEXT NOT NULL,
        digest TEXT NOT NULL,       -- of the texts that were read
        decision TEXT,              -- NULL: only tagged, commented or edited so far
        said TEXT NOT NULL,         -- the whole label, as JSON
        at REAL NOT NULL,
        PRIMARY KEY (annotator, id, digest)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS label_of ON label (id, digest);
    CREATE INDEX IF NOT EXISTS label_by ON label (annotator, decision);
    CREATE TABLE IF NOT EXISTS claim (id TEXT NOT NULL, annotator INTEGER NOT NULL, until REAL NOT NULL, PRIMARY KEY (id, annotator)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Label:
    """What one annotator says of one example.

    Attributes:
        digest: Of the texts that were read; see `index.texts_digest`.
        decision: None while there is none.
        preferred: `chosen` or `rejected`: which side was taken for the better one, where sides were blind.
        tags: In the order in which they were set.
        comment: Free text.
        answers: Yes (true) or no (false) by question id.
        edit: Texts as they should be, by `prompt`, `chosen`, `rejected`; the originals stay where they are.
    """

    digest: str
    decision: Decision | None = None
    preferred: Literal["chosen", "rejected"] | None = None
    tags: tuple[str, ...] = ()
    comment: str = ""
    answers: dict[str, bool] = field(default_factory=dict)
    edit: dict[str, str] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """True where nothing is said."""
        return self == Label(self.digest)


class Store:
    """The open database; its methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        file = path / rundir.REVIEW
        try:
            opened = sqlite3.connect(file.absolute().as_uri(), uri=True, isolation_level=None, check_same_thread=False, timeout=10)
            with kept_open(opened) as self._connection:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")  # a commit is on the disk before the page hears of it
                version = self._connection.execute("PRAGMA user_version").fetchone()[0]
                if version not in (0, _VERSION):
                    by = f"another version of safer-instruct (layout {version}, known is {_VERSION})"
                    raise RunDirectoryError(f"{file} was written by {by}: install that one")
                self._connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        except sqlite3.DatabaseError as exc:
            raise RunDirectoryError(f"{file} cannot be opened ({exc}); move it aside, or restore it from a copy") from exc

    def attach(self, index: Path) -> None:
        """Join the index of the examples, read-only, as schema `idx`."""
        with self._lock:
            self._connection.execute("ATTACH DATABASE ? AS idx", (f"{index.absolute().as_uri()}?mode=ro",))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def query(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, committed and synced when the block ends well."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def join(self, name: str) -> int:
        """The number of the annotator of that name, who is written down if new."""
        with self.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO annotator (name, joined) VALUES (?, ?)", (name, time.time()))
            return int(connection.execute("SELECT number FROM annotator WHERE name = ?", (name,)).fetchone()[0])

    def label(self, annotator: int, id_: str, digest: str) -> Label:
        """What that annotator says of those texts of that example; an empty one where it says nothing."""
        with self._lock:
            return _in(self._connection, annotator, id_, digest) or Label(digest)

    def change(self, annotator: int, id_: str, digest: str, changes: dict[str, Any], *, key: str, seconds: float) -> Label:
        """Set some fields of a label; returns once that is on the disk.

        Args:
            annotator: Whose label.
            id_: Of which example.
            digest: Of the texts that were read; what was said of other texts under this id stays as it is.
            changes: New values of fields of `Label`.
            key: Of the click; a second call with it changes nothing.
            seconds: How long the example had been on the screen.
        """
        with self.writing() as connection:
            before = _in(connection, annotator, id_, digest)
            if connection.execute("SELECT 1 FROM event WHERE key = ?", (key,)).fetchone():
                return before or Label(digest)
            after = replace(before or Label(digest), **changes)
            _put(connection, annotator, id_, after)
            if after.decision:  # which counts for itself, as long as the texts are those that were read
                connection.execute("DELETE FROM claim WHERE id = ? AND annotator = ?", (id_, annotator))
            _log(connection, key, annotator, id_, None, _as_json(before), _as_json(after), seconds)
            return after

    def undo(self, annotator: int, *, key: str) -> str | None:
        """Take back the annotator's last change that still stands; its example's id, or None where there is none."""
        with self.writing() as connection:
            if again := connection.execute("SELECT id FROM event WHERE key = ?", (key,)).fetchone():
                return str(again[0])
            last = connection.execute(
                "SELECT number, id, before, after FROM event WHERE annotator = ? AND undoes IS NULL AND NOT undone ORDER BY number DESC LIMIT 1", (annotator,)
            ).fetchone()
            if last is None:
                return None
            number, id_, before, after = last
            _put(connection, annotator, id_, _from_json(before) or Label((_from_json(after) or Label("")).digest))
            connection.execute("UPDATE event SET undone = 1 WHERE number = ?", (number,))
            _log(connection, key, annotator, id_, number, after, before, 0.0)
            return str(id_)

    def claim(self, annotator: int, id_: str, until: float) -> None:
        """Keep an example for an annotator who has it on the screen."""
        with self.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO claim VALUES (?, ?, ?)", (id_, annotator, until))

    def begin_session(self, annotator: int, digest: str) -> None:
        """Remember a browser by the digest of its secret, so that a server that was restarted knows it."""
        with self.writing() as connection:
            connection.execute("DELETE FROM session WHERE begun < ?", (time.time() - SESSION_S,))
            connection.execute("INSERT INTO session VALUES (?, ?, ?)", (digest, annotator, time.time()))

    def session(self, digest: str) -> tuple[int, str] | None:
        """Number and name of the annotator whose browser that is."""
        sql = "SELECT annotator.number, name FROM session JOIN annotator ON annotator.number = annotator WHERE digest = ? AND begun > ?"
        rows = self.query(sql, (digest, time.time() - SESSION_S))
        return rows[0] if rows else None


def read_labels(path: Path) -> Iterator[tuple[str, str, Label]]:
    """Annotator, example id and label of everything that was said in a run directory, by id; nothing where nobody reviewed it.

    Of an example whose texts the run has replaced since there may be several, each of other texts.

    Raises:
        RunDirectoryError: The database is damaged.
    """
    if not (path / rundir.REVIEW).is_file():
        return
    store = Store(path)
    try:
        for name, id_, said in store.query("SELECT name, id, said FROM label JOIN annotator ON number = annotator ORDER BY id, number, at"):
            yield name, id_, _from_json(said) or Label("")
    finally:
        store.close()


def _in(connection: sqlite3.Connection, annotator: int, id_: str, digest: str) -> Label | None:
    row = connection.execute("SELECT said FROM label WHERE annotator = ? AND id = ? AND digest = ?", (annotator, id_, digest)).fetchone()
    return _from_json(row[0]) if row else None


def _put(connection: sqlite3.Connection, annotator: int, id_: str, label: Label) -> None:
    """Write the label, or forget it where it says nothing."""
    if label.empty:
        connection.execute("DELETE FROM label WHERE annotator = ? AND id = ? AND digest = ?", (annotator, id_, label.digest))
    else:
        values = (annotator, id_, label.digest, label.decision, _as_json(label), time.time())
        connection.execute("INSERT OR REPLACE INTO label VALUES (?, ?, ?, ?, ?, ?)", values)


def _log(connection: sqlite3.Connection, key: str, annotator: int, id_: str, undoes: int | None, before: str, after: str, seconds: float) -> None:
    sql = "INSERT INTO event (key, annotator, id, undoes, before, after, seconds, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    connection.execute(sql, (key, annotator, id_, undoes, before, after, seconds, time.time()))


def _as_json(label: Label | None) -> str:
    return json.dumps(asdict(label) if label else None, ensure_ascii=False)


def _from_json(said: str) -> Label | None:
    data = json.loads(said)
    return Label(**{**data, "tags": tuple(data["tags"])}) if data else None
