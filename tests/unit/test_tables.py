"""The tables of a run: what is written comes back, in order, and all four files appear together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from safer_instruct import rundir, tables
from safer_instruct.errors import RunDirectoryError
from safer_instruct.example import Candidate, Draft, Example, Verdict
from safer_instruct.sources import BadRow
from safer_instruct.tables import outputs, pair_row

pytestmark = pytest.mark.filterwarnings("error")

PAIR = Example("a1", "rude \u2028 text\n", "support", "t.jsonl", 1, prompt="ask", chosen="kind", margin=0.5)
DROPPED = replace(
    PAIR,
    id="a2",
    chosen="",
    margin=None,
    candidates=(Candidate("ask", -0.5, True, (Verdict("prompt.length", True, 7),)),),
    drafts=(Draft("no", 1, finished=False, verdicts=(Verdict("verify.length", False, 1, "1 words"),)),),
    verdicts=(Verdict("verify.length", False, 1, "1 words"),),
)


def names(path: Path) -> set[str]:
    return {p.name for p in path.iterdir()}


def test_pairs_and_dropped_examples_come_back_from_disk_field_by_field(tmp_path: Path) -> None:
    with outputs(tmp_path) as out:
        out.add(PAIR)
        out.add(DROPPED)
        out.add_bad(BadRow("t.jsonl", 9, "broken \x1b[2J", "{"))
    assert names(tmp_path) == {rundir.EXAMPLES, rundir.PAIRS, rundir.PAIRS_JSONL, rundir.BAD_ROWS}
    first, second = pq.read_table(tmp_path / rundir.EXAMPLES).to_pylist()
    assert (first["id"], first["text"], first["prompt"], first["chosen"], first["margin"], first["dropped_by"]) == ("a1", PAIR.text, "ask", "kind", 0.5, None)
    assert (second["dropped_by"], second["drop_reason"]) == ("verify.length", "1 words") and second["line"] == 1
    assert second["candidates"] == [
        {"text": "ask", "logprob": -0.5, "finished": True, "verdicts": [{"name": "prompt.length", "passed": True, "score": 7.0, "reason": "", "flag": False}]}
    ]
    assert second["drafts"][0]["attempt"] == 1 and second["drafts"][0]["finished"] is False
    row = {"prompt": "ask", "chosen": "kind", "rejected": PAIR.text, "category": "support", "id": "a1"}
    assert pair_row(PAIR) == row and pq.read_table(tmp_path / rundir.PAIRS).to_pylist() == [row]
    assert [json.loads(line) for line in (tmp_path / rundir.PAIRS_JSONL).read_bytes().split(b"\n")[:-1]] == [row]
    bad = (tmp_path / rundir.BAD_ROWS).read_bytes()
    assert b"\x1b" not in bad and json.loads(bad) == {"file": "t.jsonl", "line": 9, "reason": "broken \x1b[2J", "excerpt": "{", "unread": False}


def test_order_is_kept_over_more_rows_than_one_group_holds(tmp_path: Path) -> None:
    count = tables._ROWS_PER_GROUP + 5
    with outputs(tmp_path) as out:
        for i in range(count):
            out.add(replace(PAIR if i % 3 else DROPPED, id=str(i)))
    assert pq.read_metadata(tmp_path / rundir.EXAMPLES).num_row_groups == 2
    assert pq.read_table(tmp_path / rundir.EXAMPLES)["id"].to_pylist() == [str(i) for i in range(count)]
    assert pq.read_table(tmp_path / rundir.PAIRS)["id"].to_pylist() == [str(i) for i in range(count) if i % 3]


def test_a_run_without_a_row_still_leaves_readable_files(tmp_path: Path) -> None:
    with outputs(tmp_path):
        pass
    assert pq.read_table(tmp_path / rundir.PAIRS).column_names == list(tables.PAIR_COLUMNS)
    assert pq.read_table(tmp_path / rundir.EXAMPLES).num_rows == 0 and (tmp_path / rundir.PAIRS_JSONL).read_bytes() == b""


def test_after_an_error_all_four_old_files_stay(tmp_path: Path) -> None:
    with outputs(tmp_path) as out:
        out.add(PAIR)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail_halfway() -> None:
        with outputs(tmp_path) as out:
            out.add(replace(PAIR, id="other"))
            out.add_bad(BadRow("x", 1, "y", "z"))
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail_halfway()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_what_a_killed_run_left_is_swept_up_wherever_that_ran_because_one_run_at_a_time_holds_the_directory(tmp_path: Path) -> None:
    for name in (rundir.EXAMPLES, rundir.PAIRS, rundir.PAIRS_JSONL, rundir.BAD_ROWS):
        (tmp_path / f".{name}.0123abcd-1-1.part").write_bytes(b"of a container that is gone")
    with outputs(tmp_path):
        pass
    assert names(tmp_path) == {rundir.EXAMPLES, rundir.PAIRS, rundir.PAIRS_JSONL, rundir.BAD_ROWS}


def test_a_table_beside_the_summary_of_another_run_is_refused(tmp_path: Path) -> None:
    with outputs(tmp_path) as out:
        out.add(PAIR)
        out.add(DROPPED)
    summary = dict.fromkeys(rundir._SUMMED_UP, 0) | {"rows": 3, "set_aside": 1, "pairs": 1}
    for pairs, rows, other in ((1, 3, None), (2, 3, rundir.PAIRS), (1, 4, rundir.EXAMPLES)):
        (tmp_path / rundir.SUMMARY).write_text(json.dumps(summary | {"pairs": pairs, "rows": rows}))
        for name in (rundir.EXAMPLES, rundir.PAIRS):
            if name == other:
                two_runs = rf"{name} has [12] rows and summary.json beside it tells of [23], so they are of two runs"
                with pytest.raises(RunDirectoryError, match=two_runs), tables.opened(tmp_path, name):
                    pass
            else:
                with tables.opened(tmp_path, name) as parquet:
                    assert parquet.metadata.num_rows == (2 if name == rundir.EXAMPLES else 1)
