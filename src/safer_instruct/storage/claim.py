"""One writer at an address: an object that is created if it is not there, renewed every few seconds, and deleted at the end.

Creating, renewing and taking over are conditional puts, so of two who try at once one wins. Whether the one who holds it is
still there is told by the store's own clock: nobody trusts the clock of another machine.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace

from safer_instruct.errors import RunDirectoryError, StorageError
from safer_instruct.storage.address import Address
from safer_instruct.storage.client import Bucket, ExistsError, GoneError

LOCK = "lock.json"
RENEWED_EVERY_S = 10.0
STALE_S = 60.0
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Owner:
    """Who writes at an address.

    Attributes:
        token: Drawn for this claim.
        host: For people.
        machine: Boot and process namespace: within one, a process id says whether its process lives.
        pid: Process id.
        born: When that process began, in the system's ticks; '' where that is not known. Ids are given out again.
        since: Unix time, by its own clock; for people.
        epoch: Of the segments that it writes; 0 before it has one.
        beat: How often it was renewed.
    """

    token: str
    host: str
    machine: str
    pid: int
    born: str
    since: float
    epoch: int = 0
    beat: int = 0


class Claim:
    """The claim that this process holds; `earlier_epoch` is that of the holder whose place it took."""

    def __init__(self, bucket: Bucket, address: Address, owner: Owner, etag: str, earlier_epoch: int = 0) -> None:
        self.earlier_epoch = earlier_epoch
        self._bucket, self._address, self._owner, self._etag = bucket, address, owner, etag
        self._key = address.below(LOCK).key
        self._lock, self._renewed_at, self._lost = threading.Lock(), time.monotonic(), ""

    def check(self) -> None:
        """Be sure that nobody else may write here by now; asks the store where it was not heard of for a while.

        Raises:
            RunDirectoryError: Somebody else does.
            StorageError: The store does not answer.
        """
        if time.monotonic() - self._renewed_at > STALE_S / 2:  # this machine slept, or the network is gone
            self.renew()
        if self._lost:
            raise RunDirectoryError(self._lost)

    def begin(self, epoch: int) -> None:
        """Say that segments of that epoch are this process's; errors as for `check`."""
        with self._lock:
            self._owner = replace(self._owner, epoch=epoch)
        self.renew()

    def renew(self) -> None:
        """Say that this process is still there; errors as for `check`."""
        with self._lock:
            owner = replace(self._owner, beat=self._owner.beat + 1)
            try:
                self._etag = self._bucket.replace(self._key, _encode(owner), self._etag)
            except (ExistsError, GoneError) as exc:
                there = _read(self._bucket, self._key)
                if there is None or there[0].token != owner.token:
                    who = f"process {there[0].pid} on {there[0].host}" if there else "somebody who deleted its lock"
                    self._lost = f"{self._address} was taken over by {who} while this process was not heard of; its finished calls are saved"
                    raise RunDirectoryError(self._lost) from exc
                self._etag = there[1]  # an answer was lost, and it was renewed all the same
            self._owner, self._renewed_at = owner, time.monotonic()

    def release(self) -> None:
        """Give the address free."""
        with self._lock, suppress(StorageError):  # it is stale in a minute all the same
            there = _read(self._bucket, self._key)
            if there and there[0].token == self._owner.token:
                self._bucket.delete([self._key])


@contextmanager
def claimed(bucket: Bucket, address: Address, say: Callable[[str], None], also: Callable[[], None] = lambda: None) -> Iterator[Claim]:
    """Be the one process that writes at `address` until the block ends.

    Args:
        bucket: Its bucket.
        address: Where.
        say: Told when a claim is taken over.
        also: Called whenever the claim was renewed, in a thread of its own.

    Raises:
        RunDirectoryError: Another process holds the address.
        StorageError: The store cannot be reached, or knows no conditional puts.
    """
    claim = _take(bucket, address, say)
    stop = threading.Event()

    def keep() -> None:
        while not stop.wait(RENEWED_EVERY_S):
            with suppress(StorageError, RunDirectoryError, OSError):  # whoever commits next asks again, and is told
                claim.renew()
                also()

    thread = threading.Thread(target=keep, name="claim", daemon=True)
    thread.start()
    try:
        yield claim
    finally:
        stop.set()
        thread.join()
        claim.release()


def read_owner(bucket: Bucket, address: Address) -> Owner | None:
    """Who holds the address now, alive or not."""
    there = _read(bucket, address.below(LOCK).key)
    return there[0] if there else None


def _take(bucket: Bucket, address: Address, say: Callable[[str], None]) -> Claim:
    key, pid = address.below(LOCK).key, os.getpid()
    owner = Owner(secrets.token_hex(16), socket.gethostname(), _machine(), pid, _born(pid), time.time())
    for _ in range(_TRIES):
        try:
            return Claim(bucket, address, owner, bucket.create(key, _encode(owner)))
        except (ExistsError, GoneError):
            there = _read(bucket, key)
        if there is None:
            continue
        holder, etag, written_at = there
        gone = _is_gone(holder)
        silent_s = 0.0 if gone else max(0.0, _now(bucket, address, owner.token) - written_at)
        if not gone and silent_s < STALE_S:
            raise RunDirectoryError(
                f"{address} is in use by process {holder.pid} on {holder.host}, which was heard of {silent_s:.0f} s ago; wait for it, stop it, or choose "
                f"another --out. If that machine is gone, give the command again: after {STALE_S:.0f} s of silence its place is taken"
            )
        with suppress(ExistsError, GoneError):  # another one was faster: look again
            taken = Claim(bucket, address, owner, bucket.replace(key, _encode(owner), etag), holder.epoch)
            say(f"{address}: process {holder.pid} on {holder.host} is gone; this run takes its place")
            return taken
    raise RunDirectoryError(f"{address}: several processes begin at once; give the command again")


def _read(bucket: Bucket, key: str) -> tuple[Owner, str, float] | None:
    """The holder, the version that says so, and when the store got it."""
    head = bucket.head(key)
    if head is None:
        return None
    try:
        data, etag = bucket.get_with_etag(key)
    except GoneError:
        return None
    try:
        return Owner(**json.loads(data)), etag, head.written_at
    except (ValueError, TypeError):
        return Owner("", "an unknown machine", "", 0, "", 0.0), etag, head.written_at


def _now(bucket: Bucket, address: Address, token: str) -> float:
    """What time it is by the store's clock: that of an object written just now."""
    probe = address.below(f"probe-{token}").key
    bucket.put(probe, b"")
    try:
        head = bucket.head(probe)
        return head.written_at if head else time.time()
    finally:
        bucket.delete([probe])


def _encode(owner: Owner) -> bytes:
    return json.dumps(asdict(owner)).encode()


def _is_gone(owner: Owner) -> bool:
    """Whether it ran on this machine and does not any more; of other machines nothing is known."""
    return bool(owner.machine) and owner.machine == _machine() and (_born(owner.pid) or "gone") != owner.born


def _machine() -> str:
    """This boot of this machine, and the namespace of process ids; '' where the system tells neither."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _born(pid: int) -> str:
    """When a process began, in ticks since the boot; '' where there is none, or the system does not tell."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, *fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in ("Z", "X") else fields[18]  # a dead process whose parent has not asked yet is gone
