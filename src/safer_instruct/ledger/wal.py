"""The write-ahead log beside a ledger, read without SQLite.

SQLite takes a log for finished at the first frame whose checksum is wrong, and throws away the rest when it closes the
file. After a power cut that is right: at most the last transaction was not synced. Anywhere else it would silently lose
calls that somebody has seen. Sections are those of the SQLite file format (https://www.sqlite.org/fileformat.html).
"""

from __future__ import annotations

import os
import struct
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_HEADER_BYTES, _FRAME_BYTES = 32, 24
_MAGIC = {b"\x37\x7f\x06\x82": "<", b"\x37\x7f\x06\x83": ">"}  # and the byte order of its checksums
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Frame:
    """One page in the log: its number, where its bytes begin, and whether it ends a transaction."""

    page: int
    at: int
    commits: bool


def log_path(path: Path) -> Path:
    """Where the log of a database is."""
    return path.with_name(f"{path.name}-wal")


def open_log(path: Path) -> BinaryIO | None:
    """The log of a database, or None: a writer that ends removes it, at any moment."""
    try:
        return log_path(path).open("rb")
    except FileNotFoundError:
        return None


def size_and_log(path: Path) -> tuple[int, int]:
    """Bytes of a database and of its log."""
    log = open_log(path)
    with log or nullcontext():
        return path.stat().st_size, os.fstat(log.fileno()).st_size if log else 0


def read_frames(file: BinaryIO) -> tuple[list[Frame], int]:
    """Frames of the log's present generation, sound or not, and the size of a page (section 4.1)."""
    header = file.read(_HEADER_BYTES)
    size = int.from_bytes(header[8:12], "big")
    page_size = size if 512 <= size <= 65536 and size & (size - 1) == 0 else 4096
    salts, at, frames = header[16:24] if _is_sound(header) else None, _HEADER_BYTES, []
    while len(head := file.read(_FRAME_BYTES)) == _FRAME_BYTES:
        salts = salts or head[8:16]  # of the first frame, where the header is damaged
        page, pages_after = struct.unpack(">II", head[:8])
        if head[8:16] == salts:
            frames.append(Frame(page, at + _FRAME_BYTES, pages_after > 0))
        at += _FRAME_BYTES + page_size
        file.seek(at)
    return frames, page_size


def find_damage(path: Path, *, first_only: bool = False) -> str:
    """What is wrong with the log of a database that nobody is writing; empty when nothing is.

    Args:
        path: The database.
        first_only: Check no more than the first transaction, without which SQLite would delete the log. This may be
            asked while somebody is writing.
    """
    if not (log := open_log(path)):
        return ""
    with log as file:
        header = file.read(_HEADER_BYTES)
        file.seek(0)
        frames, page_size = read_frames(file)
        damage = _find_damage(file, header, frames, page_size, first_only)
        file.seek(0)
        return damage if file.read(_HEADER_BYTES) == header else ""  # or the log was begun anew meanwhile


def _find_damage(file: BinaryIO, header: bytes, frames: list[Frame], page_size: int, first_only: bool) -> str:
    commits, seen = sum(frame.commits for frame in frames), 0
    if not _is_sound(header):
        return "the header of its write-ahead log is broken" if commits else ""
    order, sums, at = _MAGIC[header[:4]], struct.unpack(">II", header[24:]), _HEADER_BYTES + _FRAME_BYTES
    for frame in frames:
        file.seek(frame.at - _FRAME_BYTES)
        data = file.read(_FRAME_BYTES + page_size)
        sums = _checksum(data[:8] + data[_FRAME_BYTES:], order, sums)
        if frame.at != at or sums != struct.unpack(">II", data[16:24]):
            return "its write-ahead log is broken" if commits - seen > 1 else ""  # one may be a commit that was never synced
        seen, at = seen + frame.commits, at + _FRAME_BYTES + page_size
        if first_only and seen:
            break
    return ""


def _is_sound(header: bytes) -> bool:
    order = _MAGIC.get(header[:4])
    return len(header) == _HEADER_BYTES and order is not None and _checksum(header[:24], order, (0, 0)) == struct.unpack(">II", header[24:])


def _checksum(data: bytes, order: str, sums: tuple[int, ...]) -> tuple[int, int]:
    """Section 4.2; two sums over pairs of 32-bit numbers."""
    first, second = sums
    numbers = struct.unpack(f"{order}{len(data) // 4}I", data[: len(data) // 4 * 4])
    for a, b in zip(numbers[::2], numbers[1::2], strict=True):
        first = (first + a + second) & _MASK
        second = (second + b + first) & _MASK
    return first, second
