"""Tables: CSV and Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from safer_instruct.conversation import conversational
from safer_instruct.export.rows import Kind, Row

_ROWS_PER_GROUP = 10_000


def write_csv(path: Path, rows: Iterable[Row], columns: Mapping[str, Kind]) -> None:
    """With a header; quoted where needed. Messages are JSON."""
    nested = [name for name, kind in columns.items() if kind == "messages"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, tuple(columns))
        writer.writeheader()
        writer.writerows(row | {name: json.dumps(row[name], ensure_ascii=False) for name in nested} for row in rows)


def write_parquet(path: Path, rows: Iterable[Row], columns: Mapping[str, Kind]) -> None:
    """Zstandard-compressed; memory holds one row group. Conversations are in TRL's conversational form."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    types: dict[Kind, Any] = {"text": pa.string(), "integer": pa.int64(), "real": pa.float64(), "messages": messages}
    schema = pa.schema([(name, types[kind]) for name, kind in as_written(columns).items()])
    written = map(conversational, rows) if "history" in columns else iter(rows)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(written):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def as_written(columns: Mapping[str, Kind]) -> dict[str, Kind]:
    """The columns of a Parquet file: where rows have a history it is part of the prompt, and both sides are messages too."""
    if "history" not in columns:
        return dict(columns)
    sides: dict[str, Kind] = dict.fromkeys(("prompt", "chosen", "rejected"), "messages")
    return {name: sides.get(name, kind) for name, kind in columns.items() if name != "history"}


def _groups(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while group := list(islice(rows, _ROWS_PER_GROUP)):
        yield group
