"""The ledger of a cluster: each worker appends its finished calls to a file of its own, in a folder that all of them share.

SQLite's write-ahead log needs memory that all writers share, which a network file system does not give. So what workers
finish goes into shards, which nobody but their worker writes, and what was known when the run began is read from
`ledger.sqlite`, which nobody writes meanwhile. `merge_shards` brings the shards into it, at the end of the run or, after a
kill, at the beginning of the next one, wherever that runs.

A shard is a row of groups, one for each commit: length and CRC-32 of what follows, then zstd of the calls. A commit is
synced before anybody sees an answer of it. Of a group that a kill has cut off nobody has seen anything.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol
from zlib import crc32

from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger import schema
from safer_instruct.ledger.commits import Commits
from safer_instruct.ledger.content import KEY_BYTES, Call
from safer_instruct.ledger.known import KnownKeys
from safer_instruct.ledger.rows import COLUMNS, Appender, DamagedRowError, Unpacker
from safer_instruct.ledger.store import Ledger
from safer_instruct.models.protocol import Usage

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SUFFIX = ".calls"
_HEAD = struct.Struct("<II")  # bytes that follow, and their CRC-32
_CALL = struct.Struct(f"<{KEY_BYTES}sqqdddIIII")
_FAST: dict[int, int] = {zstd.CompressionParameter.compression_level: 1}  # it is packed again, and better, when shards are merged
_CALLS_PER_COMMIT = 1000


class Place(NamedTuple):
    """Where a call stands: the shard's file name, and the byte at which its group begins."""

    shard: str
    at: int


class Claims(Protocol):
    """Who knows which calls are being made anywhere in the cluster."""

    async def claim(self, key: bytes) -> Place | None:
        """Where that call stands, after waiting for it where another worker makes it; None leaves it to the caller."""

    def finished(self, key: bytes, place: Place) -> None:
        """A claimed call is on disk."""

    def given_up(self, key: bytes) -> None:
        """A claimed call came to nothing: whoever waits may make it."""


class Shard(Commits):
    """One worker's part of the ledger."""

    def __init__(self, folder: Path, name: str, merged: Path, *, claims: Claims | None = None, claimed: tuple[str, ...] = ()) -> None:
        """Begin a shard.

        Args:
            folder: Where all shards are.
            name: Of this one; no other worker, and no earlier one, has the same.
            merged: `ledger.sqlite`, which nobody writes as long as there are workers; it need not be there.
            claims: Whom to ask before a call of one of the stages `claimed`.
            claimed: Stages at which two workers may want the same call.

        Raises:
            RunDirectoryError: The folder cannot be written, or the merged ledger cannot be read.
        """
        super().__init__(folder / f"{name}{SUFFIX}")
        self._claims, self._claimed = claims, frozenset(claimed)
        self._mine: set[bytes] = set()  # claimed, and not yet on disk
        self._places: dict[bytes, Place] = {}
        self._read_to: dict[str, int] = {}
        self._torn = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("xb", buffering=0)
            _sync_folder(folder)
            self._merged = _Merged(merged) if merged.exists() else None
        except (OSError, sqlite3.Error, DamagedRowError) as exc:
            raise schema.explain(self.path, exc, "this worker's part of the ledger cannot be written") from exc
        self._thread.start()

    def get(self, key: bytes) -> Call | None:
        """See `Commits.get`."""
        if place := self._places.get(key):
            return self.read(key, place)
        if self._merged and (call := self._merged.get(key)):
            return call
        if self._failure:
            raise RunDirectoryError(str(self._failure))
        return None

    async def claim(self, key: bytes, stage: str) -> Call | None:
        """See `Commits.claim`."""
        if self._claims is None or stage not in self._claimed:
            return None
        if place := await self._claims.claim(key):
            return self.read(key, place)
        self._mine.add(key)
        return None

    def release(self, key: bytes) -> None:
        """See `Commits.release`; whoever waits for the same call in another worker is told, too."""
        super().release(key)
        if key in self._mine and self._claims:
            self._mine.discard(key)
            place = self._places.get(key)
            if place:
                self._claims.finished(key, place)
            else:
                self._claims.given_up(key)

    def look_into(self, shard: str) -> None:
        """Learn what another shard holds by now; what is read once is not read again."""
        if shard == self.path.name:
            return
        for at, end, calls in _groups(self.path.with_name(shard), self._read_to.get(shard, 0)):
            self._places.update((call.key, Place(shard, at)) for call in calls)
            self._read_to[shard] = end

    def read(self, key: bytes, place: Place) -> Call:
        """The call that stands in that place.

        Raises:
            RunDirectoryError: It does not.
        """
        for _, _, calls in _groups(self.path.with_name(place.shard), place.at):
            if found := next((call for call in calls if call.key == key), None):
                return found
            break
        raise RunDirectoryError(f"{self.path.with_name(place.shard)}: a finished call is not where it was written; does every node see the same folder?")

    def _about_to_commit(self, call: Call) -> None:
        """Where it stands is known once it does."""

    def _append(self, calls: list[Call]) -> None:
        at = self._file.tell()
        if self._torn:
            raise OSError("an earlier commit could not be taken back")
        content = zstd.compress(b"".join(map(_encode, calls)), options=_FAST)
        group = _HEAD.pack(len(content), crc32(content)) + content
        try:
            if self._file.write(group) != len(group):
                raise OSError(28, "only a part of it was written")
            os.fdatasync(self._file.fileno())
        except BaseException:
            self._torn = True
            self._file.truncate(at)
            self._file.seek(at)
            self._torn = False
            raise
        place = Place(self.path.name, at)
        self._places.update((call.key, place) for call in calls)

    def _end(self) -> None:
        self._file.close()


class _Merged:
    """`ledger.sqlite` as it was when the run began."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None, check_same_thread=False)
        self._unpacker = Unpacker.load(self._connection)
        self._known = KnownKeys(key for (key,) in self._connection.execute("SELECT key FROM calls"))

    def get(self, key: bytes) -> Call | None:
        if key not in self._known:
            return None
        try:
            row = self._connection.execute(f"SELECT {COLUMNS} FROM calls WHERE key = ?", (key,)).fetchone()  # noqa: S608 - a constant
            return self._unpacker.unpack(row) if row else None
        except (sqlite3.Error, DamagedRowError) as exc:
            raise schema.explain(self._path, exc, "the ledger cannot be read") from exc


def merge_shards(folder: Path, ledger: Path) -> int:
    """Bring all shards into the ledger, then remove them; a kill at any moment leaves each call in one of the two.

    Args:
        folder: Where the shards are; it need not be there.
        ledger: `ledger.sqlite`, which nobody else has open.

    Returns:
        How many calls came in.

    Raises:
        RunDirectoryError: The ledger is damaged, or one of the files cannot be read or written.
    """
    shards = sorted(folder.glob(f"*{SUFFIX}"))
    if not shards:
        return 0
    Ledger(ledger).close()  # made, mended and brought up to date, where that is needed
    merged = 0
    try:
        with closing(schema.connect(ledger, cache_mb=64)) as connection:
            appender = Appender(connection)
            for shard in shards:
                calls = (call for _, _, group in _groups(shard) for call in group)
                while some := list(islice(calls, _CALLS_PER_COMMIT)):
                    merged += appender.append_new(some)
        for shard in shards:
            shard.unlink()
        with suppress(OSError):  # a worker of the killed run has just begun another
            folder.rmdir()
    except (sqlite3.Error, OSError, DamagedRowError) as exc:
        raise schema.explain(ledger, exc, f"the calls of {folder} could not be merged into it, and stay there") from exc
    return merged


def _groups(path: Path, at: int = 0) -> Iterator[tuple[int, int, list[Call]]]:
    """Where each whole group of a shard begins and ends, and its calls; what a kill has cut off, and what follows it, was never seen."""
    with path.open("rb") as file:
        file.seek(at)
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            length, checksum = _HEAD.unpack(head)
            content = file.read(length)
            if len(content) < length or crc32(content) != checksum:
                return
            end = at + _HEAD.size + length
            yield at, end, list(_decode(zstd.decompress(content)))
            at = end


def _encode(call: Call) -> bytes:
    stage, model, usage = call.stage.encode(), call.model.encode("utf-8", "surrogatepass"), call.usage
    sizes = len(stage), len(model), len(call.request), len(call.answer)
    numbers = usage.prompt_tokens, usage.completion_tokens, usage.cost, usage.seconds, call.finished_at
    return b"".join((_CALL.pack(call.key, *numbers, *sizes), stage, model, call.request, call.answer))


def _decode(data: bytes) -> Iterator[Call]:
    at = 0
    while at < len(data):
        key, read, written, cost, seconds, finished_at, *sizes = _CALL.unpack_from(data, at)
        at += _CALL.size
        parts = []
        for size in sizes:
            parts.append(data[at : at + size])
            at += size
        stage, model, request, answer = parts
        yield Call(key, stage.decode(), model.decode("utf-8", "surrogatepass"), request, answer, Usage(read, written, cost, seconds), finished_at)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
