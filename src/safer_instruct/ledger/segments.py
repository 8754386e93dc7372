"""Finished calls outside of a ledger: blocks that are whole or not there, appended to a file or put into a store, and merged.

A segment is one block behind the other, and each stands for itself: magic, length and CRC-32 of what follows, then zstd of
the calls. A process that dies while it appends leaves a torn block at the end, which nobody was told of; reading stops
before it. Merging is by key, so a segment may be merged twice, and several in any order.
"""

from __future__ import annotations

import io
import sqlite3
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from safer_instruct.ledger import schema
from safer_instruct.ledger.content import Call
from safer_instruct.ledger.rows import Appender, DamagedRowError
from safer_instruct.models.protocol import Usage

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MAGIC = b"SIc1"
_block = struct.Struct("<4sII")  # magic, bytes of the packed calls, their CRC-32
_call = struct.Struct("<16sIIIIqqddd")  # key; bytes of stage, model, request, answer; tokens read, written; cost, seconds, finished_at
_LEVEL = 1  # fast: it is packed again, and better, when it is merged
_MERGED_AT_ONCE = 1000
MAX_BLOCK_BYTES = 1 << 30  # unpacked or packed; what says more is damaged


def write_segment(calls: Iterable[Call]) -> bytes:
    """One block that holds `calls`: a segment, or the next part of one."""
    parts: list[bytes] = []
    for call in calls:
        stage, model, usage = call.stage.encode(), call.model.encode("utf-8", "surrogatepass"), call.usage
        lengths = (len(stage), len(model), len(call.request), len(call.answer))
        took = (usage.prompt_tokens, usage.completion_tokens, usage.cost, usage.seconds, call.finished_at)
        parts += (_call.pack(call.key, *lengths, *took), stage, model, call.request, call.answer)
    packed = zstd.compress(b"".join(parts), _LEVEL)
    return _block.pack(_MAGIC, len(packed), crc32(packed)) + packed


def read_segments(source: BinaryIO | bytes, name: str, *, torn: bool = True) -> Iterator[Call]:
    """The calls of a segment, in order, a block of them in memory at a time; see `read_blocks`."""
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    for _, _, calls in read_blocks(stream, name, torn=torn):
        yield from calls


def read_blocks(stream: BinaryIO, name: str, *, torn: bool = True) -> Iterator[tuple[int, int, list[Call]]]:
    """Where each block begins and ends, counted from the beginning of the file, and its calls; reading begins where `stream` stands.

    Args:
        stream: A segment, seekable.
        name: What messages call it.
        torn: Whether its end may be missing, or never have reached the disk, as of a file that a process was appending to when it
            or its machine died: nobody was told of that block.

    Raises:
        DamagedRowError: A block is not what was written.
    """
    at = stream.tell()
    while head := stream.read(_block.size):
        if torn and not any(head):  # room that the file system had given, and nothing in it
            return
        magic, size, checksum = _block.unpack(head.ljust(_block.size, b"\0"))
        if not _MAGIC.startswith(magic[: len(head)]) or size > MAX_BLOCK_BYTES:
            raise DamagedRowError(f"{name}: what follows is no block of calls")
        packed = stream.read(size)
        whole = len(head) == _block.size and len(packed) == size
        if not whole or crc32(packed) != checksum:
            if torn and not stream.read(1):
                return
            raise DamagedRowError(f"{name}: {'the checksum of a block is wrong' if whole else 'its end is missing'}")
        end = at + _block.size + size
        yield at, end, list(_calls(packed, name))
        at = end


def merge_into(path: Path, calls: Iterable[Call]) -> int:
    """Put calls into the ledger at `path`, which nobody else has open; it is made if it is not there.

    Returns:
        How many were new to it.

    Raises:
        RunDirectoryError: The ledger is damaged, of a newer version, or cannot be written.
    """
    calls, added = iter(calls), 0
    try:
        if not path.exists():
            with schema.building(path):
                pass
        schema.check_file(path)
        schema.migrate(path)
        with closing(schema.connect(path, cache_mb=16)) as connection:
            appender = Appender(connection)
            while batch := list(islice(calls, _MERGED_AT_ONCE)):
                added += appender.append_new(batch)
    except (sqlite3.Error, OSError, schema.DamagedFileError) as exc:
        raise schema.explain(path, exc, "finished calls could not be merged into the ledger") from exc
    return added


def _calls(packed: bytes, name: str) -> Iterator[Call]:
    try:
        data, at = zstd.decompress(packed), 0
        while at < len(data):
            key, *lengths, read, written, cost, seconds, finished_at = _call.unpack_from(data, at)
            at += _call.size
            fields = []
            for length in lengths:
                fields.append(data[at : at + length])
                at += length
            if at > len(data):
                raise DamagedRowError(f"{name}: a call is cut short")
            stage, model, request, answer = fields
            usage = Usage(read, written, cost, seconds)
            yield Call(key, stage.decode(), model.decode("utf-8", "surrogatepass"), request, answer, usage, finished_at)
    except (zstd.ZstdError, struct.error, UnicodeDecodeError) as exc:
        raise DamagedRowError(f"{name}: {exc}") from exc
