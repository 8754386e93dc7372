"""Splits: shares are met, clusters stay whole, and only seed and content decide."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import write_run

from safer_instruct.errors import ConfigError
from safer_instruct.example import Example
from safer_instruct.export import Options, export_pairs
from safer_instruct.export.splits import assign, parse_splits
from safer_instruct.tables import PAIR_COLUMNS

Pairs = list[dict[str, str]]


def pairs(count: int) -> Pairs:
    return [{"prompt": f"prompt {i}", "rejected": f"text {i}"} for i in range(count)]


def test_shares_are_read_by_name() -> None:
    assert parse_splits(["test=0.1", "validation=0.05"]) == {"test": 0.1, "validation": 0.05}
    assert parse_splits([]) == {}


@pytest.mark.parametrize(
    ("given_", "wrong"),
    [
        (["test"], "split 'test': it gives no share"),
        (["test="], "split 'test=': it gives no share"),
        (["test=a"], "split 'test=a': 'a' is no number"),
        (["test=1"], "split 'test=1': its share is 1"),
        (["test=0"], "its share is 0"),
        (["test=nan"], "its share is nan"),
        (["train=0.5"], "'train' is what is left"),
        (["Test=0.1"], "'Test' cannot name a split: small letters, digits and '_', a letter first"),
        (["a/b=0.1"], "split 'a/b=0.1': 'a/b' cannot name a split"),
        (["=0.1"], "'' cannot name a split"),
        (["test=0.1", "test=0.2"], "split 'test=0.2': 'test' is given twice"),
    ],
)
def test_what_is_no_split_is_told_with_what_is_wrong_and_how_to_write_one(given_: list[str], wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_splits(given_)
    assert wrong in str(caught.value) and "; write NAME=SHARE with a share between 0 and 1, such as test=0.1; 'train' gets" in str(caught.value)


def test_something_must_be_left_to_train_on() -> None:
    with pytest.raises(ConfigError, match="leave nothing for 'train'"):
        parse_splits(["a=0.5", "b=0.5"])


def test_shares_are_met_to_the_pair_where_no_two_are_alike() -> None:
    assert assign(lambda: pairs(200), {"test": 0.1, "validation": 0.25}, 0).counts == {"train": 130, "test": 20, "validation": 50}


def test_a_split_that_would_be_empty_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the split 'test' would be empty: 0\.1 of 3 pairs is less than one; give a larger share"):
        assign(lambda: pairs(3), {"test": 0.1}, 0)
    alike = [{"prompt": "same", "rejected": str(i)} for i in range(10)]
    with pytest.raises(ConfigError, match="10 pairs in 1 clusters"):
        assign(lambda: alike, {"test": 0.3}, 0)
    assert assign(lambda: [], {"test": 0.1}, 0).counts == {"train": 0, "test": 0}


def test_links_through_others_hold_and_case_and_spaces_do_not_part() -> None:
    linked = [("a", "1"), ("A ", "2"), ("b", "2"), ("b", "3")]
    rows = [{"prompt": p, "rejected": r} for p, r in linked] + pairs(12)
    for seed in range(20):
        assert len({assign(lambda: rows, {"test": 0.5}, seed).of(i) for i in range(4)}) == 1


def test_the_seed_divides_otherwise_and_the_order_of_clusters_does_not() -> None:
    rows = pairs(100)
    taken = [
        {row["prompt"] for i, row in enumerate(rows) if found.of(i) == "test"} for found in (assign(lambda: rows, {"test": 0.2}, seed) for seed in (0, 0, 1))
    ]
    assert taken[0] == taken[1] != taken[2]
    shuffled = random.Random(0).sample(rows, len(rows))
    found = assign(lambda: shuffled, {"test": 0.2}, 0)
    assert {row["prompt"] for i, row in enumerate(shuffled) if found.of(i) == "test"} == taken[0]


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("stuvwxyz")), min_size=1, max_size=40), st.integers(0, 5))
def test_no_prompt_and_no_text_stands_in_two_splits(drawn: list[tuple[str, str]], seed: int) -> None:
    rows = [{"prompt": p, "rejected": r} for p, r in drawn]
    try:
        found = assign(lambda: rows, {"test": 0.3}, seed)
    except ConfigError:
        return
    for column in ("prompt", "rejected"):
        sides: dict[str, set[str]] = {}
        for i, row in enumerate(rows):
            sides.setdefault(row[column], set()).add(found.of(i))
        assert all(len(side) == 1 for side in sides.values())
    assert found.counts["test"] <= round(0.3 * len(rows))


WORDS = ["the", "kettle", "broke", "after", "one", "week", "and", "nobody", "at", "your", "shop", "answered", "me"]


def test_near_duplicates_stay_together_where_they_are_asked_for() -> None:
    """Two prompts that differ in one word of thirteen: 8 of 14 trigrams, a similarity of 0.57."""
    like = [" ".join([*WORDS[:6], odd, *WORDS[7:]]) for odd in ("and", "but")]
    rows = [{"prompt": like[0], "rejected": "one"}, *pairs(20), {"prompt": like[1], "rejected": "other"}]
    apart = [{found.of(0), found.of(21)} for found in (assign(lambda: rows, {"test": 0.5}, seed) for seed in range(20))]
    together = [{found.of(0), found.of(21)} for found in (assign(lambda: rows, {"test": 0.5}, seed, near=0.5) for seed in range(20))]
    assert any(len(sides) == 2 for sides in apart) and all(len(sides) == 1 for sides in together)


@pytest.mark.parametrize("near", [0.0, 0.5])
def test_the_source_text_stands_in_the_column_that_is_named_and_what_was_written_links_nothing(near: float) -> None:
    alike = [{**row, "rejected": "I do not know.", "chosen": " ".join(WORDS)} for row in pairs(10)]
    others = [{"prompt": f"other {i}", "rejected": "I do not know.", "chosen": f"text {i}"} for i in range(10)]
    assert assign(lambda: [*alike, *others], {"test": 0.5}, 0, near, source="chosen").counts == {"train": 10, "test": 10}
    assert assign(lambda: others, {"test": 0.3}, 0, near, source="chosen").counts == {"train": 7, "test": 3}
    with pytest.raises(ConfigError, match="10 pairs in 1 clusters"):
        assign(lambda: alike, {"test": 0.3}, 0, near, source="chosen")


@pytest.mark.parametrize("near", [0.0, 0.5])
def test_a_refusal_that_many_twins_have_joins_no_families(near: float) -> None:
    rows = [{**row, "id": str(i), "twin_of": ""} for i, row in enumerate(pairs(20))]
    twins = [{"prompt": f"twin {i}", "rejected": "I am sorry, but I cannot help with that.", "id": f"{i}~twin", "twin_of": str(i)} for i in range(20)]
    found = assign(lambda: [*twins, *rows], {"test": 0.25}, 0, near)
    assert found.counts == {"train": 30, "test": 10} and all(found.of(i) == found.of(20 + i) for i in range(20))


def made(chosen: str = "Gladly {i}, number {i} of all.", rejected: str = "") -> list[Example]:
    """Pairs whose source texts are nearly equal by two, and nothing else alike."""
    texts = [" ".join([*(f"word{i // 2}of{n}" for n in range(30)), f"last{i}"]) for i in range(40)]
    begun = [Example(f"e{i}", text, "order", "texts.jsonl", i + 1, prompt=f"Prompt {i * 7919} of {i * 104729}?") for i, text in enumerate(texts)]
    return [replace(e, chosen=chosen.format(i=i, text=e.text), rejected=rejected.format(i=i)) for i, e in enumerate(begun)]


@pytest.mark.parametrize(
    ("examples", "summary"),
    [
        (made(), {}),
        (made("{text}", "It depends."), {"domain": {"direction": "chosen"}}),
        (made(rejected="You could have read number {i}."), {"rejected": {"form": "matched"}}),
        (made(rejected="It depends."), {"rejected": {"form": "student"}}),
    ],
    ids=["rejected", "chosen", "matched", "student"],
)
def test_pairs_of_nearly_the_same_source_text_leave_a_run_in_one_split(examples: list[Example], summary: dict[str, Any], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", examples, **summary)
    for seed in range(3):
        out = export_pairs(run, "jsonl", tmp_path / f"out{seed}", Options({"test": 0.5}, seed=seed))
        rows = [(json.loads(line), split) for split in out.splits for line in (out.path / f"{split}.jsonl").read_text("utf-8").splitlines()]
        place = {row["id"]: split for row, split in rows}
        assert out.splits == {"train": 20, "test": 20} and all(place[f"e{i}"] == place[f"e{i + 1}"] for i in range(0, 40, 2))
        assert all(list(row) == list(PAIR_COLUMNS) for row, _ in rows)
