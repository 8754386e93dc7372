"""What commands read of a run at an address, and where they write to one.

A copy belongs to one manifest: its folder is named by the manifest's digest and holds files of that run and no other, each
checked against the manifest. Files that a later run left as they were are not fetched again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from safer_instruct import rundir
from safer_instruct.errors import RunDirectoryError, StorageError
from safer_instruct.remote.folders import copy_folder
from safer_instruct.remote.publish import Entry, Manifest, add_files, read_manifest
from safer_instruct.remote.restore import read_ledger
from safer_instruct.storage.address import STORES, Address
from safer_instruct.storage.claim import read_owner
from safer_instruct.storage.client import Bucket, ExistsError, GoneError
from safer_instruct.storage.files import find_files
from safer_instruct.wholefile import sha256_of

_TRIES, _PAUSE_S = 8, 0.5
_KEPT_S = 24 * 3600.0  # older copies are removed: nobody reads them any more
_BESIDE = (rundir.PROGRESS, rundir.SPENT, rundir.RUN)
Seen = Mapping[str, tuple[int, int]]  # file -> size and time of change, in nanoseconds


def fetch_run(address: Address, *, ledger: bool) -> Path:
    """A local copy of what a run at an address has published, or else of what is known of one that has not finished.

    Args:
        address: Where the run is.
        ledger: Whether the ledger is wanted, too; of an unfinished run it is always there.

    Raises:
        StorageError: It cannot be read, or changes all the time.
        RunDirectoryError: Nothing is there.
    """
    bucket, home = Bucket(address), copy_folder(address)
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for _ in range(_TRIES):
            manifest = read_manifest(bucket, address)
            if manifest is None:
                return _fetch_unfinished(bucket, address, home)
            with suppress(ExistsError, GoneError):  # another run publishes there just now: look again
                return _fetch_published(bucket, address, home, manifest, ledger=ledger)
            time.sleep(_PAUSE_S)
    raise StorageError(f"{address}: its files are not those that {address}/manifest.json names; give the 'run' command again to publish them anew")


def holds_run(address: Address) -> bool:
    """Whether a run has published its results at that address.

    Raises:
        StorageError: The store cannot be asked.
    """
    return bool(address.key) and address.scheme in STORES and read_manifest(Bucket(address), address) is not None


@contextmanager
def fetched(text: str) -> Iterator[Path]:
    """A copy of a small file at an address, until the block ends.

    Raises:
        StorageError: It cannot be read, or there is none.
    """
    found = find_files(text, lambda _: False)
    if len(found) != 1:
        raise StorageError(f"'{text}': there is no such object")
    with tempfile.TemporaryDirectory(prefix="safer-instruct-") as folder:
        path = Path(folder) / found[0].address.rpartition("/")[2]
        with path.open("wb") as file:
            shutil.copyfileobj(found[0].open(), file)
        yield path


def seen(folder: Path) -> Seen:
    """What stands in a folder, to tell later what has changed."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def send_changed(address: Address, folder: Path, before: Seen) -> None:
    """Send what a command wrote into the copy of a run.

    Raises:
        StorageError: It could not be written.
    """
    changed = [name for name, state in seen(folder).items() if before.get(name) != state and not name.endswith(("-wal", "-shm"))]
    if changed:
        add_files(Bucket(address), address, {name: folder / name for name in sorted(changed)})


@contextmanager
def written_to(address: Address, *, look: bool = False) -> Iterator[Path]:
    """A local path to write a file or folder to, which is sent to the address when the block ends well.

    Args:
        address: Where to.
        look: Whether the file that is there so far is to lie at the path.

    Raises:
        StorageError: It could not be written, or a folder's other files would stay beside the new ones.
    """
    if not address.key:
        raise StorageError(f"{address}: name a file or folder in the bucket")
    bucket = Bucket(address)
    with tempfile.TemporaryDirectory(prefix="safer-instruct-") as folder:
        path = Path(folder) / address.key.rpartition("/")[2]
        if look:
            with suppress(GoneError):
                bucket.download(address.key, path)
        yield path
        _send(bucket, address, path)


def _send(bucket: Bucket, address: Address, path: Path) -> None:
    """The path itself, or beside it files that are named after it, such as the report in Markdown; a folder's data go first."""
    if path.is_dir():
        files = {name: path / name for name in seen(path)}
        there = {each.key[len(address.key) + 1 :] for each in bucket.list(address.key)}
        if others := sorted(there - files.keys()):
            raise StorageError(f"{address} holds other files ({', '.join(others[:3])}); choose another --out, or remove them first")
        for name in sorted(files, key=lambda name: (name.endswith((".md", ".json")), name)):
            bucket.upload(address.below(name).key, files[name])
        return
    parent = Address(address.scheme, address.bucket, address.key.rpartition("/")[0])
    for file in sorted(each for each in path.parent.iterdir() if each.is_file()):
        bucket.upload(parent.below(file.name).key, file)


def _fetch_published(bucket: Bucket, address: Address, home: Path, manifest: Manifest, *, ledger: bool) -> Path:
    """The copy of one manifest, made from earlier copies as far as they hold the same files."""
    folder = home / hashlib.sha256(repr(sorted(manifest.files.items())).encode()).hexdigest()[:16]
    earlier = [each for each in home.iterdir() if each.is_dir() and each != folder]
    folder.mkdir(exist_ok=True)
    for name, entry in manifest.files.items():
        if name == rundir.LEDGER and not ledger:
            continue
        target = folder / name
        if not target.is_file():
            _fetch(bucket, address, name, entry, target, earlier)
    for name in _BESIDE:
        if name not in manifest.files:
            with suppress(GoneError):
                bucket.download(address.below(name).key, folder / name)
    _remove_old(earlier)
    os.utime(folder)
    return folder


def _fetch(bucket: Bucket, address: Address, name: str, entry: Entry, target: Path, earlier: list[Path]) -> None:
    part = target.with_name(f".{target.name}.fetched")
    target.parent.mkdir(parents=True, exist_ok=True)
    for folder in earlier:
        same = folder / name
        if same.is_file() and same.stat().st_size == entry.size and sha256_of(same) == entry.sha256:
            shutil.copy2(same, part)
            part.replace(target)
            return
    try:
        bucket.download(address.below(name).key, part)
        if part.stat().st_size != entry.size or sha256_of(part) != entry.sha256:
            raise ExistsError(f"{address.below(name)}: it is not the file that the manifest names")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _fetch_unfinished(bucket: Bucket, address: Address, home: Path) -> Path:
    folder = home / "unfinished"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    known = False
    for name in (*_BESIDE, rundir.BATCHES):
        with suppress(GoneError):
            bucket.download(address.below(name).key, folder / name)
            known = True
    if not known and read_owner(bucket, address) is None:
        raise RunDirectoryError(f"{address} holds no run; begin one: safer-instruct run CONFIG --out {address}")
    read_ledger(bucket, address, folder)
    return folder


def _remove_old(folders: list[Path]) -> None:
    for folder in folders:
        if time.time() - folder.stat().st_mtime > _KEPT_S:
            shutil.rmtree(folder, ignore_errors=True)
