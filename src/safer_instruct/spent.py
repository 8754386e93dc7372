"""What a run has spent, as a sum that stands in a small file and survives a kill: `spent.json`."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

from safer_instruct.errors import RunDirectoryError, StorageError
from safer_instruct.storage.attached import home_of
from safer_instruct.wholefile import is_full, sync_folder, write_whole

_CHARS = 72  # of the text, whatever the sum: on a full disk one takes the place of another


@dataclass(frozen=True, slots=True)
class Spent:
    """An amount of money and of tokens; `cost` in US dollars."""

    cost: float = 0.0
    tokens: int = 0


def read_spent(path: Path) -> Spent | None:
    """What `write_spent` kept, or None when there is no such file.

    Raises:
        RunDirectoryError: The file is damaged: what was spent cannot be told.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        spent = Spent(float(data["cost_usd"]), int(data["tokens"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise RunDirectoryError(f"{path} is damaged, so what was spent cannot be told: {exc}; delete it to count the ledger's calls alone") from exc
    if not (math.isfinite(spent.cost) and spent.cost >= 0 and spent.tokens >= 0):
        raise RunDirectoryError(f"{path} is damaged: it says {spent.cost} USD and {spent.tokens} tokens; delete it to count the ledger's calls alone")
    return spent


def write_spent(path: Path, spent: Spent) -> None:
    """Keep `spent` so that a kill or a power cut leaves this sum or the one before.

    Raises:
        RunDirectoryError: It could not be written.
    """
    try:
        text = json.dumps({"cost_usd": spent.cost, "tokens": spent.tokens}).ljust(_CHARS) + "\n"
        _put(path, text, spent)
        sync_folder(path.parent)  # the name, too: an older sum must not come back
        if home := home_of(path.parent):
            home.keep(path.name, text.encode())
    except (OSError, StorageError, RunDirectoryError) as exc:
        where = "" if str(path) in str(exc) else f"{path}: "
        raise RunDirectoryError(f"what calls may cost cannot be recorded, so no further one is sent: {where}{exc}") from exc


def earlier_spent(path: Path, finished: Spent) -> Spent:
    """What earlier sittings of a run spent: what was recorded, or the finished calls where they come to more.

    Args:
        path: The file that `write_spent` writes.
        finished: What the ledger's calls add up to, of the models that reserve; all there is for a run that was begun
            before budgets were kept.

    Raises:
        RunDirectoryError: The file is damaged.
    """
    recorded = read_spent(path) or Spent()
    return Spent(max(recorded.cost, finished.cost), max(recorded.tokens, finished.tokens))


def _put(path: Path, text: str, spent: Spent) -> None:
    """Write the file anew, or, on a full disk, a sum that is no higher over the one that stands there, in the room that this has."""
    try:
        write_whole(path, text)
    except RunDirectoryError as exc:
        before = read_spent(path) if exc.__cause__ and is_full(exc.__cause__) else None
        if before is None or spent.cost > before.cost or spent.tokens > before.tokens or not _put_over(path, text):
            raise


def _put_over(path: Path, text: str) -> bool:
    """Whether a text took the place of one as long, in one write, which a kill does not cut in two."""
    if path.stat().st_size != len(text):
        return False
    file = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(file, text.encode(), 0)
        os.fsync(file)
    except OSError:  # a file system that writes nothing in its old place
        return False
    finally:
        os.close(file)
    return True
