"""Which pairs make the set: each check in its turn, on what the ones before it left, and none that was not asked for."""

from __future__ import annotations

import numpy as np
import pytest

from safer_instruct import choosing
from safer_instruct.choosing import Choice, Pair, choose_pairs, distinct_texts
from safer_instruct.errors import ConfigError
from safer_instruct.selectconfig import SelectConfig
from safer_instruct.settings.semantic import SemanticConfig

WAYS = [
    "the parcel to the island took three weeks and nobody said why",
    "a lamp that flickers whenever the lift goes by",
    "which paint keeps a fence from going green by the sea",
]


def pair(id_: str, prompt: str, margin: float | None, category: str = "a", chosen: str = "Ring us and we will look for it.") -> Pair:
    return Pair(id_, prompt, chosen, "Not my problem.", category, margin)


def dropped(choice: Choice) -> list[str]:
    """What drops each pair; '' for those that stay."""
    return [next((v.name for v in said if not v.passed), "") for said in choice.verdicts]


THREE = [pair(str(i), way, float(i)) for i, way in enumerate(WAYS)]
TWICE = [pair("low", WAYS[0], 0.5), pair("high", WAYS[0], 1.5), pair("other", WAYS[1], 0.1)]


def test_of_equal_pairs_the_one_with_the_larger_margin_stays_and_the_other_says_which() -> None:
    choice = choose_pairs(TWICE, SelectConfig())
    assert dropped(choice) == ["dedup.pair", "", ""] and choice.living() == [1, 2]
    assert choice.verdicts[0][0].reason == "is a near-duplicate of high, which is better or came first" and choice.verdicts[0][0].score == 1.0
    assert choice.clusters == ["low", "low", "other"] and choice.coverage is None
    assert dropped(choose_pairs(TWICE, SelectConfig(quality="none"))) == ["", "dedup.pair", ""]
    near = [Pair(id_, "a b c d", chosen, "r s", "x", margin) for id_, chosen, margin in (("low", "e f", 0.5), ("high", "e f g", 1.5))]
    assert choose_pairs(near, SelectConfig(near=0.3)).verdicts[0][0].score == 0.4444, "4 trigrams of 9, to four digits"
    unknown = [pair("none", WAYS[0], None), pair("bad", WAYS[0], -5.0)]
    assert dropped(choose_pairs(unknown, SelectConfig())) == ["dedup.pair", ""], "a margin that is not known is the worst"


def test_what_is_not_asked_for_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(name: str) -> None:
        raise AssertionError("no vectors are needed")

    monkeypatch.setattr(choosing, "load_embedder", loaded)
    for config in (SelectConfig(near=None), SelectConfig(near=None, target=3), SelectConfig(near=None, target=4)):
        assert choose_pairs(THREE, config).verdicts == [[], [], []]
    assert [[v.name for v in said] for said in choose_pairs(THREE, SelectConfig(contradictions=0.9)).verdicts] == [["dedup.pair", "contradiction"]] * 3
    for config in (SelectConfig(target=2), SelectConfig(semantic=0.9), SelectConfig(quotas={"a": 1.0})):
        with pytest.raises(AssertionError):
            choose_pairs(THREE, config)


def test_so_many_are_chosen_as_are_wanted_and_each_says_its_place() -> None:
    choice = choose_pairs([*THREE, *TWICE[:2]], SelectConfig(target=2, quality_weight=1.0))
    said = [next((v for v in verdicts if v.name == "select"), None) for verdicts in choice.verdicts]
    assert [v.score if v else "duplicate" for v in said] == ["duplicate", None, 1, "duplicate", 2]
    assert said[1] and said[1].reason == "is not among the 2 chosen of 3"
    assert choice.coverage is not None and 0 < choice.coverage < 1
    assert choose_pairs(THREE[:2], SelectConfig(target=1)).coverage != 0


def test_without_quality_the_margin_has_no_part_in_the_choice() -> None:
    prompts = [WAYS[0], f"{WAYS[0]} so far", f"{WAYS[0]} so far as anybody knows", WAYS[2]]
    alone = [pair(str(i), prompt, None) for i, prompt in enumerate(prompts)]
    for margins in ([9.0, 1.0, 1.0, 0.0], [0.0, 1.0, 9.0, 0.0]):
        pairs = [pair(str(i), prompt, margin) for i, (prompt, margin) in enumerate(zip(prompts, margins, strict=True))]
        config = SelectConfig(near=None, target=2, quality="none", quality_weight=1.0)
        assert choose_pairs(pairs, config).living() == choose_pairs(alone, config).living()
        assert 3 in choose_pairs(pairs, config).living(), "coverage alone decides"


def test_quotas_are_kept_and_one_for_a_category_without_pairs_is_an_error() -> None:
    pairs = [pair(f"{c}{i}", f"{way} {c}", 1.0, c, f"{c} {i}") for c in "ab" for i, way in enumerate(WAYS)]
    choice = choose_pairs(pairs, SelectConfig(near=None, target=3, quotas={"a": 2.0, "b": 1.0}))
    assert [pairs[i].category for i in choice.living()] == ["a", "a", "b"]
    assert len(choose_pairs(pairs, SelectConfig(near=None, quotas={"b": 1.0})).living()) == 3, "without a target as many as there are"
    with pytest.raises(ConfigError, match="names the category 'c', of which there is no pair; there are: a, b"):
        choose_pairs(pairs, SelectConfig(quotas={"c": 1.0}))


def test_duplicates_in_meaning_are_looked_for_among_those_that_are_left() -> None:
    pairs = [*TWICE, pair("again", f"{WAYS[1]} indeed", 2.0)]
    choice = choose_pairs(pairs, SelectConfig(near=0.99, semantic=0.9))
    assert dropped(choice) == ["dedup.pair", "", "dedup.semantic", ""]
    assert choice.clusters == ["low", "low", "other", "other"]
    assert choice.verdicts[2][-1].reason == "is a near-duplicate of again, which is better or came first"
    apart = [
        pair("one", WAYS[0], 1.0, chosen="The ferry was out of order."),
        pair("two", WAYS[0], 2.0, chosen="Paint it twice, in spring, on a dry day, and let it harden."),
    ]
    assert dropped(choose_pairs(apart, SelectConfig(near=None, semantic=0.95))) == ["dedup.semantic", ""]
    assert dropped(choose_pairs(apart, SelectConfig(near=None, semantic=0.95, semantic_of="pair"))) == ["", ""]


def test_texts_are_compared_in_meaning_only_where_that_is_asked_for_and_only_those_that_are_left() -> None:
    rows = [("1", WAYS[0], 1.0), ("2", WAYS[0], 2.0), ("3", f"indeed {WAYS[0]}", 3.0), ("4", WAYS[2], 0.0)]
    found = distinct_texts("text", rows, 0.99, SemanticConfig(text=0.9))
    assert [[(v.name, v.passed) for v in said] for said in found] == [
        [("dedup.text", False)],
        [("dedup.text", True), ("dedup.semantic.text", False)],
        [("dedup.text", True), ("dedup.semantic.text", True)],
        [("dedup.text", True), ("dedup.semantic.text", True)],
    ]
    for semantic in (None, SemanticConfig(text=None, prompt=0.9)):
        assert [len(said) for said in distinct_texts("text", rows, 0.99, semantic)] == [1] * 4
    assert distinct_texts("text", [], 0.99, SemanticConfig(text=0.9)) == []


def test_an_empty_set_stays_empty() -> None:
    assert choose_pairs([], SelectConfig(target=5)).verdicts == []
    assert np.isfinite(choose_pairs(THREE, SelectConfig(target=1)).coverage or 0)
