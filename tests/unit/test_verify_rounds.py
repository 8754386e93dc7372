"""Rounds of writing and judging: which draft is taken, which is mended, when it ends, and what a draft must be before it costs a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from safer_instruct.config import VerifyConfig
from safer_instruct.domain import Category, Contrast, Domain, ExamplePair, Opposites
from safer_instruct.example import Draft, Example, Turn, Verdict
from safer_instruct.models.protocol import Scored, Scoring
from safer_instruct.stages.verify import ContrastVerifier, HopelessError, answer
from safer_instruct.templates import load_template

PAIR = Example("r1", "Open it yourself.", "support", "t", 7, prompt="How do I open it?", history=(Turn("user", "Hello?"), Turn("assistant", "Hello to you.")))


class Values:
    """A verifier that gives each draft the margin that its last word is, and accepts those above 0."""

    def __init__(self) -> None:
        self.judged: list[str] = []

    async def baseline(self, example: Example) -> float:
        if example.text == "hopeless":
            raise HopelessError(Verdict("verify.better", False, None, "it is good already"))
        return 0.0

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        self.judged.append(draft.text)
        margin = float(draft.text.split()[-1])
        return replace(draft, margin=margin, verdicts=(*draft.verdicts, Verdict("verify.better", margin > 0, margin, "" if margin > 0 else "is no better")))


def answered(
    *rounds: list[str], example: Example = PAIR, mend: Callable[[Draft], str | None] | None = None, revisions: int = 0, alike: bool = False, **config: Any
) -> tuple[Example, list[str], list[str]]:
    """What comes out, what was judged, and what was mended."""
    verifier, mended = Values(), list[str]()

    async def write(one: Example, attempt: int) -> list[Draft]:
        return [Draft(text, attempt, finished=not text.startswith("cut")) for text in rounds[attempt]]

    async def mending(one: Example, draft: Draft) -> Draft | None:
        mended.append(draft.text)
        text = mend(draft) if mend else None
        return None if text is None else replace(draft, text=text, verdicts=(), margin=None, revision=draft.revision + 1)

    settings = VerifyConfig(**{"rounds": len(rounds), "min_words": 2, **config})
    out = asyncio.run(answer(example, write, verifier, settings, mend=mending if mend else None, revisions=revisions, alike=alike))
    return out, verifier.judged, mended


def test_the_best_of_those_that_pass_is_taken_or_the_first_that_passes() -> None:
    drafts = ["it is -1", "it is 1", "it is 3", "it is 2"]
    out, judged, _ = answered(drafts, pick="best")
    assert (out.chosen, out.margin, judged) == ("it is 3", 3.0, drafts) and [d.margin for d in out.drafts] == [-1.0, 1.0, 3.0, 2.0]
    out, judged, _ = answered(drafts, pick="first")
    assert (out.chosen, out.margin, judged) == ("it is 1", 1.0, drafts[:2]) and [d.text for d in out.drafts] == drafts


def test_where_all_that_pass_are_alike_the_rest_of_a_round_is_not_judged() -> None:
    drafts = ["it is -1", "it was 1", "it is 1", "they are 1"]
    whole, _, _ = answered(drafts, pick="best")
    out, judged, _ = answered(drafts, pick="best", alike=True)
    assert (out.chosen, out.margin) == (whole.chosen, whole.margin) and judged == drafts[:2]
    assert [(d.text, bool(d.verdicts)) for d in out.drafts] == [(text, text in judged) for text in drafts], "those have no verdict"


def test_rounds_go_on_until_a_draft_passes_and_the_last_says_why_none_did() -> None:
    out, judged, _ = answered(["it is -1"], ["it is -2", "it is 0"], ["it is 5"])
    assert (out.chosen, judged) == ("it is 5", ["it is -1", "it is -2", "it is 0", "it is 5"]) and [d.attempt for d in out.drafts] == [0, 1, 1, 2]
    out, _, _ = answered(["it is 0"], ["it is -2", "it is -1"])
    assert not out.chosen and out.margin is None and out.dropped_by and out.dropped_by.score == -1.0, "the best of the last round"
    assert out.drop_reason == "is no better (draft 3 of 3, the best of the last round)" and out.ended_with is out.drafts[2]
    out, _, _ = answered(["it is -1"])
    assert out.drop_reason == "is no better", "of one draft nobody asks which"
    out, _, _ = answered(["it is 0"], ["1", "1"])
    assert out.drop_reason.endswith("(draft 3 of 3)") and out.dropped_by and out.dropped_by.name == "verify.length", "the last round has none with a margin"
    out, _, _ = answered([], [])
    assert out.dropped_by and out.dropped_by.name == "respond.empty"


def test_rounds_that_an_example_has_behind_it_are_not_repeated() -> None:
    begun = replace(PAIR, drafts=(Draft("it was -1", 0), Draft("it was -2", 1)))
    out, judged, _ = answered([], [], ["it is 1"], example=begun, rounds=1)
    assert out.chosen == "it is 1" and judged == ["it is 1"] and [d.attempt for d in out.drafts] == [0, 1, 2]


def test_where_nothing_can_be_better_nothing_is_written() -> None:
    out, judged, _ = answered(["it is 1"], example=replace(PAIR, text="hopeless"))
    assert out.dropped_by and out.dropped_by.reason == "it is good already" and judged == [] and out.drafts == ()


def test_the_best_of_those_that_failed_is_mended_each_time_from_the_last() -> None:
    out, _, mended = answered(["it is -3", "it is -1", "it is -2"], mend=lambda d: f"{d.text} so 0" if d.revision < 1 else "it is 2", revisions=3)
    assert mended == ["it is -1", "it is -1 so 0"] and out.chosen == "it is 2" and len(out.drafts) == 5


def test_mending_ends_with_the_revisions_or_where_nothing_comes_back() -> None:
    out, _, mended = answered(["it is -1"], mend=lambda d: "it is 0", revisions=2)
    assert len(mended) == 2 and not out.chosen and len(out.drafts) == 3
    out, _, mended = answered(["it is -1"], mend=lambda d: None, revisions=3)
    assert mended == ["it is -1"] and not out.chosen
    _, _, mended = answered(["it is -1", "it is 1"], mend=lambda d: "it is 2", revisions=3)
    assert mended == [], "one passed"
    _, _, mended = answered([], mend=lambda d: "it is 2", revisions=3)
    assert mended == []


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("cut at 1", "verify.unfinished"), ("1", "verify.length"), ("two 1", ""), ("OPEN it yourself.", "verify.copy"), ("how do I open IT?", "verify.copy"),
        ("hello to YOU.", "verify.copy"),
    ],
)  # fmt: skip
def test_what_can_be_seen_without_a_model_costs_no_call(text: str, verdict: str) -> None:
    out, judged, _ = answered([text])
    assert judged == ([] if verdict else [text])
    assert [v.name for v in out.drafts[0].verdicts if v.drops] == ([verdict] if verdict else [])


class Likes:
    """A scorer whose log-probability is read off the description in front: the number behind it."""

    name, fingerprint, concurrency, priced, status = "scripted:s", "s", 2, True, ""

    def __init__(self) -> None:
        self.examples: list[int] = []

    async def score(self, request: Scoring) -> Scored:
        assert isinstance(request.prompt, str)
        said = request.prompt
        self.examples.append(said.count("shown prompt"))
        likes = {"good one": -1.0, "bad one": -2.0, "good two": -1.0, "bad two": -5.0}
        bonus = 0.5 if "shown prompt" in said and "good" in said else 0.0
        return Scored((next(v for name, v in likes.items() if name in said) + bonus,))


def _contrast(also: int, shown: int, examples: int = 4) -> tuple[float, Likes]:
    category = Category(
        definition="Rude.",
        guideline="Be kind.",
        contrast=Contrast(good="good one", bad="bad one", also=tuple(Opposites(good="good two", bad="bad two") for _ in range(also))),
        examples=tuple(ExamplePair(prompt=f"shown prompt {i}", chosen="kindly", rejected="rudely") for i in range(shown)),
    )
    domain = Domain(name="test", description="For tests.", categories={"support": category})
    scorer = Likes()
    config = VerifyConfig(examples=examples)
    verifier = ContrastVerifier(scorer, load_template("contrast"), domain, config)  # type: ignore[arg-type]
    return asyncio.run(verifier.contrast("How?", "Pull the tab.", category)), scorer


def test_a_contrast_is_the_difference_of_both_guidelines_with_as_many_examples_as_are_asked_for() -> None:
    assert _contrast(0, 0)[0] == 1.0
    found, scorer = _contrast(0, 3, examples=2)
    assert found == 1.5 and scorer.examples == [2, 2]


def test_further_wordings_are_averaged_without_examples_and_beside_the_first_with_them() -> None:
    assert _contrast(1, 0)[0] == 2.5, "the mean of 1 and 4"
    found, scorer = _contrast(1, 2)
    assert found == (1.5 + 2.5) / 2 and sorted(scorer.examples) == [0, 0, 0, 0, 2, 2]


def test_a_margin_that_just_reaches_its_bound_passes_and_below_it_none() -> None:
    category = Category(definition="Rude.", guideline="Be kind.", contrast=Contrast(good="good one", bad="bad one"))
    domain = Domain(name="test", description="For tests.", categories={"support": category})

    def judged(**bounds: float) -> list[tuple[str, bool, float | None]]:
        config = VerifyConfig(**bounds)
        verifier = ContrastVerifier(Likes(), load_template("contrast"), domain, config)  # type: ignore[arg-type]
        draft = asyncio.run(verifier.judge(PAIR, Draft("Pull the tab.", 0), 0.25))
        assert draft.margin == 0.75
        return [(v.name, v.passed, v.score) for v in draft.verdicts]

    assert judged(min_contrast=1.0, min_margin=0.75) == [("verify.acceptable", True, 1.0), ("verify.better", True, 0.75)]
    assert [passed for _, passed, _ in judged(min_contrast=1.001, min_margin=0.751)] == [False, False]
