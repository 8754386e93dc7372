"""The ledger in use: a file that is committed to in groups (`commits.py`), and a connection that reads by key."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from safer_instruct.ledger import schema
from safer_instruct.ledger.commits import Commits
from safer_instruct.ledger.content import Call
from safer_instruct.ledger.known import KnownKeys
from safer_instruct.ledger.recovery import finish_recovery
from safer_instruct.ledger.rows import COLUMNS, Appender, DamagedRowError, Unpacker
from safer_instruct.storage.attached import home_of

_SELECT = f"SELECT {COLUMNS}, number FROM calls WHERE key = ?"  # noqa: S608 - a constant


class Ledger(Commits):
    """One SQLite file in WAL mode."""

    def __init__(self, path: Path) -> None:
        """Open or create the ledger, and bring an older one up to date.

        In the working directory of a run at an address, a commit is in the store, too, before anybody is told of it.

        Raises:
            RunDirectoryError: The file is damaged, of a newer version, or cannot be written.
        """
        super().__init__(path)
        self._home = home_of(path.parent)
        with ExitStack() as opened:
            try:
                finish_recovery(path)
                if not path.exists():
                    with schema.building(path):
                        pass
                schema.check_file(path)
                schema.migrate(path)
                self._writer = opened.enter_context(closing(schema.connect(path, cache_mb=4)))
                self._appender: Appender | None = Appender(self._writer)
                self._reader = opened.enter_context(closing(schema.connect(path, cache_mb=4)))
                self._unpacker = Unpacker.load(self._reader)
                self._known = KnownKeys(key for (key,) in self._reader.execute("SELECT key FROM calls"))
                (self._last,) = self._reader.execute("SELECT coalesce(max(number), 0) FROM calls").fetchone()  # of those that were there before
            except (sqlite3.Error, OSError, DamagedRowError, schema.DamagedFileError) as exc:
                raise schema.explain(path, exc, "the ledger cannot be opened") from exc
            opened.pop_all()
        self._thread.start()

    def get(self, key: bytes) -> Call | None:
        """The call of that key, or None when it may be made; one index lookup, none as a rule where there is no such call.

        SQLite lets go of the interpreter lock, and getting it back from the other threads costs more than the lookup.

        Raises:
            RunDirectoryError: The file is damaged; or the last commit failed, so what this call is paid for might be lost.
        """
        try:
            row = self._reader.execute(_SELECT, (key,)).fetchone() if key in self._known else None
            if row is None:
                self.check()
                return None
            if not self._unpacker.knows(row):
                self._unpacker = Unpacker.load(self._reader)
            call = self._unpacker.unpack(row[:-1])
            return call if row[-1] <= self._last else replace(call, earlier=False)
        except (sqlite3.Error, DamagedRowError) as exc:
            raise schema.explain(self.path, exc, "the ledger cannot be read") from exc

    def close(self) -> None:
        """Commit what is queued and close the file."""
        super().close()
        self._reader.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _about_to_commit(self, call: Call) -> None:
        self._known.add(call.key)

    def _append(self, calls: list[Call]) -> None:
        appender, self._appender = self._appender or Appender(self._writer), None  # gone unless all goes well
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            appender.append(calls)
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:  # SQLite has rolled back by itself after some errors
                self._writer.execute("ROLLBACK")
            raise
        self._appender = appender
        if self._home:
            self._home.append(calls)

    def _end(self) -> None:
        self._writer.close()
