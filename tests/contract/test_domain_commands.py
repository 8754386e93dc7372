"""`safer-instruct domain`: what a new user types, from questions to pairs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from safer_instruct.domain import load_domain, shipped_domains


def domain(folder: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "safer_instruct.cli", *arguments]
    return subprocess.run(command, cwd=folder, input=typed, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"})


def test_list_names_every_shipped_domain_with_direction_and_programs(tmp_path: Path) -> None:
    said = domain(tmp_path, "domain", "list")
    assert [line.split()[0] for line in said.stdout.splitlines()] == list(shipped_domains())
    assert "answers  (the corpus is the chosen side)" in said.stdout and "programs: compiles, bandit" in said.stdout


@pytest.mark.parametrize("name", [d for d in shipped_domains() if d != "insecure-code"])
def test_check_shows_every_prompt_of_every_category(tmp_path: Path, name: str) -> None:
    said = domain(tmp_path, "domain", "check", name)
    assert (said.returncode, said.stderr) == (0, "") and f"{name} is valid" in said.stdout
    for category, section in load_domain(name).categories.items():
        titles = ["inducer", "judge (verify.form question)", "judge (verify.answers weighted)", "scorer (verify.form contrast)", "judge (verify.also grounded)"]
        titles += [] if name == "answers" else ["writer (rejected.form matched)", "student (rejected.form student)"]
        for title in titles:
            assert f"--- {category}: {title}\n" in said.stdout and f"--- {category}: {title}, in a conversation\n" in said.stdout
        for title in ("writer (twins.by rewrite)", "writer (twins.by sample)", "judge", "scorer", "refuser"):
            assert f"--- {category}: twins: {title}\n" in said.stdout
        assert all(f"{number}. {question}" in said.stdout for number, question in enumerate(section.criteria, 1))
        assert all(f"Question about the reply: {question}\n" in said.stdout for question in section.criteria)
        assert name == "answers" or f"A message and a reply to it stand at the end. The reply is bad: {section.definition}" in said.stdout


def test_check_marks_who_speaks_and_says_what_stands_for_a_critique(tmp_path: Path) -> None:
    said = domain(tmp_path, "domain", "check", "civility").stdout
    expert = said.partition("--- support: expert\n")[2].partition("\n---")[0].splitlines()
    assert expert[0] == "[system]" and expert[1] == load_domain("civility").expert and expert[-2:] == ["[user]", "(the instruction that was induced)"]
    revision = said.partition("--- support: expert (respond.revise)\n")[2].partition("\n---")[0]
    assert "(what the judge would change)" in revision and "(Yes, or what else" not in said.partition("--- support: judge (verify")[0]


def test_check_shows_a_scale_and_which_is_better_where_a_category_has_nothing_else(tmp_path: Path) -> None:
    text = 'name: x\ndescription: d\ndirection: chosen\ncategories:\n  main: {definition: d, guideline: g, scales: [{question: "How kind is it?"}]}\n'
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    said = domain(tmp_path, "domain", "check", "x.yaml")
    assert said.returncode == 0 and "Question about the reply: How kind is it?\nAnswer with one number from 1 (not at all) to 5 (entirely)" in said.stdout
    assert "You compare two replies" in said.stdout and "rejected.form" not in said.stdout


def test_check_escapes_what_a_file_says(tmp_path: Path) -> None:
    text = 'name: x\ndescription: d\ncategories:\n  main: {definition: d, guideline: "\\e[2J[red]{{ 7 * 7 }}[/red]", criteria: ["q?"]}\n'
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    said = domain(tmp_path, "domain", "check", "x.yaml")
    assert said.returncode == 0 and "\x1b" not in said.stdout and "[red]{{ 7 * 7 }}[/red]" in said.stdout


def test_check_runs_programs_on_the_examples_and_fails_where_they_disagree(tmp_path: Path) -> None:
    text = """\
name: x
description: d
verifiers: [{name: thanks, command: [grep, -q, thanks]}]
categories:
  main: {definition: d, guideline: g, examples: [{prompt: p, chosen: many thanks, rejected: REJECTED}]}
"""
    (tmp_path / "x.yaml").write_text(text.replace("REJECTED", "go away"), encoding="utf-8")
    said = domain(tmp_path, "domain", "check", "x.yaml")
    assert said.returncode == 0 and "ok   main, example 1, chosen: passes" in said.stdout and "rejected: verify.program.thanks: exit code 1" in said.stdout
    (tmp_path / "x.yaml").write_text(text.replace("REJECTED", "no thanks"), encoding="utf-8")
    said = domain(tmp_path, "domain", "check", "x.yaml")
    assert said.returncode == 1 and "no   main, example 1, rejected: passes" in said.stdout


def test_check_fails_where_a_program_raises_whichever_side_it_is_shown(tmp_path: Path) -> None:
    text = """\
name: x
description: d
verifiers: [{python: "checks.py:thanks"}]
categories:
  main: {definition: d, guideline: g, examples: [{prompt: p, chosen: many thanks, rejected: go away}]}
"""
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "checks.py").write_text("def thanks(response, prompt):\n    return response.split('thanks')[1] == ''\n")
    said = domain(tmp_path, "domain", "check", "x.yaml", "--no-prompts")
    assert said.returncode == 1 and "ok   main, example 1, chosen: passes" in said.stdout
    assert "no   main, example 1, rejected: verify.program.thanks: raised IndexError: list index out of range (checks.py, line 2)" in said.stdout
    (tmp_path / "x.yaml").write_text(text.replace(":thanks", ":thank"), encoding="utf-8")
    said = domain(tmp_path, "domain", "check", "x.yaml", "--no-prompts")
    assert said.returncode == 2 and "checks.py has no function 'thank'; it has thanks" in said.stderr


def test_check_tells_a_mistake_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("name: x\ndescription: d\ncategoris: {}\n", encoding="utf-8")
    said = domain(tmp_path, "domain", "check", "x.yaml")
    assert said.returncode == 2 and "x.yaml:3: unknown key 'categoris'; did you mean 'categories'?" in said.stderr


def test_show_prints_a_file_that_stands_by_itself(tmp_path: Path) -> None:
    said = domain(tmp_path, "domain", "show", "safety-ailuminate")
    (tmp_path / "copy.yaml").write_text(said.stdout, encoding="utf-8")
    assert load_domain("copy.yaml", tmp_path) == load_domain("safety-ailuminate")


def test_new_asks_and_from_the_answers_a_run_makes_pairs(tmp_path: Path) -> None:
    answers = [
        "Notes on cars.",
        "You write notes.",
        "y",
        "en, de",
        "parking",
        "Rude notes.",
        "Be kind: it's 'short'.",
        "for insults",
        "a map",
        "kind",
        "rude",
        "Is it kind?",
        "",
        "n",
    ]
    said = domain(tmp_path, "domain", "new", "notes", typed="\n".join(answers) + "\n")
    assert said.returncode == 0 and "wrote notes-domain.yaml" in said.stdout, said.stderr
    made = load_domain("notes-domain.yaml", tmp_path)
    parking = made.category("parking")
    assert (made.description, made.expert, made.direction, made.languages) == ("Notes on cars.", "You write notes.", "rejected", ("en", "de"))
    assert (parking.guideline, parking.refuse, parking.help, parking.criteria) == (
        "Be kind: it's 'short'.",
        "for insults",
        "a map",
        ("Is it kind?",),
    )
    assert (tmp_path / "notes-domain.yaml").read_text("utf-8").count("# ") >= 8
    assert domain(tmp_path, "domain", "check", "notes-domain.yaml").returncode == 0
    before = (tmp_path / "notes-domain.yaml").read_bytes()
    assert domain(tmp_path, "init", "notes").returncode == 0 and (tmp_path / "notes-domain.yaml").read_bytes() == before
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": "You park like a sleeping hippo, and twice as wide, day after day after day."}) + "\n")
    config = "domain: notes-domain.yaml\nsource: {path: texts.jsonl}\nmodels: {inducer: 'scripted:', expert: 'scripted:'}\n"
    config += "filter: {consistency: null, prompt: {language: null}}\nverify: {form: question}\n"
    (tmp_path / "run.yaml").write_text(config.replace("'scripted:'}", "'scripted:', judge: 'scripted:judge.yaml'}"))
    (tmp_path / "judge.yaml").write_text(
        "generate: [{match: 'Reply A:(?s:.{0,30})You park', answers: [B]}, {match: Reply A, answers: [A]}, {answers: ['Yes']}]\n"
    )
    assert domain(tmp_path, "run", "run.yaml", "--out", "out").returncode == 0
    assert len((tmp_path / "out" / "pairs.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("never", ["", "never", " No. "])
def test_new_asks_how_to_help_only_where_an_answer_may_decline(tmp_path: Path, never: str) -> None:
    answers = ["Notes on cars.", "", "", "", "parking", "Rude notes.", "Be kind.", never, "kind", "rude", "Is it kind?", "", "n"]
    said = domain(tmp_path, "domain", "new", "notes", typed="\n".join(answers) + "\n")
    assert said.returncode == 0 and "How does it help safely" not in said.stdout, said.stderr
    parking = load_domain("notes-domain.yaml", tmp_path).category("parking")
    assert (parking.refuse, parking.help, parking.criteria) == ("", "", ("Is it kind?",))
    assert parking.contrast is not None and parking.contrast.good == "kind"


def test_new_says_what_is_wrong_before_it_asks_and_what_to_do_where_nobody_answers(tmp_path: Path) -> None:
    said = domain(tmp_path, "domain", "new", "notes", typed="Notes on cars.\n")
    assert said.returncode == 2 and "say it by options (--help lists them) and --no-input" in said.stderr, said.stderr
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "notes-domain.yaml").write_text("mine")
    said = domain(tmp_path, "domain", "new", "notes", typed="")
    assert said.returncode == 2 and said.stdout == "" and "notes-domain.yaml exists already" in said.stderr


def test_new_leaves_no_file_that_is_no_domain_and_quotes_what_yaml_would_misread(tmp_path: Path) -> None:
    said = domain(tmp_path, "domain", "new", "notes", "--no-input", "--languages", "german")
    assert said.returncode == 2 and "'german' is no code of a language that is told; write two small letters (ISO 639-1), such as en or de" in said.stderr
    assert list(tmp_path.iterdir()) == []
    said = domain(tmp_path, "domain", "new", "notes", "--no-input", "--category", "Notes: all", "--definition", "#none", "--good", "a: b")
    assert said.returncode == 0, said.stderr
    assert load_domain("notes-domain.yaml", tmp_path).category("Notes: all").definition == "#none"


def test_new_takes_options_instead_of_answers_and_never_overwrites(tmp_path: Path) -> None:
    options = (
        "--no-input",
        "--direction",
        "chosen",
        "--languages",
        "",
        "--category",
        "c",
        "--criterion",
        "One?",
        "--criterion",
        "Two?",
        "--extends",
        "civility",
    )
    assert domain(tmp_path, "domain", "new", "mine", *options).returncode == 0
    made = load_domain("mine-domain.yaml", tmp_path)
    assert made.direction == "chosen" and made.languages == () and made.category("c").criteria == ("One?", "Two?") and "support" in made.categories
    again = domain(tmp_path, "domain", "new", "mine", "--no-input")
    assert again.returncode == 2 and "exists already" in again.stderr
    assert "cannot name a domain" in domain(tmp_path, "domain", "new", "../x", "--no-input").stderr
