"""What an evaluation leaves in its directory: figures as JSON, the report, and every system's answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safer_instruct.evaluation.prompts import write_outputs
from safer_instruct.evaluation.report import markdown
from safer_instruct.evaluation.result import OUTPUTS, REPORT, RESULT, Evaluation, Work
from safer_instruct.wholefile import write_whole


def write_result(work: Work, result: Evaluation) -> None:
    """Write result, report, and every system's answers."""
    for name, found in work.responses.items():
        write_outputs(result.path / OUTPUTS / f"{name}.json", name, work.prompts, found)
    record = plain(asdict(result)) | {
        "config": work.config.model_dump(mode="json"),
        "per_prompt": [
            {
                "id": p.id,
                "category": p.category,
                "safe": p.safe,
                "scores": {j: {s: v[at] for s, v in x.scores.items()} for j, x in work.harmless.items()},
                "harmful": {j: {s: v[at] for s, v in x.harmful.items()} for j, x in work.harmless.items()},
                "refusal": {system: classes[at] for system, classes in work.classed.items()} if work.config.over_refusal else {},
            }
            for at, p in enumerate(work.prompts)
        ],
    }
    for fleeting in ("path", "from_ledger", "repeated", "budget", "seconds"):
        del record[fleeting]
    write_whole(result.path / RESULT, json.dumps(record, indent=1, ensure_ascii=True) + "\n")
    write_whole(result.path / REPORT, markdown(work.config, result))


def people_of(out: Path) -> list[str]:
    """The people whose answers are in the result that lies in `out`; nobody where there is none."""
    try:
        people = json.loads((out / RESULT).read_text(encoding="utf-8"))["people"]
        return list(people["people"]) if people else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def plain(value: Any) -> Any:
    """As JSON can say it: paths as text, and what is not a number as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and value != value:
        return None
    return str(value) if isinstance(value, Path) else value
