"""From labels to thresholds: what is read, what is fitted, what is guaranteed, what is written back."""

from __future__ import annotations

import csv
import json
import math
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from runs import summed_up

from safer_instruct import rundir, tables
from safer_instruct.calibration.calibrate import CALIBRATION, Aim, calibrate, point_config_at, read_method, write_calibration
from safer_instruct.calibration.conformal import guaranteed_cut, least_to_pass, upper_bound
from safer_instruct.calibration.labels import Label, read_examples, read_labels, write_sheet
from safer_instruct.calibration.show import no_longer_bounded
from safer_instruct.cli import main
from safer_instruct.config import load_config
from safer_instruct.errors import ConfigError, RunDirectoryError
from safer_instruct.example import Candidate, Draft, Example, Verdict
from safer_instruct.thresholds import load_calibration

pytestmark = pytest.mark.filterwarnings("error")

BASE = Example("x", "The rejected text.", "support", "texts.jsonl", 1, prompt="A prompt?", chosen="A reply.", margin=1.0)
CONFIG = """# mine
domain: civility
source: {path: texts.jsonl}
models: {inducer: 'scripted:', expert: 'scripted:'}
filter:
  min_logprob: -9.0  # by eye
seed: 3
"""


def examples(count: int, seed: int = 0) -> list[tuple[Example, bool]]:
    """Examples with a score that tells good from bad rather well, and one that tells nothing."""
    draw = random.Random(seed)
    made = []
    for i in range(count):
        good = draw.random() < 0.7
        gain, noise = round(draw.gauss(1.0 if good else 0.0, 0.6), 4), round(draw.gauss(0, 1), 4)
        verdicts = (Verdict("rules.length", True), Verdict("consistency", True, gain), Verdict("verify.better", True, noise))
        made.append((replace(BASE, id=f"e{i:04}", line=i + 1, verdicts=verdicts), good))
    return made


def finished(path: Path, which: list[Example], form: str = "contrast") -> Path:
    """A run directory with these examples."""
    path.mkdir()
    with tables.outputs(path) as files:
        for example in which:
            files.add(example)
    (path / rundir.RUN).write_text(yaml.safe_dump({"config": {"verify": {"form": form}}}), encoding="utf-8")
    (path / rundir.SUMMARY).write_text(json.dumps(summed_up(path)), encoding="utf-8")
    return path


def labelled(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("id,label\n" + "".join(f"{id_},{label}\n" for id_, label in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("runs") / "run", [example for example, _ in examples(300)])


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tmp_path_factory.mktemp("labels") / "labels.csv", [(e.id, "good" if good else "0") for e, good in examples(300)])


# --- fitting


def test_a_score_that_tells_good_from_bad_gets_the_threshold(run_dir: Path, labels: Path) -> None:
    found = calibrate(run_dir, labels, Aim(precision=0.9))
    by_name = {score.name: score for score in found.scores}
    told, noise = by_name["consistency"], by_name["verify.better"]
    assert told.fit and told.fit.auc[1] > 0.8 and told.fit.auc[1] < told.fit.auc[0] < told.fit.auc[2] and told.fit.ece[0] < 0.1
    assert noise.fit and noise.fit.auc[1] < 0.5 < noise.fit.auc[2], "its interval holds the AUC of chance"
    assert [score.name for score in found.chosen] == ["consistency"] and found.labels["used"] == 300
    kept = [good for example, good in examples(300) if told.cut and (example.verdicts[1].score or 0) >= told.cut.threshold]
    assert told.cut and told.cut.kept == len(kept) and told.cut.precision[0] == round(sum(kept) / len(kept), 6) >= 0.9


def test_the_same_labels_give_the_same_calibration(run_dir: Path, labels: Path) -> None:
    assert calibrate(run_dir, labels, Aim()) == calibrate(run_dir, labels, Aim())


def test_isotonic_probabilities_never_fall_as_the_score_rises(run_dir: Path, labels: Path) -> None:
    for method in ("isotonic", "logistic"):
        (score,) = [s for s in calibrate(run_dir, labels, Aim(), method=read_method(method)).scores if s.name == "consistency"]
        assert score.fit and score.fit.map.method == method
        probabilities = [p for _, p in score.fit.curve]
        assert probabilities == sorted(probabilities) and probabilities[0] < 0.5 < probabilities[-1]
    with pytest.raises(ConfigError, match="'magic' is no method"):
        read_method("magic")


def test_a_label_for_one_score_holds_for_that_score_only(run_dir: Path, tmp_path: Path) -> None:
    rows = [(e.id, int(good)) for e, good in examples(300)]
    text = "id,label,score\n" + "".join(f"{i},{g},consistency\n{i},{1 - g},\n" for i, g in rows)
    (tmp_path / "l.csv").write_text(text, encoding="utf-8")
    by_name = {score.name: score.fit for score in calibrate(run_dir, tmp_path / "l.csv", Aim()).scores}
    good = sum(g for _, g in rows)
    assert by_name["consistency"] and by_name["consistency"].good == good
    assert by_name["verify.better"] and by_name["verify.better"].good == 300 - good


def test_a_precision_that_nothing_reaches_gives_no_threshold(run_dir: Path, tmp_path: Path) -> None:
    rows = [(e.id, "bad" if (e.verdicts[1].score or 0) > 1.2 or i % 3 else "good") for i, (e, _) in enumerate(examples(300))]
    found = calibrate(run_dir, labelled(tmp_path / "l.csv", rows), Aim(precision=0.999))
    assert found.chosen == ()
    with pytest.raises(ConfigError, match=r"'consistency' gets no bound: none reaches a precision of 0\.999"):
        calibrate(run_dir, tmp_path / "l.csv", Aim(precision=0.999), names=["consistency"])


def test_a_score_that_may_be_as_good_as_chance_is_taken_only_by_name(labels: Path, tmp_path: Path) -> None:
    noise = finished(tmp_path / "run", [replace(e, verdicts=e.verdicts[2:]) for e, _ in examples(300)])
    found = calibrate(noise, labels, Aim(precision=0.6))
    (score,) = found.scores
    assert score.cut and not score.tells and found.chosen == ()
    named = calibrate(noise, labels, Aim(precision=0.6), names=["verify.better"])
    assert named.chosen == (score,)
    write_calibration(named, Aim(precision=0.6), tmp_path / CALIBRATION)
    written = load_calibration(tmp_path / CALIBRATION)
    assert "verify.min_margin" in written.by_chance and "by a score that may tell no more than chance" in written.described
    write_calibration(calibrate(finished(tmp_path / "telling", [e for e, _ in examples(300)]), labels, Aim()), Aim(), tmp_path / "telling.yaml")
    assert not (telling := load_calibration(tmp_path / "telling.yaml")).by_chance and "chance" not in telling.described


def test_a_score_that_no_config_bounds_gets_no_bound(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    which = [replace(e, verdicts=(*e.verdicts, Verdict("prompt.copying", True, float(i % 7)))) for i, (e, _) in enumerate(examples(300))]
    run = finished(tmp_path / "run", which)
    copying = next(score for score in calibrate(run, labels, Aim(precision=0.5)).scores if score.name == "prompt.copying")
    assert copying.fit and copying.cut is None
    with pytest.raises(ConfigError, match=r"'prompt\.copying' gets no bound: a calibration bounds it from below by no key of the config; it can bound: "):
        calibrate(run, labels, Aim(), names=["prompt.copying"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,label\ne0001,maybe\n", r"l\.csv:2: label 'maybe' is neither"),
        ('id,chosen,label\ne0001,"a\n\nb",1\n\ne0002,"c\nd",maybe\n', r"l\.csv:6: label 'maybe' is neither"),
        ("id,label\nzzz,1\n", "no scored example with id 'zzz'"),
        ("id,label\ne0001,1\ne0001,0\n", "the labels of 'e0001' contradict each other"),
        ("id,grade\ne0001,1\n", "the column 'label' is missing"),
        ("id,label\ne0001,1\ne0002,0\ne0003,\n", r"l\.csv: 1 good and 1 bad of 3 rows carry a label, and no score has 5 good and 5 bad"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_with_the_place(run_dir: Path, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "l.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        calibrate(run_dir, tmp_path / "l.csv", Aim())


def test_labels_that_are_nowhere_are_told_like_a_config_that_is_nowhere(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        calibrate(run_dir, tmp_path / "labls.csv", Aim())
    assert str(raised.value) == f"{tmp_path / 'labls.csv'}: no such file (looked in {tmp_path})"


def test_too_few_labels_are_told_as_the_page_of_failures_quotes_it(run_dir: Path, tmp_path: Path) -> None:
    rows = [(e.id, ("good", "good", "good", "bad", "bad", "")[min(i, 5)]) for i, (e, _) in enumerate(examples(40))]
    with pytest.raises(ConfigError) as raised:
        calibrate(run_dir, labelled(tmp_path / "labels.csv", rows), Aim())
    (quoted,) = re.findall(r"^### Too few labels\n\n```text\n(.*)\n```$", (Path(__file__).parents[2] / "docs" / "faq.md").read_text("utf-8"), re.M)
    assert str(raised.value) == re.sub(r"<([^>]*)>", r"\1", quoted.replace("<labels.csv>", str(tmp_path / "labels.csv")))


def test_rows_without_a_label_are_passed_over(tmp_path: Path) -> None:
    assert read_labels(labelled(tmp_path / "l.csv", [("a", ""), ("b", " Yes ")])) == [Label("b", True)]


def test_a_directory_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="holds no finished run"):
        read_examples(tmp_path)


# --- the guarantee


def test_the_exact_bound_is_that_of_clopper_and_pearson() -> None:
    assert least_to_pass(0.05, 0.95) == 59
    assert math.isclose(upper_bound(0, 59, 0.95), 1 - 0.05 ** (1 / 59)) and upper_bound(3, 3, 0.95) == 1.0
    assert math.isclose(upper_bound(2, 100, 0.95), 0.0616, abs_tol=5e-5)  # 1 - 0.95 quantile of the beta distribution, tabulated


def test_too_few_labels_guarantee_nothing() -> None:
    assert guaranteed_cut([1.0] * 58, [True] * 58, 0.05, 0.95) is None
    found = guaranteed_cut([1.0] * 59, [True] * 59, 0.05, 0.95)
    assert found and (found.kept, found.bad) == (59, 0) and found.most_bad <= 0.05


def test_the_guarantee_holds_as_often_as_it_says() -> None:
    """Over 300 draws of 400 labels the true share of bad ones among the kept passes 10% in at most 10% of them, give or take."""
    draw, broken, found = random.Random(1), 0, 0
    for _ in range(300):
        scores = [draw.random() for _ in range(400)]
        good = [draw.random() < 0.6 + 0.4 * score for score in scores]
        if cut := guaranteed_cut(scores, good, 0.1, 0.9):
            found += 1
            broken += 1 - (0.6 + 0.4 * (cut.threshold + 1) / 2) > 0.1  # of scores even above the threshold, the mean chance of bad
    assert found > 200 and broken / 300 <= 0.1 + 0.035, "two standard errors"


def test_a_guarantee_gives_a_threshold(run_dir: Path, labels: Path) -> None:
    found = calibrate(run_dir, labels, Aim(max_bad=0.1, confidence=0.9))
    (score,) = found.chosen
    assert score.guarantee and score.cut and score.guarantee.most_bad <= 0.1 and score.cut.threshold == score.guarantee.threshold
    with pytest.raises(ConfigError, match="it takes at least 299 labelled examples"):
        calibrate(run_dir, labels, Aim(max_bad=0.01), names=["consistency"])


# --- writing back


def test_a_config_takes_the_thresholds_over_and_keeps_its_comments(run_dir: Path, labels: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(CONFIG, encoding="utf-8")
    target = tmp_path / "runs" / CALIBRATION
    target.parent.mkdir()
    found = calibrate(run_dir, labels, Aim())
    write_calibration(found, Aim(), target)
    before = load_config(tmp_path / "mine.yaml")
    for _ in range(2):  # a second time replaces the line
        point_config_at(tmp_path / "mine.yaml", target)
    assert (tmp_path / "mine.yaml").read_text("utf-8") == CONFIG + 'calibration: "runs/calibration.yaml"\n'
    after = load_config(tmp_path / "mine.yaml")
    threshold = found.chosen[0].cut.threshold if found.chosen[0].cut else None
    assert before.thresholds == "defaults or the config's own, not calibrated" and before.filter.consistency and before.filter.consistency.min_gain == 0.1
    assert after.filter.consistency and after.filter.consistency.min_gain == threshold and after.filter.min_logprob == -9.0
    assert after.thresholds.startswith("calibrated on 300 labels (aim: precision of at least 0.9): filter.consistency.min_gain +")
    assert re.search(r"min_gain \+[\d.]+ \(found: precision 0\.9\d, 0\.8\d to 0\.9\d, of 300 labels\); all others", after.thresholds)
    what, how = after.parted()
    assert "calibration" not in what and how["calibration"] == "runs/calibration.yaml", "where it lies says nothing of the result"


def test_a_label_of_a_row_that_the_run_needs_no_more_is_left_out_and_an_id_of_ones_own_that_it_never_had_is_refused(labels: Path, tmp_path: Path) -> None:
    run = finished(tmp_path / "run", [example for example, _ in examples(300)][:-20])
    rows = labels.read_text("utf-8").splitlines()
    told = tmp_path / "told.csv"
    told.write_text("\n".join(["id,label,texts", *(f"{row},{'' if i < 280 else '0123456789abcdef'}" for i, row in enumerate(rows[1:]))]), encoding="utf-8")
    found = calibrate(run, told, Aim())
    assert (found.labels["used"], found.labels["of_replaced_texts"]) == (280, 20)
    with pytest.raises(ConfigError, match="the run has no scored example with id"):
        calibrate(run, labels, Aim())


def test_a_calibration_that_the_run_was_made_with_is_kept_beside_a_new_one(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(tmp_path / "run", [example for example, _ in examples(300)])
    assert write_calibration(calibrate(run, labels, Aim()), Aim(), run / CALIBRATION) is None
    first = (run / CALIBRATION).read_bytes()
    (run / rundir.SUMMARY).write_text(json.dumps({**summed_up(run), "thresholds": load_calibration(run / CALIBRATION).described}), encoding="utf-8")
    again = calibrate(run, labels, Aim())
    assert again.after_another and write_calibration(again, Aim(), run / CALIBRATION) is None, "the same"
    rows = labels.read_text("utf-8").splitlines()
    fewer = tmp_path / "fewer.csv"
    fewer.write_text("\n".join(["id,label,texts", *(f"{row},{'0123456789abcdef' if i < 9 else ''}" for i, row in enumerate(rows[1:]))]), encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["calibrate", str(run), "--labels", str(fewer)])
    said = " ".join(capsys.readouterr().out.split())
    assert "9 labels are left out" in said and "so the labels that are left are no fair sample of them" in said
    assert "calibration-1.yaml, which this run was made with" in said and "no longer set" not in said
    (lost,) = no_longer_bounded(run / "calibration-1.yaml", replace(again, chosen=()))
    assert lost.startswith("no longer set: filter.consistency.min_gain, +") and lost.endswith("--score consistency")
    assert (run / "calibration-1.yaml").read_bytes() == first and load_calibration(run / CALIBRATION).labels["used"] == 291
    assert write_calibration(again, Aim(), run / CALIBRATION) is None, "that one was never used"


def test_a_gate_that_is_switched_off_stays_off(run_dir: Path, labels: Path, tmp_path: Path) -> None:
    write_calibration(calibrate(run_dir, labels, Aim()), Aim(), tmp_path / CALIBRATION)
    (tmp_path / "mine.yaml").write_text(CONFIG.replace("min_logprob: -9.0", "consistency: null") + f"calibration: {CALIBRATION}\n", encoding="utf-8")
    assert load_config(tmp_path / "mine.yaml").filter.consistency is None


def test_a_calibration_that_names_no_bound_is_refused(tmp_path: Path) -> None:
    (tmp_path / CALIBRATION).write_text("labels: {used: 9}\naim: x\nthresholds: {seed: 4}\n", encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(f"{CONFIG}calibration: {CALIBRATION}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no bounds of a config: seed"):
        load_config(tmp_path / "mine.yaml")


def test_a_calibration_that_is_not_there_is_told_with_the_key_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"{CONFIG}calibration: nosuch.yaml\n", encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_config(tmp_path / "mine.yaml")
    where = f"{tmp_path / 'mine.yaml'}:{CONFIG.count(chr(10)) + 1}"
    assert str(raised.value) == f"{where}: 'calibration': {tmp_path / 'nosuch.yaml'}: no such file (looked in {tmp_path})"


def test_with_a_reward_model_the_reward_is_bounded(labels: Path, tmp_path: Path) -> None:
    which = [replace(e, verdicts=(Verdict("verify.acceptable", True, e.verdicts[1].score),)) for e, _ in examples(300)]
    assert calibrate(finished(tmp_path / "reward", which, "reward"), labels, Aim()).chosen[0].key == "verify.min_reward"
    assert calibrate(finished(tmp_path / "question", which, "question"), labels, Aim()).chosen == (), "a judge's answer has no bound of that kind"


def test_the_map_of_a_score_that_tells_is_written_for_margins(labels: Path, tmp_path: Path) -> None:
    which = [replace(e, verdicts=(Verdict("verify.acceptable", True, e.verdicts[1].score),)) for e, _ in examples(300)]
    run = finished(tmp_path / "run", which)
    resolved = {**yaml.safe_load((run / rundir.RUN).read_text("utf-8")), "models": {"scorer": "abc", "expert": "x"}}
    (run / rundir.RUN).write_text(yaml.safe_dump(resolved), encoding="utf-8")
    found = calibrate(run, labels, Aim())
    write_calibration(found, Aim(), tmp_path / CALIBRATION)
    read = load_calibration(tmp_path / CALIBRATION)
    assert read.margin and (read.margin.form, read.margin.model, read.margin.labels) == ("contrast", "abc", 300)
    assert found.scores[0].fit and read.maps == {"verify.acceptable": found.scores[0].fit.map} and read.maps["verify.acceptable"].slope > 0


def test_why_margins_stay_raw_is_said(run_dir: Path, labels: Path, tmp_path: Path) -> None:
    def because(name: str, form: str = "contrast", models: dict[str, str] | None = None, at: int = 1) -> str:
        which = [replace(e, verdicts=(Verdict("verify.acceptable", True, e.verdicts[at].score),)) for e, _ in examples(300)]
        run = finished(tmp_path / name, which, form)
        (run / rundir.RUN).write_text(yaml.safe_dump({"config": {"verify": {"form": form}}, "models": models}), encoding="utf-8")
        found = calibrate(run, labels, Aim())
        assert found.margin is None
        return found.raw_because

    assert "gives no score to a response by itself" in because("judge", "question")
    assert "does not say which model 'scorer' was" in because("unknown")
    assert "may be that of chance" in because("noise", models={"scorer": "abc"}, at=2)
    assert "fewer than 5 labels of 'verify.acceptable'" in calibrate(run_dir, labels, Aim()).raw_because


# --- the sheet


def test_a_sheet_has_the_proportions_of_the_run(tmp_path: Path) -> None:
    which = [replace(e, category="a" if i % 5 else "b") for i, (e, _) in enumerate(examples(300))]
    dropped = [
        replace(e, id=f"d{i}", prompt="", chosen="", verdicts=(Verdict("consistency", False, -1.0 - i, "no"),)) for i, (e, _) in enumerate(examples(100))
    ]
    dropped = [replace(e, candidates=(Candidate("=HYPERLINK(1)"),)) for e in dropped]
    path = finished(tmp_path / "run", [*which, *dropped])
    assert write_sheet(read_examples(path), tmp_path / "s.csv", 80) == (80, 0)
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text("utf-8-sig").splitlines()))
    assert len({row["id"] for row in rows}) == 80 and {row["label"] for row in rows} == {""}
    assert abs(sum(row["dropped_by"] == "consistency" for row in rows) - 20) <= 2 and abs(sum(row["category"] == "b" for row in rows) - 12) <= 2
    assert {row["prompt"] for row in rows} == {"A prompt?", "'=HYPERLINK(1)"}, "a spreadsheet takes nothing for a formula"
    assert write_sheet(read_examples(path), tmp_path / "all.csv", 1000) == (400, 0)


def test_a_sheet_of_the_run_made_again_asks_for_the_same_examples(tmp_path: Path) -> None:
    which = [e for e, _ in examples(300)]
    again = [*which[:270], *(replace(e, verdicts=(Verdict("consistency", True, 0.01),)) for e in which[270:])]
    drawn = []
    for name, run in (("before", which), ("again", again)):
        write_sheet(read_examples(finished(tmp_path / name, run)), tmp_path / f"{name}.csv", 100)
        drawn.append({row["id"] for row in csv.DictReader((tmp_path / f"{name}.csv").read_text("utf-8-sig").splitlines())})
    assert len(drawn[0] & drawn[1]) > 60, "by chance there would be 33"


def test_a_sheet_that_people_filled_in_is_never_written_over(run_dir: Path, tmp_path: Path) -> None:
    sheet, which = tmp_path / "s.csv", read_examples(run_dir)
    for _ in range(2):  # as long as nobody labelled a row
        assert write_sheet(which, sheet, 20) == (20, 0)
    filled = sheet.read_text("utf-8-sig").replace(",,,support", ",good,,support", 2)
    for text in (filled, filled.replace(",", ";")):  # the second as Excel saves it
        sheet.write_text(text, encoding="utf-8-sig")
        with pytest.raises(ConfigError, match=r"s\.csv is filled in, in 2 rows; give --sheet another name"):
            write_sheet(which, sheet, 20)
        assert sheet.read_text("utf-8-sig") == text
    sheet.write_text("id,reply\n1,Go away.\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"s\.csv exists already, and is no such sheet"):
        write_sheet(which, sheet, 20)


def test_a_dropped_example_shows_the_draft_that_its_verdicts_speak_of(tmp_path: Path) -> None:
    bad = Verdict("verify.better", False, -0.2, "no")
    which = replace(
        BASE,
        chosen="",
        drafts=(Draft("First.", 0, verdicts=(Verdict("verify.better", False, -0.9, "no"),)), Draft("Second.", 1, verdicts=(bad,))),
        verdicts=(bad,),
    )
    assert [e.chosen for e in read_examples(finished(tmp_path / "run", [which]))] == ["Second."]


# --- the command


def test_the_command_writes_sheets_and_thresholds(run_dir: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(CONFIG, encoding="utf-8")
    for arguments in (
        ["--sheet", str(tmp_path / "s.csv"), "--n", "50"],
        ["--labels", str(labels), "--precision", "0.9", "--config", str(tmp_path / "mine.yaml")],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["calibrate", str(run_dir), *arguments])
        assert stopped.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "50 rows to label" in said and "chosen: filter.consistency.min_gain" in said and "strength of these labels: " in said
    assert load_config(tmp_path / "mine.yaml").thresholds.startswith("calibrated on 300 labels")
    assert (run_dir / CALIBRATION).read_text("utf-8").startswith("# Written by 'safer-instruct calibrate'; ")
    assert "from the config's folder" in (run_dir / CALIBRATION).read_text("utf-8").splitlines()[0]
    (run_dir / CALIBRATION).unlink()
    with pytest.raises(SystemExit) as stopped:
        main(["calibrate", str(run_dir)])
    assert stopped.value.code == 2


def test_labels_of_texts_that_the_run_has_replaced_are_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    which = [replace(e, chosen=f"answer\n{e.id}") for e, _ in examples(300)]
    sheet = tmp_path / "sheet.csv"
    write_sheet(read_examples(finished(tmp_path / "before", which)), sheet, 300)
    said = {example.id: good for example, good in examples(300)}
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = [row | {"label": "good" if said[row["id"]] else "bad"} for row in csv.DictReader(file)]
    with sheet.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "chosen": row["chosen"].replace("\n", "\r\n")} for row in rows)
    again = finished(tmp_path / "again", [replace(e, chosen="written anew") if number < 40 else e for number, e in enumerate(which)])
    assert typed("calibrate", again, "--labels", sheet) == 0
    assert "260 labelled examples" in (told := " ".join(capsys.readouterr().out.split())) and "40 labels are left out" in told
    assert typed("calibrate", again, "--sheet", tmp_path / "new.csv", "--n", 100, "--labels", sheet) == 0
    told = " ".join(capsys.readouterr().out.split())
    with (tmp_path / "new.csv").open(encoding="utf-8-sig", newline="") as file:
        new = {row["id"]: row["label"] for row in csv.DictReader(file)}
    replaced = {e.id for e in which[:40]}
    assert typed("calibrate", again, "--sheet", tmp_path / "new.csv", "--n", 100, "--labels", sheet) == 0, "nobody has touched it"
    assert len(new) == 100 and new == {id_: "" if id_ in replaced else "good" if said[id_] else "bad" for id_ in new}
    assert f"100 rows to label, {100 - len(replaced & new.keys())} of them with the label that {sheet} has" in told
    other = finished(tmp_path / "other", [replace(e, chosen="written anew") for e in which])
    assert typed("calibrate", other, "--labels", sheet) == 2
    assert "all of its 300 labels are of texts that the run no longer holds; label them anew: --sheet NEW.csv" in capsys.readouterr().err
    assert not (other / CALIBRATION).exists()


def test_the_command_says_what_a_bound_keeps_and_how_little_that_says(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = next(example.id for example, good in examples(300) if good)
    which = [replace(e, verdicts=(replace(e.verdicts[2], score=9.0 if e.id == best else e.verdicts[2].score),)) for e, _ in examples(300)]
    noise = finished(tmp_path / "run", which)
    assert typed("calibrate", noise, "--labels", labels, "--precision", "0.99", "--score", "verify.better") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "keeps 1 0.21-1.00" in said and "it keeps 1 of the 300 labelled" in said
    assert "strength of these labels: verify.better" in said and "chosen: verify.min_margin: +9.000000" in said


def test_where_nothing_tells_good_from_bad_nothing_is_written(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = finished(tmp_path / "run", [replace(e, verdicts=e.verdicts[2:]) for e, _ in examples(300)])
    config = tmp_path / "mine.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    assert typed("calibrate", noise, "--labels", labels, "--precision", "0.6", "--config", config) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "nothing was chosen: no score that a config can bound reaches that and tells good from bad by these labels" in said
    assert "(--score verify.better)" in said and f"nothing was written; as before: {config}" in said
    assert config.read_text("utf-8") == CONFIG and not (noise / CALIBRATION).exists()
    assert typed("calibrate", noise, "--labels", labels, "--precision", "0.6", "--config", config, "--score", "verify.better") == 0
    assert load_config(config).thresholds.startswith("calibrated on 300 labels")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("typo.yaml", None, "typo.yaml: no such file (looked in "),
        ("manners.yaml", "name: x\ndescription: d\ncategories: {}\n", "manners.yaml is a domain file"),
    ],
)
def test_a_config_that_is_none_is_told_before_anything_is_written(
    run_dir: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert typed("calibrate", run_dir, "--labels", labels, "--config", tmp_path / name) == 2
    assert said in capsys.readouterr().err and not (run_dir / CALIBRATION).exists()


def typed(*arguments: object) -> object:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code
