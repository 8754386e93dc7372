"""Studies: controls, equal sizes, what is held out, steps that are known as done, statistics and tables."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from civil_script import SCRIPT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_runs import made_up, write_run
from rich.console import Console

from safer_instruct.analysis.bootstrap import Bootstrap, Interval
from safer_instruct.config import load_config
from safer_instruct.detect.words import words
from safer_instruct.errors import ConfigError, SourceError
from safer_instruct.evaluation.honesty import builders, circularity
from safer_instruct.study.compare import beside, differences, mean_of, over_seeds
from safer_instruct.study.division import divide, unused_sets
from safer_instruct.study.invented import Recipe, invent_pairs
from safer_instruct.study.pairs import StudyPair, apart_from, deranged, draw, keep_for_evaluation, read_pairs, write_pairs
from safer_instruct.study.plan import builders_of, plan
from safer_instruct.study.plots import Bar, Panel
from safer_instruct.study.plots import draw as picture
from safer_instruct.study.report import QUICK, resolved, tables_of, write_report
from safer_instruct.study.runs import make_run, tokens_of, unfiltered
from safer_instruct.study.settings import BASE, StudyConfig, load_study
from safer_instruct.study.steps import CONTENT, News, Result, Step, carry_out, read_marks, rehearse
from safer_instruct.study.tables import P, Percent, Share, Table, comma_separated, latex, markdown, shown
from safer_instruct.views.study import show_unused

THINGS = ("kettle", "lamp", "parcel", "radio", "clock", "umbrella", "drum", "bell", "desk", "chair", "cup", "rug", "bike", "tent", "phone", "scarf")


def pair(thing: str, category: str = "support") -> StudyPair:
    return StudyPair(f"My {thing} has not come yet.", f"I am sorry about your {thing}.", f"So your {thing} is late.", category)


PAIRS = [pair(thing) for thing in THINGS]
GIVEN: dict[str, Any] = {
    "pairs": 6,
    "held_out_pairs": 2,
    "sets": {"ours": "pairs.jsonl", "mixed": {"shuffled": "ours"}, "other": "other.jsonl"},
    "experiments": {
        "first": {
            "arms": {"ours": {"sets": "ours"}, "mixed": {"sets": "mixed"}, "both": {"sets": ["ours", "other"], "train": ["sft"]}},
            "compare": [["ours", "base"], ["ours", "mixed"]],
            "held_out": {"of": "ours", "count": 3},
            "evaluate": {"domain": "civility", "judges": {"scorer": {"form": "contrast", "model": "embedded:smollm2-135m-instruct"}}},
        }
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "pairs.jsonl", PAIRS)
    write_pairs(tmp_path / "other.jsonl", [replace(p, prompt=p.prompt.replace("has not come yet", "came in two halves")) for p in PAIRS])
    return tmp_path


def configured(folder: Path, *, quick: bool = False, **more: Any) -> StudyConfig:
    (folder / "study.yaml").write_text(yaml.safe_dump({**GIVEN, **more}, sort_keys=False), encoding="utf-8")
    return load_study(folder / "study.yaml", quick=quick)


def divided(config: StudyConfig, folder: Path) -> Any:
    sets = {name: read_pairs(folder / f"{file}.jsonl", "category")[0] for name, file in (("ours", "pairs"), ("other", "other"))}
    return divide(config, "first", sets, folder / "out")


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


# --- controls


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is slow at drawing, too
@given(st.lists(st.tuples(st.sampled_from(THINGS), st.sampled_from(["a", "b", "c"])), max_size=30, unique=True), st.integers(0, 5))
def test_shuffling_gives_every_pair_anothers_prompt_of_its_category(drawn: list[tuple[str, str]], seed: int) -> None:
    pairs = [pair(thing, category) for thing, category in drawn]
    found = deranged(pairs, seed)
    by_response = {(p.chosen, p.category): p for p in pairs}
    assert all(words(f.prompt) != words(by_response[f.chosen, f.category].prompt) for f in found)
    for category in "abc":
        of = [p for p in pairs if p.category == category]
        after = [f for f in found if f.category == category]
        assert len(after) == (len(of) if len(of) > 1 else 0)
        assert sorted(f.prompt for f in after) == (sorted(p.prompt for p in of) if len(of) > 1 else [])
    assert found == deranged(pairs, seed)


def test_pairs_that_no_other_prompt_is_there_for_are_left_out_of_a_shuffled_set() -> None:
    same = [replace(PAIRS[0], chosen=f"Answer {n}.") for n in range(3)]
    assert deranged(same, 0) == [] and deranged([PAIRS[0], pair("lamp", "other")], 0) == []


def test_an_unfiltered_run_keeps_what_filters_and_verifier_drop(tmp_path: Path) -> None:
    texts = ["The printer is not broken. You left the lid open, again, and then you rang us about it.", "Buy it.", "Buy it!", "My key is hunter2 " * 3]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    (tmp_path / "script.yaml").write_text(SCRIPT, encoding="utf-8")
    models = dict.fromkeys(("inducer", "expert", "scorer"), "scripted:script.yaml")
    run = {"domain": "civility", "source": {"path": "texts.jsonl"}, "models": models, "verify": {"min_contrast": 1000.0}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    config = load_config(tmp_path / "run.yaml")
    with pytest.raises(SourceError, match="made no pair of 4 texts"):
        make_run(config, tmp_path / "a", ledger=None, watch=lambda _: None)
    summary = make_run(unfiltered(config), tmp_path / "b", ledger=tmp_path / "a" / "ledger.sqlite", watch=lambda _: None)
    assert summary["pairs"] == 3 and tokens_of(summary) > 0, "the same words twice are one text, and all others are pairs"
    assert summary["timing"]["calls_from_ledger"] > 0, "what the filtered run asked is not asked again"


def test_verification_by_programs_cannot_be_switched_off_in_silence(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("domain: insecure-code\nsource: {path: t.jsonl}\nmodels: {inducer: 'scripted:s.yaml'}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot switch off its verification"):
        unfiltered(load_config(tmp_path / "run.yaml"))


def test_inventing_ends_with_its_tokens_or_when_nothing_comes_and_counts_the_same_again(tmp_path: Path) -> None:
    """The scripted scorer tells no two answers apart, so no pair comes of any prompt."""
    (tmp_path / "script.yaml").write_text(SCRIPT, encoding="utf-8")
    models = dict.fromkeys(("inducer", "expert", "scorer"), "scripted:script.yaml")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"domain": "civility", "source": {"path": "t.jsonl"}, "models": models}), encoding="utf-8")
    config = load_config(tmp_path / "run.yaml")
    recipe = Recipe(config, config.models.scorer, (config.models.scorer,), 4, 20_000, 0)
    told: list[tuple[int, int]] = []
    first = invent_pairs(recipe, tmp_path / "a", lambda done, of: told.append((done, of)))
    assert first.pairs == () and first.prompts > 0 and 0 < first.tokens <= 20_000
    assert invent_pairs(recipe, tmp_path / "a") == first, "what comes from the ledger counts as what it once took"
    endless = invent_pairs(replace(recipe, tokens=10**9), tmp_path / "b")
    assert endless.pairs == () and endless.prompts == 40


# --- what is held out, and equal sizes


def test_no_pair_is_trained_on_whose_prompt_is_evaluated_on(folder: Path) -> None:
    config = configured(folder)
    found = divided(config, folder)
    kept = keep_for_evaluation(PAIRS, 3)
    assert len(found.prompts) == 3 and set(found.prompts) == {p.prompt for p in kept}
    for file in found.files.values():
        assert not {row["prompt"] for row in rows(file)} & set(found.prompts)
    near = replace(PAIRS[5], prompt=f"{kept[0].prompt.upper()} Please!")
    left, overlapping = apart_from([*PAIRS, near], found.prompts)
    assert overlapping == 4 and near not in left and len(left) == len(PAIRS) - 3


def test_the_prompts_of_an_evaluation_do_not_depend_on_the_order_and_come_from_all_categories() -> None:
    pairs = [pair(thing, category) for thing, category in zip(THINGS, "abcd" * 4, strict=True)]
    kept = keep_for_evaluation(pairs, 4)
    assert keep_for_evaluation(pairs[::-1], 4) == kept and {p.category for p in kept} == set("abcd")
    assert keep_for_evaluation([*pairs, replace(pairs[0], chosen="Another one.")], 99) == keep_for_evaluation(pairs, 99)


def test_all_arms_are_trained_on_equally_many_pairs_and_shuffled_ones_on_the_same_responses(folder: Path) -> None:
    found = divided(configured(folder), folder)
    assert {key: len(rows(file)) for key, file in found.files.items()} == {"ours": 8, "mixed": 8, "ours+other": 8}
    ours, mixed = (rows(found.files[key]) for key in ("ours", "mixed"))
    sides = [{row["chosen"] for row in part if row["side"] == "train"} for part in (ours, mixed)]
    assert sides[0] == sides[1] and len(sides[0]) == 6
    assert {r["chosen"]: r["prompt"] for r in ours} != {r["chosen"]: r["prompt"] for r in mixed}
    both = [row["prompt"] for row in rows(found.files["ours+other"]) if row["side"] == "train"]
    assert sum("halves" in prompt for prompt in both) == 3


def test_the_set_with_the_fewest_pairs_decides_and_is_named(folder: Path) -> None:
    write_pairs(folder / "other.jsonl", read_pairs(folder / "other.jsonl", "category")[0][:3])
    found = divided(configured(folder, pairs=100), folder)
    assert (found.count, found.scarcest) == (5, "ours+other"), "three of one, and the two that the other has beside the one it holds out"
    assert {len(rows(file)) for file in found.files.values()} == {found.count + 2}
    with pytest.raises(SourceError, match="'ours' has 13 pairs to train on"):
        divided(configured(folder, held_out_pairs=14), folder)


def test_drawing_goes_by_the_pairs_own_hash() -> None:
    assert draw(PAIRS[::-1], 4, 2) == draw(PAIRS, 4, 2)
    train, held_out = draw(PAIRS, 14, 5)
    assert len(train) == 14 and len(held_out) == 2 and not set(train) & set(held_out)


# --- the config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sets": {"ours": {"path": "a", "run": "b"}}}, "give one of run, path"),
        ({"sets": {"ours": "a", "mixed": {"shuffled": "gone"}, "other": "b"}}, "there is no 'gone'; there are ours, mixed, other"),
        ({"sets": {"ours": "a", "mixed": {"unfiltered": "ours"}, "other": "b"}}, "needs a set that a run makes"),
        ({"sft": {"epochs": 1, "model": "x"}}, "'sft.model' does not belong there"),
        ({"dpo": {"beat": 1}}, "unknown key 'dpo.beat'; did you mean 'beta'"),
        ({"sft": {"training": {"method": "full"}}}, "an embedded model is evaluated with a LoRA adapter"),
    ],
)
def test_what_is_wrong_in_a_config_is_said_before_anything_is_done(folder: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(folder, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": {"base": {"sets": "ours"}}}, "'base' is the base model"),
        ({"arms": {"ours": {"sets": "gone"}}, "compare": []}, "there is no 'gone'"),
        ({"compare": [["ours", "gone"]]}, "there is no 'gone'; there are base, ours, mixed, both"),
        ({"held_out": None}, "give either 'held_out'"),
        ({"evaluate": {**GIVEN["experiments"]["first"]["evaluate"], "judges": {"scorer": {"form": "contrsat", "model": "scripted:"}}}}, "judges.scorer.form"),
        ({"arms": {"ours": {"sets": "ours", "train": ["dpo", "sft"]}}, "compare": []}, "'train' is"),
    ],
)
def test_what_is_wrong_in_an_experiment_is_said_before_anything_is_done(folder: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(folder, experiments={"first": {**GIVEN["experiments"]["first"], **change}})


def test_a_quick_study_is_the_same_grid_with_little_of_everything(folder: Path) -> None:
    whole, quick = configured(folder, seeds=[1, 2]), configured(folder, seeds=[1, 2], quick=True)
    assert quick.quick and not whole.quick and quick.seeds == (1,) and quick.pairs == 4 and quick.sft_config().epochs == 1
    names = [{step.name for step in plan(config, folder / "out")} for config in (whole, quick)]
    assert names[1] == {name for name in names[0] if not name.endswith(("seed 2", ".2"))}
    assert resolved(quick)["quick"] is True and resolved(whole)["sft"]["epochs"] == 2


@pytest.mark.parametrize(("asked", "taken"), [(3, 3), (4, 4), (50, 4)])
def test_a_quick_study_evaluates_on_four_prompts_whether_they_are_of_a_set_or_of_a_file(folder: Path, asked: int, taken: int) -> None:
    [first] = configured(
        folder, quick=True, experiments={"first": {**GIVEN["experiments"]["first"], "held_out": {"of": "ours", "count": asked}}}
    ).experiments.values()
    assert first.held_out and first.held_out.count == taken
    evaluate = {**GIVEN["experiments"]["first"]["evaluate"], "prompts": {"path": "prompts.jsonl", "limit": asked}}
    [first] = configured(folder, quick=True, experiments={"first": {"arms": {"ours": {"sets": "ours"}}, "evaluate": evaluate}}).experiments.values()
    assert first.evaluate["prompts"]["limit"] == taken


# --- steps


def steps_over(folder: Path, done: list[str]) -> list[Step]:
    """Reads a file; makes its first line great; counts its letters."""

    def note(name: str, result: Result) -> Result:
        done.append(name)
        return result

    file = folder / "text"
    first = Step("read", "read", (), lambda _: file.read_text("utf-8"), lambda needed, digest, inner: note("read", {CONTENT: file.read_text("utf-8")[:5]}))
    great = Step("raise", "raise", ("read",), lambda _: 1, lambda needed, digest, inner: note("raise", {CONTENT: needed["read"][CONTENT].upper()}), 2.0)
    return [first, great, Step("count", "raise", ("raise",), lambda _: 1, lambda needed, digest, inner: note("count", {CONTENT: "5"}))]


def test_a_step_is_done_again_only_when_what_it_depends_on_has_another_content(folder: Path) -> None:
    done: list[str] = []
    told: list[News] = []
    (folder / "text").write_text("abcdefgh", encoding="utf-8")
    assert [p.done for p in rehearse(steps_over(folder, done), folder / "out")] == [False] * 3
    first = carry_out(steps_over(folder, done), folder / "out", told.append)
    assert done == ["read", "raise", "count"] and first["raise"][CONTENT] == "ABCDE" and [n.state for n in told] == ["begun", "done"] * 3
    assert carry_out(steps_over(folder, done), folder / "out", told.append) == first and len(done) == 3
    assert [p.done for p in rehearse(steps_over(folder, done), folder / "out")] == [True] * 3
    (folder / "text").write_text("abcdeXXX", encoding="utf-8")
    assert [p.done for p in rehearse(steps_over(folder, done), folder / "out")] == [False] * 3, "what follows is not known before"
    carry_out(steps_over(folder, done), folder / "out", told.append)
    assert done == ["read", "raise", "count", "read"], "its result is the same, so what follows stays"
    (folder / "text").write_text("Xbcdefgh", encoding="utf-8")
    carry_out(steps_over(folder, done), folder / "out", told.append)
    assert done[4:] == ["read", "raise", "count"], "another first letter is another content for all that follow"


def test_a_mark_that_cannot_be_read_counts_as_none(folder: Path) -> None:
    done: list[str] = []
    (folder / "text").write_text("abcdefgh", encoding="utf-8")
    carry_out(steps_over(folder, done), folder / "out", lambda _: None)
    (folder / "out" / "steps" / "raise.json").write_text('{"digest": "x', encoding="utf-8")
    carry_out(steps_over(folder, done), folder / "out", lambda _: None)
    assert done == ["read", "raise", "count", "raise"]


def test_the_time_that_is_left_follows_from_finished_steps_of_the_kind(folder: Path) -> None:
    (folder / "text").write_text("abcdefgh", encoding="utf-8")
    carry_out(steps_over(folder, []), folder / "out", lambda _: None)
    for name, seconds in (("read", 3.0), ("raise", 20.0), ("count", 10.0)):
        mark = folder / "out" / "steps" / f"{name}.json"
        mark.write_text(json.dumps({**json.loads(mark.read_text("utf-8")), "seconds": seconds}), encoding="utf-8")
    marks = read_marks(folder / "out")
    (folder / "text").write_text("Xbcdefgh", encoding="utf-8")
    assert [(p.done, p.expected) for p in rehearse(steps_over(folder, []), folder / "out")] == [(False, 3.0), (False, 20.0), (False, 10.0)]
    told: list[News] = []
    carry_out(steps_over(folder, []), folder / "elsewhere", told.append, marks.values())
    assert told[0].state == "begun" and told[0].left == 33.0


# --- statistics


def test_few_prompts_show_nothing_however_clear_they_are() -> None:
    found = beside({("ours", "base"): [[1.0, 1.0, 1.0]]}, Bootstrap(3), even=0.5, larger_is_better=True, seed=0)
    assert found[0].p == 0.25 and found[0].better == 0 and found[0].value.low < 0.5


def test_comparisons_are_paired_by_prompt_and_held_together_by_holm() -> None:
    clear: list[float | None] = [1.0] * 12 + [None]
    even: list[float | None] = [1.0, 0.0] * 6 + [0.5]
    found = beside(
        {("a", "b"): [clear, clear], ("a", "c"): [even, even], ("d", "a"): [[0.0] * 13, [0.0] * 13]}, Bootstrap(13), even=0.5, larger_is_better=True, seed=0
    )
    assert [c.better for c in found] == [1, 0, -1] and found[0].prompts == 12
    assert found[0].p_adjusted == pytest.approx(2 * found[0].p) and found[1].p_adjusted == 1.0
    fewer = differences([[0.0] * 12], [[1.0] * 12])
    told = beside({("a", "b"): fewer}, Bootstrap(12), even=0.0, larger_is_better=False, seed=0)
    assert told[0].better == 1 and told[0].value.low == -1.0 < told[0].value.high < -0.7, "fewer harmful answers are better, and twelve prompts are not all"


def test_seeds_are_averaged_by_prompt_and_what_nobody_judged_is_left_out() -> None:
    assert over_seeds([[1.0, None, 0.0], [0.0, None, None]]) == [0.5, None, 0.0]
    assert mean_of([None, None], Bootstrap(2)) is None
    certain = mean_of([0.0] * 5, Bootstrap(5))
    assert certain is not None and certain.estimate == 0.0 and certain.high > 0.3, "Wilson's interval, since all resamples are alike"


# --- tables and pictures

TABLE = Table(
    "t",
    "A & B",
    ("arm", "rate", "harmful", "refused", "p"),
    (("ours_1", Interval(0.5, 0.25, 0.75), Percent(Interval(-0.1, -0.2, 0.0), signed=True), Share(1, 4), P(0.0004)), ("=cmd|", None, None, Share(0, 0), "")),
    (QUICK,),
)


def test_a_table_reads_the_same_in_all_forms() -> None:
    assert [shown(cell) for cell in TABLE.rows[0]] == ["ours_1", "0.50 (0.25 to 0.75)", "-10% (-20% to +0%)", "1 of 4", "< 0.001"]
    assert "| ours\\_1 | 0.50 (0.25 to 0.75) | -10% (-20% to +0%) | 1 of 4 | &lt; 0.001 |" in markdown(TABLE) and QUICK in markdown(TABLE)
    written = latex(TABLE)
    assert r"ours\_1 & 0.50 (0.25 to 0.75) & -10\% (-20\% to +0\%) & 1 of 4 & < 0.001 \\" in written and r"A \& B" in written and "Quick run" in written
    assert written.count("\\begin") == written.count("\\end") == 2


def test_numbers_stay_numbers_in_csv_and_no_name_becomes_a_formula() -> None:
    lines = list(csv.DictReader(comma_separated(TABLE).splitlines()))
    numbers = {"rate": "0.5", "rate low": "0.25", "rate high": "0.75", "harmful low": "-0.2", "refused": "1", "refused of": "4", "p": "0.0004"}
    assert {name: lines[0][name] for name in numbers} == numbers
    assert lines[1]["arm"] == "'=cmd|" and lines[1]["rate"] == "" and all(line["note"] == QUICK for line in lines)


def test_a_picture_is_well_formed_whatever_names_say() -> None:
    bars = (Bar("<b>", Interval(0.5, 0.4, 0.6), (0.45, 0.55)), Bar("&", Interval(0.2, 0.2, 0.2)))
    root = ElementTree.fromstring(picture("a < b", [Panel("rate", bars, 0.5), Panel("one", (Bar("x", Interval(1.0, 1.0, 1.0)),))], "note"))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"<b>", "&", "a < b", "note", "rate"} <= set(texts)


def finished(config: StudyConfig) -> dict[str, Result]:
    """Results as the steps leave them, of answers that nobody gave: `ours` wins everywhere, `mixed` nowhere."""
    arms = config.experiments["first"].arms
    systems = [BASE, *(f"{arm}.{seed}" for arm in arms for seed in config.seeds)]
    harmful = {system: not system.startswith("ours") for system in systems}
    prompts = [{"id": str(n), "category": "support", "safe": None, "scores": {}, "harmful": {"scorer": harmful}} for n in range(12)]
    pools = {name: {"pairs": 13, "overlapping": 3} for name in ("ours", "other")}
    made = {"before": {"loss": 2.0}, "best": {"loss": 1.5}, "train": 6, "steps": 3, "kept": 3}
    found: dict[str, Result] = {f"set {name}": {"pairs": 16, "tokens": 3200 if name == "ours" else None} for name in ("ours", "other")}
    for step in plan(config, Path("out")):
        if step.kind in ("sft", "dpo"):
            found[step.name] = made
    found["split first"] = {"prompts": 12, "pools": pools, "pairs": 6, "held_out": 2, "scarcest": "other"}
    found["compare first"] = {
        "per_prompt": prompts,
        "outcomes": {"harmlessness": {"ours / base": [[1.0] * 12], "ours / mixed": [[1.0] * 12]}, "helpfulness": {}},
        "beside_base": {"harmlessness": {s: [1.0 if s.startswith("ours") else 0.5] * 12 for s in systems[1:]}, "helpfulness": {}},
        "words": dict.fromkeys(systems, 20.0),
        "refusals": {s: {"safe": [1, 4]} for s in systems},
        "downstream": {},
        "warnings": ["the judge is [somebody]"],
        "folder": "experiments/first/evaluation",
    }
    return found


@pytest.mark.parametrize("quick", [False, True])
def test_the_report_says_what_each_arm_is_and_what_is_significant(folder: Path, quick: bool) -> None:
    config = configured(folder, quick=quick)
    figures = write_report(config, folder / "out", finished(config), "safer-instruct study study.yaml")
    page = (folder / "out" / "study.md").read_text("utf-8")
    assert "ours is more harmless than mixed (win rate of ours beside mixed 1.00" in page and "ours is less often harmful than base" in page
    assert "the pairs of 'ours' with the prompts of others" in page and "\\[somebody\\]" in page
    assert "The set 'other' has no more than 6 pairs to train on" in page
    tables = tables_of(config, figures[0], finished(config))
    assert [table.name for table in tables] == ["first-arms", "first-comparisons", "first-sets", "first-trainings"]
    for table in tables:
        texts = [(folder / "out" / "tables" / f"{table.name}.{ending}").read_text("utf-8") for ending in ("md", "tex", "csv")]
        assert [QUICK in text for text in texts] == [quick] * 3, "every table of a quick study says that it is one"
    again = yaml.safe_load((folder / "out" / "study.yaml").read_text("utf-8"))
    assert again["seeds"] == [0] and again["dpo"]["beta"] == 0.1 and again["quick"] is quick
    assert ElementTree.fromstring((folder / "out" / "plots" / "first.svg").read_text("utf-8")) is not None


def test_a_set_that_nothing_uses_is_told_of_and_one_that_only_a_control_needs_is_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(folder / "spare.jsonl", PAIRS)
    config = configured(folder, sets={**GIVEN["sets"], "spare": "spare.jsonl", "spare-mixed": {"shuffled": "spare"}})
    write_report(config, folder / "out", finished(config), "safer-instruct study study.yaml")
    page = (folder / "out" / "study.md").read_text("utf-8")
    show_unused(Console(width=400), config)
    for text in (page, capsys.readouterr().out):
        assert "sets.spare: no arm is trained on this set, and no experiment holds out its prompts, so it is left out; name it in an arm's 'sets'" in text
        assert "sets.spare-mixed: no arm" in text and "sets.ours:" not in text and "sets.mixed:" not in text and "sets.other:" not in text
    assert unused_sets(configured(folder)) == []
    arms = {"mixed": {"sets": "mixed"}}
    only = configured(folder, experiments={"first": {**GIVEN["experiments"]["first"], "arms": arms, "compare": None, "held_out": {"of": "other", "count": 3}}})
    assert unused_sets(only) == [], "'ours' is what 'mixed' shuffles, 'other' has the prompts"


def test_a_training_that_left_the_model_as_it_was_is_named(folder: Path) -> None:
    config = configured(folder)
    results = finished(config)
    assert not any("left the model as it was" in w for w in write_report(config, folder / "out", results, "study")[0].warnings)
    step = next(step.name for step in plan(config, Path("out")) if step.kind == "sft")
    results[step] = {**results[step], "kept": 0}
    told = [w for w in write_report(config, folder / "out", results, "study")[0].warnings if "left the model as it was" in w]
    assert len(told) == 1 and told[0].startswith("SFT on ") and "before the first of its 3 steps" in told[0]
    assert told[0] in (folder / "out" / "study.md").read_text("utf-8")


def test_a_judge_that_had_a_part_in_a_set_is_told_with_the_set(folder: Path) -> None:
    config = configured(folder)
    made = {"set ours": {"models": ["embedded:smollm2-135m-instruct", "scripted:x.yaml"]}, "set other": {"models": ["embedded:smollm2-135m-instruct"]}}
    found = builders_of(config, "first", made)
    assert found == {"embedded:smollm2-135m-instruct": "the sets 'ours', 'other'", "scripted:x.yaml": "the set 'ours'"}
    evaluation = config.evaluation("first", {BASE: "scripted:y.yaml"}, prompts="-", built=found)
    (said,) = circularity(evaluation, builders(evaluation))
    assert "had a part in building the data (a model of the sets 'ours', 'other')" in said, "no built_with of a config is named, where none is"
    assert evaluation.built_with == tuple(found), "the result records them"


def test_a_set_that_is_a_run_directory_has_the_models_of_the_run(folder: Path) -> None:
    write_run(folder / "run", list(made_up(30)))
    (folder / "run" / "run.yaml").write_text(
        yaml.safe_dump({"config": {"models": {"scorer": {"model": "openai:gpt-4o"}}}, "models": {"scorer": "fingerprint"}}), encoding="utf-8"
    )
    config = configured(folder, sets={**GIVEN["sets"], "ours": "run"})
    step = next(step for step in plan(config, folder / "out") if step.name == "set ours")
    assert step.do({}, "", lambda *_: None)["models"] == ["openai:gpt-4o"]


def test_the_example_study_is_valid_and_lists_its_steps() -> None:
    example = Path(__file__).parents[2] / "examples" / "study" / "study.yaml"
    names = [step.name for step in plan(load_study(example), Path("out"))]
    assert "set civility" in names and "compare overclaiming" in names and len(names) == len(set(names))
