"""Argilla: a dataset as `rg.Dataset.from_disk` reads it, for people to look at the pairs.

https://docs.argilla.io/latest/how_to_guides/import_export
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safer_instruct.export.lines import beside
from safer_instruct.export.messages import asked
from safer_instruct.export.rows import Finished, Row

_FIELDS = {"prompt": "Instruction", "chosen": "Response meant to be better", "rejected": "Response meant to be worse"}
_ANSWERS = {"chosen": "The first, as meant", "rejected": "The second", "tie": "Neither is better", "unfit": "The instruction fits neither"}


def write_argilla(finished: Finished, folder: Path) -> None:
    """Records, settings and name; splits become a metadata property."""
    domain = finished.described()["domain"]
    (folder / ".argilla").mkdir()
    with (folder / "records.json").open("w", encoding="utf-8") as file:
        before = "["
        for split in finished.counts:
            for row in finished.rows(split):
                file.write(f"{before}\n{json.dumps(_record(row, split))}")
                before = ","
        file.write("\n]\n" if before == "," else "[]\n")
    settings = _settings(domain, list(finished.counts), chat=finished.conversations)
    (folder / ".argilla" / "settings.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    (folder / ".argilla" / "dataset.json").write_text(json.dumps({"name": domain["name"], "allow_extra_metadata": True}) + "\n", encoding="utf-8")


def _record(row: Row, split: str) -> dict[str, Any]:
    metadata = {name: value for name, value in beside(row).items() if name != "id" and value is not None}
    fields = {name: row[name] for name in _FIELDS} | ({"prompt": asked(row)} if "history" in row else {})
    return {"id": row["id"], "fields": fields, "metadata": {**metadata, "split": split}}


def _settings(domain: dict[str, Any], splits: list[str], *, chat: bool) -> dict[str, Any]:
    types = dict.fromkeys(_FIELDS, "text") | ({"prompt": "chat"} if chat else {})
    fields = [{"name": n, "title": title, "required": True, "settings": {"type": types[n], "use_markdown": False}} for n, title in _FIELDS.items()]
    return {
        "guidelines": f"{domain['description']}\n\n{domain['misuse']}",
        "fields": fields,
        "questions": list(_questions()),
        "metadata": [_terms("category", sorted(domain["guidelines"])), _terms("split", splits)],
        "vectors": [],
        "allow_extra_metadata": True,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
        "mapping": None,
    }


def _questions() -> Iterator[dict[str, Any]]:
    options = [{"value": value, "text": text, "description": None} for value, text in _ANSWERS.items()]
    settings = {"type": "label_selection", "options": options, "visible_options": len(options)}
    yield {"name": "better", "title": "Which response is better?", "description": None, "required": True, "settings": settings}
    yield {"name": "comment", "title": "Why?", "description": None, "required": False, "settings": {"type": "text", "use_markdown": False}}


def _terms(name: str, values: list[str]) -> dict[str, Any]:
    return {"name": name, "title": name, "visible_for_annotators": True, "settings": {"type": "terms", "values": values}}
