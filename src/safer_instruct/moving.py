"""What stands in a folder, moved into `previous-N/` below it as one: after a kill on the way there whoever holds the folder next undoes it.

It goes into a hidden folder first, which gets its name when all is there. A database is never where it could be opened without its log: what
stands there would be lost, and the log taken for that of the next database.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

MOVING = ".moving-aside"
_SAY_FINISHED = ("summary.json", "tuning.json")  # first to go and last to come back: what is not all there must not look so
_LOGS = ("-wal", "-shm")


def move_aside(path: Path, names: Sequence[str]) -> None:
    """Move what has these names in `path`, or matches them, into `previous-N/` below it; the caller holds the folder."""
    if not (old := list(dict.fromkeys(file for name in names for file in sorted(path.glob(name))))):
        return
    hidden = path / MOVING
    hidden.mkdir()
    for file in sorted(old, key=lambda file: (file.name not in _SAY_FINISHED, file.name.endswith(_LOGS))):
        file.replace(hidden / file.name)
    hidden.rename(_next(path))


def undo_move(path: Path) -> None:
    """Bring back what a move that was killed has moved; what has come in its place meanwhile stays, and then the old one is in `previous-N/`."""
    hidden = path / MOVING
    if not hidden.is_dir():
        return
    for file in sorted(hidden.iterdir(), key=lambda file: (file.name in _SAY_FINISHED, not file.name.endswith(_LOGS))):
        database = file.name.removesuffix("-wal").removesuffix("-shm")
        if not any((path / name).exists() for name in (file.name, database)):
            file.replace(path / file.name)
    if any(hidden.iterdir()):
        hidden.rename(_next(path))
    else:
        hidden.rmdir()


def _next(path: Path) -> Path:
    number = 1
    while (path / f"previous-{number}").exists():
        number += 1
    return path / f"previous-{number}"
