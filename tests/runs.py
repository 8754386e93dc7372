"""The books of a finished run, for tests of what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from safer_instruct import rundir

SUMMARY: dict[str, Any] = {
    "rows": 12,
    "set_aside": 1,
    "dropped": 2,
    "stages": {"collect": {"in": 11, "dropped": {"dedup.text": 2}, "out": 9}},
    "calls": 30,
    "prompt_tokens": 400,
    "completion_tokens": 200,
    "cost": 0.25,
    "models": {"inducer": "embedded:small+reverse", "expert": "openai:large"},
    "notes": ["the judge was asked 20 times and disagreed with itself twice"],
    "thresholds": "defaults or the config's own, not calibrated",
    "timing": {},
    "domain": {
        "name": "civility",
        "description": "Replies, rude and kind.",
        "misuse": "Do not train a model to be rude.",
        "guidelines": {"support": "0123456789abcdef"},
    },
    "license": "CC-BY-4.0",
    "source_license": "cc0-1.0",
}
SUMMED_UP = {**dict.fromkeys(rundir._SUMMED_UP, 0), "stages": {}, "models": {}, "timing": {}}
"""What stands in the summary of any run, of whatever version."""
RESOLVED = {
    "models": {"inducer": "embedded:feed:ctranslate2-4.8", "expert": "openai:large@host"},
    "templates": {"induce": "00ff", "respond": "11ee"},
}


def summed_up(path: Path) -> dict[str, Any]:
    """A summary that tells no more than what the tables in `path` hold."""
    examples, pairs = (pq.read_metadata(path / name).num_rows for name in (rundir.EXAMPLES, rundir.PAIRS))
    return {**SUMMED_UP, "rows": examples, "dropped": examples - pairs, "pairs": pairs}


def write_books(path: Path, pairs: int) -> None:
    """`summary.json` and `run.yaml` of a run with so many pairs."""
    (path / rundir.SUMMARY).write_text(
        json.dumps({**SUMMARY, "rows": pq.read_metadata(path / rundir.EXAMPLES).num_rows + SUMMARY["set_aside"], "pairs": pairs}), encoding="utf-8"
    )
    (path / rundir.RUN).write_text(yaml.safe_dump(RESOLVED), encoding="utf-8")
