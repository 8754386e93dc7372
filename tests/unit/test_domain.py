"""Domains are files: the shipped ones hold what they promise, and a broken one is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from safer_instruct.config import FilterConfig
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
        shown = (domain.expert, category.guideline, category.refuse, category.help) if domain.direction == "rejected" else ()
        assert all(part in system for part in shown) and (shown or not system.strip())


def test_an_unknown_category_is_told_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match="domain 'safety' has no category 'hatred'; it has: hate, self-harm, sexual, illegal"):
        load_domain("safety").category("hatred")


def test_a_domain_of_ones_own_needs_four_keys_and_gets_the_rest(tmp_path: Path) -> None:
    domain = written(tmp_path, MINIMAL)
    assert list(domain.categories) == ["main"] and domain.expert and "do not train" in domain.misuse
    assert domain.category("main") == Category(definition="d", guideline="g", criteria=("q",))


def test_a_file_is_read_by_its_path_whatever_its_name_and_the_bare_name_of_a_shipped_domain_is_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "civility-domain.yaml").write_text(MINIMAL.replace("name: x", "name: civility"))
    (tmp_path / "civility").write_text(MINIMAL)
    assert load_domain("civility-domain.yaml", tmp_path).description != load_domain("civility").description == load_domain("civility", tmp_path).description


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
        ("criteria: [q]", "criteria: ['Is it kind?', r, 'is it  kind?']", "'categories.main.criteria': 'is it  kind?' stands twice"),
        (
            "criteria: [q]",
            "criteria: [q], examples: [{prompt: p, chosen: same, rejected: 'same '}]",
            "'categories.main.examples.0': 'chosen' and 'rejected' say",
        ),
        ("  main:", '  "a b/../c\\e[31m":', "'a b/../c\u27e8U+001B\u27e9[31m' cannot name a category; use letters, digits, blanks"),
        ("  main:", '  "a\\nb":', "'a b' cannot name a category"),
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


# --- one domain that builds on another

BASE = """\
name: base
description: of the base
expert: You are the base.
verifiers: [{command: [grep, -q, x]}]
categories:
  one: {definition: d1, guideline: g1, criteria: [q1], contrast: {good: a, bad: b}}
  two: {definition: d2, guideline: g2, criteria: [q2]}
"""


def extended(folder: Path, text: str) -> Domain:
    (folder / "base.yaml").write_text(BASE, encoding="utf-8")
    return written(folder, f"name: x\nextends: base.yaml\n{text}")


def test_what_a_file_leaves_out_comes_from_what_it_extends(tmp_path: Path) -> None:
    domain, base = extended(tmp_path, ""), load_domain("base.yaml", tmp_path)
    assert (domain.name, domain.description, domain.expert) == ("x", "of the base", "You are the base.")
    assert domain.categories == base.categories and domain.verifiers == base.verifiers


def test_categories_are_merged_key_by_key_added_and_taken_away(tmp_path: Path) -> None:
    domain = extended(tmp_path, "categories:\n  one: {guideline: mine}\n  two: null\n  three: {definition: d3, guideline: g3, criteria: [q3]}\n")
    assert list(domain.categories) == ["one", "three"]
    one = domain.category("one")
    assert (one.definition, one.guideline, one.criteria) == ("d1", "mine", ("q1",)) and one.contrast is not None


def test_a_domain_may_extend_a_shipped_one_and_that_another(tmp_path: Path) -> None:
    domain = written(tmp_path, "name: mine\nextends: safety-ailuminate\ncategories: {sexual: null}\n")
    assert len(domain.categories) == 11 and domain.category("hate") == load_domain("safety").category("hate")


def test_programs_are_looked_for_beside_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "base.yaml").write_text(BASE.replace("command: [grep, -q, x]", 'python: "check.py:f"'), encoding="utf-8")
    domain = written(tmp_path, "name: x\nextends: a/base.yaml\ncategories: {one: {verifiers: [{python: 'own.py:g'}]}}\n")
    assert [(p.title, p.folder) for p in domain.programs("one")] == [("f", tmp_path / "a"), ("g", tmp_path)]


def test_a_circle_of_domains_is_refused_and_shown(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("name: o\nextends: mine.yaml\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"'extends' goes round in a circle: mine.yaml -> other.yaml -> mine.yaml"):
        written(tmp_path, "name: x\nextends: other.yaml\n")
    with pytest.raises(ConfigError, match=r"circle: mine.yaml -> mine.yaml"):
        written(tmp_path, "name: x\nextends: mine.yaml\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("categories:\n  one: {guidelin: g}\n", "mine.yaml:4: unknown key 'categories.one.guidelin'; did you mean 'guideline'?"),
        ("categories:\n  new: {guideline: g}\n", "mine.yaml:4: the key 'categories.new.definition' is missing"),
        ("categories: {one: null, two: null}\n", "'categories'"),
        ("categories: [one]\n", "'categories'"),
        ("direction: sideways\n", "mine.yaml:3: 'direction'"),
        ("languages: [english]\n", "'languages': 'english' is no code of a language"),
    ],
)
def test_mistakes_are_told_in_the_file_that_makes_them(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        extended(tmp_path, text)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["mine", "mine.yaml", "mine.yml"])
def test_the_domain_file_that_init_writes_is_meant_where_its_name_is_told_in_short(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine-domain.yaml").write_text("name: mine", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"neither a file at .*; did you mean 'mine-domain.yaml'?"):
        load_domain(name, tmp_path)


def test_a_missing_base_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"domain 'gone\.yaml': neither a file"):
        written(tmp_path, "name: x\nextends: gone.yaml\n")


def test_the_ailuminate_taxonomy_has_twelve_hazards_and_no_example_texts() -> None:
    domain = load_domain("safety-ailuminate")
    assert len(domain.categories) == 12 and "illegal" not in domain.categories
    assert all(category.examples == () for category in domain.categories.values())


def test_languages_of_the_domain_hold_where_the_config_names_none() -> None:
    assert FilterConfig().in_languages(("de",)).prompt == {"language": {"languages": ["de"]}}
    assert FilterConfig(prompt={"language": {"mode": "flag"}}).in_languages(("de",)).prompt == {"language": {"mode": "flag", "languages": ["de"]}}
    for own in ({"language": {"languages": ["fr"]}}, {"language": None}, {"language": {"path": "mine.py"}}, None):
        assert FilterConfig(prompt=own).in_languages(("de",)).prompt == own
