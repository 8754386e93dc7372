"""The tutorial docs/new-domain.md, as somebody does it who has nothing else: its commands, in its order, with the embedded model."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
from processor import needs_a_quick_processor

from safer_instruct.cli import main
from safer_instruct.config import load_config
from safer_instruct.conversation import texts_digest
from safer_instruct.domain import load_domain
from safer_instruct.pipeline import sample
from safer_instruct.review.store import Store
from safer_instruct.stored import read_examples
from safer_instruct.texts import judged_texts

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs" / "new-domain.md").read_text("utf-8")
ROWS, QUESTIONS = 4, 2  # enough to see that each command works, and few enough for every day
FEWER = {"holdout: {count: 4}": "holdout: {count: 1}", "max_tokens: 60": "max_tokens: 16"}  # of the page's numbers, for so few pairs

PAIRS = [
    {"prompt": f"When is the {thing} ready?", "chosen": f"The {thing} is ready on Friday, and I will ring you.", "rejected": evasion}
    for thing, evasion in (
        ("blue bicycle", "Ready is a large word, and bicycles are delicate things in any season."),
        ("birthday cake", "There are cakes that take a day and cakes that take another. We like them all."),
        ("tax letter", "The matter is with those whom it concerns, and they are concerned with it."),
        ("garden bench", "Wood has its own sense of time, as our grandfathers used to say in the yard."),
    )
]


def commands() -> list[list[str]]:
    """What the tutorial has its reader type, below the marks."""
    blocks = re.findall(r"<!-- tutorial -->\n```sh\n(.*?)```", TUTORIAL, re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


def parts() -> tuple[list[list[str]], list[list[str]]]:
    """What is typed up to pairs, and from there on."""
    steps = commands()
    at = next(n for n, step in enumerate(steps) if step[1] == "train")
    return steps[:at], steps[at:]


def typed(command: list[str]) -> int:
    assert command[0] == "safer-instruct"
    with pytest.raises(SystemExit) as stopped:
        main(command[1:])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def lay_out(folder: Path) -> None:
    """The reader's folder, with the beginning of the corpus and of the questions, and the configs that the page shows."""
    examples = ROOT / "examples" / "evasive"
    rows = list(csv.reader((examples / "replies.csv").read_text("utf-8").splitlines()))
    with (folder / "replies.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows[: ROWS + 1])
    questions = (examples / "questions.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "questions.jsonl").write_text("".join(questions[:QUESTIONS]), "utf-8")
    for name, text in re.findall(r"```yaml\n# (\w+\.yaml)\n(.*?)```", TUTORIAL, re.S):
        for many, few in FEWER.items():
            text = text.replace(many, few)
        (folder / name).write_text(text, "utf-8")


def fill_in_examples(file: Path) -> None:
    examples = re.search(r"```yaml\n(    examples:\n.*?)```", TUTORIAL, re.S)
    assert examples and "    examples: []\n" in file.read_text("utf-8")
    file.write_text(file.read_text("utf-8").replace("    examples: []\n", examples[1]), encoding="utf-8")
    assert len(load_domain(file.name, file.parent).categories["reply"].examples) == 2


def accept_all(run: Path) -> None:
    """What the review page writes when somebody presses `a` on every pair."""
    store = Store(run)
    try:
        reader = store.join("ada")
        for example in read_examples(run):
            digest = texts_digest(*judged_texts(example, "rejected"))
            store.change(reader, example.id, digest, {"decision": "accept"}, key=example.id, seconds=2.0)
    finally:
        store.close()


def test_the_tutorial_leads_from_nothing_to_reviewed_and_exported_pairs(
    embedded_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    run, (steps, rest) = tmp_path / "runs" / "evasive", parts()
    made = ["domain", "domain", "domain", "init", "run", "filters", "report", "export", "export", "export", "audit", "audit", "value"]
    assert [step[1] for step in steps] == made and [step[1] for step in rest] == ["train", "models", "evaluate"]
    for step in steps:
        if "--reviewed" in step:
            accept_all(run)
        assert typed(step) == 0, (step, capsys.readouterr().err)
        if step[:3] == ["safer-instruct", "domain", "new"]:
            fill_in_examples(tmp_path / "evasive-domain.yaml")
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    assert summary["rows"] == ROWS == summary["pairs"] + summary["dropped"]
    for exported in (run / "export.messages.jsonl", tmp_path / "reviewed.jsonl"):
        assert len(exported.read_text("utf-8").splitlines()) == summary["pairs"] > 0
    assert (run / "report.html").is_file()
    taken = sample(load_config(tmp_path / "evasive.yaml"), run, ROWS)  # from the ledger
    by_stage = [figures.seconds / taken.slots[stage] for row in taken.rows for stage, figures in row.items() if figures.calls]
    assert taken.in_process_s == pytest.approx(sum(by_stage)) and taken.in_process_s > 0, "one model in this process has every role: nothing overlaps"


@needs_a_quick_processor
def test_the_tutorial_goes_on_from_pairs_to_a_tuned_model_its_evaluation_and_its_use(
    embedded_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trl")
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    steps, rest = parts()
    assert typed(steps[0]) == 0  # domain new
    fill_in_examples(tmp_path / "evasive-domain.yaml")
    (tmp_path / "reviewed.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS), "utf-8")
    for step in rest:
        assert typed(step) == 0, (step, capsys.readouterr().err)
    trained = json.loads((tmp_path / "runs" / "evasive-dpo" / "tuning.json").read_text("utf-8"))
    assert trained["task"] == "dpo" and trained["data"]["held_out"] == 1 and trained["steps"] >= 1
    compared = json.loads((tmp_path / "runs" / "evaluate-evaluation" / "evaluation.json").read_text("utf-8"))
    assert list(compared["answers"]) == ["base", "tuned"] and compared["prompts"] == QUESTIONS
    [use] = re.findall(r"```python\n(from transformers import.*?)```", TUTORIAL, re.S)
    capsys.readouterr()
    exec(compile(use, "new-domain.md", "exec"), {})
    assert len(capsys.readouterr().out.split()) > 3
