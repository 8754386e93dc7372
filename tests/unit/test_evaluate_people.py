"""Blinded sheets for people: what stands on them, and what their answers come to."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from safer_instruct.cli import main
from safer_instruct.errors import ConfigError
from safer_instruct.evaluation.people import items, people, people_warnings, read_answers, write_sheet
from safer_instruct.evaluation.prompts import Prompt, Response
from safer_instruct.evaluation.run import evaluate, write_people_sheet
from safer_instruct.evaluation.settings import EvaluateConfig, load_evaluation

PROMPTS = [Prompt(f"p{n}", f"Question {n}?", "support", None, "", {}) for n in range(20)]
RESPONSES = {"ours": [Response(f"kind {n}") for n in range(20)], "base": [Response(f"curt {n}") for n in range(20)]}
PAIRS = [("ours", "base")]


def said(path: Path, answers: dict[str, str]) -> Path:
    path.write_text("id,answer\n" + "".join(f"{id_},{answer}\n" for id_, answer in answers.items()), encoding="utf-8")
    return path


def test_a_sheet_names_no_system_shuffles_the_sides_and_is_the_same_every_time(tmp_path: Path) -> None:
    asked = items(PROMPTS, RESPONSES, PAIRS, seed=0)
    assert len(asked) == 20 and 0 < sum(item.swapped for item in asked) < 20
    assert asked == items(PROMPTS, RESPONSES, PAIRS, seed=0) != items(PROMPTS, RESPONSES, PAIRS, seed=1)
    assert [item.at for item in asked] != sorted(item.at for item in asked)
    sheet, page = write_sheet(tmp_path / "sheet.csv", asked, PROMPTS, RESPONSES)
    for file in (sheet, page):
        text = file.read_text(encoding="utf-8")
        assert "ours" not in text and "base" not in text.replace("base-uri", "")
    rows = list(csv.DictReader(sheet.open(encoding="utf-8-sig")))
    assert {row["answer_a"][:4] for row in rows} == {"kind", "curt"} and {row["answer"] for row in rows} == {""}


def test_a_short_sheet_takes_as_many_of_every_pair_and_leaves_out_equal_answers() -> None:
    third = {**RESPONSES, "same": RESPONSES["base"]}
    pairs = [("ours", "base"), ("ours", "same"), ("same", "base")]
    asked = items(PROMPTS, third, pairs, 0, 7)
    assert sorted(sum(item.pair == pair for item in asked) for pair in pairs) == [0, 3, 4]


def test_no_text_becomes_markup_in_the_page_or_a_formula_in_the_sheet(tmp_path: Path) -> None:
    evil = {"ours": [Response("<script>alert(1)</script>\x1b[31m")], "base": [Response("=cmd()")]}
    sheet, page = write_sheet(tmp_path / "s.csv", items(PROMPTS[:1], evil, PAIRS, 0), PROMPTS[:1], evil)
    text = page.read_text(encoding="utf-8")
    assert text.count("<script>") == 1 and "&lt;script&gt;alert(1)" in text and "\x1b" not in text
    assert "default-src &#39;none&#39;" in text and "'=cmd()" in sheet.read_text(encoding="utf-8")


def test_answers_are_turned_back_and_agreement_is_told(tmp_path: Path) -> None:
    asked = items(PROMPTS, RESPONSES, PAIRS, 0)
    for_ours = {item.id: "B" if item.swapped else "A" for item in asked}
    other = dict(list(for_ours.items())[:10]) | {item.id: "A" if item.swapped else "b" for item in asked[10:14]} | {asked[14].id: "tie", asked[15].id: ""}
    read = read_answers([said(tmp_path / "ann.csv", for_ours), said(tmp_path / "bob.csv", other)], asked)
    assert set(read["ann"].values()) == {1.0} and sorted(read["bob"].values()) == [0.0] * 4 + [0.5] + [1.0] * 10
    machine: list[float | None] = [1.0] * 20
    found = people(read, asked, {"ours / base": machine}, resamples=100, level=0.95, seed=0)
    assert found.people == {"ann": 20, "bob": 15} and found.agreement[0].shared == 15 and found.agreement[0].observed == pytest.approx(10 / 15)
    counts = found.counts["ours / base"]
    assert (counts.wins, counts.ties, counts.losses) == (16, 4, 0), "one for and one against is a tie"
    assert found.with_judges and found.with_judges.shared == 20 and found.with_judges.observed == pytest.approx(16 / 20)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id\nx\n", "the column 'answer' is missing"),
        ("id,answer\nnobody,A\n", "no question has the id 'nobody'"),
        ("id,answer\n{id},C\n", "none of A, B and tie"),
        ("id,answer\n{id},A\n{id},B\n", "answered twice, and differently"),
        ("id,answer\n\udcff", "cannot be read as a CSV file"),
    ],
)
def test_answers_that_cannot_be_used_are_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    asked = items(PROMPTS, RESPONSES, PAIRS, 0)
    (tmp_path / "ann.csv").write_bytes(text.replace("{id}", asked[0].id).encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=message):
        read_answers([tmp_path / "ann.csv"], asked)


def test_a_row_is_named_by_the_line_that_it_begins_on(tmp_path: Path) -> None:
    asked = items(PROMPTS, RESPONSES, PAIRS, 0)
    (tmp_path / "ann.csv").write_text(f'id,"an\nswer_a",answer\n\n{asked[0].id},"a\nb\r\nc",A\n{asked[1].id},"a\nb",left\n', encoding="utf-8", newline="")
    with pytest.raises(ConfigError, match=r"ann\.csv:7: the answer 'left' is none of A, B and tie"):
        read_answers([tmp_path / "ann.csv"], asked)


@pytest.mark.parametrize(("of_bob", "warned"), [(lambda at: float(at % 2), False), (lambda at: float(at % 3 == 0), True), (lambda at: 1.0, True)])
def test_people_who_hardly_agree_are_warned_of(of_bob: Callable[[int], float], warned: bool) -> None:
    asked = items(PROMPTS, RESPONSES, PAIRS, 0)
    both = {"ann": {item.id: float(at % 2) for at, item in enumerate(asked)}, "bob": {item.id: of_bob(at) for at, item in enumerate(asked)}}
    told = people_warnings(people(both, asked, {}, resamples=100, level=0.95, seed=0))
    assert bool(told) == warned and all("2 people agree little" in line and "Krippendorff's alpha" in line for line in told)
    assert people_warnings(None) == people_warnings(people({"ann": both["ann"]}, asked, {}, resamples=100, level=0.95, seed=0)) == []


def test_little_agreement_stands_under_what_to_mind_and_the_majority_is_explained(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    _, (sheet, _) = write_people_sheet(config, tmp_path / "out", tmp_path / "sheet.csv")
    ids = [row["id"] for row in csv.DictReader(sheet.open(encoding="utf-8-sig"))]
    answers = [said(tmp_path / f"{name}.csv", {id_: words[at % 2] for at, id_ in enumerate(ids)}) for name, words in (("ann", "AB"), ("bob", "BA"))]
    evaluate(config, tmp_path / "out", answers=answers)
    text = (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")
    assert "- people: 2 people agree little" in text.partition("## What to mind")[2].partition("\n## ")[0]
    assert "who says tie stands on neither side: one tie and one win is a win." in text


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    with pytest.raises(ConfigError, match="a name of its own"):
        read_answers([said(tmp_path / "ann.csv", {}), said(tmp_path / "more" / "ann.csv", {})], [])


def loaded(folder: Path) -> EvaluateConfig:
    rows = [{"prompt": p.text, "ours": RESPONSES["ours"][i].text, "base": RESPONSES["base"][i].text} for i, p in enumerate(PROMPTS)]
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    score = [{"match": "kind, respectful", "logprob": -0.5}, {"match": "rude, sarcastic", "logprob": -1.0}]
    (folder / "s.yaml").write_text(yaml.safe_dump({"score": score}), encoding="utf-8")
    config = {
        "domain": "civility",
        "prompts": "p.jsonl",
        "systems": {"base": {"column": "base"}, "ours": {"column": "ours"}},
        "judges": {"s": {"form": "contrast", "model": "scripted:s.yaml"}},
        "resamples": 100,
    }
    (folder / "e.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return load_evaluation(folder / "e.yaml")


def test_a_study_goes_from_the_sheet_to_the_report(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    count, (sheet, _) = write_people_sheet(config, tmp_path / "out", tmp_path / "sheet.csv", 12)
    rows = list(csv.DictReader(sheet.open(encoding="utf-8-sig")))
    assert count == len(rows) == 12
    answers = said(tmp_path / "ann.csv", {row["id"]: "A" if row["answer_a"].startswith("kind") else "B" for row in rows})
    result = evaluate(config, tmp_path / "out", answers=[answers])
    assert result.people and result.people.counts["ours / base"].wins == 12 and result.people.win_rates["ours / base"].low > 0.7
    text = (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")
    assert "## People" in text and "| ours / base | 12 / 0 / 0 |" in text


def test_p_of_people_holds_for_all_pairs_together(tmp_path: Path) -> None:
    loaded(tmp_path)
    given = yaml.safe_load((tmp_path / "e.yaml").read_text(encoding="utf-8"))
    given |= {"baseline": "base", "systems": {**given["systems"], "again": {"column": "ours"}}}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    config = load_evaluation(tmp_path / "e.yaml")
    _, (sheet, _) = write_people_sheet(config, tmp_path / "out", tmp_path / "sheet.csv", 10)
    rows = list(csv.DictReader(sheet.open(encoding="utf-8-sig")))
    answers = said(tmp_path / "ann.csv", {row["id"]: "A" if row["answer_a"].startswith("kind") else "B" for row in rows})
    found = evaluate(config, tmp_path / "out", answers=[answers]).people
    assert found and {key: counts.wins for key, counts in found.counts.items()} == {"ours / base": 5, "again / base": 5}
    assert found.counts["ours / base"].p == pytest.approx(2 / 2**5) and found.p_adjusted == pytest.approx({"ours / base": 4 / 2**5, "again / base": 4 / 2**5})
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert written["people"]["p_adjusted"] == found.p_adjusted, "as the judges' comparisons have it beside their counts"
    assert "| ours / base | 5 / 0 / 0 | 1.00 (0.57 to 1.00) | 0.12 |" in (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")


def test_the_command_writes_the_sheet_and_takes_the_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded(tmp_path)
    config, out, sheet = str(tmp_path / "e.yaml"), str(tmp_path / "out"), tmp_path / "sheet.csv"
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", config, "--out", out, "--sheet", str(sheet), "--n", "5"])
    assert not ended.value.code and "5 questions, blinded" in " ".join(capsys.readouterr().out.split())
    answers = said(tmp_path / "ann.csv", {row["id"]: "tie" for row in csv.DictReader(sheet.open(encoding="utf-8-sig"))})
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", config, "--out", out, "--answers", str(answers)])
    assert not ended.value.code and "| ours / base | 0 / 5 / 0 |" in (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", config, "--out", out])
    told = " ".join(capsys.readouterr().out.split())
    assert not ended.value.code and "mind: what people said (ann) stood in the report before, and is left out of this one: give --answers again" in told
    assert "left out of this one" in (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")


def test_people_who_all_say_the_same_do_not_make_it_certain() -> None:
    asked = items(PROMPTS, RESPONSES, PAIRS, seed=0)[:6]
    first = {item.id: 1.0 for item in asked}
    found = people({"ann": first}, asked, {}, resamples=100, level=0.95, seed=0)
    assert found.counts["ours / base"].wins == 6 and found.win_rates["ours / base"].estimate == 1.0
    assert found.win_rates["ours / base"].low == pytest.approx(0.61, abs=0.005), "Wilson's, as 6 of 6 say little"
