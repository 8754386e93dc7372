"""What a ledger says, also while a run is writing it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from safer_instruct.ledger.content import Call
from safer_instruct.ledger.rows import COLUMNS, DamagedRowError, Unpacker
from safer_instruct.ledger.schema import connect_to_read, explain
from safer_instruct.models.protocol import Usage

_CHUNK = 1000  # rows in one read transaction: a longer one would keep a run from reusing its write-ahead log


@dataclass(frozen=True, slots=True)
class Total:
    """What one stage of a ledger adds up to."""

    stage: str
    model: str
    calls: int
    usage: Usage


def read_totals(path: Path) -> list[Total]:
    """Totals per stage and model, in order of first use.

    Raises:
        RunDirectoryError: The file cannot be read.
    """
    query = "SELECT stage, model, calls, prompt_tokens, completion_tokens, cost, seconds FROM origins ORDER BY id"
    with closing(connect_to_read(path)) as connection:
        try:
            return [Total(stage, model, calls, Usage(*rest)) for stage, model, calls, *rest in connection.execute(query)]
        except sqlite3.Error as exc:
            raise explain(path, exc, "the ledger cannot be read") from exc


def read_calls(path: Path) -> Iterator[Call]:
    """Every call in order of commit, a chunk of them in memory at a time.

    Raises:
        RunDirectoryError: The file cannot be read, or is damaged.
    """
    with closing(connect_to_read(path)) as connection:
        unpacker, last = Unpacker.load(connection), 0
        query = f"SELECT {COLUMNS}, number FROM calls WHERE number > ? ORDER BY number LIMIT {_CHUNK}"  # noqa: S608 - constants
        try:
            while rows := connection.execute(query, (last,)).fetchall():
                last = rows[-1][-1]
                for *row, _ in rows:
                    if not unpacker.knows(row):
                        unpacker = Unpacker.load(connection)
                    yield unpacker.unpack(row)
        except (sqlite3.Error, DamagedRowError) as exc:
            raise explain(path, exc, "the ledger cannot be read") from exc
