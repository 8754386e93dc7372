"""The ledger of a cluster: each worker appends its finished calls to a file of its own, in a folder that all of them share.

SQLite's write-ahead log needs memory that all writers share, which a network file system does not give. So what workers
finish goes into shards, which nobody but their worker writes, and what was known when the run began is read from
`ledger.sqlite`, which nobody writes meanwhile. `merge_shards` brings the shards into it, at the end of the run or, after a
kill, at the beginning of the next one, wherever that runs.

A shard is a segment (`segments.py`) of one block for each commit, which is synced before anybody sees an answer of it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger import schema
from safer_instruct.ledger.commits import Commits
from safer_instruct.ledger.content import Call
from safer_instruct.ledger.known import KnownKeys
from safer_instruct.ledger.places import Place, Places
from safer_instruct.ledger.recovery import finish_recovery
from safer_instruct.ledger.rows import COLUMNS, DamagedRowError, Unpacker
from safer_instruct.ledger.segments import merge_into, read_blocks, write_segment
from safer_instruct.scratch import kept_open
from safer_instruct.wholefile import sync_folder

SUFFIX = ".calls"


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
        self._read_to: dict[str, int] = {}
        self._saving: set[asyncio.Future[None]] = set()
        self._torn = False
        with ExitStack() as opened:
            self._places = opened.enter_context(closing(Places()))
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._file = opened.enter_context(self.path.open("xb", buffering=0))
                sync_folder(folder)
                self._merged = _Merged(merged) if merged.exists() else None
            except (OSError, sqlite3.Error, DamagedRowError) as exc:
                raise schema.explain(self.path, exc, "this worker's part of the ledger cannot be written") from exc
            opened.pop_all()
        self._thread.start()

    def get(self, key: bytes) -> Call | None:
        """See `Commits.get`."""
        if place := self._places.get(key):
            return self.read(key, place)
        if self._merged and (call := self._merged.get(key)):
            return call
        self.check()
        return None

    async def claim(self, key: bytes, stage: str) -> Call | None:
        """See `Commits.claim`."""
        if self._claims is None or stage not in self._claimed:
            return None
        if place := await self._claims.claim(key):
            return self.read(key, place)
        self._mine.add(key)
        return None

    def put(self, call: Call) -> asyncio.Future[None]:
        """See `Commits.put`."""
        saving = super().put(call)
        self._saving.add(saving)
        saving.add_done_callback(self._saving.discard)
        return saving

    async def saved(self) -> None:
        """Wait until all that has been put is on disk, or could not be written."""
        if self._saving:
            await asyncio.wait(self._saving)

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
        for at, end, calls in _blocks(self.path.with_name(shard), self._read_to.get(shard, 0)):
            self._places.add((call.key for call in calls), Place(shard, at))
            self._read_to[shard] = end

    def read(self, key: bytes, place: Place) -> Call:
        """The call that stands in that place.

        Raises:
            RunDirectoryError: It does not.
        """
        for _, _, calls in _blocks(self.path.with_name(place.shard), place.at):
            if found := next((call for call in calls if call.key == key), None):
                return replace(found, earlier=False)
            break
        raise RunDirectoryError(f"{self.path.with_name(place.shard)}: a finished call is not where it was written; does every node see the same folder?")

    def _about_to_commit(self, call: Call) -> None:
        """Where it stands is known once it does."""

    def _append(self, calls: list[Call]) -> None:
        at = self._file.tell()
        if self._torn:
            raise OSError("an earlier commit could not be taken back")
        block = write_segment(calls)
        try:
            if self._file.write(block) != len(block):
                raise OSError(28, "only a part of it was written")
            os.fdatasync(self._file.fileno())
        except BaseException:
            self._torn = True
            self._file.truncate(at)
            self._file.seek(at)
            self._torn = False
            raise
        self._places.add((call.key for call in calls), Place(self.path.name, at))

    def _end(self) -> None:
        self._file.close()
        self._places.close()
        if self._merged:
            self._merged.close()


class _Merged:
    """`ledger.sqlite` as it was when the run began."""

    def __init__(self, path: Path) -> None:
        self._path = path
        opened = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None, check_same_thread=False)
        with kept_open(opened) as self._connection:
            self._unpacker = Unpacker.load(self._connection)
            self._known = KnownKeys(key for (key,) in self._connection.execute("SELECT key FROM calls"))

    def close(self) -> None:
        self._connection.close()

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
    try:
        finish_recovery(ledger)  # or a fresh one would be made in its place
        merged = merge_into(ledger, (call for shard in shards for _, _, block in _blocks(shard) for call in block))
        for shard in shards:
            shard.unlink()
        with suppress(OSError):  # a worker of the killed run has just begun another
            folder.rmdir()
    except (sqlite3.Error, OSError, DamagedRowError) as exc:
        raise schema.explain(ledger, exc, f"the calls of {folder} could not be merged into it, and stay there") from exc
    return merged


def _blocks(path: Path, at: int = 0) -> Iterator[tuple[int, int, list[Call]]]:
    """Where each block of a shard begins and ends, and its calls; what a kill has cut off was never seen."""
    with path.open("rb") as file:
        file.seek(at)
        try:
            yield from read_blocks(file, str(path))
        except DamagedRowError as exc:
            raise RunDirectoryError(f"{exc}: a worker's part of the ledger is damaged; move the file elsewhere to go on without the calls in it") from exc
