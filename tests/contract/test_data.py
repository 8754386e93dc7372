"""The texts that ship: enough of them, distinct, and what is tested on is apart from what is tuned on."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import pytest

from safer_instruct.config import load_config, load_tune_config
from safer_instruct.domain import load_domain
from safer_instruct.tuning.pairs import whole_pairs
from safer_instruct.tuning.split import split

pytestmark = pytest.mark.filterwarnings("error")
ROOT = Path(__file__).parents[2]
RUN_OF_WORDS = 8


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (ROOT / name).read_text("utf-8").splitlines()]


CIVILITY, PLAIN, ROLES, GENERAL = (rows(f"examples/tune/{name}.jsonl") for name in ("civility", "civility-plain", "civility-roles", "general"))
CORPUS, LABELLED = rows("examples/civility-replies.jsonl"), rows("bench/data/civility-labelled.jsonl")
TUNES = sorted((ROOT / "examples").glob("tune-*.yaml"))


def texts(data: list[dict[str, str]], *columns: str) -> list[str]:
    return [row[column] for row in data for column in columns]


TUNING = texts(CIVILITY, "message", "ask", "rude", "good", "kind") + texts(PLAIN + ROLES, "ask", "rude", "kind") + texts(GENERAL, "instruction", "response")
TESTING = texts(CORPUS, "text") + texts(LABELLED, "prompt", "good", "bad")


def word_list(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def runs(text: str, length: int = RUN_OF_WORDS) -> set[int]:
    """Digests of all runs of `length` words."""
    found = word_list(text)
    return {hash(tuple(found[i : i + length])) for i in range(len(found) - length + 1)}


def shared(left: Iterable[str], right: Iterable[str]) -> list[str]:
    """Texts of `left` that share a run of words with any of `right`."""
    known = set[int]().union(*map(runs, right))
    return [text for text in left if runs(text) & known]


def test_there_are_enough_tuning_pairs() -> None:
    assert len(CIVILITY + PLAIN + ROLES) >= 300 and len(CIVILITY + PLAIN + ROLES + GENERAL) >= 600


@pytest.mark.parametrize(
    ("name", "data", "columns"),
    [
        ("civility", CIVILITY, ("message", "ask", "rude", "good", "kind")),
        ("civility-plain", PLAIN, ("ask", "rude", "kind")),
        ("civility-roles", ROLES, ("ask", "rude", "kind")),
        ("general", GENERAL, ("instruction", "response")),
        ("corpus", CORPUS, ("text",)),
        ("labelled", LABELLED, ("prompt", "good", "bad")),
    ],
)
def test_every_row_is_whole_and_no_text_stands_twice(name: str, data: list[dict[str, str]], columns: tuple[str, ...]) -> None:
    assert all(isinstance(row[column], str) and row[column].strip() == row[column] != "" for row in data for column in columns)
    for column in columns:
        twice = [text for text, n in Counter(" ".join(word_list(row[column])) for row in data).items() if n > 1]
        assert twice == [], f"{name}.{column}"


def test_no_text_stands_in_two_files() -> None:
    counts = Counter(" ".join(word_list(text)) for text in (*TUNING, *TESTING))
    assert [text for text, n in counts.items() if n > 1] == []


def test_trades_of_tuning_corpus_and_labelled_pairs_are_disjoint() -> None:
    files = {"tuning": CIVILITY + PLAIN + ROLES, "corpus": CORPUS, "labelled": LABELLED}
    trades = {name: {row["trade"].casefold() for row in data} for name, data in files.items()}
    assert all(trades.values())
    for one, two in combinations(trades, 2):
        assert trades[one] & trades[two] == set(), f"{one} and {two}"


def test_nothing_that_is_tested_on_shares_a_run_of_words_with_what_is_tuned_on() -> None:
    assert shared(TESTING, TUNING) == []


def test_the_examples_that_the_verifier_is_shown_stand_in_no_data() -> None:
    shown = [text for pair in load_domain("civility").category("support").examples for text in (pair.prompt, pair.chosen, pair.rejected)]
    assert shown and shared(shown, (*TUNING, *TESTING)) == []
    whole = {" ".join(word_list(text)) for text in (*TUNING, *TESTING)}
    assert not whole & {" ".join(word_list(text)) for text in shown}, "also those too short for a run"


def test_a_shared_run_is_found_and_a_shorter_one_is_not() -> None:
    eight = "one two three four five six seven eight"
    assert shared([f"zero {eight.upper()}, nine"], [f"and {eight}"]) != []
    assert shared([f"zero {eight[4:]} nine"], [f"and {eight}"]) == []


def test_the_corpus_names_things_at_a_length_that_says_something() -> None:
    assert sum(20 <= len(row["text"].split()) <= 80 for row in CORPUS) >= 80


def test_ids_are_unique() -> None:
    for data in (CORPUS, LABELLED):
        assert len({row["id"] for row in data}) == len(data)


def test_the_demo_reads_the_corpus_that_ships() -> None:
    config = load_config(ROOT / "examples" / "civility.yaml")
    assert (config.base / config.source.path) == ROOT / "examples" / "civility-replies.jsonl"
    assert config.source.text in CORPUS[0] and config.source.id in CORPUS[0]


@pytest.mark.parametrize("path", TUNES, ids=lambda path: path.stem)
def test_tuning_configs_name_files_columns_and_groups_that_exist(path: Path) -> None:
    config = load_tune_config(path)
    groups: set[str] = set()
    for source in config.data:
        data = [json.loads(line) for line in (path.parent / source.path).read_text("utf-8").splitlines()]
        assert all(row[source.prompt] and row[source.response] for row in data)
        groups |= {row[source.group] for row in data if source.group}
    assert set(config.holdout.groups) <= groups


def test_a_kind_reply_invents_no_number() -> None:
    def numbers(text: str) -> set[str]:
        return set(re.findall(r"\d+", text))

    assert [row["kind"] for row in PLAIN + ROLES if numbers(row["kind"]) - numbers(row["ask"])] == []


def test_what_one_config_holds_out_no_other_trains_on() -> None:
    configs = [load_tune_config(path) for path in TUNES]
    held = set().union(*(config.holdout.groups for config in configs))
    assert len(configs) == 3 and held
    for path, config in zip(TUNES, configs, strict=True):
        train, _ = split(whole_pairs(config.data, path.parent), config.holdout)
        assert not held & {pair.group for pair in train}, path.stem
