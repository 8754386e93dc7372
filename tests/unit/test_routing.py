"""Texts without a category: by keywords and by likeness in meaning, what reaches none of them, and what a run's identity depends on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safer_instruct.config import RunConfig, SourceConfig
from safer_instruct.domain import Category, Domain, load_domain
from safer_instruct.errors import ConfigError
from safer_instruct.routing import Router, open_router, route_record
from safer_instruct.settings.route import RouteConfig

TEXTS = {
    "garden": "The early peas want a string to climb on, and the beds near the wall are dug over before the seeds go in.",
    "kitchen": "Fry the onions in butter until they are soft, then add the flour and stir until the sauce is smooth.",
    "money": "The bank raised the interest on our loan again, so the mortgage takes half of what we earn every month.",
}
WORDS = {"garden": ("seed*", "bed near", "beds near", "dug"), "kitchen": ("fry", "onion*", "sauce"), "money": ("bank", "loan*", "mortgage*")}
DEFINITIONS = {
    "garden": "Growing vegetables and flowers in a garden: seeds, beds, soil and water.",
    "kitchen": "Cooking in a kitchen: frying onions, baking, sauces, recipes with butter and flour.",
    "money": "Money matters: banks, loans, interest, mortgages and savings.",
}


def domain(*, keywords: dict[str, tuple[str, ...]] | None = None) -> Domain:
    categories = {
        name: Category(definition=said, guideline="Be kind.", criteria=("Is it kind?",), keywords=(keywords or {}).get(name, ()))
        for name, said in DEFINITIONS.items()
    }
    return Domain(name="made", description="Made for a test.", categories=categories)


def router(base: Path, *, of: Domain | None = None, **options: Any) -> Router:
    found = open_router(SourceConfig(path="x", route=RouteConfig.model_validate_json(json.dumps(options))), of or domain(), base)
    assert found is not None
    return found


@pytest.mark.parametrize("by", [{"by": "keywords", "keywords": WORDS}, {"by": "embedding"}], ids=["keywords", "embedding"])
def test_texts_go_to_the_category_that_they_are_of(tmp_path: Path, by: dict[str, Any]) -> None:
    if by["by"] == "embedding":
        pytest.importorskip("wordllama")
    to = router(tmp_path, **by)
    for category, text in TEXTS.items():
        name, verdict = to.route(text)
        assert (name, verdict.passed, verdict.name) == (category, True, "collect.route") and verdict.score is not None and verdict.score > 0.1


def test_keywords_are_whole_words_but_for_those_with_a_star_and_each_counts_once(tmp_path: Path) -> None:
    to = router(tmp_path, by="keywords", keywords={"garden": ["pea", "Green Bean*"], "kitchen": ["x"], "money": ["y"]})
    scores = [to.route(text)[1].score for text in ("peanut", "A pea, a PEA.", "green, beanstalk", "greenbeans", "pea and green-beans")]
    assert scores == [0, 1, 1, 0, 2]


def test_what_reaches_no_category_fails_with_the_score_and_the_nearest(tmp_path: Path) -> None:
    name, verdict = router(tmp_path, by="keywords", keywords=WORDS, least=2).route("We fry nothing today.")
    assert name == "kitchen" and not verdict.passed and verdict.score == 1
    assert verdict.reason == "belongs to no category: the nearest is 'kitchen' (keywords 1, below 2)"


def test_what_two_categories_share_goes_to_the_first_or_fails_where_a_lead_is_asked_for(tmp_path: Path) -> None:
    text = "Take the seeds to the bank."
    assert router(tmp_path, by="keywords", keywords=WORDS).route(text)[0] == "garden"
    name, verdict = router(tmp_path, by="keywords", keywords=WORDS, lead=1).route(text)
    assert name == "garden" and verdict.reason == "stands between 'garden' (keywords 1) and 'money' (1): the lead is below 1"


def test_keywords_of_the_domain_file_are_taken_where_the_config_has_none(tmp_path: Path) -> None:
    assert router(tmp_path, of=domain(keywords=WORDS), by="keywords").route(TEXTS["money"])[0] == "money"
    with pytest.raises(ConfigError, match="no keywords for garden, money; list them"):
        router(tmp_path, of=domain(keywords={"kitchen": ("fry",)}), by="keywords")
    with pytest.raises(ConfigError, match="has no category 'cellar'; it has: garden, kitchen, money"):
        router(tmp_path, by="keywords", keywords={**WORDS, "cellar": ["wine"]})


def test_labelled_texts_move_the_means_and_a_broken_one_is_an_error_with_its_line(tmp_path: Path) -> None:
    pytest.importorskip("wordllama")
    said = "It took forever and nobody picked up the phone."
    rows = [{"text": "Nobody picks up the phone and it takes forever.", "category": "money"}]
    (tmp_path / "shown.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    plain, shown = router(tmp_path, by="embedding"), router(tmp_path, by="embedding", examples="shown.jsonl")
    assert shown.route(said)[0] == "money" and (shown.route(said)[1].score or 0) > (plain.route(said)[1].score or 0)
    (tmp_path / "shown.jsonl").write_text('{"text": "x", "category": "cellar"}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"shown\.jsonl:1: not a text of one of garden, kitchen, money: its category is 'cellar'"):
        router(tmp_path, by="embedding", examples="shown.jsonl")


def test_odd_texts_are_routed_like_others(tmp_path: Path) -> None:
    pytest.importorskip("wordllama")
    for text in ("", "\u200b", "\ud800 \0", "x" * 100_000):
        assert not router(tmp_path, by="keywords", keywords=WORDS).route(text)[1].passed
        name, verdict = router(tmp_path, by="embedding").route(text)
        assert name in TEXTS and verdict.score is not None and -1 <= verdict.score <= 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"route": {"by": "keywords"}, "category": "x"}, "leave out 'category' and 'category_column'"),
        ({"route": {"by": "keywords", "examples": "x"}}, "'examples' is for 'by: embedding'"),
        ({"route": {"by": "embedding", "keywords": {"a": ("b",)}}}, "'keywords' is for 'by: keywords'"),
        ({"route": {"by": "keywords", "keywords": {"a": ("*",)}}}, "should match pattern"),
    ],
)
def test_what_does_not_go_together_is_an_error(source: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SourceConfig.model_validate({"path": "x", **source})


def test_what_routing_depends_on_is_part_of_a_run_and_of_no_other(tmp_path: Path) -> None:
    plain = RunConfig.model_validate({"domain": "civility", "source": {"path": "x"}, "models": {"inducer": {"model": "scripted:"}}})
    what, _ = plain.parted()
    assert what["source"]["route"] is None and what["source"]["web"] is None and route_record(open_router(plain.source, domain(), tmp_path)) == {}
    source = SourceConfig(path="x", route=RouteConfig(by="keywords"))
    digests = [
        route_record(open_router(source, domain(keywords={**WORDS, "money": words}), tmp_path))["route_sha256"] for words in (("bank",), ("bank",), ("banks",))
    ]
    assert digests[0] == digests[1] != digests[2]
    assert "keywords" not in load_domain("civility").model_dump_json(), "an old run goes on: a domain's digest is what it was"
