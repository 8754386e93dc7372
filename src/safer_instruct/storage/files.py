"""The files that an address, a folder or a glob in object storage leads to, read in ranges as far as somebody reads.

`s3://`, `gs://` and `az://` go through obstore; every other scheme (`hf://`, `https://`, `memory://`, ...) through fsspec and
whatever package it names for it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from safer_instruct.errors import StorageError
from safer_instruct.extras import require
from safer_instruct.storage.address import STORES, Address, parse
from safer_instruct.storage.client import Bucket, ExistsError, GoneError

_FIRST_BYTES, _MOST_BYTES = 64 << 10, 4 << 20  # of one request: small after a jump, as in a Parquet footer, then growing
_MAGIC = re.compile(r"[*?\[]")
Wanted = Callable[[PurePosixPath], bool]


class RemoteFile:
    """One file: its address, name, size, and how it is opened."""

    def __init__(self, address: str, size: int, open_: Callable[[], io.RawIOBase]) -> None:
        self.address, self.size, self._open = address, size, open_

    def __str__(self) -> str:
        return self.address

    @property
    def suffixes(self) -> list[str]:
        """The endings of its name, as of a `Path`."""
        return PurePosixPath(self.address).suffixes

    def open(self) -> io.RawIOBase:
        """Its bytes, seekable.

        Raises:
            StorageError: It cannot be read; also while reading, and then also where it has changed since it was found.
        """
        return self._open()


def find_files(path: str, wanted: Wanted) -> list[RemoteFile]:
    """The files that `path` leads to, sorted: itself, what `wanted` says yes to in a folder, or what matches a glob.

    Raises:
        StorageError: The store cannot be asked.
        MissingExtraError: What reads this scheme is not installed.
    """
    if path.partition("://")[0] not in STORES:
        return _find_by_fsspec(path, wanted)
    address = parse(path)
    bucket = Bucket(address)
    if address.key and (exact := bucket.head(address.key)):
        return [_of_bucket(bucket, address, exact.key, exact.size, exact.etag)]
    pattern, folder = "", address.key
    if magic := _MAGIC.search(address.key):
        pattern, folder = address.key, address.key[: magic.start()].rpartition("/")[0]
    found = [each for each in bucket.list(folder) if each.size and _is_wanted(each.key, folder, pattern, wanted)]
    return [_of_bucket(bucket, address, each.key, each.size, each.etag) for each in found]


def matches(key: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a key matches a glob, both cut at their slashes: as on a disk, `**` as a whole part stands for any number of folders."""
    if not pattern or not key:
        return not pattern and not key
    if pattern[0] != "**":
        return fnmatchcase(key[0], pattern[0]) and matches(key[1:], pattern[1:])
    return len(pattern) == 1 or any(matches(key[at:], pattern[1:]) for at in range(len(key)))


def _is_wanted(key: str, folder: str, pattern: str, wanted: Wanted) -> bool:
    inside = key[len(folder) :].strip("/").split("/")
    if any(part.startswith(".") for part in inside):
        return False
    return matches(key.split("/"), pattern.split("/")) if pattern else wanted(PurePosixPath(key))


def _of_bucket(bucket: Bucket, address: Address, key: str, size: int, etag: str) -> RemoteFile:
    place = str(Address(address.scheme, address.bucket, key))

    def read(start: int, end: int) -> bytes:
        try:
            return bucket.get_range(key, start, end, etag)
        except (ExistsError, GoneError):
            raise StorageError(f"{place}: the object was replaced or deleted while it was read; give the same command again") from None

    return RemoteFile(place, size, lambda: _Ranges(read, size))


class _Ranges(io.RawIOBase):
    """A file of known size, fetched a range at a time: an idle reader holds no connection, and a lost one costs one range."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._fetch, self._size = read, size
        self._at = self._start = 0
        self._held, self._step = memoryview(b""), _FIRST_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, into: Any) -> int:
        if self._at >= self._size:
            return 0
        if not self._start <= self._at < self._start + len(self._held):
            follows = self._at == self._start + len(self._held)
            self._step = min(2 * self._step, _MOST_BYTES) if follows else _FIRST_BYTES
            end = min(self._size, self._at + max(self._step, min(len(into), _MOST_BYTES)))
            self._held, self._start = memoryview(self._fetch(self._at, end)), self._at
        data = self._held[self._at - self._start :][: len(into)]
        into[: len(data)] = data
        self._at += len(data)
        return len(data)


def _find_by_fsspec(path: str, wanted: Wanted) -> list[RemoteFile]:
    fsspec = require("fsspec", extra="datasets", purpose=f"reading '{path}'")
    scheme = path.partition("://")[0]
    try:
        system, place = fsspec.core.url_to_fs(path)
        if system.isfile(place):
            found = [place]
        elif _MAGIC.search(place):
            found = [each for each in sorted(system.glob(place)) if system.isfile(each)]
        else:
            found = [each for each in sorted(system.find(place)) if _is_wanted(each, place, "", wanted)]
        return [RemoteFile(system.unstrip_protocol(each), int(system.size(each) or 0), _opener(system, each)) for each in found]
    except (ImportError, ValueError) as exc:
        raise StorageError(f"{scheme}:// addresses cannot be read: {str(exc)[:200]}") from exc
    except OSError as exc:
        raise StorageError(f"'{path}' cannot be looked for: {type(exc).__name__}: {str(exc)[:200]}; check the address, the network and your login") from exc


def _opener(system: Any, place: str) -> Callable[[], io.RawIOBase]:
    return lambda: _Ranges(lambda start, end: _cat(system, place, start, end), int(system.size(place) or 0))


def _cat(system: Any, place: str, start: int, end: int) -> bytes:
    try:
        return bytes(system.cat_file(place, start=start, end=end))
    except (OSError, ValueError) as exc:
        raise StorageError(f"{system.unstrip_protocol(place)} cannot be read: {type(exc).__name__}: {str(exc)[:200]}; give the same command again") from exc
