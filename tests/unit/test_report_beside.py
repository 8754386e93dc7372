"""A run beside a dataset of others: what needs no more than texts stands side by side, the rest is of the run alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_runs import made_up, write_run

from safer_instruct.cli import main
from safer_instruct.errors import ConfigError, RunDirectoryError
from safer_instruct.report.beside import read_dataset
from safer_instruct.report.build import describe
from safer_instruct.report.document import Document, Figure, Table
from safer_instruct.report.scores import bins_for

pytest.importorskip("numpy")

ROWS: list[dict[str, object]] = [
    {"prompt": "Where is my parcel?", "chosen": "It is on its way.", "rejected": "Look yourself."},
    {
        "prompt": [{"role": "user", "content": "Is the shop open?"}],
        "chosen": [{"role": "assistant", "content": "Until six."}],
    },
    {"instruction": "Write a note about the lamp.", "output": "The lamp is new."},
    {"conversations": [{"from": "human", "value": "How do I return a cake?"}, {"from": "gpt", "value": "With care."}]},
    {"nothing": "here"},
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "made", list(made_up(80)))


@pytest.fixture
def others(tmp_path: Path) -> Path:
    file = tmp_path / "others.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "{broken\n", encoding="utf-8")
    return file


def by_id(document: Document) -> dict[str, list[Figure | Table]]:
    return {section.id: list(section.parts) for section in document.sections}


def test_prompts_and_responses_are_found_in_the_published_forms(others: Path) -> None:
    view = read_dataset(others)
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in view.pairs] == [
        ("Where is my parcel?", "It is on its way.", "Look yourself."),
        ("Is the shop open?", "Until six.", ""),
        ("Write a note about the lamp.", "The lamp is new.", ""),
        ("How do I return a cake?", "With care.", ""),
    ]
    assert [len(view.words[name]) for name in ("prompt", "chosen", "rejected")] == [4, 4, 1]


def test_what_needs_texts_only_stands_side_by_side(run: Path, others: Path) -> None:
    sections = by_id(describe(run, others))
    variety = sections["diversity"][0]
    assert isinstance(variety, Table) and variety.columns == ("figure", "made", "others.jsonl", "what it says")
    lengths = {part.id: part for part in sections["lengths"] if isinstance(part, Figure)}
    assert [series["name"] for series in lengths["length-prompt"].data["series"]] == ["made", "others.jsonl"]
    assert [series["name"] for series in lengths["length-gap"].data["series"]] == ["made"]
    assert len(sections["funnel"]) == len(sections["cost"]) == 1 and "problems-1" in sections and "problems-2" not in sections
    groups = next(part for part in sections["diversity"] if isinstance(part, Figure)).data["groups"]
    assert [(group["name"], len(group["points"])) for group in groups][1] == ("others.jsonl", 4)


def test_two_runs_or_a_run_and_a_file_are_given_one_after_the_other(run: Path, others: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run), str(others)])
    assert not ended.value.code and "others.jsonl" in (run / "report.md").read_text("utf-8").replace("\\", "")
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run), str(others), "--compare", str(run)])
    assert ended.value.code == 2


def test_a_file_without_prompts_and_a_file_in_the_place_of_the_run_are_refused(run: Path, tmp_path: Path, others: Path) -> None:
    (tmp_path / "numbers.jsonl").write_text('{"n": 1}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="no row has a prompt"):
        describe(run, tmp_path / "numbers.jsonl")
    with pytest.raises(RunDirectoryError, match="is a file"):
        describe(others, run)


def test_few_values_get_few_bins() -> None:
    assert (bins_for(1), bins_for(32), bins_for(1_000), bins_for(1_000_000)) == (8, 8, 20, 40)
