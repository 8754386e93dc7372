"""Domains are files: the shipped ones hold what they promise, and a broken one is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from safer_instruct.domain import Category, Domain, load_domain, shipped_domains
from safer_instruct.errors import ConfigError
from safer_instruct.templates import load_template

pytestmark = pytest.mark.filterwarnings("error")
MINIMAL = "name: x\ndescription: y\ncategories:\n  main: {definition: d, guideline: g, criteria: [q]}\n"


def written(folder: Path, text: str) -> Domain:
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return load_domain("mine.yaml", folder)


@pytest.mark.parametrize("name", shipped_domains())
def test_every_shipped_domain_loads_under_its_own_name_and_can_be_verified_both_ways(name: str) -> None:
    domain = load_domain(name)
    assert domain.name == name
    for category in domain.categories.values():
        assert category.criteria and category.contrast, "shipped domains serve judges and scorers alike"
        assert all(question.rstrip(" )").endswith(("?", ".")) for question in category.criteria)


def test_civility_and_safety_are_shipped() -> None:
    assert {"civility", "safety"} <= set(shipped_domains())


def test_safety_has_exactly_the_papers_four_categories() -> None:
    assert set(load_domain("safety").categories) == {"hate", "self-harm", "sexual", "illegal"}


def test_safety_holds_no_example_texts() -> None:
    assert all(category.examples == () for category in load_domain("safety").categories.values())


def test_civility_shows_the_scorer_at_least_four_pairs() -> None:
    assert len(load_domain("civility").category("support").examples) >= 4


@pytest.mark.parametrize("name", shipped_domains())
def test_the_guideline_of_each_category_reaches_the_expert(name: str) -> None:
    domain = load_domain(name)
    for category in domain.categories.values():
        system = load_template("respond").render(domain=domain, category=category)
        assert domain.expert in system and category.guideline in system


def test_an_unknown_category_is_told_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match="domain 'safety' has no category 'hatred'; it has: hate, self-harm, sexual, illegal"):
        load_domain("safety").category("hatred")


def test_a_domain_of_ones_own_needs_four_keys_and_gets_the_rest(tmp_path: Path) -> None:
    domain = written(tmp_path, MINIMAL)
    assert list(domain.categories) == ["main"] and domain.expert and "do not train" in domain.misuse
    assert domain.category("main") == Category(definition="d", guideline="g", criteria=("q",))


def test_categories_keep_the_order_of_the_file(tmp_path: Path) -> None:
    more = "".join(f"  {name}: {{definition: d, guideline: g, criteria: [q]}}\n" for name in ("zebra", "apple"))
    assert list(written(tmp_path, MINIMAL + more).categories) == ["main", "zebra", "apple"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("criteria: [q]", "", "give 'criteria' (for a judge) or 'contrast' (for a model that scores), or both"),
        ("criteria: [q]", "criteria: []", "give 'criteria'"),
        ("name: x", "name: Not A Name", "'name'"),
        ("name: x", "name: ../x", "'name'"),
        ("definition: d", "definition: ''", "'categories.main.definition'"),
        ("guideline: g, ", "", "'categories.main.guideline' is missing"),
        ("criteria: [q]", "contrast: {good: a}", "'categories.main.contrast.bad' is missing"),
        ("criteria: [q]", "criteria: ['']", "'categories.main.criteria.0'"),
        ("criteria: [q]", "criteria: [q], guidelines: g", "did you mean 'guideline'?"),
    ],
)
def test_an_incomplete_domain_is_refused_with_what_it_lacks(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, MINIMAL.replace(old, new))
    assert said in str(caught.value) and "mine.yaml" in str(caught.value)


def test_a_domain_needs_a_category(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'categories'"):
        written(tmp_path, "name: x\ndescription: y\ncategories: {}\n")


def test_a_missing_domain_is_told_with_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="domain 'civillity'") as caught:
        load_domain("civillity", tmp_path)
    assert all(name in str(caught.value) for name in shipped_domains()) and str(tmp_path) in str(caught.value)
