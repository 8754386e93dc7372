"""Files that appear whole, or not at all, and folders of them."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safer_instruct.errors import RunDirectoryError

FULL = "the disk is full; what was saved before is safe: make room, then give the same command again"


_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


def is_full(exc: BaseException) -> bool:
    """Whether the system says that there is no room left, on the disk or in the user's share of it."""
    return isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Write `path` or files below it; the system's error does not say which where the disk is full, and names our own temporary file elsewhere.

    Raises:
        RunDirectoryError: There is no room, or nobody may write there.
    """
    try:
        yield
    except OSError as exc:
        if not _concerns(exc, path):
            raise
        if is_full(exc):
            raise RunDirectoryError(f"{path} cannot be written: {FULL}") from exc
        if exc.errno in _FORBIDDEN:
            raise RunDirectoryError(f"{path} cannot be written: {exc.strerror}; choose a place where you may write") from exc
        raise


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to that takes the place of `path` when the block ends well.

    Raises:
        RunDirectoryError: Something other than a regular file stands there, there is no room, or nobody may write there.
    """
    if path.is_dir():
        raise RunDirectoryError(f"{path} is a folder; give the name of a file, such as {path / 'NAME'}")
    if path.exists() and not path.is_file():
        raise RunDirectoryError(f"{path} is no regular file, so it cannot be replaced by one")
    part = _part_of(path)
    with room_for(path):
        try:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, whose files take their places in `path` when the block ends well.

    Raises:
        RunDirectoryError: `path` holds files that would stay beside the new ones, or is no folder; there is no room, or nobody may write there.
    """
    if path.exists() and not path.is_dir():
        raise RunDirectoryError(f"{path} is no folder; choose another --out")
    with room_for(path):
        yield from _filled(path)


def _filled(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part_of(path)
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    part.mkdir()
    try:
        yield part
        new = sorted(_files(part))
        if others := sorted(_files(path) - set(new)):
            raise RunDirectoryError(f"{path} holds other files ({', '.join(map(str, others[:3]))}); choose another --out, or remove the folder first")
        for name in new:
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with (part / name).open("rb") as file:
                os.fsync(file.fileno())
            (part / name).replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sync_folder(path: Path) -> None:
    """Have the names of the files in a folder on disk, which the sync of a file does not."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _concerns(exc: OSError, path: Path) -> bool:
    """Whether what the system names, if it names a file, is `path`, our part of it, something below them or a folder on the way there."""
    if not isinstance(exc.filename, str | bytes | os.PathLike):
        return True
    named, place = Path(os.fsdecode(exc.filename)).absolute(), path.absolute()
    return any(named.is_relative_to(ours) or ours.is_relative_to(named) for ours in (place, _part_of(place)))


def _files(folder: Path) -> set[Path]:
    return {file.relative_to(folder) for file in folder.rglob("*") if not file.is_dir()}
