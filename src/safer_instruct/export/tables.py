"""Tables: CSV and Parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from safer_instruct.export.rows import Kind, Row

_ROWS_PER_GROUP = 10_000


def write_csv(path: Path, rows: Iterable[Row], columns: Mapping[str, Kind]) -> None:
    """With a header; quoted where needed."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, tuple(columns))
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: Iterable[Row], columns: Mapping[str, Kind]) -> None:
    """Zstandard-compressed; memory holds one row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types: dict[Kind, Any] = {"text": pa.string(), "integer": pa.int64(), "real": pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(iter(rows)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _groups(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while group := list(islice(rows, _ROWS_PER_GROUP)):
        yield group
