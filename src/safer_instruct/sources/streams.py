"""Files as streams of bytes, unpacked, and cut into lines of bounded length."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from safer_instruct.errors import SourceError
from safer_instruct.sources.files import File
from safer_instruct.sources.records import EXCERPT_CHARS, RowRefused

_BUFFER_BYTES = 32 * 1024
_CHARACTER_BYTES = 12  # the longest way to write one character: two \uXXXX escapes in JSON
MIB = 1024 * 1024
_ANY_UNPACKED_BYTES = 256 * MIB
_MOST_UNPACKED_RATIO = 100  # text packs 3 to 30 times smaller; beyond both bounds a file is a decompression bomb
DAMAGE = (OSError, EOFError, zlib.error)  # what gzip and pyarrow raise for broken streams, and files for lost disks

Line = tuple[int, bytes, RowRefused | None]  # number, bytes (the head of them when the line is flawed), flaw


@contextmanager
def opened(file: File) -> Iterator[io.BufferedReader]:
    """The unpacked bytes of `file`; its beginning has been read once, so a wrong packing is known now."""
    with _open(file) as plain:
        stream = _unpacked(plain, file.packing, file.path.size if not isinstance(file.path, Path) else os.fstat(plain.fileno()).st_size)
        try:
            stream.peek(1)
        except DAMAGE as exc:
            packing = f"unpacked as {file.packing}" if file.packing else "read"
            raise SourceError(f"{file.name}: cannot be {packing}: {exc}; replace the file, or leave it out of 'path'") from exc
        yield stream


@contextmanager
def opened_packed(file: File) -> Iterator[IO[bytes]]:
    """The bytes of `file` as they lie there, for readers that unpack piece by piece; the stream can seek."""
    with _open(file) as plain:
        yield plain


def _open(file: File) -> io.BufferedReader:
    if not isinstance(file.path, Path):
        return io.BufferedReader(file.path.open(), _BUFFER_BYTES)
    try:
        return io.BufferedReader(io.FileIO(file.path), _BUFFER_BYTES)
    except OSError as exc:
        raise SourceError(f"{file.name}: cannot be opened: {exc.strerror}; check its permissions, or leave it out of 'path'") from exc


def _unpacked(plain: io.BufferedReader, packing: str, size: int) -> io.BufferedReader:
    if not packing:
        return plain
    most = max(_ANY_UNPACKED_BYTES, _MOST_UNPACKED_RATIO * size)
    if packing == ".gz":
        return io.BufferedReader(_Unpacked(gzip.GzipFile(fileobj=plain), most), _BUFFER_BYTES)
    import pyarrow as pa

    return io.BufferedReader(_Unpacked(pa.CompressedInputStream(plain, "zstd"), most), _BUFFER_BYTES)


class _Unpacked(io.RawIOBase):
    """A packed stream read in steps that grow from small: damage costs the step it falls in, not what was unpacked before.

    It ends in an error once it has given `most_bytes`: a small file can unpack to more than any disk holds.
    """

    def __init__(self, packed: Any, most_bytes: int) -> None:
        self._packed = packed
        self._left_bytes = self._most_bytes = most_bytes
        self._step_bytes = 256

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        data = self._packed.read1(min(len(into), self._step_bytes))
        self._step_bytes = min(2 * self._step_bytes, _BUFFER_BYTES)
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            times = f"{_MOST_UNPACKED_RATIO} times its size and {_ANY_UNPACKED_BYTES // MIB} MiB"
            raise OSError(f"it unpacks to more than {self._most_bytes:,} bytes, beyond {times}: a decompression bomb; unpack it by hand if you trust it")
        into[: len(data)] = data
        return len(data)


def byte_limit(max_chars: int) -> int:
    """The most bytes that one line, CSV row or document may have: enough for `max_chars` and other columns beside it."""
    return min(max(_CHARACTER_BYTES * max_chars, MIB) + 64 * 1024, 2**31 - 2)


def bounded_lines(stream: IO[bytes], max_bytes: int) -> Iterator[Line]:
    """Lines, none held beyond `max_bytes`. A longer one comes as its beginning with a flaw, and so does damage, as the last line."""
    number = 0
    try:
        while raw := stream.readline(max_bytes + 1):
            number += 1
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if len(raw) <= max_bytes:
                yield number, raw, None
                continue
            ended = raw.endswith(b"\n")
            yield number, raw[: 4 * EXCERPT_CHARS], RowRefused(f"line longer than {max_bytes:,} bytes")
            while not ended:
                raw = stream.readline(_BUFFER_BYTES)
                ended = not raw or raw.endswith(b"\n")
    except DAMAGE as exc:
        yield number + 1, b"", RowRefused(f"the file is damaged; nothing from this line on was read: {exc}", unread=True)
