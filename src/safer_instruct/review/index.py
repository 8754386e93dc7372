"""The index of a run's examples: `review-index.sqlite`, made once from `examples.parquet` and made again when that changes.

A row per example says where its texts stand (row group and place), what a reader filters by, and its place in the reading
order, which is shuffled: the first hundred read stand for the whole run. Texts are not copied; their words are, into a
contentless full-text table.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safer_instruct import rundir, stored, tables
from safer_instruct.conversation import as_messages, texts_digest
from safer_instruct.domain import Direction
from safer_instruct.example import Example
from safer_instruct.texts import direction_of, judged_texts
from safer_instruct.wholefile import room_for, whole

PAIR = "pair"  # the outcome of an example that came through
_VERSION = 3
_EXCERPT = 160
_SAID = tuple(f"history.list.element.{name}" for name in ("role", "content"))
_COLUMNS = ("id", "text", "category", "prompt", "chosen", "rejected", "dropped_by", "twin_of", *_SAID)
_SCHEMA = """
    CREATE TABLE item (
        row INTEGER PRIMARY KEY,    -- place in examples.parquet, from 1
        place INTEGER NOT NULL,     -- place in the reading order, from 1
        id TEXT NOT NULL,
        category TEXT NOT NULL,
        outcome TEXT NOT NULL,      -- 'pair', or the verdict that dropped it
        part INTEGER NOT NULL,      -- row group
        at INTEGER NOT NULL,        -- place in it
        digest TEXT NOT NULL,       -- of the three texts: a label of other texts under this id does not count
        excerpt TEXT NOT NULL,      -- how the prompt begins, so that a list needs no texts
        draw INTEGER NOT NULL       -- 0 to 9999, by chance: those below the overlap are read by two annotators
    );
    CREATE TABLE facet (category TEXT, outcome TEXT, count INTEGER, PRIMARY KEY (category, outcome));
    CREATE TABLE source (version INTEGER, size INTEGER, changed_ns INTEGER);
    CREATE VIRTUAL TABLE word USING fts5(text, content='', detail=none, prefix='2 3 4 5 6', tokenize='unicode61 remove_diacritics 2');
"""
_INDEXES = """
    CREATE UNIQUE INDEX by_id ON item (id);
    CREATE UNIQUE INDEX by_place ON item (place);
    CREATE INDEX by_category ON item (category, place);
    CREATE INDEX by_outcome ON item (outcome, place);
    CREATE INDEX by_both ON item (category, outcome, place);
"""


def ensure_index(path: Path, report: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """The index of the finished run in `path`, made if it is missing or of another `examples.parquet`.

    Args:
        path: The run directory.
        report: Told now and then how many of how many examples are in it.

    Raises:
        RunDirectoryError: The run is not finished, or its file is damaged.
    """
    direction = direction_of(rundir.read_summary(path))
    index, source = path / rundir.REVIEW_INDEX, _source(path / rundir.EXAMPLES)
    if not _is_of(index, source):
        for left in [index.with_name(index.name + ending) for ending in ("-wal", "-shm", "-journal")]:
            with room_for(index, left):
                left.unlink(missing_ok=True)
        with whole(index) as part:
            _build(path, part, source, direction, report)
    return index


def facet_token(kind: str, value: str) -> str:
    """The word that stands for a category or an outcome in the full-text table, so that both are looked up at once."""
    return "facet" + hashlib.sha256(f"{kind}:{value}".encode("utf-8", "surrogatepass")).hexdigest()[:20]


def _source(examples: Path) -> tuple[int, int, int]:
    try:
        stat = examples.stat()
    except OSError as exc:
        raise rundir.unreadable(examples, exc) from exc
    return _VERSION, stat.st_size, stat.st_mtime_ns


def _is_of(index: Path, source: tuple[int, int, int]) -> bool:
    if not index.is_file():
        return False
    try:
        connection = sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True)
        try:
            return bool(connection.execute("SELECT version, size, changed_ns FROM source").fetchone() == source)
        finally:
            connection.close()
    except sqlite3.DatabaseError:  # damaged, or of another layout: it is only an index
        return False


def _build(path: Path, file: Path, source: tuple[int, int, int], direction: Direction, report: Callable[[int, int], None]) -> None:
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -200000;" + _SCHEMA)
        with tables.opened(path, rundir.EXAMPLES) as parquet:
            _fill(connection, parquet, direction, report)
        connection.executescript(_INDEXES)
        connection.execute("INSERT INTO word (word) VALUES ('optimize')")
        connection.execute("INSERT INTO source VALUES (?, ?, ?)", source)
        connection.execute("ANALYZE")
    finally:
        connection.close()


def _fill(connection: sqlite3.Connection, parquet: Any, direction: Direction, report: Callable[[int, int], None]) -> None:
    total, done = parquet.metadata.num_rows, 0
    places = _reading_order(parquet)
    facets: Counter[tuple[str, str]] = Counter()
    connection.execute("BEGIN")
    for part in range(parquet.num_row_groups):
        items, words = [], []
        for at, (example, outcome) in enumerate(_rows(parquet, part)):
            done += 1
            texts = judged_texts(example, direction)
            facets[example.category, outcome] += 1
            place, draw = places[done - 1]
            digest = texts_digest(*texts, as_messages(example.history))
            items.append((done, place, example.id, example.category, outcome, part, at, digest, texts.prompt[:_EXCERPT], draw))
            tokens = f"{facet_token('category', example.category)} {facet_token('outcome', outcome)}"
            words.append((done, "\n".join((example.id, *(turn.content for turn in example.history), *texts, tokens))))
        connection.executemany("INSERT INTO item VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", items)
        connection.executemany("INSERT INTO word (rowid, text) VALUES (?, ?)", words)
        report(done, total)
    connection.executemany("INSERT INTO facet VALUES (?, ?, ?)", [(*facet, count) for facet, count in facets.items()])
    connection.execute("COMMIT")


def _reading_order(parquet: Any) -> list[tuple[int, int]]:
    """For every row its place in a shuffled order, and a draw of 0 to 9999; both depend on the ids alone."""
    ids = [id_ for part in range(parquet.num_row_groups) for id_ in parquet.read_row_group(part, columns=["id"])["id"].to_pylist()]
    digests = [hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=12).digest() for id_ in ids]
    places = [(0, 0)] * len(ids)
    for place, row in enumerate(sorted(range(len(ids)), key=digests.__getitem__), start=1):
        places[row] = (place, int.from_bytes(digests[row][8:], "big") % 10_000)
    return places


def _rows(parquet: Any, part: int) -> Iterator[tuple[Example, str]]:
    """The examples of a row group with their outcomes; candidates, drafts and verdicts only where the taken texts are missing."""
    table = parquet.read_row_group(part, columns=list(_COLUMNS))
    rows: list[dict[str, Any]] = table.to_pylist()
    lacking = [at for at, row in enumerate(rows) if not row["prompt"] or not row["chosen"]]
    if lacking:
        nested = parquet.read_row_group(part, columns=["candidates", "drafts", "verdicts"]).take(lacking).to_pylist()
        for at, more in zip(lacking, nested, strict=True):
            rows[at] |= more
    yield from ((stored.as_example(row), row["dropped_by"] or PAIR) for row in rows)
