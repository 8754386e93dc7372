"""Pairs in other forms: every pair, every character, in a file that is whole."""

from __future__ import annotations

import csv
import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from safer_instruct import rundir
from safer_instruct.errors import ConfigError, RunDirectoryError, SaferInstructError
from safer_instruct.example import Example, Verdict
from safer_instruct.export import FORMATS, export_pairs

pytestmark = pytest.mark.filterwarnings("error")

ODD = [
    "quotes \"and\" 'more'",
    "comma, semicolon; tab\t",
    "lines\none\r\ntwo\rthree",
    "\u2028\u2029\x85 separators",
    "\U0001f642 \u202e \x1b[31m",
    "=1+1",
    "  spaces  ",
    "\ufeffbom",
]
EXAMPLES = [Example(f"id{i}", f"rejected {text}", "support", "t.jsonl", i, prompt=f"prompt {text}", chosen=f"chosen {text}") for i, text in enumerate(ODD)]
PAIRS = [{"prompt": e.prompt, "chosen": e.chosen, "rejected": e.text, "category": "support", "id": e.id} for e in EXAMPLES]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with these pairs and a dropped example."""
    with rundir.outputs(tmp_path) as out:
        for example in (*EXAMPLES, replace(EXAMPLES[0], id="dropped").with_verdicts(Verdict("prompt.length", False))):
            out.add(example)
    (tmp_path / rundir.SUMMARY).write_text(json.dumps({"pairs": len(PAIRS)}), encoding="utf-8")
    return tmp_path


def test_jsonl_holds_one_object_per_line_in_trls_columns(run: Path) -> None:
    path, count = export_pairs(run, "jsonl")
    assert (path, count) == (run / "export.jsonl", len(PAIRS))
    assert [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] == PAIRS


def test_messages_are_conversations_of_one_turn_each(run: Path) -> None:
    path, _ = export_pairs(run, "messages")
    rows = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    assert path.name == "export.messages.jsonl" and len(rows) == len(PAIRS)
    for row, pair in zip(rows, PAIRS, strict=True):
        assert row["prompt"] == [{"role": "user", "content": pair["prompt"]}]
        assert row["chosen"] == [{"role": "assistant", "content": pair["chosen"]}]
        assert row["rejected"] == [{"role": "assistant", "content": pair["rejected"]}]
        assert (row["category"], row["id"]) == (pair["category"], pair["id"])


def test_csv_comes_back_character_by_character(run: Path) -> None:
    path, _ = export_pairs(run, "csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == PAIRS and list(rows[0]) == list(rundir.PAIR_COLUMNS)


def test_parquet_has_text_columns_only(run: Path) -> None:
    path, _ = export_pairs(run, "parquet")
    table = pq.read_table(path)
    assert table.to_pylist() == PAIRS and {str(field.type) for field in table.schema} == {"string"}


def test_a_run_without_pairs_exports_an_empty_file_of_each_format(tmp_path: Path) -> None:
    with rundir.outputs(tmp_path):
        pass
    (tmp_path / rundir.SUMMARY).write_text('{"pairs": 0}')
    sizes = {name: export_pairs(tmp_path, name)[0].stat().st_size for name in FORMATS}
    assert sizes["jsonl"] == sizes["messages"] == 0 and pq.read_table(tmp_path / "export.parquet").num_rows == 0
    assert (tmp_path / "export.csv").read_text().strip() == "prompt,chosen,rejected,category,id"


def test_the_file_can_be_chosen_and_its_folder_is_made(run: Path, tmp_path: Path) -> None:
    assert export_pairs(run, "jsonl", tmp_path / "new" / "x.jsonl")[0] == tmp_path / "new" / "x.jsonl"
    assert not (run / "export.jsonl").exists() and [p.name for p in (tmp_path / "new").iterdir()] == ["x.jsonl"]


def test_an_unknown_format_is_told_with_the_known_ones(run: Path) -> None:
    with pytest.raises(ConfigError, match="unknown format 'xml'; choose one of jsonl, messages, csv, parquet"):
        export_pairs(run, "xml")


def test_a_run_that_is_not_finished_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="holds no finished run"):
        export_pairs(tmp_path, "jsonl")
    assert list(tmp_path.iterdir()) == []


def test_after_an_error_the_earlier_export_stays(run: Path) -> None:
    path, _ = export_pairs(run, "csv")
    before = path.read_bytes()
    (run / rundir.PAIRS).write_bytes(b"damaged")
    with pytest.raises(Exception, match=r"."):
        export_pairs(run, "csv")
    assert path.read_bytes() == before and not list(run.glob(".*.part"))


def test_what_is_no_regular_file_is_not_replaced(run: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    with suppress(SaferInstructError):
        export_pairs(run, "jsonl", pipe)
    assert pipe.is_fifo()
