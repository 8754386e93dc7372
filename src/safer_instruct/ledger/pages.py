"""Rows straight from the pages of a SQLite file, for files that SQLite itself will not read any more.

Only leaf pages of tables are looked at, one by one, wherever they lie; no page is needed to find another, so damage to
the header, the schema or the upper levels of a tree costs nothing but itself. Whoever uses a row must be able to tell
whether it is intact. Sections named here are those of the SQLite file format (https://www.sqlite.org/fileformat.html).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from safer_instruct.ledger.wal import open_log, read_frames

PAGE_BYTES = 4096  # of every ledger, whatever a damaged header says
_MAGIC, _HEADER_BYTES = b"SQLite format 3\0", 100
_LEAF = 0x0D  # of a table; section 1.6
_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)  # by serial type; section 2.1
_LARGEST_PAYLOAD = 1 << 30
Value = int | float | str | bytes | None


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row of some table: its row id and its columns; an `INTEGER PRIMARY KEY` column reads None."""

    id: int
    values: tuple[Value, ...]


class Pages:
    """The newest image of every page, from the file and its write-ahead log."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            OSError: It cannot be opened.
        """
        self._file: BinaryIO = path.open("rb")
        self._log = open_log(path)
        frames = read_frames(self._log)[0] if self._log else []
        self._newest = {frame.page: frame.at for frame in frames}  # in the log
        header = self._file.read(_HEADER_BYTES)
        self.version = int.from_bytes(header[60:64], "big") if header.startswith(_MAGIC) else None  # PRAGMA user_version
        self._in_file = -(-self._file.seek(0, 2) // PAGE_BYTES)

    def __enter__(self) -> Pages:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if self._log:
            self._log.close()

    def leaves(self) -> Iterator[Iterator[RawRow]]:
        """For every leaf page its rows, but for those that cannot be taken apart."""
        in_log_alone = sorted(number for number in self._newest if number > self._in_file)
        for number in chain(range(1, self._in_file + 1), in_log_alone):
            page = self._page(number)
            start = 100 if number == 1 else 0
            if len(page) == PAGE_BYTES and page[start] == _LEAF:
                (cells,) = struct.unpack_from(">H", page, start + 3)
                yield filter(None, (self._row(page, start + 8 + 2 * i) for i in range(cells)))

    def _page(self, number: int) -> bytes:
        if self._log and number in self._newest:
            self._log.seek(self._newest[number])
            return self._log.read(PAGE_BYTES)
        self._file.seek((number - 1) * PAGE_BYTES)
        return self._file.read(PAGE_BYTES)

    def _row(self, page: bytes, pointer: int) -> RawRow | None:
        try:
            (at,) = struct.unpack_from(">H", page, pointer)
            size, at = _varint(page, at)
            id_, at = _varint(page, at)
            return RawRow(id_ - (1 << 64) if id_ >> 63 else id_, _values(self._payload(page, at, size)))
        except (struct.error, IndexError, ValueError):
            return None

    def _payload(self, page: bytes, at: int, size: int) -> bytes:
        """A cell's record, with what spilled onto overflow pages (section 1.6)."""
        if size > _LARGEST_PAYLOAD:
            raise ValueError("no such row")
        usable = PAGE_BYTES  # a ledger reserves no bytes at the end of its pages
        if size <= usable - 35:
            return page[at : at + size]
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        local = local if local <= usable - 35 else least
        parts, left = [page[at : at + local]], size - local
        (following,) = struct.unpack_from(">I", page, at + local)
        while left > 0:
            overflow = self._page(following) if following else b""
            (following,) = struct.unpack_from(">I", overflow)
            parts.append(overflow[4 : 4 + min(left, usable - 4)])
            left -= usable - 4
        return b"".join(parts)


def find_header_damage(path: Path) -> str:
    """What is wrong with the header of a database (section 1.3), or with the file's size by it; empty when nothing is."""
    with open_log(path) or nullcontext() as log, path.open("rb") as file:  # in this order: a writer that ends removes the log last
        header, has_log = file.read(_HEADER_BYTES), bool(log and log.read(1))
        size = os.fstat(file.fileno()).st_size
    if not header:
        return "it is empty"
    sound = len(header) == _HEADER_BYTES and header.startswith(_MAGIC) and header[18] in (1, 2) and header[19] in (1, 2) and not header[20]
    written = header[44:48] <= b"\0\0\0\4" and header[56:60] == b"\0\0\0\1"
    only_log_written = has_log and header[44:48] == header[56:60] == b"\0\0\0\0"
    if not (sound and (written or only_log_written)):
        return "its header is broken"
    if has_log:  # pages that the file lacks may stand there
        return ""
    page, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
    return "" if size >= pages * (65536 if page == 1 else page) else f"it is cut off after {size:,} bytes"


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of up to nine bytes, and where it ends."""
    value = 0
    for i in range(8):
        byte = data[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    return value << 8 | data[at + 8], at + 9


def _values(record: bytes) -> tuple[Value, ...]:
    """The columns of a record (section 2.1)."""
    end, at = _varint(record, 0)
    types = []
    while at < end:
        kind, at = _varint(record, at)
        types.append(kind)
    values = []
    for kind in types:
        value, at = _value(record, kind, at)
        values.append(value)
    if at != len(record):
        raise ValueError("the record has another length")
    return tuple(values)


def _value(record: bytes, kind: int, at: int) -> tuple[Value, int]:
    if kind >= 12:
        end = at + (kind - 12) // 2
        return (record[at:end].decode() if kind % 2 else record[at:end]), end
    if kind == 7:
        return struct.unpack_from(">d", record, at)[0], at + 8
    if kind in (8, 9):
        return kind - 8, at
    if kind == 0:
        return None, at
    end = at + _INTEGER_BYTES[kind]
    return int.from_bytes(record[at:end], "big", signed=True), end
