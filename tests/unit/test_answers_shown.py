"""What people are told of experts, repeats and targets: terminal, card, report, estimate, domain check."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from runs import SUMMARY

from safer_instruct import tables
from safer_instruct.analysis.filters import SetFigures
from safer_instruct.card import Release, dataset_card
from safer_instruct.config import load_config
from safer_instruct.domain import load_domain
from safer_instruct.domaincheck import render_prompts
from safer_instruct.errors import ConfigError
from safer_instruct.estimate import estimate, note_on_target
from safer_instruct.report.gather import RunView
from safer_instruct.report.problems import find_problems
from safer_instruct.rundir import SUMMARY as SUMMARY_FILE
from safer_instruct.state import Figures
from safer_instruct.terminal import show_summary

UNIQUE = {"share": 0.9, "exact_repeats": 2, "near_repeats": 1, "near": 0.7}
TOOK = {"calls": 4, "prompt_tokens": 30, "completion_tokens": 10, "cost": 0.5}
WRITERS = {"kind": {"model": "openai:large", "drafts": 12, "pairs": 7, **TOOK}, "brief[/]": {"model": "openai:small", "drafts": 5, "pairs": 3, **TOOK}}


def summary(**more: Any) -> dict[str, Any]:
    timing = {"calls_from_ledger": 0, "wall_s": 1.0, "model_s": {"collect": 0.0}, "budget": {"unanswered_tokens": 0}}
    stages = {"collect": {**SUMMARY["stages"]["collect"], **TOOK}}
    return {**SUMMARY, "pairs": 0, "stages": stages, "timing": timing, **more}


def on_terminal(told: dict[str, Any], path: Path) -> str:
    with tables.outputs(path):
        """A run without a pair."""
    (path / SUMMARY_FILE).write_text(json.dumps(told))
    console = Console(file=io.StringIO(), width=140)
    show_summary(console, path, told, samples=0)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def problems(told: dict[str, Any]) -> list[str]:
    view = RunView("run", Path("none"), told, {}, [], SetFigures(0, 0, ()), rows=Counter(), kept=Counter())
    return [problem.what for problem in find_problems(view) if problem.level == "serious"]


@pytest.mark.parametrize(
    ("check", "do"),
    [
        ("verify.unfinished", "raise max_tokens, of 'respond' or of the expert, turn the model's reasoning off, or ask for shorter answers in the guideline"),
        ("induce.unfinished", "raise induce.max_tokens, or turn the model's reasoning off"),
    ],
)
def test_where_answers_without_an_end_left_no_pair_terminal_and_report_say_what_to_raise(check: str, do: str, tmp_path: Path) -> None:
    stages = {"collect": {"in": 11, "dropped": {"dedup.text": 2}, "out": 9, **TOOK}, "verify": {"in": 9, "dropped": {check: 9}, "out": 0, **TOOK}}
    told = summary(stages=stages, dropped=11)
    told["timing"]["model_s"]["verify"] = 0.0
    assert f"holds no pair: every example was dropped, 9 of 11 by {check}; {do}; some of those" in on_terminal(told, tmp_path)
    view = RunView("run", Path("none"), told, {}, [], SetFigures(0, 0, ()), rows=Counter(), kept=Counter())
    assert f"{do[0].upper()}{do[1:]}." in [problem.do for problem in find_problems(view)]


def test_the_terminal_shows_who_wrote_and_how_many_responses_are_unique(tmp_path: Path) -> None:
    shown = on_terminal(summary(writers=WRITERS, unique_chosen=UNIQUE), tmp_path)
    assert "Who wrote" in shown and "brief[/]" in shown and "openai:large" in shown
    assert "90.0% of the chosen responses are unique; 2 repeat an earlier one word for word, 1 nearly" in shown


def test_the_terminal_lists_the_files_that_are_there(tmp_path: Path) -> None:
    shown = on_terminal(summary(), tmp_path)
    assert "examples.parquet" in shown and "pairs.jsonl" in shown and "ledger.sqlite" not in shown and "run.yaml" not in shown
    (tmp_path / "pairs.jsonl").unlink()
    (tmp_path / "ledger.sqlite").touch()
    console = Console(file=io.StringIO(), width=140)
    show_summary(console, tmp_path, summary(), samples=0)
    assert isinstance(console.file, io.StringIO)
    assert "ledger.sqlite" in console.file.getvalue() and "pairs.jsonl" not in console.file.getvalue()


def test_one_expert_needs_no_table_and_older_summaries_are_still_shown(tmp_path: Path) -> None:
    assert "Who wrote" not in on_terminal(summary(writers={"expert": WRITERS["kind"]}), tmp_path)
    assert "unique" not in on_terminal(summary(), tmp_path)


def test_the_card_says_both() -> None:
    card = dataset_card({**SUMMARY, "pairs": 10, "writers": WRITERS, "unique_chosen": UNIQUE}, Release({}, {"train": 10}))
    assert "| category | digest of the guideline that the expert wrote from |" in card
    turned = dataset_card({**SUMMARY, "domain": {**SUMMARY["domain"], "direction": "chosen"}}, Release({}, {"train": 10}))
    assert "| category | digest of the guideline, which the student was not shown |" in turned
    assert "Pairs by expert: kind 7, brief[/] 3." in card and "90.0% of the chosen responses are unique" in card
    assert "unique" not in dataset_card({**SUMMARY, "pairs": 10}, Release({}, {"train": 10}))


@pytest.mark.parametrize(("share", "told"), [(0.94, True), (0.95, False), (None, False)])
def test_below_95_percent_repeats_are_a_serious_problem(share: float | None, told: bool) -> None:
    found = problems({**SUMMARY, "pairs": 300, "unique_chosen": {**UNIQUE, "share": share}})
    assert any("of the chosen responses are unique: 2 repeat" in what for what in found) is told


def test_a_dry_run_says_how_far_one_pass_goes_towards_the_target() -> None:
    rows = [{"verify": Figures(passed=i % 2 == 0)} for i in range(40)]
    found = estimate(rows, 400, ["verify"])
    assert note_on_target(found, 100) == "the target of 100 pairs is likely reached after 200 rows, so the run takes about 50% of these figures"
    assert note_on_target(found, {"a": 200, "b": 200}).startswith("one pass gives about 200 pairs, fewer than the target of 400: further passes")


def test_a_domain_check_shows_what_critic_and_reviser_would_see() -> None:
    shown = {rendered.title: rendered.text for rendered in render_prompts(load_domain("civility"))}
    assert "(why it was not accepted)" in shown["expert (respond.revise)"] and "(a response that was written)" in shown["judge (respond.critique)"]
    assert not any("revise" in rendered.title for rendered in render_prompts(load_domain("answers")))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("target: 0", "target"),
        ("respond: {critique: true}", "'critique' is part of revising"),
        ("respond: {revise: 1, critique: true}", "respond.critique needs models.judge"),
        ("verify: {also: [{check: grounded, by: judge}]}", "grounded by judge needs models.judge"),
        ("verify: {also: [refusal, refusal]}", "'refusal' stands there twice"),
        ("verify: {also: [groundd]}", "expected tags: 'grounded', 'refusal'"),
        ("target: 5\nfilter: {keep: best}", "filter.keep 'best' must see all examples first"),
        ("target: 5\nselect: {}", "select must see all examples first"),
        ("respond: {choose: best}\nverify: {pick: first}", "needs verify.pick 'best'"),
        ("ceiling: {pass: 2}", "did you mean 'passes'"),
    ],
)
def test_what_does_not_go_together_is_said_when_the_config_is_read(tmp_path: Path, said: str, why: str) -> None:
    models = "models: {inducer: 'scripted:', experts: {a: 'scripted:', b: {model: 'scripted:', weight: 2}}}"
    (tmp_path / "c.yaml").write_text(f"domain: civility\nsource: {{path: x}}\n{models}\n{said}\n")
    with pytest.raises(ConfigError, match=why.replace("(", r"\(")):
        load_config(tmp_path / "c.yaml")


def test_one_expert_and_several_exclude_each_other(tmp_path: Path) -> None:
    models = "{inducer: 'scripted:', expert: 'scripted:', experts: {a: 'scripted:'}}"
    (tmp_path / "c.yaml").write_text(f"domain: civility\nsource: {{path: x}}\nmodels: {models}\n")
    with pytest.raises(ConfigError, match=r"give 'expert' \(one\) or 'experts'"):
        load_config(tmp_path / "c.yaml")
