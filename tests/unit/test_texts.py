"""The texts that verdicts speak of: on the side that is theirs, in both directions, whatever became of the example."""

from __future__ import annotations

import csv
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from safer_instruct import stored
from safer_instruct.calibration.labels import read_examples, write_sheet
from safer_instruct.config import load_config
from safer_instruct.example import Candidate, Draft, Example, Verdict
from safer_instruct.pipeline import run
from safer_instruct.report.gather import read_run
from safer_instruct.review.desk import Desk, Plan
from safer_instruct.review.queue import find_item
from safer_instruct.review.store import Store
from safer_instruct.settings.review import ReviewConfig
from safer_instruct.texts import direction_of, judged_texts

ANSWERS = Path(__file__).parents[2] / "examples" / "answers"
BETTER, WORSE = Verdict("verify.better", True, 0.5), Verdict("verify.better", False, -0.5)
BEGUN = Example("e1", "The text.", "answer", "texts.jsonl", 1, candidates=(Candidate("How?"),), prompt="How?")


def refused(*drafts: Draft, **fields: object) -> Example:
    return replace(BEGUN, drafts=drafts, **fields).with_verdicts(WORSE)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=[5, -9], ids=["dropped", "pairs"])
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in direction `chosen`; all of it dropped by the verifier, or all of it pairs."""
    folder = tmp_path_factory.mktemp("answers") / "config"
    shutil.copytree(ANSWERS, folder)
    config = yaml.safe_load((folder / "scripted.yaml").read_text("utf-8")) | {"verify": {"min_margin": request.param, "min_contrast": -9}}
    (folder / "scripted.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    done = run(load_config(folder / "scripted.yaml"), folder.parent / "out")
    assert done.summary["pairs"] == (0 if request.param == 5 else 30)
    return done.path


@pytest.fixture(scope="module")
def examples(answers: Path) -> dict[str, Example]:
    return {example.id: example for example in stored.read_examples(answers)}


def in_their_places(example: Example, chosen: str, rejected: str) -> bool:
    """Whether the corpus, which is what is wanted, stands as chosen, and what the student wrote as rejected."""
    return chosen == example.text and rejected in ([example.rejected] if example.alive else [draft.text for draft in example.drafts]) and rejected != ""


def test_a_label_sheet_shows_both_sides_in_their_places(answers: Path, examples: dict[str, Example], tmp_path: Path) -> None:
    write_sheet(read_examples(answers), tmp_path / "sheet.csv", 30)
    with (tmp_path / "sheet.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30 and all(in_their_places(examples[row["id"]], row["chosen"], row["rejected"]) for row in rows)


def test_the_review_page_shows_both_sides_in_their_places(answers: Path, examples: dict[str, Example]) -> None:
    store = Store(answers)
    try:
        desk = Desk(answers, Plan(ReviewConfig(), {}), store)
        reader = store.join("ada")
        for id_, example in examples.items():
            found = desk.item(reader, id_)
            assert found and [found[at]["side"] for at in ("left", "right")] == ["chosen", "rejected"]
            prompt, chosen, rejected = found["prompt"], found["left"]["text"], found["right"]["text"]
            assert in_their_places(example, chosen, rejected)
            of_all = hashlib.sha256(f"{len(prompt)} {len(chosen)} {len(rejected)}\n{prompt}{chosen}{rejected}".encode()).hexdigest()[:16]
            item = find_item(store, id_)
            assert item and item.digest == of_all == found["digest"], "what was said of these texts is still said of them"
        desk.close()
    finally:
        store.close()


def test_the_report_shows_both_sides_in_their_places(answers: Path, examples: dict[str, Example]) -> None:
    samples = read_run(answers).samples
    assert len(samples) >= 12 and all(in_their_places(examples[sample.id], sample.chosen, sample.rejected) for sample in samples)


def test_the_source_text_stands_on_its_side_and_what_was_refused_on_the_other() -> None:
    first, last = Draft("First.", 0, verdicts=(WORSE,)), Draft("Last.", 1, verdicts=(replace(WORSE, score=-0.9),))
    assert judged_texts(refused(first, last), "rejected") == ("How?", "First.", "The text.")
    assert judged_texts(refused(first, last), "chosen") == ("How?", "The text.", "First.")
    assert judged_texts(replace(BEGUN, prompt=""), "rejected") == ("How?", "", "The text.")
    assert judged_texts(replace(BEGUN, prompt=""), "chosen") == ("How?", "The text.", "")


def test_what_repeated_an_earlier_response_is_shown_though_it_was_taken_back() -> None:
    repeats = Verdict("pair.boilerplate", False, 0.9, "0.90 like e0")
    drafts = (Draft("Said before.", 0, verdicts=(BETTER, repeats)), Draft("Worse.", 1, verdicts=(WORSE,)))
    example = replace(BEGUN, drafts=drafts).with_verdicts(replace(repeats, reason="0.90 like e0; 1 further rounds gave nothing else"))
    assert judged_texts(example, "rejected") == ("How?", "Said before.", "The text.")
    assert judged_texts(example, "chosen") == ("How?", "The text.", "Said before.")


@pytest.mark.parametrize("direction", ["rejected", "chosen"])
def test_a_twin_has_a_refusal_for_its_rejected_side_in_both_directions_and_never_the_instruction_of_its_pair(direction: str) -> None:
    kind = Verdict("twins.rejected_refuses", False, 0.2)
    twin = replace(BEGUN, twin_of="e0", drafts=(Draft("Gladly.", 0, verdicts=(kind,)),))
    assert judged_texts(twin.with_verdicts(kind), direction) == ("How?", "", "Gladly.")  # type: ignore[arg-type]
    declined = refused(Draft("No.", 0, verdicts=(replace(kind, passed=True),)), Draft("Rude.", 0, verdicts=(WORSE,)), twin_of="e0", rejected="No.")
    assert judged_texts(declined, direction) == ("How?", "Rude.", "No.")  # type: ignore[arg-type]


def test_a_summary_that_says_no_direction_is_of_a_run_from_before_there_was_a_choice() -> None:
    assert [direction_of(s) for s in ({}, {"domain": {}}, {"domain": {"direction": "chosen"}})] == ["rejected", "rejected", "chosen"]
