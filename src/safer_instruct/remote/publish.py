"""Results into the store: each file whole, the data first, then what speaks of it, and `manifest.json` last.

The manifest names every file with its size and SHA-256. It is deleted before anything of a new run's results is written, so who reads by
it sees one run, whole, or none.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from safer_instruct import rundir
from safer_instruct.errors import StorageError
from safer_instruct.remote.mark import Mark
from safer_instruct.storage.address import Address
from safer_instruct.storage.client import Bucket, GoneError
from safer_instruct.wholefile import sha256_of

MANIFEST = "manifest.json"
_LAST = (rundir.RUN, rundir.CARD, rundir.SUMMARY)  # in this order, behind the data
_LOCAL = (rundir.PROGRESS, rundir.SPENT, rundir.REVIEW, rundir.REVIEW_INDEX, rundir.BATCHES)
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One published file."""

    size: int
    sha256: str
    etag: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is published at an address.

    Attributes:
        files: By name below the address.
        etag: The version of the manifest itself; '' for one that was not read.
    """

    files: dict[str, Entry]
    etag: str = ""

    def encode(self) -> bytes:
        """As it stands in the store."""
        files = {name: asdict(entry) for name, entry in sorted(self.files.items())}
        return (json.dumps({"version": _VERSION, "published_at": time.time(), "files": files}, indent=1) + "\n").encode()


def read_manifest(bucket: Bucket, address: Address) -> Manifest | None:
    """What is published at an address, or None.

    Raises:
        StorageError: It cannot be read, or is of a newer version.
    """
    place = address.below(MANIFEST)
    try:
        data, etag = bucket.get_with_etag(place.key)
    except GoneError:
        return None
    try:
        said = json.loads(data)
        if said["version"] > _VERSION:
            raise StorageError(f"{place} was written by a newer version of safer-instruct; upgrade to read it")
        return Manifest({name: Entry(**entry) for name, entry in said["files"].items()}, etag)
    except (ValueError, KeyError, TypeError) as exc:
        raise StorageError(f"{place} is damaged ({exc}); give the 'run' command again to publish anew") from exc


def publish(bucket: Bucket, address: Address, folder: Path, earlier: Manifest | None, mark: Mark) -> None:
    """Publish the results of a finished run.

    Args:
        bucket: Of the address.
        address: Where.
        folder: The working directory.
        earlier: What was published before; files that are still the same are not sent again.
        mark: Of the working directory.

    Raises:
        StorageError: Something could not be written.
    """
    files = {}
    for name in _in_order(each.name for each in folder.iterdir() if each.is_file()):
        files[name] = _send(bucket, address, folder / name, (earlier.files if earlier else {}).get(name))
        mark.saw(name, files[name].etag)
    bucket.put(address.below(MANIFEST).key, Manifest(files).encode())


def add_files(bucket: Bucket, address: Address, files: dict[str, Path]) -> None:
    """Put further files beside published results, and name them in the manifest where there is one.

    Raises:
        StorageError: Something could not be written, or others publish there at the same time.
    """
    sent = {name: _send(bucket, address, path, None, name) for name, path in files.items()}
    manifest = read_manifest(bucket, address)
    if manifest:
        bucket.replace(address.below(MANIFEST).key, Manifest(manifest.files | sent).encode(), manifest.etag)


def _in_order(names: Iterable[str]) -> list[str]:
    wanted = [name for name in names if not name.startswith(".") and not name.endswith(("-wal", "-shm")) and name not in _LOCAL]
    return sorted(wanted, key=lambda name: (_LAST.index(name) + 1 if name in _LAST else 0, name))


def _send(bucket: Bucket, address: Address, path: Path, earlier: Entry | None, name: str = "") -> Entry:
    """Upload a file unless the store has it."""
    key, sha256, size = address.below(name or path.name).key, sha256_of(path), path.stat().st_size
    if earlier and earlier.sha256 == sha256 and (head := bucket.head(key)) and head.etag == earlier.etag:
        return earlier
    return Entry(size, sha256, bucket.upload(key, path))
