"""Cleaning and the split of tuning data: every pair is accounted for, and nothing that is held out is given away."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from made_runs import made_up, write_run
from pydantic import ValidationError

from safer_instruct.config import TuneConfig
from safer_instruct.domain import load_domain
from safer_instruct.errors import SourceError
from safer_instruct.settings.pairs import CleanConfig, Holdout, PairSource
from safer_instruct.tuning.data import Prepared, prepare, write_prepared
from safer_instruct.tuning.overlap import Overlap
from safer_instruct.tuning.pairs import Pair
from safer_instruct.tuning.prompting import load_prompting
from safer_instruct.tuning.split import split, straddling

THINGS = ["kettle", "lamp", "radio", "clock", "drum", "bell", "chair", "stove", "fence", "wagon", "piano", "mirror"]
ROWS = [
    {
        "prompt": f"My {thing} came with a scratch. What now?",
        "response": f"Polish the {thing} with a soft cloth, and write to us again if that is not enough for you.",
    }
    for thing in THINGS
]


def prepared(folder: Path, rows: list[Any], holdout: Holdout | None = None, source: dict[str, Any] | None = None, **cleaning: Any) -> Prepared:
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sources = (PairSource(path="d.jsonl", **(source or {})),)
    return prepare(sources, CleanConfig(**cleaning), holdout or Holdout(count=3, near_duplicate=None), folder)


def accounted(found: Prepared) -> bool:
    f = found.funnel
    return f.pairs == sum(f.cleaned.values()) + sum(f.straddling.values()) + f.train + f.held_out and f.train == len(found.train)


@pytest.mark.parametrize(
    ("row", "check", "reason"),
    [
        ({"prompt": " ", "response": "Yes."}, "clean.empty", "its instruction is empty"),
        ({"prompt": "Who?", "response": ""}, "clean.empty", "its response is empty"),
        ({"prompt": "word " * 1001, "response": "Yes."}, "clean.length", "its prompt has 1001 words, not 1 to 1000"),
        ({"prompt": "How?", "response": "I'm sorry, but I can't help with that."}, "clean.refusal", "its response is a refusal"),
        ({"prompt": "Say it in French.", "response": "Le chat est assis sur la chaise et il regarde la rue toute la journée."}, "clean.language", "in 'fr'"),
        ({"prompt": "my KETTLE came with a scratch; what now?", "response": ROWS[0]["response"]}, "dedup.pair", "has the same words as d.jsonl:1"),
        ({"prompt": ROWS[0]["prompt"], "response": ROWS[0]["response"] + " Thanks."}, "dedup.pair", "is a near-duplicate of d.jsonl:1"),
    ],
)
def test_a_pair_is_dropped_for_one_reason_that_is_told(tmp_path: Path, row: dict[str, str], check: str, reason: str) -> None:
    found = prepared(tmp_path, [*ROWS, row])
    dropped = [(pair, verdict) for pair, verdict in found.dropped if pair.line == len(ROWS) + 1]
    assert [v.name for _, v in dropped] == [check] and reason in dropped[0][1].reason
    assert found.funnel.cleaned[check] >= 1 and accounted(found)


def test_checks_can_be_switched_off(tmp_path: Path) -> None:
    rows = [
        *ROWS,
        {"prompt": "How?", "response": "I'm sorry, but I can't help with that."},
        {"prompt": "En français?", "response": "Le chat est assis sur la chaise et il regarde la rue."},
    ]
    assert prepared(tmp_path, rows, near_duplicate=None, refusals=False, languages=()).funnel.cleaned == {}


def test_pairs_that_overlap_with_evaluation_prompts_are_dropped(tmp_path: Path) -> None:
    tested = "Explain to a child of five why the sky is blue in the day and red in the evening."
    (tmp_path / "test.jsonl").write_text(json.dumps({"prompt": tested, "response": "-"}) + "\n", encoding="utf-8")
    asked = [
        f"Please: {tested}",
        tested.lower(),
        "Before lunch, tell me why the sky is blue in the day and red in the evening, or not.",
        "Why is the sky blue?",
    ]
    rows = [*ROWS, *({"prompt": ask, "response": f"Because of the air, number {i}, which scatters light."} for i, ask in enumerate(asked))]
    found = prepared(tmp_path, rows, near_duplicate=None, evaluation=(PairSource(path="test.jsonl"),), shared_run=12)
    assert [(pair.prompt, verdict.name) for pair, verdict in found.dropped] == [(ask, "clean.evaluation") for ask in asked[:3]]
    assert "compared with test.jsonl" in found.dropped[0][1].reason


def test_bad_rows_are_counted_beside_the_pairs(tmp_path: Path) -> None:
    found = prepared(tmp_path, [*ROWS, {"prompt": 1, "response": "x"}, [1]], near_duplicate=None)
    assert found.funnel.set_aside == 2 and found.funnel.pairs == len(ROWS)
    assert [(row.file, row.line) for row in found.bad_rows] == [("d.jsonl", 13), ("d.jsonl", 14)]


def test_the_split_goes_by_content_and_not_by_order(tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    one, other = (prepared(tmp_path, rows, near_duplicate=None) for rows in (ROWS, shuffled))
    assert {p.prompt for p in one.held_out} == {p.prompt for p in other.held_out} and len(one.held_out) == 3
    more = prepared(tmp_path, [*ROWS, {"prompt": "What is new?", "response": "Much."}], Holdout(share=0.3, near_duplicate=None), near_duplicate=None)
    fewer = prepared(tmp_path, ROWS, Holdout(share=0.3, near_duplicate=None), near_duplicate=None)
    assert {p.prompt for p in fewer.held_out} == {p.prompt for p in more.held_out} - {"What is new?"}, "a share of hashes: new rows move no old one"


def test_a_group_stays_together(tmp_path: Path) -> None:
    rows = [row | {"group": number % 4} for number, row in enumerate(ROWS)]
    found = prepared(tmp_path, rows, source={"group": "group"}, near_duplicate=None)
    assert len(found.held_out) == 3 and len({p.group for p in found.held_out}) == 1
    assert not {p.group for p in found.held_out} & {p.group for p in found.train}
    conversation = {"messages": [{"role": role, "content": f"{role} says {i}"} for i in range(4) for role in ("user", "assistant")]}
    chats = prepared(
        tmp_path,
        [conversation, *({"messages": [{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": r["response"]}]} for r in ROWS)],
        near_duplicate=None,
    )
    sides = [{p.group for p in side} for side in (chats.train, chats.held_out)]
    assert not sides[0] & sides[1]


def test_named_groups_alone_are_held_out_of_their_file(tmp_path: Path) -> None:
    rows = [row | {"thing": thing} for row, thing in zip(ROWS, THINGS, strict=True)]
    found = prepared(tmp_path, rows, Holdout(groups=("radio", "bell"), near_duplicate=None), source={"group": "thing"}, near_duplicate=None)
    assert [p.group for p in found.held_out] == ["radio", "bell"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"group": "thing"}, r"no usable row has the group 'rado'; did you mean 'radio'\? there are: bell, chair, clock, "),
        ({}, r"no usable row has the group 'rado'; there are: My bell came with a scratch. What now\?, "),
    ],
)
@pytest.mark.parametrize("more", [{}, {"count": 3}])
def test_a_group_that_no_row_has_is_told_with_those_there_are(tmp_path: Path, source: dict[str, str], said: str, more: dict[str, int]) -> None:
    rows = [row | {"thing": thing} for row, thing in zip(ROWS, THINGS, strict=True)]
    with pytest.raises(SourceError, match=said):
        prepared(tmp_path, rows, Holdout(groups=("radio", "rado") if source else ("rado",), **more), source=source, near_duplicate=None)


def test_share_and_count_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match=r"give one of share \(0\.5\) and count \(4\)"):
        Holdout(share=0.5, count=4)
    assert Holdout.model_validate(Holdout(count=4).model_dump()).count == 4, "what is kept of a config is a config"


def test_nothing_like_a_held_out_pair_is_trained_on(tmp_path: Path) -> None:
    asked = [f"Please write a short poem of exactly {n} lines on the sea in winter, without rhyme" for n in ("three", "four", "five", "six", "seven", "eight")]
    rows = [*ROWS, *({"prompt": ask, "response": f"{thing} {thing} waves, {thing}."} for ask, thing in zip(asked, THINGS, strict=False))]
    holdout = Holdout(count=6)
    found = prepared(tmp_path, rows, holdout, near_duplicate=None)
    assert found.funnel.straddling and accounted(found)
    assert straddling(found.train, found.held_out, holdout) == {}
    kept = prepared(tmp_path, rows, Holdout(count=6, near_duplicate=None), near_duplicate=None)
    assert straddling(kept.train, kept.held_out, holdout), "without the check they do stand on both sides"


def test_overlap_tells_how() -> None:
    index = Overlap(["The quick brown fox jumps over the lazy dog near the river bank today"], 0.7, shared_run=6)
    assert index.why("the QUICK brown fox, jumps over the lazy dog near the river bank today!") == "has the same words"
    assert index.why("He said the quick brown fox jumps over a stile, and left") == "shares a run of 6 words"
    assert (
        Overlap(["The quick brown fox jumps over the lazy dog near the river bank today"], 0.7)
        .why("The quick brown fox jumps over the lazy dog near the river bank tonight")
        .startswith("is a near-duplicate")
    )
    assert index.why("Nothing like it at all") == ""


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no row"),
        ([{"prompt": "", "response": ""}], r"none of the 1 tuning pairs passes cleaning; the first, d\.jsonl:1: its instruction is empty"),
        ([[1]], r"the only one of the rows of tuning data is not usable: d\.jsonl:1: the element is a number, not an object"),
        (ROWS[:1], "the split leaves 0 pairs to train on and 1 held out"),
    ],
)
def test_data_that_leaves_nothing_is_an_error_that_says_why(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        prepared(tmp_path, rows)


@pytest.mark.parametrize(("path", "what"), [("runs/garden", "is a run directory"), ("runs", "holds run directories")])
def test_a_run_is_for_train_and_not_for_tune(tmp_path: Path, path: str, what: str) -> None:
    write_run(tmp_path / "runs" / "garden", list(made_up(30)))
    with pytest.raises(SourceError, match=f"{path} {what}, which 'train' takes and 'tune' does not; to tune on what a run chose, name its pairs.jsonl"):
        prepare((PairSource(path=path),), CleanConfig(), Holdout(), tmp_path)
    named = PairSource(path="runs/garden/pairs.jsonl", prompt="prompt", response="chosen")
    assert prepare((named,), CleanConfig(near_duplicate=None), Holdout(near_duplicate=None), tmp_path).train


@pytest.mark.parametrize(
    ("columns", "keys"), [({"prompt": "reply", "response": "reply"}, "'prompt' and 'response'"), ({"prompt": "response"}, "'prompt' and 'response'")]
)
def test_two_keys_that_name_one_column_are_refused(columns: dict[str, str], keys: str) -> None:
    with pytest.raises(ValueError, match=f"{keys} name the same column"):
        PairSource(path="d.csv", **columns)  # type: ignore[arg-type]


def test_both_sides_and_what_was_left_out_are_written(tmp_path: Path) -> None:
    found = prepared(tmp_path, [*ROWS, ROWS[0], {"prompt": 1}], near_duplicate=None)
    files = {path.name: path.read_text(encoding="utf-8").splitlines() for path in write_prepared(found, tmp_path / "out")}
    assert [len(files[name]) for name in ("train.jsonl", "held_out.jsonl", "dropped.jsonl", "rejected_rows.jsonl")] == [9, 3, 1, 1]
    assert json.loads(files["dropped.jsonl"][0])["reason"] == "has the same words as d.jsonl:1"
    assert json.loads("".join(files["funnel.json"]))["train"] == 9
    again = prepare((PairSource(path="out/train.jsonl"),), CleanConfig(near_duplicate=None), Holdout(share=0.5, near_duplicate=None), tmp_path)
    assert again.funnel.pairs == 9, "what was written can be read again"


def test_the_digest_is_of_what_is_trained_on_and_held_out(tmp_path: Path) -> None:
    one = prepared(tmp_path, ROWS, near_duplicate=None)
    assert one.sha256 == prepared(tmp_path, ROWS, near_duplicate=None).sha256 != prepared(tmp_path, ROWS[1:], near_duplicate=None).sha256


def test_split_needs_both_sides() -> None:
    pairs = [Pair(f"p{i}", "r", f"p{i}", "s") for i in range(3)]
    with pytest.raises(SourceError, match="both are needed"):
        split(pairs, Holdout(share=0.0))


def test_the_record_of_an_expert_tells_a_guideline_from_another() -> None:
    first, second = list(load_domain("safety", Path()).categories)[:2]
    data = (PairSource(path="p.jsonl"),)
    records = [load_prompting(TuneConfig(task="respond", domain="safety", category=c, data=data, out="o"), Path()).record() for c in (first, second, first)]
    assert records[0] == records[2] != records[1] and records[0]["template_digest"] == records[1]["template_digest"]
