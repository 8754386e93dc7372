"""Rows of tuning data, wherever they are: files, folders that `datasets` saved, and datasets by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safer_instruct.config import SourceConfig
from safer_instruct.errors import SourceError
from safer_instruct.extras import require
from safer_instruct.settings.pairs import PairSource
from safer_instruct.sources import BadRow, SourceRow, read_rows
from safer_instruct.storage.address import is_remote

_STATE, _SPLITS = "state.json", "dataset_dict.json"


def open_rows(source: PairSource, base: Path) -> Iterator[SourceRow | BadRow]:
    """The rows of `source`, in order.

    Raises:
        SourceError: It is missing, or cannot be read.
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
    return read_rows(SourceConfig(path=source.path), base)


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


def _named(source: PairSource, base: Path) -> Iterator[SourceRow]:
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
