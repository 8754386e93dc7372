"""Filters of what crawls bring: each rule drops what it is made for, says why, and lets ordinary replies and passages pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safer_instruct.config import FilterConfig
from safer_instruct.errors import ConfigError
from safer_instruct.example import Example, Verdict
from safer_instruct.filters.registry import open_filters

ROOT = Path(__file__).parents[2]
ALL = ("gopher", "gopher-repetition", "c4", "fineweb")
PEAS = "In spring the beds near the wall warm up first, so that is where the early peas go. They want a string to climb on, and water once a week."


def verdict(name: str, text: str, **options: Any) -> Verdict:
    (check,) = open_filters(FilterConfig(text={name: options}, prompt=None), Path()).text
    return check.verdict(Example("a", text, "c", "f", 1))


FLAWED = [
    ("gopher", "a b c d e f g h i j", {}, "its words have 1.0 characters on average, not 3 to 10"),
    ("gopher", "https://a.example/1234567890 https://a.example/0987654321", {}, "characters on average"),
    ("gopher", "Peas ... beans ... and more ... to come", {}, "has 0.33 number signs and ellipses per word, more than 0.1"),
    ("gopher", "- early peas\n- late beans\n* red onions", {}, "100% of its lines begin with a bullet, more than 90%"),
    ("gopher", "The peas in spring...\nThe beans that nobody wanted to have at all\nThe onions of the year", {}, "33% of its lines end in an ellipsis"),
    ("gopher", "peas 2024 12,50 2025 13,50 2026 14,50", {}, "14% of its words have a letter, fewer than 80%"),
    ("gopher", " ".join(f"keyword{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(60)), {}, "holds 0 of the commonest words of English"),
    ("gopher-repetition", "Read more here\nRead more here\nRead more here", {}, "67% of its lines stood before, more than 30%"),
    ("gopher-repetition", "early peas early peas early peas early peas are nice", {"top_from": 0}, "of its characters are in the same 2 words, more than 20%"),
    ("gopher-repetition", f"{PEAS} And so on. {PEAS}", {"max_repeated_10": 1.0}, "of its characters are in runs of 5 words that stood before"),
    ("gopher-repetition", f"{PEAS} And so on. {PEAS}", {"max_repeated_5": 1.0}, "of its characters are in runs of 10 words that stood before"),
    ("c4", "Please enable JavaScript to see the comments of this page.", {}, "speaks of Javascript"),
    ("c4", "By going on you accept our cookie policy and everything in it.", {}, "speaks of a policy: 'cookie policy'"),
    ("c4", "Lorem ipsum dolor sit amet, and so on and so on.", {}, "holds 'lorem ipsum'"),
    ("c4", "function peas() { return 3; }", {}, "holds a curly bracket"),
    ("c4", "Peas\nBeans\nOnions are sold out.", {"min_sentence_lines": 0.5}, "33% of its lines end as a sentence does, fewer than 50%"),
    ("fineweb", "Home of the early peas and of the beans\nShop of the early peas and of the beans\nBasket of the early peas", {}, "0% of its lines end in a"),
    ("fineweb", f"{PEAS}\nRead the rest of it here.\nRead the rest of it here.", {}, "of its characters are in lines that stood before, more than 10%"),
    ("fineweb", "Peas are green.\nBeans are long.\nOnions are red.", {}, "100% of its lines are shorter than 30 characters, more than 67%"),
]


@pytest.mark.parametrize(("name", "text", "options", "reason"), FLAWED, ids=[reason[:40] for *_, reason in FLAWED])
def test_a_rule_drops_what_it_is_made_for_and_says_why(name: str, text: str, options: dict[str, Any], reason: str) -> None:
    found = verdict(name, text, **options)
    assert not found.passed and found.name == f"text.{name}" and reason in found.reason and found.score is not None, found


@pytest.mark.parametrize("name", ALL)
def test_short_replies_and_passages_pass(name: str) -> None:
    fine = [
        PEAS,
        "No.",
        "Sure, why not?",
        "Bring it back on Monday!",
        f"{PEAS}\n\n- early peas, from March on\n- late peas, from May on",
        "Zu viel Wasser schadet.",
    ]
    assert [text for text in fine if not verdict(name, text).passed] == []


@pytest.mark.parametrize("corpus", ["civility-replies.jsonl", "overclaiming/texts.jsonl", "safety/texts.jsonl", "answers/texts.jsonl"])
def test_nearly_all_texts_that_people_wrote_pass_all_rules(corpus: str) -> None:
    texts = [json.loads(line)["text"] for line in (ROOT / "examples" / corpus).read_text("utf-8").splitlines()]
    dropped = [(found.name, found.reason) for text in texts for name in ALL if not (found := verdict(name, text)).passed]
    assert len(dropped) <= 1, dropped


@pytest.mark.parametrize("name", ALL)
def test_texts_without_a_word_pass_or_fail_without_an_error(name: str) -> None:
    for text in ("", " ", "\n\n\n", "\u200b", "- ", "...", "\0", "# " * 50, "\ud800"):
        assert not verdict(name, text).reason.startswith("raised "), text


@pytest.mark.parametrize("name", ALL)
def test_none_is_on_without_being_named_and_an_unknown_option_is_an_error(name: str) -> None:
    assert open_filters(FilterConfig(prompt=None), Path()).text == ()
    with pytest.raises(ConfigError, match="nothing_known"):
        open_filters(FilterConfig(text={name: {"nothing_known": 1}}, prompt=None), Path())
