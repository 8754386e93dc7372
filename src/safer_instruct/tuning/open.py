"""Rows of tuning data, wherever they are: files, folders that `datasets` saved, and datasets by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from safer_instruct.config import SourceConfig
from safer_instruct.errors import SourceError
from safer_instruct.extras import require
from safer_instruct.holding import finished_runs
from safer_instruct.oneline import listed
from safer_instruct.settings.pairs import RowSource
from safer_instruct.sources import BadRow, SourceRow, read_rows
from safer_instruct.storage.address import is_remote

LOOKED_AT = 100
"""Rows that tell which columns there are."""
_STATE, _SPLITS = "state.json", "dataset_dict.json"
_OTHER_SPLITS = ("test", "validation", "valid", "val", "dev", "eval")
_Table = Literal["parquet", "jsonl", "csv", "tsv"]
_TABLES: tuple[tuple[_Table, tuple[str, ...]], ...] = (
    ("parquet", (".parquet",)),
    ("jsonl", (".jsonl", ".ndjson")),
    ("csv", (".csv",)),
    ("tsv", (".tsv",)),
    ("jsonl", (".json",)),  # last: beside other tables it describes them
)


def open_rows(source: RowSource, base: Path, *, all_files: bool = False) -> Iterator[SourceRow | BadRow]:
    """The rows of `source`, in order.

    Args:
        source: Where they are. Of a folder of tables those files are read that are named after its split, where there are such.
        base: The folder that relative paths start from.
        all_files: Read all tables of a folder.

    Raises:
        SourceError: It is missing, cannot be read, has no such split, or is a folder of runs.
        MissingExtraError: It is a dataset by name, and `datasets` is not installed.
    """
    if is_remote(source.path):
        return read_rows(SourceConfig(path=source.path), base)
    if source.path.startswith("hf:"):
        return _named(source, base)
    folder = base / source.path
    if (folder / _SPLITS).is_file():
        splits = _json(folder / _SPLITS).get("splits", [])
        if source.split not in splits:
            raise SourceError(f"{folder}: has no split '{source.split}'; set 'split' to one of {', '.join(map(str, splits))}")
        return _saved(folder / source.split, source.path)
    if (folder / _STATE).is_file():
        return _saved(folder, source.path)
    if folder.is_dir():
        return _of_folder(source, folder, base, all_files=all_files)
    return read_rows(SourceConfig(path=source.path), base)


def first_rows(rows: Iterator[SourceRow | BadRow], bad: Callable[[BadRow], None]) -> list[SourceRow | BadRow]:
    """Take from `rows` those from the first good one on, a hundred at most: one row may lack a column that the others have. `bad` is given those before."""
    for row in rows:
        if isinstance(row, SourceRow):
            return [row, *islice(rows, LOOKED_AT - 1)]
        bad(row)
    return []


def other_splits(source: RowSource, base: Path) -> list[str]:
    """The splits of a folder that `open_rows` leaves out, by name: none of what is no folder, and none where its files are not named after splits."""
    folder = base / source.path
    if is_remote(source.path) or not folder.is_dir():
        return []
    if (folder / _SPLITS).is_file():
        names = [str(name) for name in _json(folder / _SPLITS).get("splits", [])]
    else:
        names = list(dict.fromkeys(_split_of(file) for file in _tables_in(folder)[1]))
    return [name for name in names if name != source.split] if source.split in names else []


def _of_folder(source: RowSource, folder: Path, base: Path, *, all_files: bool) -> Iterator[SourceRow | BadRow]:
    """Rows of a folder of tables: a dataset's holds a card and metadata beside them. A run's tables hold what was dropped, too, and each pair twice."""
    if runs := finished_runs(folder):
        raise SourceError(f"{folder} is no data set; runs in it: {listed(runs)}; give one of them, such as {folder / runs[0]}, or a table itself")
    table, files = _tables_in(folder)
    if not files:
        raise SourceError(f"{folder}: this folder holds neither a run, nor a saved dataset, nor a table (JSONL, JSON, CSV, TSV, Parquet)")
    paths = [Path(source.path) / file.relative_to(folder) for file in (files if all_files else _of_split(source, files, folder))]
    return (row for path in paths for row in read_rows(SourceConfig(path=str(path), format=table), base))


def _tables_in(folder: Path) -> tuple[_Table, list[Path]]:
    """The files of the first kind of table that is there."""
    there = sorted(file for file in folder.rglob("*") if file.is_file())
    for table, endings in _TABLES:
        if files := [file for file in there if file.name.removesuffix(".gz").removesuffix(".zst").endswith(endings)]:
            return table, files
    return "jsonl", []


def _of_split(source: RowSource, files: list[Path], folder: Path) -> list[Path]:
    """Those that are named as the hub names them, `test.jsonl` or `test-00000-of-00001.parquet`; all, where no file is named after any split."""
    named = {file: _split_of(file) for file in files}
    if source.split in named.values():
        return [file for file, name in named.items() if name == source.split]
    if "split" in source.model_fields_set or any(name in _OTHER_SPLITS for name in named.values()):
        raise SourceError(f"{folder}: no file is named after the split '{source.split}'; there are: {', '.join(dict.fromkeys(named.values()))}")
    return files


def _split_of(file: Path) -> str:
    return re.split(r"[.-]", file.name)[0]


def _saved(folder: Path, shown: str) -> Iterator[SourceRow]:
    """Rows of a folder that `Dataset.save_to_disk` wrote: Arrow streams, in the order that `state.json` gives."""
    import pyarrow as pa

    number = 0
    for entry in _json(folder / _STATE).get("_data_files", []):
        path = folder / Path(str(entry["filename"])).name
        try:
            with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as stream:
                for batch in stream:
                    for fields in batch.to_pylist():
                        number += 1
                        yield SourceRow(fields, shown, number)
        except (OSError, pa.ArrowException) as exc:
            raise SourceError(f"{path}: cannot be read as Arrow: {exc}; save the dataset again") from exc


def _named(source: RowSource, base: Path) -> Iterator[SourceRow]:
    """Rows of a dataset by name, streamed; a name that is a folder beside the config stands for its files."""
    datasets = require("datasets", extra="datasets", purpose=f"reading '{source.path}'")
    name = source.path.removeprefix("hf:")
    local = base / name
    given: dict[str, Any] = {"split": source.split, "revision": source.revision, "streaming": True}
    try:
        rows = datasets.load_dataset(str(local) if local.is_dir() else name, source.subset, **given)
    except (OSError, ValueError, RuntimeError) as exc:  # what `datasets` raises for names, splits and files that are not there
        raise SourceError(f"{source.path}: cannot be loaded: {exc}; check 'path', 'subset', 'split' and 'revision', or HF_TOKEN for a gated dataset") from exc
    return (SourceRow(fields, source.path, number) for number, fields in enumerate(rows, 1))


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise SourceError(f"{path}: cannot be read as JSON: {exc}; save the dataset again") from exc
    if not isinstance(value, dict):
        raise SourceError(f"{path}: holds no JSON object; save the dataset again")
    return value
