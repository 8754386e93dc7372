"""Pairs in other forms. Each format is one function from rows to a file; register it in `FORMATS`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safer_instruct import rundir
from safer_instruct.errors import ConfigError
from safer_instruct.wholefile import whole

Rows = Iterator[dict[str, str]]


def export_pairs(path: Path, format_: str, out: Path | None = None) -> tuple[Path, int]:
    """Write the pairs of the run directory `path` as `format_`.

    Returns:
        The file, and how many pairs it holds.

    Raises:
        ConfigError: There is no such format.
        RunDirectoryError: The directory holds no finished run, or its pairs cannot be read.
    """
    if format_ not in FORMATS:
        raise ConfigError(f"unknown format '{format_}'; choose one of {', '.join(FORMATS)}")
    pairs: int = rundir.read_summary(path)["pairs"]
    write, ending = FORMATS[format_]
    target = out or path / f"export.{ending}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole(target) as part:
        write(rundir.read_pairs(path), part)
    return target, pairs


def _jsonl(rows: Rows, path: Path) -> None:
    """One object per line, TRL's standard preference format."""
    _lines(path, rows)


def _messages(rows: Rows, path: Path) -> None:
    """One object per line, TRL's conversational preference format."""

    def turn(role: str, content: str) -> list[dict[str, str]]:
        return [{"role": role, "content": content}]

    _lines(
        path,
        ({**r, "prompt": turn("user", r["prompt"]), "chosen": turn("assistant", r["chosen"]), "rejected": turn("assistant", r["rejected"])} for r in rows),
    )


def _csv(rows: Rows, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rundir.PAIR_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _parquet(rows: Rows, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, rundir.pair_schema(), compression="zstd") as writer:
        for row_group in _chunks(rows, 10_000):
            writer.write_table(pa.Table.from_pylist(row_group, schema=rundir.pair_schema()))


def _lines(path: Path, rows: Iterator[Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _chunks(rows: Rows, size: int) -> Iterator[list[dict[str, str]]]:
    chunk: list[dict[str, str]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


FORMATS: dict[str, tuple[Callable[[Rows, Path], None], str]] = {
    "jsonl": (_jsonl, "jsonl"),
    "messages": (_messages, "messages.jsonl"),
    "csv": (_csv, "csv"),
    "parquet": (_parquet, "parquet"),
}
