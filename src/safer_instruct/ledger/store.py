"""The ledger in use: a thread that commits in groups, and a connection that reads by key.

Whatever finished while the last fsync ran goes into the next transaction together. While most of the calls in flight are
still out, a commit waits 5 ms for more to join it: an fsync takes about 200 microseconds of CPU, whatever it carries, and
calls that went out together come back together.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, closing
from pathlib import Path

from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger import schema
from safer_instruct.ledger.content import Call
from safer_instruct.ledger.known import KnownKeys
from safer_instruct.ledger.recovery import finish_recovery
from safer_instruct.ledger.rows import COLUMNS, Appender, DamagedRowError, Unpacker
from safer_instruct.storage.attached import home_of

_SELECT = f"SELECT {COLUMNS} FROM calls WHERE key = ?"  # noqa: S608 - a constant
_JOINED_FOR_S, _FULL_GROUP = 0.005, 256
Waiting = tuple[Call, "asyncio.Future[None]"]
Outcome = tuple[bytes, "asyncio.Future[None]", RunDirectoryError | None]


class Ledger:
    """One SQLite file in WAL mode."""

    def __init__(self, path: Path) -> None:
        """Open or create the ledger, and bring an older one up to date.

        In the working directory of a run at an address, a commit is in the store, too, before anybody is told of it.

        Raises:
            RunDirectoryError: The file is damaged, of a newer version, or cannot be written.
        """
        self.path = path
        self.in_flight: dict[bytes, asyncio.Future[None] | None] = {}  # sent and not yet committed, and what those who want them wait for
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._failure: RunDirectoryError | None = None  # of the last commit
        self._closed = False
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
            except (sqlite3.Error, OSError, DamagedRowError, schema.DamagedFileError) as exc:
                raise schema.explain(path, exc, "the ledger cannot be opened") from exc
            opened.pop_all()
        self._thread = threading.Thread(target=self._write_loop, name="ledger", daemon=True)
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
                if self._failure:
                    raise RunDirectoryError(str(self._failure))
                return None
            if not self._unpacker.knows(row):
                self._unpacker = Unpacker.load(self._reader)
            return self._unpacker.unpack(row)
        except (sqlite3.Error, DamagedRowError) as exc:
            raise schema.explain(self.path, exc, "the ledger cannot be read") from exc

    def put(self, call: Call) -> asyncio.Future[None]:
        """Commit one finished call; done when it is on disk, and only then its key is given free.

        Raises:
            RunDirectoryError: The ledger is closed; from the future: it could not be written.
        """
        if self._closed:
            self.release(call.key)
            raise RunDirectoryError(f"{self.path}: a call finished after the ledger was closed and is not saved")
        self._known.add(call.key)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put((call, future))
        return future

    async def end_of(self, key: bytes) -> None:
        """Wait until a call in flight is committed, or will not be."""
        mark = self.in_flight[key] or asyncio.get_running_loop().create_future()
        self.in_flight[key] = mark
        await asyncio.shield(mark)

    def release(self, key: bytes) -> None:
        """Wake up who waits for a call in flight: it is committed now, or will not be."""
        if mark := self.in_flight.pop(key, None):
            mark.set_result(None)

    def close(self) -> None:
        """Commit what is queued and close the file."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()
        self._reader.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_loop(self) -> None:
        open_ = True
        while open_:
            group = [self._queue.get()]
            self._drain(group)
            if len(group) < min(len(self.in_flight) // 2, _FULL_GROUP) and None not in group:
                time.sleep(_JOINED_FOR_S)
                self._drain(group)
            open_ = None not in group
            self._commit([waiting for waiting in group if waiting is not None])
        self._writer.close()

    def _drain(self, group: list[Waiting | None]) -> None:
        for _ in range(self._queue.qsize()):
            group.append(self._queue.get_nowait())

    def _commit(self, group: list[Waiting]) -> None:
        """Save all, and wake up each event loop that waits for some of them once."""
        loops = defaultdict(list)
        for (call, future), error in zip(group, self._save([call for call, _ in group]), strict=True):
            loops[future.get_loop()].append((call.key, future, error))
        for loop, outcomes in loops.items():
            try:
                loop.call_soon_threadsafe(self._settle, outcomes)
            except RuntimeError:  # the loop is closed: nobody waits any more
                for key, *_ in outcomes:
                    self.in_flight.pop(key, None)

    def _save(self, calls: list[Call]) -> list[RunDirectoryError | None]:
        """One transaction for all; if one of them makes no row, one for each, so that the others are not lost with it."""
        try:
            self._append(calls)
        except Exception as exc:  # noqa: BLE001 - not swallowed: everyone who waits for this commit is given it
            if len(calls) > 1 and _is_of_one_call(exc):
                return [error for call in calls for error in self._save([call])]
            error = schema.explain(self.path, exc, f"{len(calls)} finished calls could not be saved")
            if not _is_of_one_call(exc):
                self._failure = error
            return [error] * len(calls)
        self._failure = None
        return [None] * len(calls)

    def _settle(self, outcomes: list[Outcome]) -> None:
        for key, future, error in outcomes:
            self.release(key)
            if not future.done():
                future.set_exception(error) if error else future.set_result(None)

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


def _is_of_one_call(exc: Exception) -> bool:
    """Whether a commit failed for what a call holds, and not for the state of the file or the disk."""
    if isinstance(exc, sqlite3.Error):
        return isinstance(exc, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.ProgrammingError)
    return not isinstance(exc, DamagedRowError | OSError | MemoryError)
