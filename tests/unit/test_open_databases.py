"""A database file that cannot be used is closed again: from Python 3.13 on, one that is forgotten is a warning, and everywhere it holds its file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger import Ledger, Shard, schema
from safer_instruct.models.batch.jobs import Jobs
from safer_instruct.review.store import Store

OPENED = {
    "ledger.sqlite": schema.connect_to_read,
    "written.sqlite": lambda path: schema.connect(path, cache_mb=1),
    "batches.sqlite": Jobs,
    "review.sqlite": lambda path: Store(path.parent),
    "merged.sqlite": lambda path: Shard(path.parent / "shards", "mine", path),
}


def damaged(path: Path) -> None:
    path.write_bytes(b"no database at all " * 300)


def newer(path: Path) -> None:
    path.unlink(missing_ok=True)
    if path.name == "ledger.sqlite":
        Ledger(path).close()
    with sqlite3.connect(path) as made:
        made.execute("PRAGMA user_version = 77")
    made.close()


@pytest.mark.parametrize("spoil", [damaged, newer])
@pytest.mark.parametrize("name", OPENED)
def test_what_cannot_be_used_is_closed(name: str, spoil: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(path := tmp_path / name)
    open_, made = sqlite3.connect, []

    def connect(*args: object, **kwargs: object) -> sqlite3.Connection:
        made.append(open_(*args, **kwargs))  # type: ignore[call-overload]
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", connect)
    if (name, spoil) == ("written.sqlite", newer):
        OPENED[name](path).close()  # whoever opens it asks for the version
    else:
        with pytest.raises((RunDirectoryError, sqlite3.DatabaseError)):
            OPENED[name](path)
    for connection in made:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
