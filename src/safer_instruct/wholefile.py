"""Files that appear whole, or not at all, and folders of them. Of several writers of one place the last one's stands there, whole."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from safer_instruct.errors import RunDirectoryError
from safer_instruct.partfile import left_over, part_of, sweep

FULL = "the disk is full; what was saved before is safe: make room, then give the same command again"
_LIMITED = "no file may grow so large here (ulimit -f); what was saved before is safe: raise that limit, then give the same command again"
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
_OLD = "old"  # the ending of a folder that makes room


def is_full(exc: BaseException) -> bool:
    """Whether the system says that there is no room left, on the disk or in the user's share of it."""
    return isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT)


def lacking_room(exc: BaseException) -> str:
    """What to say where the system would not let a file grow; empty where that was not the trouble."""
    return FULL if is_full(exc) else _LIMITED if isinstance(exc, OSError) and exc.errno == errno.EFBIG else ""


@contextmanager
def room_for(path: Path, *parts: Path) -> Iterator[None]:
    """Write `path` or files below it, by way of `parts`; the system's error does not say which where the disk is full, and names a part elsewhere.

    Raises:
        RunDirectoryError: There is no room, a file may not grow so large, or nobody may write there.
    """
    try:
        yield
    except OSError as exc:
        if not _concerns(exc, path, *parts):
            raise
        if why := lacking_room(exc):
            raise RunDirectoryError(f"{path} cannot be written: {why}") from exc
        if exc.errno in _FORBIDDEN:
            raise RunDirectoryError(f"{path} cannot be written: {exc.strerror}; choose a place where you may write") from exc
        raise


@contextmanager
def whole(path: Path, *, sole: bool = False) -> Iterator[Path]:
    """A path to write to that takes the place of `path` when the block ends well.

    Args:
        path: Where it is to stand.
        sole: Whether the caller holds the folder, so that nobody else can be writing `path`.

    Raises:
        RunDirectoryError: Something other than a regular file stands there, there is no room, or nobody may write there.
    """
    if path.is_dir():
        raise RunDirectoryError(f"{path} is a folder; give the name of a file, such as {path / 'NAME'}")
    if path.exists() and not path.is_file():
        raise RunDirectoryError(f"{path} is no regular file, so it cannot be replaced by one")
    sweep(path, sole=sole)
    part = part_of(path)
    with room_for(path, part):
        try:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of what stands in a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that a reader, or a kill, sees the old content or the new one and nothing between.

    Raises:
        RunDirectoryError: As for `whole`.
    """
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def brought_back(path: Path) -> Iterator[Callable[[], None]]:
    """What `path` holds stands there again after the block, whatever was written meanwhile, unless the function that is given was called in it.

    Where nothing stood there, what was written stays.

    Raises:
        RunDirectoryError: As for `whole`.
    """
    before, wanted = path.read_bytes() if path.is_file() else None, [False]

    def want() -> None:
        wanted[0] = True

    try:
        yield want
    finally:
        if before is not None and not wanted[0] and (not path.is_file() or path.read_bytes() != before):
            with whole(path) as part:
                part.write_bytes(before)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill that takes the place of `path` when the block ends well.

    Whoever reads finds the old folder or the new one, or for a moment none, and never some files of each. A kill in that moment leaves
    the old one hidden beside it; the next call brings it back.

    Raises:
        RunDirectoryError: `path` holds files that the new one has not, is no folder, or is one that the process is in; there is no room, or
            nobody may write there.
    """
    if path.exists() and not path.is_dir():
        raise RunDirectoryError(f"{path} is no folder; choose another --out")
    place = path.resolve()  # a link stays, and what it leads to is replaced
    if Path.cwd().is_relative_to(place):
        raise RunDirectoryError(f"{path} is a folder that you are in, and another one takes its place: give the command from outside, or choose another --out")
    part, old = part_of(place), part_of(place, _OLD)
    with room_for(path, place, part, old):
        place.parent.mkdir(parents=True, exist_ok=True)
        _finish(place)
        sweep(place)
        part.mkdir()
        try:
            yield part
            _exchange(path, place, part, old)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _finish(place: Path) -> None:
    """Make good what a kill left of an exchange."""
    for old in left_over(place, _OLD):
        with suppress(OSError):  # another process was faster
            _put_back(place, old)


def _put_back(place: Path, old: Path) -> None:
    """The folder that was there before, unless another stands there now."""
    if place.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        old.rename(place)


def _exchange(path: Path, place: Path, part: Path, old: Path) -> None:
    new = _files(part)
    _refuse_others(path, place, new)
    if place.is_dir():
        _keep_ways(place, part)
    _sync(part)
    try:
        while not _taken(path, place, part, old, new):
            shutil.rmtree(old, ignore_errors=True)  # another process was faster: its folder is the older one now
    except OSError as exc:
        if exc.errno in (errno.EBUSY, errno.EXDEV):
            raise RunDirectoryError(f"{path} cannot be replaced by another folder ({exc.strerror}); choose a folder in it as --out") from exc
        raise
    finally:
        with suppress(OSError):
            sync_folder(place.parent)
        _put_back(place, old)


def _taken(path: Path, place: Path, part: Path, old: Path, new: set[Path]) -> bool:
    """Put `part` where `place` is, and that into `old`; False where a third one came between."""
    with suppress(FileNotFoundError):
        place.rename(old)
        _refuse_others(path, old, new)  # again: from now on nobody adds any
    try:
        part.rename(place)
    except OSError as exc:
        if exc.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _refuse_others(path: Path, folder: Path, new: set[Path]) -> None:
    if others := sorted(_files(folder) - new):
        raise RunDirectoryError(f"{path} holds other files ({', '.join(map(str, others[:3]))}); choose another --out, or remove the folder first")


def _keep_ways(place: Path, part: Path) -> None:
    """What is of the old folder and no file: its permissions, and folders in it that are empty."""
    for folder in place.rglob("*"):
        if folder.is_dir():
            (part / folder.relative_to(place)).mkdir(parents=True, exist_ok=True)
    part.chmod(stat.S_IMODE(place.stat().st_mode))


def _sync(folder: Path) -> None:
    """Have all that stands in a folder on disk."""
    for entry in (*folder.rglob("*"), folder):
        with suppress(OSError) if entry.is_dir() else nullcontext():  # not every file system can do it for names
            sync_folder(entry)


def sync_folder(path: Path) -> None:
    """Have the names of the files in a folder on disk, which the sync of a file does not."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _concerns(exc: OSError, *places: Path) -> bool:
    """Whether what the system names, if it names a file, is one of `places`, something below them or a folder on the way there."""
    if not isinstance(exc.filename, str | bytes | os.PathLike):
        return True
    named = Path(os.fsdecode(exc.filename)).absolute()
    return any(named.is_relative_to(ours) or ours.is_relative_to(named) for ours in (place.absolute() for place in places))


def _files(folder: Path) -> set[Path]:
    return {file.relative_to(folder) for file in folder.rglob("*") if file.is_symlink() or not file.is_dir()}
