"""Finished calls in the store before anybody sees their answers.

Each commit of the ledger is one object, `ledger/EPOCH-FIRST-LAST.calls`: the epoch counts the writers of this address, FIRST
and LAST the commits of one. Such objects are segments (`ledger/segments.py`), so several behind each other are one again:
that is how small ones become few large ones while the run goes on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from safer_instruct.ledger.content import Call
from safer_instruct.ledger.segments import read_segments, write_segment
from safer_instruct.storage.address import Address
from safer_instruct.storage.client import Bucket

FOLDER = "ledger"
_NAME = re.compile(r"(\d{6})-(\d{10})-(\d{10})\.calls")
_JOINED, _JOINED_BYTES = 500, 32 << 20  # commits, or bytes of them, that become one object
_AT_ONCE = 8


class Segment(NamedTuple):
    """One object of finished calls; they compare in the order in which they were written."""

    epoch: int
    first: int
    last: int

    @property
    def name(self) -> str:
        """Of its object, below the folder."""
        return f"{self.epoch:06d}-{self.first:010d}-{self.last:010d}.calls"

    def covers(self, other: Segment) -> bool:
        """Whether all that `other` holds is in here."""
        return self.epoch == other.epoch and self.first <= other.first and other.last <= self.last


class Journal:
    """The segments that this process writes; used by one thread at a time."""

    def __init__(self, bucket: Bucket, address: Address, epoch: int) -> None:
        self._bucket, self._address = bucket, address
        self._epoch, self._commits = epoch, 0
        self._small: list[tuple[Segment, bytes]] = []
        self._failed = False

    def append(self, calls: Sequence[Call]) -> None:
        """Write one commit.

        Raises:
            StorageError: It could not be written; nothing is written any more then, for what comes later would hide the gap.
        """
        if self._failed:
            raise ConnectionError(f"{self._address}: an earlier commit could not be written")
        segment, data = Segment(self._epoch, self._commits + 1, self._commits + 1), write_segment(calls)
        self._failed = True
        self._bucket.create(self._key(segment), data)
        self._failed = False
        self._commits += 1
        self._small.append((segment, data))
        if len(self._small) >= _JOINED or sum(len(each) for _, each in self._small) >= _JOINED_BYTES:
            self._join()

    def _join(self) -> None:
        """Put one object in the place of many; a kill between the two steps leaves both, which say the same."""
        segments = [segment for segment, _ in self._small]
        if len(segments) > 1:
            whole = Segment(self._epoch, segments[0].first, segments[-1].last)
            self._bucket.create(self._key(whole), b"".join(data for _, data in self._small))
            self._bucket.delete(self._key(segment) for segment in segments)
        self._small.clear()

    def _key(self, segment: Segment) -> str:
        return _key(self._address, segment)


def list_segments(bucket: Bucket, address: Address) -> list[Segment]:
    """The segments at an address, oldest first, without those that another one covers."""
    names = (each.key.rpartition("/")[2] for each in bucket.list(address.below(FOLDER).key))
    found = (Segment(*map(int, match.groups())) for name in names if (match := _NAME.fullmatch(name)))
    kept: list[Segment] = []
    for segment in sorted(found, key=lambda s: (s.epoch, s.first, -s.last)):
        if not (kept and kept[-1].covers(segment)):
            kept.append(segment)
    return kept


def read_calls(bucket: Bucket, address: Address, segments: Iterable[Segment]) -> Iterator[Call]:
    """The calls of segments, in order.

    Raises:
        GoneError: One was joined with others, or merged, since it was listed: list them again.
        DamagedRowError: One is not what was written.
    """
    chosen = list(segments)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(chosen), 4 * _AT_ONCE):
            some = chosen[start : start + 4 * _AT_ONCE]
            for segment, data in zip(some, pool.map(lambda s: bucket.get(_key(address, s)), some), strict=True):
                yield from read_segments(data, str(address.below(f"{FOLDER}/{segment.name}")), torn=False)


def delete_segments(bucket: Bucket, address: Address, segments: Iterable[Segment]) -> None:
    """Delete segments whose calls are in the published ledger."""
    bucket.delete(_key(address, segment) for segment in segments)


def _key(address: Address, segment: Segment) -> str:
    return address.below(f"{FOLDER}/{segment.name}").key
