"""Duplicates and contamination in other words: before they are paid for, among pairs, and against a benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_set_level import OTHERS, go, verdicts, write_config

from safer_instruct.choosing import Pair, choose_pairs, distinct_texts
from safer_instruct.cli import main
from safer_instruct.config import load_config
from safer_instruct.errors import ConfigError
from safer_instruct.example import Example
from safer_instruct.filters.detected import Contamination
from safer_instruct.selectconfig import SelectConfig
from safer_instruct.settings.semantic import SemanticConfig

pytest.importorskip("wordllama", reason="needs the extra embed")

ASKED = "What is the best way to remove a coffee stain from a white cotton shirt?"
REWORDED = "A white cotton shirt has a coffee stain: what is the best way to remove it?"


def test_source_texts_that_mean_the_same_go_before_anything_is_induced(tmp_path: Path) -> None:
    texts = [
        f"{OTHERS[0]} And that is that.",
        *OTHERS[1:],
        "You rang us on a Sunday, again, about it: the printer is not broken, you left the lid open.",
    ]
    summary = go(tmp_path, texts, filter={"keep": "best", "semantic": {"text": 0.9}})
    found = verdicts(tmp_path)
    assert [by for by, _ in found.values()] == [None, None, None, "dedup.semantic.text"] and "t0" in str(found["t3"][1])
    assert summary["stages"]["collect"]["dropped"] == {"dedup.semantic.text": 1} and summary["stages"]["induce"]["in"] == 3


def test_instructions_are_compared_in_meaning_and_the_better_one_stays() -> None:
    rows = [("a", ASKED, 0.1), ("b", REWORDED, 0.9), ("c", OTHERS[2], 0.5)]
    said = distinct_texts("prompt", rows, 0.7, SemanticConfig(prompt=0.9))
    assert [[(v.name, v.passed) for v in verdicts_] for verdicts_ in said] == [
        [("dedup.prompt", True), ("dedup.semantic.prompt", False)],
        [("dedup.prompt", True), ("dedup.semantic.prompt", True)],
        [("dedup.prompt", True), ("dedup.semantic.prompt", True)],
    ]
    assert [len(verdicts_) for verdicts_ in distinct_texts("prompt", rows, 0.7, None)] == [1, 1, 1]


def test_an_embedder_that_is_not_there_is_known_before_anything_is_paid_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no embedder 'dynamic'"):
        go(tmp_path, OTHERS, filter={"keep": "best", "semantic": {"prompt": 0.9, "embedder": "dynamic"}})
    assert not (tmp_path / "out" / "ledger.sqlite").exists()


def test_it_needs_all_of_them_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keep: best"):
        load_config(write_config(tmp_path, OTHERS, filter={"semantic": {"text": 0.9}}))


def test_pairs_whose_prompts_differ_in_nothing_but_words_stay_where_pairs_are_compared() -> None:
    pairs = [Pair("a", ASKED, OTHERS[0], OTHERS[1], "c", 0.5), Pair("b", REWORDED, OTHERS[2], "Soap and cold water, then wait an hour.", "c", 0.9)]
    by_prompt, by_pair = (choose_pairs(pairs, SelectConfig(near=None, semantic=0.9, semantic_of=of)).living() for of in ("prompt", "pair"))
    assert by_prompt == [1] and by_pair == [0, 1]


def test_a_benchmark_is_met_in_other_words(tmp_path: Path) -> None:
    (tmp_path / "laundry.txt").write_text(f"{ASKED}\nName the largest lake of Finland and its depth.\n", "utf-8")
    options = {"on": "prompt", "benchmarks": {"laundry": "laundry.txt"}}
    words = Contamination.model_validate(options, context={"base": tmp_path})
    meaning = Contamination.model_validate({**options, "semantic": 0.9}, context={"base": tmp_path})
    example = Example("1", "t", "c", "f", 1, prompt=REWORDED)
    assert words.check(example).passed
    found = meaning.check(example)
    assert not found.passed and "benchmark 'laundry'" in found.reason and found.score is not None and found.score > 0.9
    assert meaning.check(Example("2", "t", "c", "f", 1, prompt=OTHERS[2])).passed
    assert not meaning.check(Example("3", "t", "c", "f", 1, prompt=ASKED)).passed


def test_the_command_says_what_it_compares(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["select", "--help"])
    assert "--semantic-of" in capsys.readouterr().out
