"""LLaMA-Factory: data files in its alpaca format, and the `dataset_info.json` that names them.

https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safer_instruct.export.lines import Reshape, beside, write_lines
from safer_instruct.export.rows import Finished, Row
from safer_instruct.export.trl import unpaired


def write_preference(finished: Finished, folder: Path) -> None:
    """For `stage: dpo` and `stage: rm`."""
    columns = {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}
    _write(finished, folder, _preference, {"ranking": True, "columns": columns | _history(finished)})


def write_kto(finished: Finished, folder: Path) -> None:
    """For `stage: kto`."""
    columns = {"prompt": "instruction", "response": "output", "kto_tag": "kto_tag"}
    _write(finished, folder, _kto, {"columns": columns | _history(finished)})


def _write(finished: Finished, folder: Path, reshape: Reshape, entry: dict[str, Any]) -> None:
    name, info = finished.described()["domain"]["name"], {}
    for split in finished.counts:
        file = f"{name}_{split}.jsonl"
        write_lines(folder / file, finished.rows(split), reshape)
        info[f"{name}_{split}"] = {"file_name": file, **entry}
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")


def _preference(row: Row) -> Iterator[Any]:
    yield {"instruction": row["prompt"], **_turns(row), "chosen": row["chosen"], "rejected": row["rejected"], **beside(row)}


def _kto(row: Row) -> Iterator[Any]:
    for record in unpaired(row):
        yield {"instruction": record["prompt"], **_turns(row), "output": record["completion"], "kto_tag": record["label"], **beside(row)}


def _history(finished: Finished) -> dict[str, str]:
    return {"history": "history"} if finished.conversations else {}


def _turns(row: Row) -> dict[str, list[list[str]]]:
    """What was said before as LLaMA-Factory takes it: pairs of what the user and the assistant said."""
    if "history" not in row:
        return {}
    said = [turn["content"] for turn in row["history"]]
    return {"history": [list(pair) for pair in zip(said[::2], said[1::2], strict=True)]}
