"""The working directory from what the store holds: on a new machine all of it, elsewhere what others have written since."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from safer_instruct import ledger, rundir
from safer_instruct.errors import RunDirectoryError, StorageError
from safer_instruct.ledger.rows import COLUMNS, DamagedRowError, Unpacker
from safer_instruct.ledger.schema import connect_to_read
from safer_instruct.ledger.segments import merge_into
from safer_instruct.remote.mark import Mark
from safer_instruct.storage.address import Address
from safer_instruct.storage.client import Bucket, GoneError
from safer_instruct.storage.journal import Segment, list_segments, read_calls

CONTROL = (rundir.RUN, rundir.SPENT, rundir.BATCHES)
"""What a run needs besides its ledger to go on."""
_AT_ONCE, _TRIES = 2_000, 5
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Restored:
    """What the store held, and what it lacks.

    Attributes:
        segments: Those whose calls are in the local ledger now.
        epoch: Of the writer that begins now.
        left: Keys of calls that are in the local ledger only: their upload had failed, or was cut off.
    """

    segments: list[Segment]
    epoch: int
    left: list[bytes]


def restore(bucket: Bucket, address: Address, folder: Path, mark: Mark, earlier_epoch: int = 0) -> Restored:
    """Bring the directory up to what the store holds; only the holder of the claim may.

    Args:
        bucket: Of the address.
        address: Where the run is.
        folder: The working directory.
        mark: Of the directory; it is brought up to date, not written.
        earlier_epoch: Of a writer that may have written nothing yet.

    Raises:
        StorageError: Something cannot be read from the store.
        RunDirectoryError: A ledger is damaged.
    """
    for name in CONTROL:
        _fetch_newer(bucket, address, folder, mark, name)
    segments = list_segments(bucket, address)
    file = folder / rundir.LEDGER
    left = dict.fromkeys(_keys_after(file, mark.number if _is_as_marked(bucket, address, mark, segments) else 0)) if file.exists() else {}
    _merge_published(bucket, address, folder, mark, left)
    known = set(mark.merged)
    new = [one for one in segments if one not in known and not any(other.covers(one) for other in known)]
    if new:
        try:
            merge_into(file, _noted(read_calls(bucket, address, new), left))
        except (DamagedRowError, GoneError) as exc:
            raise StorageError(f"{exc}; a run at this address cannot go on without it: restore the object, or begin anew with --fresh") from exc
    epoch = 1 + max((earlier_epoch, *(one.epoch for one in [*segments, *mark.merged])))
    mark.merged = segments
    return Restored(segments, epoch, list(left))


def read_ledger(bucket: Bucket, address: Address, folder: Path) -> None:
    """Put together the ledger of a run that has not finished, for those who read it; others may be writing meanwhile.

    Raises:
        StorageError: It cannot be read.
    """
    file = folder / rundir.LEDGER
    for left in reversed(range(_TRIES)):
        for end in ("", "-wal", "-shm"):
            file.with_name(f"{file.name}{end}").unlink(missing_ok=True)
        try:
            segments = list_segments(bucket, address)
            if bucket.head(address.below(rundir.LEDGER).key):
                bucket.download(address.below(rundir.LEDGER).key, file)
            merge_into(file, read_calls(bucket, address, segments))
            return
        except (GoneError, DamagedRowError) as exc:  # joined with others just now
            if not left:
                raise StorageError(f"{exc}; try again") from exc


def calls_of(file: Path, keys: list[bytes]) -> Iterator[list[ledger.Call]]:
    """Those calls of a ledger, some thousand at a time."""
    with closing(connect_to_read(file)) as connection:
        unpacker = Unpacker.load(connection)
        for some in _batches(iter(keys), _AT_ONCE):
            rows = (connection.execute(f"SELECT {COLUMNS} FROM calls WHERE key = ?", (key,)).fetchone() for key in some)  # noqa: S608 - a constant
            yield [unpacker.unpack(row) for row in rows if row]


def last_number(file: Path) -> int:
    """The number of the last call in a ledger."""
    with closing(connect_to_read(file)) as connection:
        return int(connection.execute("SELECT coalesce(max(number), 0) FROM calls").fetchone()[0])


def _is_as_marked(bucket: Bucket, address: Address, mark: Mark, segments: list[Segment]) -> bool:
    """Whether the store still has what the mark says; somebody may have deleted it, or published since."""
    head = bucket.head(address.below(rundir.LEDGER).key)
    if (head.etag if head else None) != mark.versions.get(rundir.LEDGER):
        return False
    return all(any(there.covers(one) for there in segments) for one in mark.merged)


def _fetch_newer(bucket: Bucket, address: Address, folder: Path, mark: Mark, name: str) -> None:
    """Fetch a file unless this directory has the store's version, or made that version itself."""
    key, file = address.below(name).key, folder / name
    head = bucket.head(key)
    if head is None or (file.exists() and mark.versions.get(name) == head.etag):
        return
    part = file.with_name(f".{name}.fetched")
    version = bucket.download(key, part)
    for end in ("-wal", "-shm"):
        file.with_name(f"{name}{end}").unlink(missing_ok=True)
    part.replace(file)
    mark.saw(name, version)


def _merge_published(bucket: Bucket, address: Address, folder: Path, mark: Mark, left: dict[bytes, None]) -> None:
    """Take over the whole ledger that a finished run has published, where it is not this directory's own."""
    key, file = address.below(rundir.LEDGER).key, folder / rundir.LEDGER
    head = bucket.head(key)
    if head is None or (file.exists() and mark.versions.get(rundir.LEDGER) == head.etag):
        return
    fetched = folder / ".ledger.fetched"
    version = bucket.download(key, fetched)
    try:
        if file.exists():
            merge_into(file, _noted(ledger.read_calls(fetched), left))
        else:
            fetched.replace(file)
    except (DamagedRowError, sqlite3.Error) as exc:
        raise RunDirectoryError(f"{address.below(rundir.LEDGER)} is damaged: {exc}; download it and save what is intact with 'ledger --recover'") from exc
    finally:
        for end in ("", "-wal", "-shm"):
            fetched.with_name(f"{fetched.name}{end}").unlink(missing_ok=True)
    mark.saw(rundir.LEDGER, version)


def _keys_after(file: Path, number: int) -> Iterator[bytes]:
    with closing(connect_to_read(file)) as connection:
        yield from (key for (key,) in connection.execute("SELECT key FROM calls WHERE number > ? ORDER BY number", (number,)))


def _noted(calls: Iterator[ledger.Call], left: dict[bytes, None]) -> Iterator[ledger.Call]:
    """The calls, each of them struck off the list of what the store lacks."""
    for call in calls:
        left.pop(call.key, None)
        yield call


def _batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while some := list(islice(items, size)):
        yield some
