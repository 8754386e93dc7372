"""A call as a row: compressed together with what the dictionary of its origin knows, and guarded by a checksum.

Requests of one stage to one model share their template, so a dictionary trained on its first calls makes each of them
several times smaller. It lies in the ledger itself and is committed before any row that needs it; a second copy
outlives damage to the first.
"""

from __future__ import annotations

import sqlite3
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, islice
from typing import Any
from zlib import crc32

from safer_instruct.ledger.content import Call
from safer_instruct.models.protocol import Usage

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COLUMNS = "key, origin, dictionary, prompt_tokens, completion_tokens, cost, seconds, finished_at, content, checksum"
_INSERT = f"INSERT INTO calls ({COLUMNS}) VALUES "  # noqa: S608 - a constant
_ROWS_PER_INSERT = 64
_TOTALS = (
    "UPDATE origins SET calls = calls + ?, prompt_tokens = prompt_tokens + ?, completion_tokens = completion_tokens + ?, "
    "cost = ifnull(cost + ?, cost), seconds = ifnull(seconds + ?, seconds) WHERE id = ?"  # what is no number must not lose the call
)
_SAMPLE_CALLS, _SAMPLE_BYTES, _DICTIONARY_BYTES, _COPIES = 500, 2 << 20, 16 << 10, 2
_OPTIONS: dict[int, int] = {zstd.CompressionParameter.compression_level: 3, zstd.CompressionParameter.dict_id_flag: 0}
_guarded = struct.Struct("<16sqqqqddd")
Row = tuple[Any, ...]


class DamagedRowError(ValueError):
    """A row is not what was written."""


@dataclass(slots=True)
class _Origin:
    """Where calls come from, one stage and one model: how they are compressed, and what this transaction adds up to."""

    id: int
    dictionary: int
    compressor: zstd.ZstdCompressor
    samples: list[bytes] | None  # None: it has a dictionary, or cannot have one
    sampled: int = 0
    packed: list[Row] = field(default_factory=list)  # in this transaction

    def pack(self, call: Call) -> Row:
        """The row of `call`, in the order of `COLUMNS`."""
        plain = call.request + b"\n" + call.answer
        if self.samples is not None:
            self.samples.append(plain)
            self.sampled += len(plain)
        content = self.compressor.compress(plain, zstd.ZstdCompressor.FLUSH_FRAME)
        usage = call.usage
        took = (usage.prompt_tokens, usage.completion_tokens, usage.cost + 0.0, usage.seconds + 0.0)  # SQLite stores -0.0 as 0.0
        guarded = (call.key, self.id, self.dictionary, *took, call.finished_at)
        row = (*guarded, content, crc32(content, crc32(_guarded.pack(*guarded))))
        self.packed.append(row)
        return row

    def take_totals(self) -> tuple[float, ...]:
        """What this transaction adds up to: calls, prompt and completion tokens, cost, seconds."""
        packed, self.packed = self.packed, []
        return len(packed), *(sum(column) for column in islice(zip(*packed, strict=True), 3, 7))

    @property
    def ready(self) -> bool:
        """Whether there are samples enough for a dictionary."""
        return self.samples is not None and (len(self.samples) >= _SAMPLE_CALLS or self.sampled >= _SAMPLE_BYTES)


class Appender:
    """Appends calls inside its caller's transaction; after a rollback, open a new one."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._origins: dict[tuple[str, str], _Origin] = {}
        dictionaries = load_dictionaries(connection)
        for id_, stage, model, number in connection.execute("SELECT id, stage, model, dictionary FROM origins"):
            trained = dictionaries.get(number)
            if number and trained is None:
                raise DamagedRowError(f"dictionary {number} is lost")
            self._origins[stage, model] = _Origin(id_, number, _compressor(trained), [] if trained is None else None)

    def append(self, calls: Iterable[Call]) -> None:
        """Insert `calls`, add them to the totals, and train what dictionaries they are enough for."""
        touched: dict[int, _Origin] = {}
        rows = []
        for call in calls:
            origin = self._origins.get((call.stage, call.model)) or self._add(call.stage, call.model)
            touched[origin.id] = origin
            rows.append(origin.pack(call))
        for start in range(0, len(rows), _ROWS_PER_INSERT):  # one statement for many: each lets go of the interpreter lock, and must get it back
            some = rows[start : start + _ROWS_PER_INSERT]
            self._connection.execute(_insert(len(some)), list(chain.from_iterable(some)))
        for origin in touched.values():
            self._connection.execute(_TOTALS, (*origin.take_totals(), origin.id))
            if origin.ready:
                self._train(origin)

    def append_new(self, calls: Iterable[Call]) -> int:
        """Commit those of `calls` that are not there yet, in a transaction of their own; gives their number."""
        known = "SELECT 1 FROM calls WHERE key = ?"
        new = {call.key: call for call in calls if not self._connection.execute(known, (call.key,)).fetchone()}
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self.append(new.values())
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        return len(new)

    def _add(self, stage: str, model: str) -> _Origin:
        cursor = self._connection.execute("INSERT INTO origins (stage, model) VALUES (?, ?)", (stage, model))
        assert cursor.lastrowid is not None  # noqa: S101 - an INSERT has one
        self._origins[stage, model] = origin = _Origin(cursor.lastrowid, 0, _compressor(None), [])
        return origin

    def _train(self, origin: _Origin) -> None:
        samples, origin.samples = origin.samples or [], None
        try:
            trained = zstd.train_dict(samples, _DICTIONARY_BYTES)
        except zstd.ZstdError:  # samples too few, or with nothing in common
            return
        data = trained.dict_content
        self._connection.executemany("INSERT INTO dictionaries (dictionary, data, checksum) VALUES (?, ?, ?)", [(origin.id, data, crc32(data))] * _COPIES)
        self._connection.execute("UPDATE origins SET dictionary = id WHERE id = ?", (origin.id,))
        origin.dictionary, origin.compressor = origin.id, _compressor(trained)


@cache
def _insert(count: int) -> str:
    place = f"({', '.join('?' * (COLUMNS.count(',') + 1))})"
    return _INSERT + ", ".join([place] * count)


class Unpacker:
    """Turns rows back into calls."""

    def __init__(self, origins: dict[int, tuple[str, str]], dictionaries: dict[int, zstd.ZstdDict]) -> None:
        self._origins, self._dictionaries = origins, dictionaries

    @classmethod
    def load(cls, connection: sqlite3.Connection) -> Unpacker:
        """For the rows that an open ledger holds by now."""
        origins = {id_: (stage, model) for id_, stage, model in connection.execute("SELECT id, stage, model FROM origins")}
        return cls(origins, load_dictionaries(connection))

    def knows(self, row: Sequence[Any]) -> bool:
        """False for a row of an origin or dictionary that is younger than this object."""
        return row[1] in self._origins and (not row[2] or row[2] in self._dictionaries)

    def unpack(self, row: Sequence[Any]) -> Call:
        """The call of a row in the order of `COLUMNS`.

        Raises:
            DamagedRowError: It is not what was written, or its dictionary is lost.
        """
        key, origin, dictionary, prompt_tokens, completion_tokens, cost, seconds, finished_at, content, checksum = row
        try:
            if _checksum(row[:-1]) != checksum:
                raise DamagedRowError("its checksum is wrong")
            plain = zstd.decompress(content, self._dictionaries[dictionary] if dictionary else None)
        except (struct.error, TypeError, zstd.ZstdError) as exc:
            raise DamagedRowError(str(exc)) from exc
        except KeyError as exc:
            raise DamagedRowError(f"dictionary {dictionary} is lost") from exc
        request, _, answer = plain.partition(b"\n")
        stage, model = self._origins.get(origin, ("unknown", "unknown"))
        return Call(key, stage, model, request, answer, Usage(prompt_tokens, completion_tokens, cost, seconds), finished_at)


def load_dictionaries(connection: sqlite3.Connection) -> dict[int, zstd.ZstdDict]:
    """Every dictionary of a ledger, from whichever copy is intact."""
    rows = connection.execute("SELECT dictionary, data, checksum FROM dictionaries")
    return {number: load_dictionary(data) for number, data, checksum in rows if crc32(data) == checksum}


def load_dictionary(data: bytes) -> zstd.ZstdDict:
    """A dictionary from what the ledger keeps of it."""
    return zstd.ZstdDict(data)


def _compressor(trained: zstd.ZstdDict | None) -> zstd.ZstdCompressor:
    return zstd.ZstdCompressor(options=_OPTIONS, zstd_dict=trained)


def _checksum(row: Sequence[Any]) -> int:
    return crc32(row[8], crc32(_guarded.pack(*row[:8])))
