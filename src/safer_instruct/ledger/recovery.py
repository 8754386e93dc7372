"""What is intact in a damaged ledger, copied into a fresh one.

Rows are read page by page, past whatever is broken, and each must have its checksum right and decode. The fresh file
takes the damaged one's place only when it is complete: a kill at any moment leaves one of them there, or is made good
by whoever opens the ledger next.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger import schema, wal
from safer_instruct.ledger.content import KEY_BYTES, Call, check_answer
from safer_instruct.ledger.pages import Pages, RawRow
from safer_instruct.ledger.queries import read_calls, read_totals
from safer_instruct.ledger.rows import Appender, DamagedRowError, Unpacker, load_dictionary

_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Recovery:
    """What came of it.

    Attributes:
        saved: Calls in the ledger now.
        lost: Calls that it is known to have held and that could not be read.
        moved_to: Where the damaged file is now; None when nothing was damaged, and nothing was done.
    """

    saved: int
    lost: int
    moved_to: Path | None


def recover(path: Path) -> Recovery:
    """Replace a damaged ledger by what is intact in it; nobody else may have it open.

    Raises:
        RunDirectoryError: There is none, it is of a newer version, or the fresh one cannot be written.
    """
    finish_recovery(path)
    if not path.is_file():
        raise RunDirectoryError(f"{path}: the ledger cannot be recovered: there is none")
    fresh = _recovered(path)
    fresh.unlink(missing_ok=True)  # of a recovery that was killed before it replaced anything
    try:
        with Pages(path) as pages:
            with suppress(schema.DamagedFileError):
                schema.check_version(path, pages.version or 0)
            intact = _count_intact(path)
            if intact is not None:
                return Recovery(intact, 0, None)
            saved, lost = _copy(pages, fresh)
    except (OSError, sqlite3.Error) as exc:
        raise schema.explain(path, exc, "the intact calls could not be copied") from exc
    damaged = _damaged(path, _last_damaged(path) + 1)
    os.replace(path, damaged)
    finish_recovery(path)
    return Recovery(saved, lost, damaged)


def finish_recovery(path: Path) -> None:
    """Put the recovered ledger in its place, if the damaged one is gone from there; a log whose ledger is gone is not left for the next one."""
    if path.exists():
        return
    fresh, log = _recovered(path), wal.log_path(path)
    if log.exists():  # before another file comes: SQLite would take it for that one's
        os.replace(log, wal.log_path(_damaged(path, _last_damaged(path) + (not fresh.exists()))))
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    if fresh.exists():
        os.replace(fresh, path)


def was_recovered(path: Path) -> bool:
    """Whether a damaged ledger lies beside the one that has taken its place, which may hold fewer calls."""
    return any(_damaged(path, number).exists() for number in range(1, _last_damaged(path) + 1))


def _recovered(path: Path) -> Path:
    return path.with_name(f"{path.stem}.recovered{path.suffix}")


def _damaged(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")


def _last_damaged(path: Path) -> int:
    number = 0
    while _damaged(path, number + 1).exists() or wal.log_path(_damaged(path, number + 1)).exists():
        number += 1
    return number


def _count_intact(path: Path) -> int | None:
    """How many calls a sound ledger holds; None for a damaged one."""
    try:
        schema.check_file(path)
        with closing(schema.open_file_to_read(path)) as connection:
            version = schema.read_version(connection)
            if connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                return None
            if version == 1:
                return len([None for row in connection.execute("SELECT * FROM calls") if schema.decode_row_of_1(row)])
        if version == 0:
            return None
        calls = sum(1 for _ in read_calls(path))
        return calls if calls == sum(t.calls for t in read_totals(path)) else None
    except (sqlite3.Error, RunDirectoryError, DamagedRowError, schema.DamagedFileError):
        return None


def _copy(pages: Pages, fresh: Path) -> tuple[int, int]:
    """Make the fresh ledger; gives the calls saved, and those known to be lost."""
    unpacker, stated = _read_small_tables(pages)
    last = saved = 0
    calls = _intact_calls(pages, unpacker)
    with schema.building(fresh) as connection:
        appender = Appender(connection)
        while batch := list(islice(calls, _BATCH)):
            last = max(last, *(number for number, _ in batch))
            saved += appender.append_new(call for _, call in batch)
    return saved, max(0, (stated or last) - saved)


def _read_small_tables(pages: Pages) -> tuple[Unpacker, int]:
    """Origins and dictionaries, and how many calls the totals speak of."""
    origins, dictionaries = {}, {}
    stated: dict[int, int] = {}
    for leaf in pages.leaves():
        first = next(leaf, None)
        if first is None or len(first.values) == 11:
            continue
        for row in chain([first], leaf):
            match row.values:
                case [None, str(stage), str(model), int(), int(calls), int(), int(), float() | int(), float() | int()]:
                    origins[row.id] = (stage, model)
                    stated[row.id] = max(calls, stated.get(row.id, 0))
                case [None, int(number), bytes(data), int(checksum)] if zlib.crc32(data) == checksum:
                    dictionaries[number] = load_dictionary(data)
    return Unpacker(origins, dictionaries), sum(stated.values())


def _intact_calls(pages: Pages, unpacker: Unpacker) -> Iterator[tuple[int, Call]]:
    """Row number and call, of every row that is what was written."""
    for leaf in pages.leaves():
        for row in leaf:
            call = _call(row, unpacker)
            if call:
                yield row.id, call


def _call(row: RawRow, unpacker: Unpacker) -> Call | None:
    values: tuple[Any, ...] = row.values
    try:
        match values:
            case [None, bytes(key), *_] if len(values) == 11 and len(key) == KEY_BYTES:
                call = unpacker.unpack(values[1:])
            case [bytes(key), str(), str(), "generate" | "score", *_] if len(values) == 11 and len(key) == 32:
                call = schema.decode_row_of_1(values)
            case _:
                return None
        check_answer(call)
    except (DamagedRowError, ValueError, KeyError, TypeError, struct.error):
        return None
    return call
