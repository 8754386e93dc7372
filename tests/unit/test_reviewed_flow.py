"""What people said comes back: accepted pairs as an export, labels for calibration, a section of the report; of the texts that they read."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from made_runs import made_up, write_run
from rich.console import Console
from runs import RESOLVED

from safer_instruct import rundir
from safer_instruct.calibration.calibrate import CALIBRATION, Aim, calibrate, write_calibration
from safer_instruct.cli import main
from safer_instruct.conversation import texts_digest
from safer_instruct.errors import ConfigError, RunDirectoryError
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.export import Options, export_pairs
from safer_instruct.report.build import describe
from safer_instruct.report.document import Document, Figure, Table
from safer_instruct.report.markdown import as_markdown
from safer_instruct.report.reviewed import share_of
from safer_instruct.review.figures import progress
from safer_instruct.review.index import ensure_index
from safer_instruct.review.labels import write_labels
from safer_instruct.review.queue import CLAIM_S, Filters, find_item, select
from safer_instruct.review.store import Store
from safer_instruct.texts import judged_texts
from safer_instruct.views import review as view

pytest.importorskip("numpy")


@pytest.fixture
def examples() -> list[Example]:
    return list(made_up(120, seed=5))


@pytest.fixture
def run(examples: list[Example], tmp_path: Path) -> Path:
    return write_run(tmp_path / "made", examples)


def digest_of(example: Example) -> str:
    return texts_digest(*judged_texts(example, "rejected"))


def say(path: Path, reader: str, examples: Sequence[Example], **said: Any) -> None:
    store = Store(path)
    try:
        number = store.join(reader)
        for example in examples:
            store.change(number, example.id, digest_of(example), said, key=f"{reader} {example.id} {sorted(said)}", seconds=2.0)
    finally:
        store.close()


def test_a_run_that_was_read_is_not_told_to_be_read(run: Path, examples: list[Example]) -> None:
    def advice() -> str:
        (problem,) = (problem for section in describe(run).sections for problem in section.problems or () if "fitted to no label" in problem.what)
        return problem.do

    assert advice() == "Read some (safer-instruct review DIR), then: safer-instruct calibrate DIR --reviewed"
    say(run, "ben", examples[:3], decision="skip")
    assert advice().startswith("Read some")
    say(run, "ada", examples[:3], decision="accept")
    assert advice() == "What was decided in the review can tell: safer-instruct calibrate DIR --reviewed"


def exported(path: Path, **options: Any) -> list[dict[str, Any]]:
    out = export_pairs(path, "jsonl", options=Options(reviewed=True, **options)).path
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()]


def main_ended(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code


def test_only_accepted_pairs_leave_with_corrections_and_the_run_keeps_its_texts(run: Path, examples: list[Example]) -> None:
    alive = [e for e in examples if e.alive]
    say(run, "ada", alive[:5], decision="accept")
    say(run, "ada", alive[5:9], decision="reject")
    say(run, "ada", alive[9:10], decision="skip")
    say(run, "ada", alive[1:2], edit={"chosen": "Better said."})
    before = (run / rundir.PAIRS_JSONL).read_bytes()
    rows = exported(run)
    assert [row["id"] for row in rows] == [e.id for e in alive[:5]]
    assert [row["chosen"] for row in rows] == [alive[0].chosen, "Better said.", *(e.chosen for e in alive[2:5])]
    assert (run / rundir.PAIRS_JSONL).read_bytes() == before


def test_a_tie_and_a_text_that_was_replaced_since_are_left_out(run: Path, examples: list[Example]) -> None:
    alive = [e for e in examples if e.alive]
    say(run, "ada", alive[:3], decision="accept")
    say(run, "ben", alive[:1], decision="reject")
    say(run, "ada", [replace(alive[3], chosen="another run wrote this")], decision="accept")
    assert [row["id"] for row in exported(run)] == [e.id for e in alive[1:3]]
    with pytest.raises(SystemExit) as ended:
        main(["review", str(run), "--labels", str(run / "said.csv")])
    assert not ended.value.code
    with (run / "said.csv").open(encoding="utf-8", newline="") as file:
        assert [(row["id"], row["label"]) for row in csv.DictReader(file)] == [(e.id, "good") for e in alive[1:3]]


def test_what_was_accepted_as_corrected_only_is_no_label_of_what_was_scored(run: Path, examples: list[Example], capsys: pytest.CaptureFixture[str]) -> None:
    alive = [e for e in examples if e.alive]
    say(run, "ada", alive[:4], decision="accept")
    say(run, "ada", alive[1:2], edit={"chosen": "Better said."})
    say(run, "ada", alive[4:6], decision="reject")
    say(run, "ada", alive[5:6], edit={"prompt": "What was meant?"})
    say(run, "ada", [replace(alive[6], chosen="another run wrote this")], decision="accept")
    written = write_labels(run, run / "said.csv")
    assert [(said.id, good) for said, good in written.labels] == [(e.id, e not in alive[4:6]) for e in (alive[0], *alive[2:6])]
    assert written.left_out == "1 accepted only as corrected, 1 of texts that the run no longer holds"
    view.write_labels(run, run / "said.csv")
    assert "5 labels: " in (told := " ".join(capsys.readouterr().out.split())) and told.endswith(f"(left out: {written.left_out})")


def test_a_decision_on_an_example_without_a_score_is_left_out_as_such(tmp_path: Path) -> None:
    *examples, last = made_up(60, seed=5)
    bare = replace(last, candidates=(), prompt="", chosen="", drafts=(), margin=None, verdicts=(Verdict("dedup.text", False, None, "seen"),))
    run = write_run(tmp_path / "made", [*examples, bare])
    say(run, "ada", [*[e for e in examples if e.alive][:3], bare], decision="reject")
    assert write_labels(run, run / "said.csv").left_out == "1 of an example without a score"


def test_an_export_says_how_many_accepted_ones_the_run_has_no_more(run: Path, examples: list[Example], capsys: pytest.CaptureFixture[str]) -> None:
    alive = [e for e in examples if e.alive]
    say(run, "ada", alive[:3], decision="accept")
    main_ended(["export", str(run), "--format", "jsonl", "--reviewed"])
    assert "more were accepted" not in capsys.readouterr().out
    say(run, "ada", [replace(e, chosen="another run wrote this") for e in alive[3:5]], decision="accept")
    main_ended(["export", str(run), "--format", "jsonl", "--reviewed"])
    said = "2 more were accepted, and are not among the run's pairs as they were read: 2 have other texts now (read those anew)"
    assert capsys.readouterr().out.splitlines()[-1] == said
    pq.write_table(pa.table({"id": [e.id for e in alive[2:]]}), run / rundir.SELECTED)
    found = export_pairs(run, "jsonl", options=Options(reviewed=True, selected=True))
    assert (found.pairs, found.missing) == (1, 2), "what was only not selected is not missing"


def test_what_the_run_dropped_since_is_told_from_what_has_other_texts(run: Path, examples: list[Example], capsys: pytest.CaptureFixture[str]) -> None:
    alive = [e for e in examples if e.alive]
    say(run, "ada", alive[:6], decision="accept")
    stricter = Verdict("verify.acceptable", False, 0.1, "less than 0.2")
    now = {e.id: e.with_verdicts(stricter) for e in alive[1:3]} | {e.id: replace(e, chosen="Of a later run.") for e in alive[3:5]}
    write_run(run, [now.get(e.id, e) for e in examples if e.id != alive[5].id])
    say(run, "ben", [now[alive[4].id]], decision="accept")
    main_ended(["export", str(run), "--format", "jsonl", "--reviewed"])
    told = "1 has other texts now (read it anew); 2 are dropped now, by verify.acceptable; 1 is in the run no more"
    assert capsys.readouterr().out.splitlines()[-1] == f"4 more were accepted, and are not among the run's pairs as they were read: {told}"
    found = export_pairs(run, "jsonl", options=Options(reviewed=True))
    assert (found.pairs, found.missing, found.dropped, found.gone) == (2, 4, {"verify.acceptable": 2}, 1), "what was read again is not missing"


def test_provenance_and_card_say_what_a_person_corrected(run: Path, examples: list[Example], capsys: pytest.CaptureFixture[str]) -> None:
    write_run(run, [replace(e, drafts=tuple(replace(draft, expert="expert") for draft in e.drafts)) for e in examples])
    summary = json.loads((run / rundir.SUMMARY).read_text("utf-8"))
    domain = {"name": "manners", "description": "Replies.", "misuse": "None.", "direction": "rejected", "guidelines": {}}
    unique = {"share": 1.0, "exact_repeats": 0, "near_repeats": 0, "near": 0.7}
    margin = {"kind": "calibrated", "score": "better", "method": "logistic", "labels": 9, "pairs": 26, "beyond_labels": 25}
    writers = {"ada": {"pairs": 13}, "bea": {"pairs": 13}}
    counted = {"unique_chosen": unique, "margin": margin, "writers": writers, "source_licenses": {"cc0-1.0": 7}}
    (run / rundir.SUMMARY).write_text(json.dumps({**summary, "domain": domain, "license": "", "source_license": "", **counted}), "utf-8")
    (run / rundir.RUN).write_text(yaml.safe_dump({"config": {}, **RESOLVED}), encoding="utf-8")
    alive = [e for e in examples if e.alive]
    say(run, "ada", alive[:4], decision="accept")
    say(run, "ada", alive[:2], edit={"chosen": "The same, better said."})
    say(run, "ada", alive[2:3], edit={"rejected": "Never.", "prompt": "What was meant?"})
    rows = exported(run, provenance=True)
    assert [row["corrected"] for row in rows] == ["chosen", "chosen", "prompt rejected", ""]
    assert [row["expert"] for row in rows] == ["person", "person", "expert", "expert"]
    assert [row["margin"] for row in rows] == [None, None, None, alive[3].margin]
    assert "corrected" not in exported(run)[0]
    pq.write_table(pa.table({"id": [e.id for e in alive[2:6]]}), run / rundir.SELECTED)
    chosen = export_pairs(run, "datasets", options=Options(selected=True, provenance=True))
    assert "corrected" not in pq.read_table(chosen.path / "data" / "train.parquet").column_names
    cards = [(chosen.path / "README.md").read_text("utf-8")]
    out = export_pairs(run, "datasets", options=Options(reviewed=True, provenance=True))
    assert out.corrected == 3 and pq.read_table(out.path / "data" / "train.parquet")["corrected"].to_pylist() == [row["corrected"] for row in rows]
    cards.append((out.path / "README.md").read_text("utf-8"))
    for counts in ("unique", "Pairs by expert", "beyond all labelled", "(7 pairs)"):
        assert not any(counts in card for card in cards)
    assert "In 3 of them a person corrected texts" in cards[1] and "`verdicts`, `corrected`." in cards[1] and "corrected" not in cards[0]
    whole = (export_pairs(run, "datasets").path / "README.md").read_text("utf-8")
    assert all(counts in whole for counts in ("100.0% of the chosen responses are unique", "Pairs by expert: ada 13", "in 25 of 26 pairs", "(7 pairs)"))
    main_ended(["export", str(run), "--format", "csv", "--reviewed"])
    assert capsys.readouterr().out.splitlines()[-1] == "3 of them with texts that a person corrected"


def test_where_the_source_text_is_the_chosen_one_a_person_wrote_the_corrected_rejected_one(tmp_path: Path) -> None:
    draft = Draft("Written by the student.", 0, margin=0.5, expert="student", verdicts=(Verdict("verify.better", True, 0.5),))
    base = next(e for e in made_up(50) if e.alive)
    turned = [replace(base, id=f"t{n}", chosen=base.text, rejected=draft.text, drafts=(draft,)) for n in range(2)]
    domain = {"name": "manners", "description": "Replies.", "misuse": "None.", "direction": "chosen", "guidelines": {}}
    run = write_run(tmp_path / "turned", turned, domain=domain, source_license="")
    (run / rundir.RUN).write_text(yaml.safe_dump({"config": {}, **RESOLVED}), encoding="utf-8")
    say(run, "ada", turned, decision="accept")
    for example, edit in zip(turned, ({"chosen": "Better said."}, {"rejected": "Worse said."}), strict=True):
        say(run, "ada", [example], edit=edit)
    said = [(row["corrected"], row["expert"], row["margin"]) for row in exported(run, provenance=True)]
    assert said == [("chosen", "student", None), ("rejected", "person", None)]


def test_selected_and_accepted_are_both_asked_for(run: Path, examples: list[Example]) -> None:
    alive = [e for e in examples if e.alive]
    say(run, "ada", alive[:4], decision="accept")
    pq.write_table(pa.table({"id": [e.id for e in alive[2:6]]}), run / rundir.SELECTED)
    assert [row["id"] for row in exported(run, selected=True)] == [e.id for e in alive[2:4]]
    pq.write_table(pa.table({"id": [alive[5].id]}), run / rundir.SELECTED)
    with pytest.raises(RunDirectoryError, match="nobody has accepted a pair of the selection of"):
        exported(run, selected=True)


def test_the_card_says_that_people_read_it(run: Path, examples: list[Example]) -> None:
    summary = json.loads((run / rundir.SUMMARY).read_text("utf-8"))
    domain = {"name": "manners", "description": "Replies.", "misuse": "None.", "direction": "rejected", "guidelines": {}}
    (run / rundir.SUMMARY).write_text(json.dumps({**summary, "domain": domain, "license": "CC0-1.0", "source_license": ""}), "utf-8")
    say(run, "ada", [e for e in examples if e.alive][:4], decision="accept")
    (run / rundir.RUN).write_text(yaml.safe_dump({"config": {}, **RESOLVED}), encoding="utf-8")
    assert [row["verdicts"] != "" for row in exported(run, provenance=True)] == [True] * 4
    card = (export_pairs(run, "datasets", options=Options(reviewed=True)).path / "README.md").read_text("utf-8")
    assert "Only the pairs that people accepted in a review are here: 4 of" in card and "left out or changed for what a person said" not in card


def test_a_run_that_nobody_reviewed_or_accepted_anything_of_says_what_to_do(run: Path, examples: list[Example]) -> None:
    with pytest.raises(RunDirectoryError, match="safer-instruct review"):
        export_pairs(run, "jsonl", options=Options(reviewed=True))
    say(run, "ada", [e for e in examples if e.alive][:2], decision="reject")
    with pytest.raises(RunDirectoryError, match="nobody has accepted"):
        export_pairs(run, "jsonl", options=Options(reviewed=True))


def test_where_all_that_was_decided_rests_an_export_says_how_much(run: Path, examples: list[Example]) -> None:
    alive = [e for e in examples if e.alive]
    say(run, "ada", [replace(e, chosen="Of an earlier run.") for e in alive[:5]], decision="accept")
    say(run, "ben", [replace(e, chosen="Of an earlier run.") for e in alive[4:6]], decision="reject")
    say(run, "ada", [e for e in examples if not e.alive and e.chosen][:1], decision="accept")
    told = f"nobody has accepted a pair of {run} as it stands now (left out: 6 of texts that the run no longer holds); read some: safer-instruct review {run}"
    with pytest.raises(RunDirectoryError) as refused:
        exported(run)
    assert str(refused.value) == told
    say(run, "ada", alive[6:7], decision="accept")
    say(run, "ben", alive[6:7], decision="reject")
    with pytest.raises(RunDirectoryError, match="left out: 6 of texts that the run no longer holds, 1 a tie"):
        exported(run)


def parts(document: Document, section: str) -> list[Figure | Table]:
    return [part for s in document.sections if s.id == section for part in s.parts]


def test_the_report_shows_what_people_said_and_draws_precision_from_it(run: Path, examples: list[Example]) -> None:
    assert parts(describe(run), "reviewed") == []
    scored = [e for e in examples if e.verdicts]
    say(run, "ada", scored[:60:2], decision="accept", answers={"prompt_valid": True}, tags=("unclear",))
    say(run, "ada", scored[1:60:2], decision="reject", answers={"prompt_valid": False})
    say(run, "ben", scored[:4], decision="accept", answers={"prompt_valid": True})
    document = describe(run)
    questions, readers, tags = parts(document, "reviewed")
    assert isinstance(questions, Figure) and questions.table.rows[0][:2] == ("Is the instruction valid: could a person have asked it?", 64)
    assert isinstance(readers, Table) and [row[:3] for row in readers.rows] == [("ada", 30, 30), ("ben", 4, 0)]
    assert isinstance(tags, Table) and tags.rows == (("unclear", 30),)
    curves = [part for part in parts(document, "scores") if isinstance(part, Figure) and part.id.startswith("curve")]
    assert curves and "labelled examples" in curves[0].says


def test_labels_of_a_review_rest_where_the_run_holds_other_texts_since(run: Path, examples: list[Example]) -> None:
    scored = [e for e in examples if e.verdicts]
    say(run, "ada", scored[:20:2], decision="accept")
    say(run, "ada", scored[1:20:2], decision="reject")
    write_labels(run, run / "labels.csv")
    lines = (run / "labels.csv").read_text("utf-8").splitlines()
    lines[1:4] = [f"{line.rpartition(',')[0]},0123456789abcdef" for line in lines[1:4]]
    (run / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (section,) = (section for section in describe(run).sections if section.id == "scores")
    left_out = "3 more were left out, as the run no longer holds the texts that were read, so what is left is no fair sample of it."
    assert f"Labels: 17 of labels.csv; {left_out}" in section.intro
    said = [part.says for part in section.parts if isinstance(part, Figure) and part.id.startswith("curve")]
    assert max(int(sentence.split()[0]) for sentence in said) == 17


def test_the_report_says_where_the_labels_are_not_those_that_the_calibration_rests_on(run: Path, examples: list[Example]) -> None:
    scored = [e for e in examples if e.verdicts]
    say(run, "ada", scored[:40:2], decision="accept")
    say(run, "ada", scored[1:40:2], decision="reject")
    write_labels(run, run / rundir.REVIEW_LABELS)
    write_calibration(calibrate(run, run / rundir.REVIEW_LABELS, Aim(0.1), names=("consistency",)), Aim(0.1), run / CALIBRATION)
    others = "The calibration rests on others: the 40 that were there when it was made."
    assert others not in as_markdown(describe(run))
    say(run, "ada", scored[40:42], decision="accept")
    write_labels(run, run / rundir.REVIEW_LABELS)
    assert f"Labels: 42 of {rundir.REVIEW_LABELS}. {others}" in as_markdown(describe(run)).replace("\\", "")


def test_the_report_tells_replaced_texts_of_all_that_was_decided(run: Path, examples: list[Example]) -> None:
    scored = [e for e in examples if e.verdicts]
    say(run, "ada", scored[:9], decision="accept")
    say(run, "ben", [*scored[:2], *scored[9:11]], decision="accept")
    say(run, "ada", [replace(scored[20], chosen="another run wrote this")], decision="accept", tags=("unclear",), answers={"prompt_valid": True})
    (readers,) = (part for part in parts(describe(run), "reviewed") if isinstance(part, Table) and part.caption.startswith("Decisions"))
    told, gone = readers.caption.split("; ")[1:]
    assert told.startswith("2 pairs were decided by two readers")
    assert gone == "of 1 example the run no longer holds the texts that were read, so what was decided of these counts no more"
    assert [row[:3] for row in readers.rows] == [("ada", 9, 0), ("ben", 4, 0)], "it is not among those that are counted"
    assert parts(describe(run), "reviewed") == [readers], "nor are its answers and tags"


def test_a_label_that_rests_is_there_again_with_its_texts_whatever_was_said_of_others_meanwhile(run: Path, examples: list[Example]) -> None:
    before = [e for e in examples if e.alive][:3]
    changed = [replace(e, prompt="Another one?") for e in before]
    say(run, "ada", before, decision="accept", edit={"chosen": "Better."})
    write_run(run, [next((other for other in changed if other.id == e.id), e) for e in examples])
    say(run, "ada", changed[:1], decision="skip")
    say(run, "ada", changed[1:2], decision="reject")
    store = Store(run)
    try:
        assert store.undo(store.join("ada"), key="taken back") == before[1].id, "what was said of the new texts alone"
    finally:
        store.close()
    with pytest.raises(RunDirectoryError):
        exported(run)
    write_run(run, examples)
    assert [(row["id"], row["chosen"]) for row in exported(run)] == [(e.id, "Better.") for e in before]


def test_who_has_decided_keeps_an_example_from_nobody_once_its_texts_are_others(run: Path, examples: list[Example]) -> None:
    """Ben had them on the screen less than half an hour ago, decided all but one, and the run was made again since."""
    store = Store(run)
    try:
        ada, ben = store.join("ada"), store.join("ben")
        for at, example in enumerate(examples[:4]):
            store.claim(ben, example.id, time.time() + CLAIM_S)
            if at:
                store.change(ben, example.id, digest_of(example), {"decision": ("accept", "reject", "skip")[at - 1]}, key=f"{at}", seconds=1.0)
        write_run(run, [replace(e, prompt="Another one?") if at < 2 else e for at, e in enumerate(examples)])
        store.attach(ensure_index(run))
        shown = {item.id for item in select(store, ada, Filters(outcome=""), 0.0, limit=1000)}
    finally:
        store.close()
    assert {e.id for e in examples} - shown == {examples[0].id, examples[2].id}, "the first is on ben's screen, the third is rejected as it stands"


def test_an_example_that_another_reader_decided_with_other_texts_comes_up(run: Path, examples: list[Example]) -> None:
    say(run, "ben", examples[:5], decision="accept")
    write_run(run, [replace(e, prompt="Another one?") if at < 2 else e for at, e in enumerate(examples)])
    store = Store(run)
    try:
        store.attach(ensure_index(run))
        shown = {item.id for item in select(store, store.join("ada"), Filters(outcome=""), 0.0, limit=1000)}
    finally:
        store.close()
    assert {e.id for e in examples} - shown == {e.id for e in examples[2:5]}


def test_readers_agree_on_the_texts_as_they_stand_only(run: Path, examples: list[Example]) -> None:
    before = [e for e in examples if e.verdicts][:10]
    say(run, "ada", before, decision="accept")
    say(run, "ben", before, decision="reject")
    changed = {e.id for e in before[:4]}
    write_run(run, [replace(e, prompt="Another one?") if e.id in changed else e for e in examples])
    (readers,) = parts(describe(run), "reviewed")
    assert isinstance(readers, Table) and [row[:3] for row in readers.rows] == [("ada", 6, 0), ("ben", 0, 6)]
    assert "; 6 pairs were decided by two readers (alpha -" in readers.caption and "; of 4 examples the run no longer holds" in readers.caption


def test_the_readers_progress_counts_what_was_said_of_the_texts_as_they_stand(run: Path, examples: list[Example]) -> None:
    say(run, "ada", examples[:10], decision="accept", edit={"chosen": "Better."})
    say(run, "ada", examples[10:14], decision="reject")
    write_run(run, [replace(e, prompt="Another one?") if at % 2 else e for at, e in enumerate(examples)])
    store = Store(run)
    try:
        store.attach(ensure_index(run))
        found = progress(store, store.join("ada"))
    finally:
        store.close()
    assert (found.accepted, found.edited, found.rejected, found.skipped) == (5, 5, 2, 0)


def test_calibration_takes_the_decisions_of_the_review(run: Path, examples: list[Example], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    scored = [e for e in examples if e.verdicts]
    say(run, "ada", [e for e in scored if e.verdicts[-1].passed][:40], decision="accept")
    say(run, "ada", [e for e in scored if not e.verdicts[-1].passed][:30], decision="reject")
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", str(run), "--reviewed"])
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    assert (run / "calibration.yaml").is_file() and (run / rundir.REVIEW_LABELS).is_file()


def test_a_calibration_that_comes_to_nothing_leaves_the_labels_of_the_one_before(run: Path, examples: list[Example]) -> None:
    scored = [e for e in examples if e.verdicts]
    say(run, "ada", scored[:60:2], decision="accept")
    say(run, "ada", scored[1:60:2], decision="reject")
    main_ended(["calibrate", str(run), "--reviewed", "--precision", "0.3", "--score", "consistency"])
    labels, calibration = ((run / name).read_bytes() for name in (rundir.REVIEW_LABELS, CALIBRATION))
    say(run, "ada", scored[60:70], decision="accept")
    for more, code in ((["--precision", "1", "--score", "consistency"], 2), (["--precision", "0.999"], 1)):
        with pytest.raises(SystemExit) as ended:
            main(["calibrate", str(run), "--reviewed", *more])
        assert ended.value.code == code
        assert (labels, calibration) == tuple((run / name).read_bytes() for name in (rundir.REVIEW_LABELS, CALIBRATION))
    main_ended(["calibrate", str(run), "--reviewed", "--precision", "0.3", "--score", "consistency"])
    assert (run / rundir.REVIEW_LABELS).read_bytes() != labels


@pytest.mark.parametrize("arguments", [["calibrate", "RUN", "--reviewed"], ["review", "RUN", "--labels", "RUN/said.csv"]])
def test_a_review_without_a_decision_gives_no_labels(run: Path, examples: list[Example], capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    say(run, "ada", examples[:1], decision="skip")
    with pytest.raises(SystemExit) as ended:
        main([argument.replace("RUN", str(run)) for argument in arguments])
    said = capsys.readouterr()
    assert ended.value.code == 2 and "next:" not in said.out
    assert f"nobody has accepted or rejected anything of {run} as it stands now; read some: safer-instruct review {run}" in said.err
    assert not (run / rundir.REVIEW_LABELS).exists() and not (run / "said.csv").exists()


def test_labels_of_a_review_never_take_the_place_of_a_sheet_that_people_filled_in(run: Path, examples: list[Example], tmp_path: Path) -> None:
    say(run, "ada", examples[:2], decision="accept")
    for _ in range(2):  # its own it writes anew
        assert len(write_labels(run, tmp_path / "new" / "said.csv").labels) == 2
    (tmp_path / "sheet.csv").write_text("id,label\ne1,good\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"sheet\.csv exists already, and was not written by a review; give --labels another name"):
        write_labels(run, tmp_path / "sheet.csv")


@pytest.mark.parametrize(("names", "said"), [(None, True), (["ada"], False)])
def test_who_reads_is_explained_where_nobody_was_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], names: list[str] | None, said: bool
) -> None:
    monkeypatch.setattr(view, "serve_review", lambda path, plan, readers, *, opened, **_: [opened(name, "http://127.0.0.1:1/") for name in readers])
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    view.serve(Console(), run, names, port=None, browser=False, blind=False, overlap=0.1, domain=None)
    told = capsys.readouterr().out
    assert told.index("each address opens once") < told.index("http://")
    assert ("who reads is 'root', as no --annotator NAME was given" in told) == said


def test_in_direction_chosen_the_rejected_side_is_the_one_that_was_written(tmp_path: Path) -> None:
    base = next(e for e in made_up(50) if e.alive)
    example = replace(base, chosen=base.text, rejected="Written by the student.")
    run = write_run(tmp_path / "turned", [example])
    store = Store(run)
    try:
        store.attach(ensure_index(run))
        item = find_item(store, example.id)
        assert item and item.digest == digest_of(example)
        assert store.query("SELECT rowid FROM idx.word WHERE word MATCH 'student'") == [(1,)]
    finally:
        store.close()
    assert describe(run).sections[-1].samples[0].rejected == "Written by the student."  # type: ignore[index]


def test_a_share_has_wilsons_interval() -> None:
    assert share_of(8, 10) == "80% [49%, 94%]" and share_of(0, 3).startswith("0% [0%")
