"""What is remembered of many examples and calls lies on disk, in databases of one's own that nobody else sees."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_open(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A database that stays open behind the block, unless this fails: a damaged file leaves no open one behind."""
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def scratch_database(tables: str, *, cache_kb: int, several_threads: bool = False) -> sqlite3.Connection:
    """A private temporary database (`TMPDIR`), which goes when it is closed: memory does not grow with what it holds.

    Args:
        tables: SQL that makes its tables.
        cache_kb: Memory for its pages.
        several_threads: Whether it is used in one thread after another, and not only in this one.
    """
    made = sqlite3.connect("", isolation_level=None, check_same_thread=not several_threads)  # an empty name: a file that SQLite makes, and removes when closed
    made.executescript(f"""
        PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{cache_kb}; PRAGMA temp_store = FILE;
        {tables}
        BEGIN;
    """)
    return made
