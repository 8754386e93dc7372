"""Splits: shares are met, clusters stay whole, and only seed and content decide."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safer_instruct.errors import ConfigError
from safer_instruct.export.splits import assign, parse_splits

Pairs = list[dict[str, str]]


def pairs(count: int) -> Pairs:
    return [{"prompt": f"prompt {i}", "rejected": f"text {i}"} for i in range(count)]


def test_shares_are_read_by_name() -> None:
    assert parse_splits(["test=0.1", "validation=0.05"]) == {"test": 0.1, "validation": 0.05}
    assert parse_splits([]) == {}


@pytest.mark.parametrize("given_", [["test"], ["test=1"], ["test=0"], ["test=nan"], ["train=0.5"], ["Test=0.1"], ["a/b=0.1"], ["test=0.1", "test=0.2"]])
def test_what_is_no_split_is_told_how_to_write_one(given_: list[str]) -> None:
    with pytest.raises(ConfigError, match="write NAME=SHARE"):
        parse_splits(given_)


def test_something_must_be_left_to_train_on() -> None:
    with pytest.raises(ConfigError, match="leave nothing for 'train'"):
        parse_splits(["a=0.5", "b=0.5"])


def test_shares_are_met_to_the_pair_where_no_two_are_alike() -> None:
    assert assign(lambda: pairs(200), {"test": 0.1, "validation": 0.25}, 0).counts == {"train": 130, "test": 20, "validation": 50}


def test_a_split_that_would_be_empty_is_refused() -> None:
    with pytest.raises(ConfigError, match="'test' of 3 pairs in 3 clusters would be empty"):
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
