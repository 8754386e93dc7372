"""The tables of a ledger, how its file is opened, and how an older one is brought up to date."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger import wal
from safer_instruct.ledger.content import KEY_BYTES, Call, encode_answer
from safer_instruct.ledger.pages import PAGE_BYTES, find_header_damage
from safer_instruct.ledger.rows import Appender, DamagedRowError
from safer_instruct.models.protocol import Completion, Generated, Scored, Usage
from safer_instruct.scratch import kept_open
from safer_instruct.wholefile import FULL, lacking_room

SCHEMA_VERSION = 2
_TABLES = """
CREATE TABLE calls (
    number INTEGER PRIMARY KEY,     -- 1, 2, 3 ... in order of commit
    key BLOB NOT NULL,              -- SHA-256 of fingerprint and request, the first 16 bytes
    origin INTEGER NOT NULL,        -- origins.id
    dictionary INTEGER NOT NULL,    -- dictionaries.dictionary, 0 for none
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost REAL NOT NULL,
    seconds REAL NOT NULL,
    finished_at REAL NOT NULL,      -- Unix time
    content BLOB NOT NULL,          -- zstd of request, line break, answer
    checksum INTEGER NOT NULL       -- CRC-32 of the columns from key to content
);
CREATE UNIQUE INDEX calls_key ON calls (key);
CREATE TABLE origins (              -- stages and their models, in order of first use, with totals
    id INTEGER PRIMARY KEY,
    stage TEXT NOT NULL,
    model TEXT NOT NULL,
    dictionary INTEGER NOT NULL DEFAULT 0,
    calls INTEGER NOT NULL DEFAULT 0,
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    cost REAL NOT NULL DEFAULT 0,
    seconds REAL NOT NULL DEFAULT 0,
    UNIQUE (stage, model)
);
CREATE TABLE dictionaries (         -- each is kept twice
    number INTEGER PRIMARY KEY,
    dictionary INTEGER NOT NULL,
    data BLOB NOT NULL,
    checksum INTEGER NOT NULL       -- CRC-32 of data
);
"""
_CHECKPOINT_PAGES = 4096  # 16 MB: a page of the index that many commits touch is copied into the file once
_WAL_LIMIT_BYTES = 64 << 20  # what a long reader made it grow beyond is given back
_ROOM_BYTES = 256 << 10  # an empty ledger with its log and its index
_BATCH = 1000
_NEWEST_THINKABLE = 100
_TRIES, _PAUSE_S = 20, 0.1  # for a file that somebody reads


class DamagedFileError(ValueError):
    """The file as a whole is not what was written."""


def connect(path: Path, *, cache_mb: int) -> sqlite3.Connection:
    """Open a database for writing: every commit is synced."""
    with kept_open(sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # NORMAL does not sync a commit in WAL mode
        connection.execute(f"PRAGMA cache_size = -{cache_mb << 10}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open a ledger that a run may be writing.

    Raises:
        RunDirectoryError: It is not there, damaged, or of another version.
    """
    if not path.is_file():
        what = f"{path.parent} is a file, and the folder of a run is needed" if path.parent.is_file() else f"{path}: the ledger cannot be read: there is none"
        raise RunDirectoryError(f"{what}; is the folder that of a run, as 'safer-instruct run' named it?")
    try:
        check_file(path, first_only=True)
        with kept_open(open_file_to_read(path)) as connection:
            version = read_version(connection)
            check_version(path, version)
            if version == 0:
                raise RunDirectoryError(f"{path} is no ledger of safer-instruct, or one that a run is only beginning; give the folder of a run")
            if version < SCHEMA_VERSION:
                raise RunDirectoryError(
                    f"{path} was written by an older version of safer-instruct (ledger schema {version}); the next run brings it up to date"
                )
    except (sqlite3.Error, DamagedFileError) as exc:
        raise explain(path, exc, "the ledger cannot be read") from exc
    return connection


def check_file(path: Path, *, first_only: bool = False) -> None:
    """Look at what SQLite would pass over, before it does.

    Raises:
        DamagedFileError: The header of the file is broken, or the log beside it; see `wal.find_damage`.
    """
    if path.is_file() and (damage := find_header_damage(path)):
        raise DamagedFileError(damage)
    if damage := wal.find_damage(path, first_only=first_only):
        raise DamagedFileError(damage)


def fold_log(path: Path) -> None:
    """Bring what stands in the log of a database into its file, and remove the log; a damaged one is left as it is, with its log.

    Raises:
        RunDirectoryError: Another process has it open.
    """
    if not path.is_file():
        return
    for left in reversed(range(_TRIES)):
        try:
            check_file(path)
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = DELETE")
            return
        except (sqlite3.Error, DamagedFileError) as exc:
            if getattr(exc, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                return
            if not left:
                raise RunDirectoryError(f"{path} is open in another process, such as 'safer-instruct review': end it, then give the command again") from exc
        time.sleep(_PAUSE_S)


def open_file_to_read(path: Path) -> sqlite3.Connection:
    """The bare file, of whatever version and in whatever state."""
    alone = "&immutable=1" if _stands_alone(path) else ""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{alone}", uri=True, timeout=30, isolation_level=None)


def _stands_alone(path: Path) -> bool:
    """Whether a file can be read, and has to be, without the index of a log: in a folder where nothing may be written, and nobody does."""
    log, index = wal.log_path(path), path.with_name(f"{path.name}-shm")
    return not os.access(path.parent, os.W_OK) and not index.exists() and not (log.exists() and log.stat().st_size)


def explain(path: Path, exc: Exception, what: str) -> RunDirectoryError:
    """What SQLite or the system said, with what to do about it."""
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF  # the primary code of an extended one
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or isinstance(exc, DamagedRowError | DamagedFileError):
        return RunDirectoryError(f"{path} is damaged: {exc}; save what is intact with: safer-instruct ledger {path.parent} --recover")
    if why := FULL if code == sqlite3.SQLITE_FULL else lacking_room(exc) or (_lacking_room(path) if code == sqlite3.SQLITE_IOERR else ""):
        return RunDirectoryError(f"{path}: {what}: {why}")
    if code == sqlite3.SQLITE_CANTOPEN and not os.access(path.parent, os.W_OK):
        return RunDirectoryError(
            f"{path}: {what} in a folder where you may not write, for a run has left a log beside it; copy the folder to where you may write"
        )
    return RunDirectoryError(f"{path}: {what}: {exc}")


def _lacking_room(path: Path) -> str:
    """Whether a file that a database needs beside it has no room, of which SQLite says only that it failed."""
    probe = path.with_name(f".{path.name}.room")
    try:
        with probe.open("wb") as file:
            file.write(bytes(_ROOM_BYTES))
    except OSError as exc:
        return lacking_room(exc)
    finally:
        with suppress(OSError):
            probe.unlink()
    return ""


@contextmanager
def building(path: Path) -> Iterator[sqlite3.Connection]:
    """An empty ledger that appears at `path`, whole, when the block ends well: an empty file is always a damaged one."""
    part = path.with_name(f".{path.name}.part")
    files = [part, part.with_name(f"{part.name}-wal"), part.with_name(f"{part.name}-shm")]
    try:
        _remove(files)
        with closing(connect(part, cache_mb=64)) as connection:
            connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            yield connection
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # which closing does, too, and says nothing where the disk is full
        os.replace(part, path)
    finally:
        _remove(files)


def _remove(files: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def read_version(connection: sqlite3.Connection) -> int:
    """The schema version of an open ledger."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def check_version(path: Path, version: int) -> None:
    """Refuse a ledger of a later version than this.

    Raises:
        RunDirectoryError: It is.
        DamagedFileError: It says so, but no version has such a number.
    """
    if not 0 <= version <= _NEWEST_THINKABLE:
        raise DamagedFileError(f"its header says schema {version}")
    if version > SCHEMA_VERSION:
        raise RunDirectoryError(f"{path} was written by a newer version of safer-instruct (ledger schema {version}); upgrade to read it")


def migrate(path: Path) -> None:
    """Bring a ledger up to date, in one transaction: a kill leaves the old one.

    Raises:
        RunDirectoryError: It is of a newer version, or no ledger.
        DamagedFileError: What it says of its version cannot be true.
    """
    with closing(connect(path, cache_mb=64)) as connection:
        if read_version(connection) != SCHEMA_VERSION:
            _migrate(connection, path)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = read_version(connection)  # again: another process may have been faster
        check_version(path, version)
        columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(calls)")}
        if not columns:
            raise RunDirectoryError(f"{path} is no ledger of safer-instruct")
        if version == 1 and "request" in columns:
            _from_1_to_2(connection)
        elif version != SCHEMA_VERSION:
            raise DamagedFileError(f"its header says schema {version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has rolled back by itself after some errors
            connection.execute("ROLLBACK")
        raise
    with suppress(sqlite3.OperationalError):  # no room for it: the file stays as large as it is
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _from_1_to_2(connection: sqlite3.Connection) -> None:
    """Short keys, dictionaries, totals, checksums."""
    connection.execute("ALTER TABLE calls RENAME TO calls_1")
    for statement in _TABLES.split(";\n"):
        connection.execute(statement)
    appender, calls = Appender(connection), _calls_of_1(connection)
    while batch := list(islice(calls, _BATCH)):
        appender.append(batch)
    connection.execute("DROP TABLE calls_1")
    connection.execute("PRAGMA user_version = 2")


def _calls_of_1(connection: sqlite3.Connection) -> Iterator[Call]:
    for row in connection.execute("SELECT * FROM calls_1 ORDER BY rowid"):
        yield decode_row_of_1(row)


def decode_row_of_1(row: Sequence[Any]) -> Call:
    """A call from a row of schema 1, whose request and answer were zlib of JSON.

    Raises:
        DamagedRowError: It is not what was written.
    """
    key, stage, model, kind, request, packed, *usage, finished_at = row
    try:
        data = json.loads(zlib.decompress(packed))
        answer = Generated(tuple(Completion(**c) for c in data["completions"])) if kind == "generate" else Scored(tuple(data["logprobs"]))
        return Call(key[:KEY_BYTES], stage, model, zlib.decompress(request), encode_answer(answer), Usage(*usage), finished_at)
    except (zlib.error, ValueError, KeyError, TypeError, struct.error) as exc:
        raise DamagedRowError(str(exc)) from exc
