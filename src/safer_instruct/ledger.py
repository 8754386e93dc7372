"""The durable call ledger: every model call is committed, fsynced, before anyone sees its answer.

Stages are deterministic given the answers, so *resume = run it again*: finished calls come back from here for free.
The key of a call is a digest of the model's fingerprint and the whole request; equal requests are one call.
Commits are grouped: whatever finished while the last fsync ran goes into the next transaction together.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import queue
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from safer_instruct.errors import RunDirectoryError
from safer_instruct.models.protocol import Completion, Generated, Generation, Model, Scored, Scoring, Usage

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    key BLOB PRIMARY KEY,           -- SHA-256 of fingerprint and request
    stage TEXT NOT NULL,
    model TEXT NOT NULL,
    kind TEXT NOT NULL,             -- generate, score
    request BLOB NOT NULL,          -- zlib of JSON
    answer BLOB NOT NULL,           -- zlib of JSON
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost REAL NOT NULL,
    seconds REAL NOT NULL,
    finished_at REAL NOT NULL       -- Unix time
)
"""
Answer = TypeVar("Answer", Generated, Scored)


@dataclass(slots=True)
class Meter:
    """What one stage has used so far: in all, as if nothing had come from the ledger, and `fresh` in this process."""

    calls: int = 0
    replayed: int = 0
    usage: Usage = field(default_factory=Usage)
    fresh: Usage = field(default_factory=Usage)

    def add(self, usage: Usage, *, replayed: bool) -> None:
        """Count one call."""
        self.calls += 1
        self.replayed += replayed
        self.usage += usage
        if not replayed:
            self.fresh += usage


@dataclass(slots=True)
class _Write:
    row: tuple[Any, ...]
    done: Callable[[BaseException | None], object]


class Ledger:
    """One SQLite file in WAL mode: a thread that writes, a connection that reads."""

    def __init__(self, path: Path) -> None:
        """Open or create the ledger.

        Raises:
            RunDirectoryError: The file is damaged, of a newer version, or cannot be written.
        """
        self.path = path
        self.in_flight: dict[bytes, asyncio.Future[None]] = {}  # calls that somebody has sent, whatever their stage
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        try:
            self._reader, self._connection = self._connect(), self._connect()
            version = self._reader.execute("PRAGMA user_version").fetchone()[0]
            if version > _SCHEMA_VERSION:
                raise RunDirectoryError(f"{path} was written by a newer version of safer-instruct (ledger schema {version}); upgrade to read it")
            with self._reader:
                self._reader.execute(_SCHEMA)
                self._reader.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        except sqlite3.Error as exc:
            raise RunDirectoryError(f"{path}: the ledger cannot be opened: {exc}") from exc
        self._writer = threading.Thread(target=self._write_loop, name="ledger", daemon=True)
        self._writer.start()

    def get(self, key: bytes) -> bytes | None:
        """The stored answer, packed, or None; one index lookup.

        Raises:
            RunDirectoryError: The file is damaged.
        """
        try:
            row = self._reader.execute("SELECT answer FROM calls WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as exc:
            raise RunDirectoryError(f"{self.path} is damaged: {exc}; --fresh moves it aside") from exc
        return bytes(row[0]) if row else None

    async def put(self, row: tuple[Any, ...]) -> None:
        """Commit one finished call; returns when it is on disk.

        Raises:
            RunDirectoryError: It could not be written.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def settle(exc: BaseException | None) -> None:
            if not future.done():
                future.set_exception(exc) if exc else future.set_result(None)

        self._queue.put(_Write(row, lambda exc: loop.call_soon_threadsafe(settle, exc)))
        await future

    def close(self) -> None:
        """Commit what is queued and close the file."""
        self._queue.put(None)
        self._writer.join()
        self._reader.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _write_loop(self) -> None:
        connection, open_ = self._connection, True
        while open_:
            batch = [self._queue.get()]
            while True:
                try:
                    batch.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            open_ = None not in batch
            writes = [w for w in batch if w is not None]
            error: BaseException | None = None
            try:
                with connection:
                    connection.executemany("INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [w.row for w in writes])
            except sqlite3.Error as exc:
                error = RunDirectoryError(f"{self.path}: {len(writes)} finished calls could not be saved: {exc}")
            except Exception as exc:  # noqa: BLE001 - not swallowed: everyone who waits for this commit is given it
                error = exc
            for write in writes:
                write.done(error)
        connection.close()


class Recorded:
    """A model whose every call goes through the ledger; itself a `Model`, so stages cannot tell."""

    def __init__(self, model: Model, ledger: Ledger, stage: str, meter: Meter) -> None:
        self._model, self._ledger, self._stage, self._meter = model, ledger, stage, meter
        self._in_flight = ledger.in_flight
        self.name, self.fingerprint, self.concurrency = model.name, model.fingerprint, model.concurrency

    async def generate(self, request: Generation) -> Generated:
        """See `Model.generate`; the answer is on disk before it is returned."""
        return await self._call("generate", request, lambda: self._model.generate(request), _decode_generated)

    async def score(self, request: Scoring) -> Scored:
        """See `Model.score`; the answer is on disk before it is returned."""
        return await self._call("score", request, lambda: self._model.score(request), _decode_scored)

    async def close(self) -> None:
        """The wrapped model is closed by whoever opened it."""

    async def _call(self, kind: str, request: Generation | Scoring, send: Callable[[], Coroutine[Any, Any, Answer]], decode: Callable[[Any], Answer]) -> Answer:
        asked = json.dumps([kind, request], default=_fields, ensure_ascii=False, sort_keys=True)
        key = hashlib.sha256(f"{self.fingerprint}\n{asked}".encode("utf-8", "surrogatepass")).digest()
        while pending := self._in_flight.get(key):  # the same request is on its way: wait for it, then read it
            await asyncio.shield(pending)
        if stored := self._ledger.get(key):
            answer = self._unpack(stored, decode)
            self._meter.add(answer.usage, replayed=True)
            return answer
        mark = self._in_flight[key] = asyncio.get_running_loop().create_future()
        try:
            return await self._send(key, kind, asked, send)
        finally:
            del self._in_flight[key]
            mark.set_result(None)

    def _unpack(self, stored: bytes, decode: Callable[[Any], Answer]) -> Answer:
        try:
            return decode(json.loads(zlib.decompress(stored)))
        except (zlib.error, ValueError, KeyError, TypeError) as exc:
            raise RunDirectoryError(f"{self._ledger.path} holds a damaged answer of stage '{self._stage}': {exc}; --fresh moves it aside") from exc

    async def _send(self, key: bytes, kind: str, asked: str, send: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        answer = await send()
        usage = answer.usage
        packed = zlib.compress(json.dumps(answer, default=_fields, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        request = zlib.compress(asked.encode("utf-8", "surrogatepass"))
        row = (key, self._stage, self.name, kind, request, packed, usage.prompt_tokens, usage.completion_tokens, usage.cost, usage.seconds, time.time())
        await self._ledger.put(row)
        self._meter.add(usage, replayed=False)
        return answer


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass as a dict of its fields; unlike `asdict` it copies nothing below."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _decode_generated(data: dict[str, Any]) -> Generated:
    return Generated(tuple(Completion(**c) for c in data["completions"]), Usage(**data["usage"]))


def _decode_scored(data: dict[str, Any]) -> Scored:
    return Scored(tuple(data["logprobs"]), Usage(**data["usage"]))


@dataclass(frozen=True, slots=True)
class Total:
    """What one stage of a ledger adds up to."""

    stage: str
    model: str
    calls: int
    usage: Usage


def read_totals(path: Path) -> list[Total]:
    """Totals per stage and model of a ledger that may be in use.

    Raises:
        RunDirectoryError: The file cannot be read.
    """
    query = "SELECT stage, model, count(*), sum(prompt_tokens), sum(completion_tokens), sum(cost), sum(seconds) FROM calls GROUP BY 1, 2 ORDER BY min(rowid)"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return [Total(stage, model, calls, Usage(*rest)) for stage, model, calls, *rest in connection.execute(query)]
    except sqlite3.Error as exc:
        raise RunDirectoryError(f"{path}: the ledger cannot be read: {exc}") from exc
