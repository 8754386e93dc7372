"""What pairs are worth without training, with a scripted model in the place of the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safer_instruct.cli import main
from safer_instruct.config import ModelConfig
from safer_instruct.errors import RunDirectoryError
from safer_instruct.settings.preference import PreferenceSource
from safer_instruct.training.preferences import Preference
from safer_instruct.training.value import Indicator, ScoredPair, Value, default_folder, lengths, margins, style_only, value_pairs, variety

TRADES = ["lamp", "kettle", "radio", "clock", "bell", "drum", "umbrella", "parcel", "desk", "chair"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pairs whose chosen response has two words more, and a model that gives every word -1."""
    rows = [
        {"prompt": f"Where is my {t} now?", "chosen": f"Your {t} comes on Monday for certain.", "rejected": f"Your {t} is somewhere. Look."} for t in TRADES
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [*rows, rows[0], {"prompt": "x"}]), encoding="utf-8")
    (tmp_path / "model.json").write_text("{}", encoding="utf-8")
    return tmp_path


def valued(folder: Path, **more: Any) -> Value:
    return value_pairs(PreferenceSource(path="pairs.jsonl"), folder, ModelConfig(model="scripted:model.json"), folder / "value", **more)


def by_name(found: list[Indicator] | tuple[Indicator, ...]) -> dict[str, Indicator]:
    return {indicator.name: indicator for indicator in found}


def test_margins_are_those_of_the_models_logprobs_and_no_call_is_made_twice(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    first = valued(folder, tick=lambda done, of: told.append((done, of)))
    found = by_name(first.indicators)
    assert (first.pairs, first.duplicates, len(first.set_aside), first.unscored) == (10, 1, 1, 0)
    assert found["margin, sum"].number == pytest.approx(-2.0) and found["margin per token"].number == pytest.approx(0.0)
    assert told[-1] == (20, 20) and first.calls == 20 and first.from_ledger == 0
    again = valued(folder)
    assert again.indicators == first.indicators and again.from_ledger == again.calls == 20
    record = json.loads((folder / "value" / "value.json").read_text("utf-8"))
    assert {i["name"]: i["number"] for i in record["indicators"]} == {name: i.number for name, i in found.items()}


def test_a_limit_draws_the_same_pairs_whatever_their_order(folder: Path) -> None:
    assert valued(folder, limit=4).pairs == 4
    lines = (folder / "pairs.jsonl").read_text("utf-8").splitlines()
    (folder / "pairs.jsonl").write_text("\n".join(lines[::-1]), encoding="utf-8")
    again = valued(folder, limit=4)
    assert again.from_ledger == again.calls == 8, "the calls are the same ones"


def scored(chosen: tuple[float, ...], rejected: tuple[float, ...], n: int = 0) -> ScoredPair:
    return ScoredPair(Preference(f"p{n}", "c", "g", "s", rejected="r"), chosen, rejected)


@pytest.mark.parametrize(
    ("pair", "name", "warns"),
    [
        (scored((-1.0,), (-2.0,)), "reference prefers the chosen", "already"),
        (scored((-2.0,), (-1.0,)), "reference prefers the chosen", "train sft on them first"),
        (scored((-1.0, -1.0), (-4.0, -4.0)), "margin per token", "do SFT first"),
        (scored((-1.0,) * 20, (-1.5,) * 2), "margin, sum", "opposite directions"),
    ],
)
def test_a_bad_margin_comes_with_a_warning(pair: ScoredPair, name: str, warns: str) -> None:
    assert warns in by_name(margins([], [pair] * 12))[name].warning


def test_ten_of_ten_is_no_certainty() -> None:
    assert by_name(margins([], [scored((-1.0,), (-2.0,))] * 10))["reference prefers the chosen"].value == "100% (72% to 100%)"


def test_a_good_margin_comes_without() -> None:
    mixed = [scored((-1.0,), (-1.2,)), scored((-1.3,), (-1.0,))] * 6
    assert [i.warning for i in margins([], mixed)] == ["", "", ""]
    assert by_name(margins([], mixed))["reference prefers the chosen"].number == 0.5


def test_what_is_said_of_agreement_holds_of_a_model_that_was_trained_too() -> None:
    means = by_name(margins([], [scored((-1.0,), (-2.0,))]))["reference prefers the chosen"].means
    assert "before any training" not in means and means.endswith("finds likelier per token: training it on what it already agrees with teaches it little.")


def pair(prompt: str, chosen: str, rejected: str) -> Preference:
    return Preference(prompt, chosen, prompt, "s", rejected=rejected)


def test_length_that_gives_the_chosen_response_away_is_warned_of() -> None:
    [long] = lengths([pair("p", "one two three", "one")] * 5, [])
    assert long.number == 1.0 and "whoever takes the longer response is right in 100%" in long.warning
    [even] = lengths([pair("p", "one two", "one"), pair("p", "one", "one two")], [])
    assert even.number == 0.5 and even.warning == "" and even.value == "50%; median 1.5 words against 1.5"
    [uneven] = lengths([pair("p", "one " * n, "one") for n in (1, 2, 9)], [])
    assert uneven.value.endswith("median 2 words against 1"), "as audit and report count"


def test_style_that_gives_the_sides_away_is_warned_of() -> None:
    shouted = [pair(f"{w}?", f"It is a {w}, as you can see.", f"IT IS A {w.upper()}!!! AS YOU CAN SEE!!!") for w in TRADES * 6]
    [told] = style_only(shouted, [])
    assert told.number > 0.95 and "gives the sides away" in told.warning
    assert style_only(shouted[:3], []) == [], "too few to tell"


def test_prompts_that_are_nearly_the_same_are_warned_of() -> None:
    same = by_name(
        variety([pair(f"Where is the parcel that I ordered from your shop in May, number {i}?", f"It is {w}.", w) for i, w in enumerate(TRADES)], [])
    )
    assert same["near-duplicate prompts"].warning and same["self-BLEU of prompts"].warning
    varied = by_name(variety([pair(f"{w} {w[::-1]} {w[:3]}{i} and {i * 7}", w, w[::-1]) for i, w in enumerate(TRADES)], []))
    assert not varied["near-duplicate prompts"].warning


def test_the_command_prints_each_figure_with_what_it_means(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as left:
        main(["value", "pairs.jsonl", "--model", "scripted:model.json"])
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "10 pairs (1 more were duplicates, 1 row set aside)" in shown
    assert "chosen is the longer one: 100%" in shown and "warning: whoever takes the longer response" in shown
    assert (folder / "runs" / f"{folder.name}-pairs-value" / "value.json").is_file()


def test_columns_are_named_as_in_an_audit(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    lines = [f"Where is my {t} now?,Your {t} comes on Monday.,Look yourself." for t in TRADES]
    (folder / "mine.csv").write_text("\n".join(["question,good,bad", *lines]) + "\n", encoding="utf-8")
    given = ["value", "mine.csv", "--model", "scripted:model.json"]
    for more, code, said in (
        (
            [],
            2,
            "no column 'chosen'; this row has question, good, bad; say which column is which: 'prompt', 'chosen' and 'rejected' of this source, or --prompt,",
        ),
        (["--prompt", "good", "--chosen", "good", "--rejected", "bad"], 2, "'prompt' and 'chosen' name the same column, 'good'"),
        (["--prompt", "question", "--chosen", "good", "--rejected", "bad"], 0, "10 pairs (0 more were duplicates, 0 rows set aside)"),
    ):
        with pytest.raises(SystemExit) as left:
            main([*given, *more])
        shown = capsys.readouterr()
        assert (left.value.code or 0) == code and said in " ".join((shown.out + shown.err).split())


def test_each_set_has_a_folder_of_its_own_and_none_is_replaced_by_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for name, most in (("a", 9), ("b", 4)):
        (folder / name).mkdir()
        (folder / name / "train.jsonl").write_text("".join((folder / "pairs.jsonl").read_text("utf-8").splitlines(keepends=True)[:most]), "utf-8")

    def typed(*given: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main(["value", *given, "--model", "scripted:model.json"])
        return int(left.value.code or 0), " ".join(capsys.readouterr().err.split())

    def pairs_of(name: str) -> int:
        return int(json.loads((folder / "runs" / name / "value.json").read_text("utf-8"))["pairs"])

    assert (typed("a/train.jsonl")[0], typed("b/train.jsonl")[0]) == (0, 0)
    assert (pairs_of("a-train-value"), pairs_of("b-train-value")) == (9, 4)
    refused = "runs/a-train-value/value.json is the value of other pairs, a/train.jsonl; choose another --out for these"
    code, said = typed("b/train.jsonl", "--out", "runs/a-train-value")
    assert (code, pairs_of("a-train-value")) == (2, 9) and refused in said
    assert typed(str(folder / "a" / "train.jsonl"), "--limit", "5")[0] == 0 and pairs_of("a-train-value") == 5, "the same set, by another name of its path"
    older = folder / "runs" / "a-train-value" / "value.json"
    older.write_text(json.dumps({k: v for k, v in json.loads(older.read_text("utf-8")).items() if k != "set"}), "utf-8")
    assert typed("b/train.jsonl", "--out", "runs/a-train-value")[0] == 0 and pairs_of("a-train-value") == 4, "no set is named in it"


@pytest.mark.parametrize(
    ("pairs", "name"),
    [
        ("runs/civility", "civility-value"),
        ("sets/mine.csv", "mine-value"),
        ("sets/validation.parquet", "sets-validation-value"),
        ("sets/train-00000-of-00002.parquet", "sets-train-00000-of-00002-value"),
        ("runs/civility/pairs.jsonl", "civility-pairs-value"),
        ("sets/trainers.jsonl", "trainers-value"),
        ("s3://bucket/sets/train.jsonl", "sets-train-value"),
    ],
)
def test_a_file_that_every_set_has_is_named_with_its_folder(pairs: str, name: str) -> None:
    assert default_folder(pairs) == Path("runs") / name


@pytest.mark.parametrize(("file", "said"), [("run.yaml", "holds a run"), ("training.jsonl", "of its training"), ("value.json", "value.json of something else")])
def test_a_folder_of_something_else_is_left_alone(folder: Path, file: str, said: str) -> None:
    (folder / "value").mkdir()
    (folder / "value" / file).write_text("{}", encoding="utf-8")
    with pytest.raises(RunDirectoryError, match=said):
        valued(folder)
    assert [found.name for found in (folder / "value").iterdir()] == [file]
