"""The likeliest instruction that passes: its gain over none, its rank among the others, and what is asked of whom in which order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from safer_instruct.config import ConsistencyConfig, FilterConfig
from safer_instruct.example import Candidate, Example, Verdict
from safer_instruct.models.protocol import Scored, Scoring
from safer_instruct.stages.filter import choose
from safer_instruct.templates import load_template

GAINS = {"alpha": 0.1, "beta": 0.4, "gamma": 0.3, "delta": -0.2, "epsilon": 0.12345678}


class Gains:
    """A scorer to which each instruction is worth what `GAINS` says."""

    name, fingerprint, concurrency, priced, status = "scripted:s", "s", 2, True, ""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def score(self, request: Scoring) -> Scored:
        word = next((word for word in GAINS if word in str(request.prompt)), "")
        self.asked.append(word)
        return Scored((-3.0 + GAINS.get(word, 0.0),))


def chosen(*candidates: Candidate | str, min_logprob: float | None = None, **consistency: Any) -> tuple[Example, list[str]]:
    scorer = Gains()
    config = FilterConfig(consistency=ConsistencyConfig(**consistency), min_logprob=min_logprob)
    example = Example("1", "the parcel was late", "a", "f", 1, candidates=tuple(c if isinstance(c, Candidate) else Candidate(c) for c in candidates))
    return asyncio.run(choose(example, (), scorer, load_template("forward"), config)), scorer.asked  # type: ignore[arg-type]


def test_the_first_that_makes_the_text_likelier_is_taken_and_those_behind_it_are_not_scored() -> None:
    found, asked = chosen("delta", "alpha", "beta", min_gain=0.1)
    assert found.prompt == "alpha" and asked == ["", "delta", "alpha"]
    assert [c.text for c in found.candidates] == ["delta", "alpha", "beta"]
    assert [[v.passed for v in c.verdicts] for c in found.candidates] == [[False], [True], []]
    assert found.verdicts == (Verdict("consistency", True, 0.1),)


def test_a_gain_is_told_to_six_digits() -> None:
    assert chosen("epsilon", min_gain=0.0)[0].verdicts[0].score == 0.123457


def test_where_ranks_are_asked_for_all_are_scored_once() -> None:
    found, asked = chosen("alpha", "gamma", "beta", "", min_gain=0.0, max_rank=2)
    assert found.prompt == "gamma" and asked == ["", "alpha", "gamma", "beta"]
    assert found.candidates[0].verdicts[0].reason == "2 other candidates make the text likelier, more than 1"
    assert chosen("alpha", "gamma", "beta", min_gain=0.0, max_rank=1)[0].prompt == "beta"
    assert chosen("alpha", "gamma", "beta", min_gain=0.0, max_rank=3)[0].prompt == "alpha"


def test_without_one_that_passes_the_likeliest_says_why() -> None:
    found, _ = chosen("delta", "alpha", min_gain=0.2)
    assert not found.prompt and found.dropped_by and found.dropped_by.score == -0.2
    found, asked = chosen()
    assert found.dropped_by and found.dropped_by.name == "induce.empty" and asked == []


@pytest.mark.parametrize(
    ("candidate", "verdict"),
    [(Candidate(""), "induce.empty"), (Candidate("beta", finished=False), "induce.unfinished"), (Candidate("beta", -5.1), "likelihood")],
)
def test_what_needs_no_scorer_is_looked_at_first(candidate: Candidate, verdict: str) -> None:
    found, asked = chosen(candidate, min_gain=0.0, min_logprob=-5.0)
    assert found.dropped_by and found.dropped_by.name == verdict and asked == []


def test_the_least_likelihood_may_just_be_reached_and_is_not_asked_of_an_inducer_that_tells_none() -> None:
    assert chosen(Candidate("beta", -5.0), min_gain=0.0, min_logprob=-5.0)[0].verdicts[0] == Verdict("likelihood", True, -5.0)
    assert chosen(Candidate("beta", None), min_gain=0.0, min_logprob=-5.0)[0].prompt == "beta"
