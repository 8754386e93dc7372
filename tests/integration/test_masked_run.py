"""A run whose source texts are mended before anything is induced from them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from safer_instruct.config import load_config
from safer_instruct.pipeline import run

CONFIG = """
domain: civility
source: {path: texts.jsonl}
filter: {text: {pii: {mode: mask}}, prompt: null, near_duplicate: null, consistency: null}
models: {inducer: 'scripted:', expert: 'scripted:', scorer: 'scripted:'}
verify: {min_contrast: -9, min_margin: -9, min_words: 1}
"""


def test_what_was_masked_stands_nowhere_in_the_run_directory(tmp_path: Path) -> None:
    text = "Write to zebedee@example.com or quentin@example.com, and stop bothering the printer with your parcels."
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(CONFIG, encoding="utf-8")
    run(load_config(tmp_path / "mine.yaml"), tmp_path / "out")
    (row,) = pq.read_table(tmp_path / "out" / "examples.parquet").to_pylist()
    assert "Write to <email> or <email>, and stop" in json.dumps(row)
    verdict = next(v for v in row["verdicts"] if v["name"] == "text.pii")
    assert (verdict["score"], verdict["flag"], verdict["reason"]) == (2.0, True, "masked: holds 2 email")
    stored = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert stored and not [path for path in stored if b"zebedee" in path.read_bytes()]
    assert "zebedee" not in str(pq.read_table(tmp_path / "out" / "examples.parquet").to_pylist())
