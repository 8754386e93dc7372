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


def row(count: int, *, first: int = 0) -> list[str]:
    """So many words of four characters, none twice."""
    return [f"w{number:03d}" for number in range(first, first + count)]


def saying(said: list[str], times: int, count: int) -> str:
    """A text of so many words that says some of them so often, with others between."""
    pieces = [[*said, f"x{at:03d}"] for at in range(times)]
    spoken = [word for piece in pieces for word in piece]
    return " ".join([*spoken, *row(count - len(spoken), first=500)])


def lines(new: int, again: int, said: str = "w{:03d}") -> str:
    """Lines of which the last repeat the first."""
    return "\n".join(said.format(at if at < new else at - new) for at in range(new + again))


LONGER = "the {:03d} beds near the southern wall"
NO_LINES: dict[str, Any] = {"max_repeated_lines": 1.0, "max_repeated_line_chars": 1.0}
NO_RUNS: dict[str, Any] = {"max_repeated_5": 1.0, "max_repeated_10": 1.0}
BORDERS = [
    ("gopher", "pea " * 10, "pea " * 9 + "of", {}),
    ("gopher", "vegetables " * 10, "vegetables " * 9 + "greenhouses", {}),
    ("gopher", " ".join(["peas..."] + ["peas"] * 9), " ".join(["peas..."] * 2 + ["peas"] * 8), {}),
    ("gopher", "\n".join(["*early peas"] * 9 + ["late peas"]), "\n".join(["*early peas"] * 10), {}),
    ("gopher", "\n".join(["early peas..."] * 3 + ["late peas"] * 7), "\n".join(["early peas..."] * 4 + ["late peas"] * 6), {"max_symbols": 1.0}),
    ("gopher", "peas peas peas peas 2024", "peas peas peas 2024 2025", {}),
    ("gopher", "peas " * 48 + "that have", "peas " * 49 + "that", {}),
    ("gopher", "peas " * 49, "peas " * 50, {}),
    ("gopher-repetition", lines(7, 3), lines(6, 4), {**NO_RUNS, "max_repeated_line_chars": 1.0}),
    ("gopher-repetition", lines(8, 2), lines(7, 3), NO_RUNS),
    ("gopher-repetition", saying(row(2), 5, 50), saying(row(2), 6, 50), NO_RUNS),
    ("gopher-repetition", saying(row(3), 3, 50), saying(row(3), 4, 50), NO_RUNS | {"max_top_2": 1.0}),
    ("gopher-repetition", saying(row(4), 2, 50), saying(row(4), 3, 50), NO_RUNS | {"max_top_2": 1.0, "max_top_3": 1.0}),
    ("gopher-repetition", saying(row(2), 9, 49), saying(row(2), 9, 50), NO_RUNS),
    ("gopher-repetition", saying(row(6), 2, 40), saying(row(7), 2, 40), {"max_repeated_10": 1.0}),
    ("gopher-repetition", saying(row(10), 2, 100), saying(row(11), 2, 100), {"max_repeated_5": 1.0, "max_top_4": 1.0}),
    (
        "fineweb",
        "\n".join([PEAS] * 3 + [f"{PEAS[:-1]} {at}" for at in range(22)]),
        "\n".join([PEAS] * 2 + [f"{PEAS[:-1]} {at}" for at in range(23)]),
        {"max_repeated_chars": 1.0},
    ),
    ("fineweb", lines(9, 1, LONGER), lines(17, 3, LONGER), {"min_punctuated": 0.0}),
    ("fineweb", "\n".join(["Peas."] * 2 + [PEAS]), "\n".join(["Peas."] * 3 + [PEAS]), {"max_repeated_chars": 1.0}),
    ("fineweb", "\n".join(["a" * 30] * 3), "\n".join(["a" * 29] * 3), {"max_repeated_chars": 1.0, "min_punctuated": 0.0}),
    ("fineweb", "Peas\nBeans", "Peas\nBeans\nOnions", {}),
    ("c4", "Peas.\nBeans!\nOnions", "Peas.\nBeans\nOnions", {"min_sentence_lines": 2 / 3}),
    ("c4", "Peas\nBeans", "Peas\nBeans\nOnions", {"min_sentence_lines": 0.5}),
]


@pytest.mark.parametrize(("name", "last_that_passes", "first_that_does_not", "options"), BORDERS, ids=[f"{name}-{at}" for at, (name, *_) in enumerate(BORDERS)])
def test_each_bound_may_be_reached_and_not_passed(name: str, last_that_passes: str, first_that_does_not: str, options: dict[str, Any]) -> None:
    assert verdict(name, last_that_passes, **options).reason == ""
    assert verdict(name, first_that_does_not, **options).reason != ""


@pytest.mark.parametrize(
    ("option", "least", "most"), [("min_alphabetic", 0, 1), ("max_bullets", 0, 1), ("min_stop_words", 0, None), ("stop_words_from", 0, None)]
)
def test_a_share_is_from_none_to_all_and_a_count_no_less_than_none(option: str, least: float, most: float | None) -> None:
    for value in (least, *([most] if most is not None else [])):
        assert verdict("gopher", PEAS, **{option: value}).name == "text.gopher"
    for value in (least - 1, *([most + 0.01] if most is not None else [])):
        with pytest.raises(ConfigError, match=option):
            verdict("gopher", PEAS, **{option: value})


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
