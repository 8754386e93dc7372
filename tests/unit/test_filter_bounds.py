"""Filters at their bounds, and in what they leave alone: the value that just passes, the part that is masked, the error that is told."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safer_instruct.config import ConsistencyConfig, FilterConfig
from safer_instruct.detect.refusal import classify
from safer_instruct.errors import ConfigError
from safer_instruct.example import Candidate, Example, Turn
from safer_instruct.filters.checks import Check, sifted
from safer_instruct.filters.consistency import check_gain
from safer_instruct.filters.contradictions import find_contradictions
from safer_instruct.filters.dedup import Deduplicator
from safer_instruct.filters.detected import Refusing
from safer_instruct.filters.meaning import BenchmarkMeaning
from safer_instruct.filters.protocol import Filter, Finding
from safer_instruct.filters.registry import open_filters
from safer_instruct.filters.semantic import deduplicate_vectors

PLAIN = Example("a", "Write to ann@example.org about the parcel.", "c", "f", 1)


def text_checks(**filters: Any) -> tuple[Check, ...]:
    return open_filters(FilterConfig(text=filters, prompt=None), Path()).text


def prompt_check(name: str, **options: Any) -> Check:
    checks = open_filters(FilterConfig(prompt={name: options}), Path()).prompt
    return next(check for check in checks if check.name == f"prompt.{name}")


# --- masking


def test_what_is_masked_is_masked_wherever_it_stands_and_the_rest_stays_as_it_is() -> None:
    (check,) = text_checks(pii={"mode": "mask"})
    history = (Turn("user", "Mail bob@example.org, please."), Turn("assistant", "To whom?"))
    candidates = (Candidate("Tell carl@example.org.", -0.5), Candidate("Tell me more.", -1.0))
    found = sifted((check,), replace(PLAIN, history=history, candidates=candidates))
    assert found.text == "Write to <email> about the parcel."
    assert found.history == (Turn("user", "Mail <email>, please."), Turn("assistant", "To whom?"))
    assert found.candidates == (Candidate("Tell <email>.", -0.5), Candidate("Tell me more.", -1.0))
    assert found.alive and [(v.name, v.passed, v.flag) for v in found.verdicts] == [("text.pii", False, True)]


def test_a_credential_is_masked_by_its_kind_also_in_what_was_said_before() -> None:
    key = "AKIA" + "Q7W3E9R2T5Y8U1I4"
    (check,) = text_checks(secrets={"mode": "mask"})
    found = sifted((check,), replace(PLAIN, text=f"Use {key} for ann@example.org.", history=(Turn("user", f"Is it {key}?"),)))
    assert (found.text, found.history[0].content) == ("Use <aws_key> for ann@example.org.", "Is it <aws_key>?")
    assert sifted((check,), replace(PLAIN, text=f"Use {key}.")).text == "Use <aws_key>."


@pytest.mark.parametrize("beside", [{"history": (Turn("user", "Mail bob@example.org."),)}, {"candidates": (Candidate("Tell carl@example.org.", -0.5),)}, {}])
def test_a_text_that_holds_nothing_is_left_as_it_is_where_something_beside_it_is_masked(beside: dict[str, Any]) -> None:
    (check,) = text_checks(pii={"mode": "mask"})
    example = replace(PLAIN, text="Write about the parcel.", **beside)
    found = sifted((check,), example)
    assert found.text == "Write about the parcel."
    assert [turn.content for turn in found.history] == ["Mail <email>."] * len(example.history)
    assert [candidate.text for candidate in found.candidates] == ["Tell <email>."] * len(example.candidates)
    assert bool(beside) != all(v.passed for v in found.verdicts)


class Failing(Filter):
    """Raises what it is told to."""

    def check(self, example: Example) -> Finding:
        if example.text == "ours":
            raise ConfigError("the benchmark is gone")
        raise KeyError("a slip")

    def mend(self, example: Example) -> str:
        return example.text


@pytest.mark.parametrize(("mode", "alive"), [("drop", False), ("flag", True)])
def test_an_error_of_a_filter_is_a_verdict_and_one_that_says_what_to_do_ends_the_run(mode: str, alive: bool) -> None:
    check = Check("text.own", Failing(on="text", mode=mode))
    verdict = check.verdict(PLAIN)
    assert not verdict.passed and verdict.reason == "raised KeyError: 'a slip'" and verdict.drops != alive
    with pytest.raises(ConfigError, match="the benchmark is gone"):
        check.verdict(replace(PLAIN, text="ours"))


class LongWinded(Filter):
    """Has much to say."""

    def check(self, example: Example) -> Finding:
        return Finding(False, None, "word " * 100)


def test_what_a_filter_says_is_cut_at_three_hundred_characters() -> None:
    reason = Check("text.own", LongWinded(on="text")).verdict(PLAIN).reason
    assert len(reason) == 300 and reason.endswith("...")


# --- bounds


def numbered(count: int) -> str:
    return " ".join(f"w{number}" for number in range(count))


@pytest.mark.parametrize(
    ("name", "last_that_passes", "first_that_does_not"),
    [
        ("length", numbered(4), numbered(3)),
        ("length", numbered(150), numbered(151)),
        ("copying", f"say {numbered(7)} now", f"say {numbered(8)} now"),
        ("leakage", f"say {numbered(7)} now", f"say {numbered(8)} now"),
        ("repetition", f"{numbered(7)} {numbered(5)}", f"{numbered(6)} {numbered(6)}"),
    ],
)
def test_bounds_that_nobody_set_may_be_reached_and_not_passed(name: str, last_that_passes: str, first_that_does_not: str) -> None:
    example = replace(PLAIN, text=numbered(200))
    assert prompt_check(name).verdict(replace(example, prompt=last_that_passes)).passed
    assert not prompt_check(name).verdict(replace(example, prompt=first_that_does_not)).passed


def test_half_of_the_trigrams_may_stand_in_the_instruction() -> None:
    for shared, passes in ((5, True), (6, False)):
        assert prompt_check("leakage").verdict(replace(PLAIN, text=numbered(8), prompt=f"say {numbered(shared)} now")).passed == passes


@pytest.mark.parametrize("option", ["max_contained", "max_covered"])
def test_a_share_that_may_leak_is_from_none_to_all(option: str) -> None:
    for value in (0, 1):
        assert prompt_check("leakage", **{option: value}).name == "prompt.leakage"
    for value in (-0.01, 1.01):
        with pytest.raises(ConfigError, match=option):
            prompt_check("leakage", **{option: value})


def test_a_gain_or_a_rank_that_just_reaches_its_bound_passes() -> None:
    config = ConsistencyConfig(min_gain=0.5, max_rank=2)
    assert check_gain(0.5, config).passed and not check_gain(0.499999, config).passed
    assert check_gain(0.5, config, rank=2).passed and not check_gain(0.5, config, rank=3).passed


def test_a_refusal_counts_from_the_least_confidence_on() -> None:
    text = "I'm sorry, but I can't help with that."
    sure = classify(text, "").confidence
    assert 0.5 < sure < 1.0
    for least, passes in ((sure, False), ((sure + 1) / 2, True)):
        assert Refusing(on="text", min_confidence=least).check(replace(PLAIN, text=text)).passed == passes


def test_vectors_that_just_reach_the_cosine_are_duplicates_of_the_best_before_them() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0.6, 0.8]], np.float32)
    found = deduplicate_vectors(vectors, threshold=1.0)
    assert found.keep.tolist() == [True, False, True, True] and found.kept.tolist() == [0, 0, 2, 3]
    found = deduplicate_vectors(vectors, [0.0, 0.0, 0.0, 1.0], threshold=0.59)
    assert found.keep.tolist() == [False, False, False, True] and found.kept.tolist() == [3, 3, 3, 3]
    assert found.similarity == pytest.approx([0.6, 0.6, 0.8, 1.0]) and found.cluster.tolist() == [0, 0, 0, 0]


REFUSES, HELPS = "I'm sorry, but I can't help with that.", "Ring his bell on a quiet afternoon and tell him what you hear."
ROW = [f"word{i}" for i in range(20)]


def test_prompts_contradict_from_the_threshold_on_and_only_by_themselves_not_through_a_third() -> None:
    first, middle, last = (" ".join(ROW[at : at + 12]) for at in (0, 2, 4))
    near, far = 8 / 12, 6 / 14  # trigrams in common of those in either
    pairs = [REFUSES, HELPS]
    assert len(find_contradictions([first, middle], pairs, threshold=near)) == 1 and find_contradictions([first, middle], pairs, threshold=near + 0.01) == []
    (found,) = find_contradictions([first, middle], pairs, threshold=0.5)
    assert found.similarity == round(near, 4)
    assert find_contradictions([first, middle, last], [REFUSES, REFUSES, HELPS], [3.0, 2.0, 1.0], threshold=near) != []
    (chained,) = find_contradictions([first, last, middle], [REFUSES, HELPS, HELPS], [3.0, 2.0, 1.0], threshold=near)
    assert chained.loser == 2 and far < near, "the last one is near to the middle one, which goes, and not to the first"


PARTIAL = "I can't help you with the lock itself. What I can do is explain how to reach a locksmith, and what papers to have at hand when he comes."


def test_what_contradicts_nobody_hides_no_contradiction_behind_it() -> None:
    same = " ".join(ROW)
    assert classify(PARTIAL).label == "partial"
    (found,) = find_contradictions(["", "", same, same, same], [REFUSES, HELPS, REFUSES, PARTIAL, HELPS], threshold=1.0)
    assert (found.loser, found.winner, found.similarity) == (4, 2, 1.0), "the same words reach a threshold of 1"


def test_pairs_without_a_prompt_contradict_nobody() -> None:
    assert find_contradictions(["", ""], [REFUSES, HELPS], threshold=0.5) == []
    assert len(find_contradictions(["a", "a"], [REFUSES, HELPS], threshold=0.5)) == 1


# --- instructions


def test_an_instruction_that_was_said_before_is_told_with_who_said_it() -> None:
    example = replace(PLAIN, prompt="And the lamp?", history=(Turn("user", "Where is it, and the lamp?"), Turn("assistant", "Here.")))
    verdict = prompt_check("copying").verdict(example)
    assert not verdict.passed and verdict.reason == "was said before in the conversation, by the user"
    assert prompt_check("copying").verdict(replace(example, prompt="And the sofa?")).passed
    assert prompt_check("copying").verdict(replace(example, prompt="?!")).passed, "no word was said before"


def test_the_longest_run_that_may_be_shared_may_be_reached_but_not_the_whole_instruction() -> None:
    text = "the parcel that you sent to me was late again and nobody knows why"
    example = replace(PLAIN, text=text)
    for words, passes in ((3, True), (4, False)):
        prompt = f"Say {' '.join(text.split()[:words])} now"
        assert prompt_check("copying", max_shared_run=3).verdict(replace(example, prompt=prompt)).passed == passes
    assert prompt_check("copying").verdict(replace(example, prompt="late again")).reason == "stands in the text word for word"


def test_a_memory_that_was_closed_holds_nothing_open() -> None:
    seen = Deduplicator("text", 0.7)
    assert seen.check("the parcel was late", "a").passed
    seen.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        seen.check("the parcel was late", "b")


def test_a_shared_run_may_reach_its_bound_and_what_was_said_before_gives_nothing_away() -> None:
    text = "the parcel that you sent to me was late again and nobody knows why it took three weeks to come"
    leak = prompt_check("leakage", max_run=5, max_contained=1.0)
    for words, passes in ((5, True), (6, False)):
        assert leak.verdict(replace(PLAIN, text=text, prompt=f"Say {' '.join(text.split()[:words])} now")).passed == passes
    quoting = replace(PLAIN, text=text, prompt=f"Why was it that {' '.join(text.split()[:8])}?")
    assert not leak.verdict(quoting).passed
    assert leak.verdict(replace(quoting, history=(Turn("user", "the parcel that you sent to me was late"),))).passed
    unlike = leak.verdict(replace(quoting, history=(Turn("user", "which paint dries by the evening"),)))
    assert not unlike.passed and unlike.score == 8
    said = leak.verdict(replace(quoting, history=(Turn("assistant", quoting.prompt),)))
    assert (said.passed, said.score, said.reason) == (False, None, "was said before in the conversation, by the assistant")


def test_a_benchmark_is_looked_through_for_words_and_only_where_wanted_for_meaning(tmp_path: Path) -> None:
    (tmp_path / "trivia.txt").write_text("Which of the two rivers that meet in the old town is the longer one?\n", encoding="utf-8")

    def check(**options: Any) -> Any:
        checks = open_filters(FilterConfig(prompt={"contamination": {"benchmarks": {"trivia": "trivia.txt"}, **options}}), tmp_path).prompt
        return next(one for one in checks if one.name == "prompt.contamination")

    other = replace(PLAIN, prompt="Of the two rivers which meet in the old town, which is longer?")
    assert check().verdict(other).passed and check().verdict(other).score is None
    found = check(semantic=0.6).verdict(other)
    assert not found.passed and found.score is not None and "means the same as a prompt of benchmark 'trivia'" in found.reason
    assert check(semantic=0.99).verdict(other).passed
    cosine = BenchmarkMeaning([("trivia", ["Which of the two rivers that meet in the old town is the longer one?"])], "static").nearest(other.prompt)[0]
    assert not check(semantic=cosine).verdict(other).passed, "a prompt that just reaches the cosine means the same"
    same = check().verdict(replace(PLAIN, prompt="Which of the two rivers that meet in the old town is the longer one?"))
    assert not same.passed and "stands in benchmark 'trivia'" in same.reason
