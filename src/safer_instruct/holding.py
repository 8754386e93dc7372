"""A folder that one process at a time may change: a run directory, or that of a training."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from safer_instruct.errors import RunDirectoryError
from safer_instruct.moving import undo_move
from safer_instruct.wholefile import room_for

_TRIES, _PAUSE_S = 5, 0.02
_RUN, _SUMMARY = "run.yaml", "summary.json"  # of a run that has finished; `rundir` names all its files


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Be the one process that changes what stands in the directory; a move aside that was killed is undone first.

    Raises:
        RunDirectoryError: Another process holds it, or nobody may write there.
    """
    with room_for(path / ".lock"):
        opened = (path / ".lock").open("a+", encoding="utf-8")
    with opened as file:
        if not _locked(file):
            file.seek(0)
            raise RunDirectoryError(f"{path} is in use by process {file.read().strip() or '?'}; wait for it, stop it, or choose another --out")
        with room_for(path / ".lock"):
            os.truncate(file.fileno(), 0)
            os.write(file.fileno(), str(os.getpid()).encode())
        undo_move(path)
        yield


def holder(path: Path) -> str | None:
    """The process that holds the directory, or None where none of this machine does; it notices nothing."""
    try:
        with (path / ".lock").open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "?"
    except OSError:
        pass
    return None


def of_others(folder: Path, written: Iterable[str], ours: Iterable[str]) -> list[str]:
    """Names in a folder that a command would write over, where nothing shows that it has worked there before.

    Args:
        folder: Where it is to write; perhaps not there.
        written: What it writes: names, or patterns of names.
        ours: Names by which its folder is known.
    """
    if any((folder / name).exists() for name in ours):
        return []
    return list(dict.fromkeys(file.name for name in written for file in sorted(folder.glob(name))))


def is_finished_run(folder: Path) -> bool:
    """Whether it is a run directory, of a run that has finished."""
    return (folder / _RUN).is_file() and (folder / _SUMMARY).is_file()


def finished_runs(folder: Path) -> list[str]:
    """The finished runs below a folder, as paths from it; not those within others, such as what `--fresh` moved aside."""
    found: list[Path] = []
    for run in sorted(file.parent for file in folder.rglob(_SUMMARY) if file.parent != folder and is_finished_run(file.parent)):
        if not any(outer in run.parents for outer in found):
            found.append(run)
    return [str(run.relative_to(folder)) for run in found]


def _locked(file: IO[str]) -> bool:
    """Whether the lock could be had; who asks for its holder has it for a moment, too."""
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_PAUSE_S)
    return False
