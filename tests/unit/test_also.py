"""Checks besides the form of verification: does a response speak to its prompt, does it decline where it should."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from test_experts import CATEGORY, DOMAIN, EXAMPLE

from safer_instruct.domain import Refusals
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.models.protocol import Completion, Generated, Generation, Scored, Scoring
from safer_instruct.settings.answers import GroundedConfig, RefusalConfig
from safer_instruct.stages.also import AllOf, GroundedByGain, GroundedByJudge, RefusalAsWanted
from safer_instruct.stages.asking import Asker
from safer_instruct.templates import load_template

DECLINES = "I'm sorry, but I can't help with that request."
HELPS = "Your parcel left our depot on Monday morning; the courier will bring it before noon."


class Model:
    """Scores a response by whether the prompt is there, and answers what it is told to."""

    name, fingerprint, concurrency, priced, status = "m", "m", 1, True, ""

    def __init__(self, given: float = -1.0, alone: float = -2.0, says: Completion | None = None) -> None:
        self._given, self._alone, self._says = given, alone, says or Completion("Yes")

    async def generate(self, request: Generation) -> Generated:
        return Generated((self._says,))

    async def score(self, request: Scoring) -> Scored:
        return Scored((self._given if EXAMPLE.prompt in str(request.prompt) else self._alone,))

    async def close(self) -> None:
        """Nothing."""


class Counted:
    """A verifier that accepts, and counts how often it was asked."""

    asked = 0

    async def baseline(self, example: Example) -> float:
        return 7.0

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        self.asked += 1
        return replace(draft, margin=baseline, verdicts=(*draft.verdicts, Verdict("verify.better", True)))


def gain(given: float, alone: float) -> Verdict:
    check = GroundedByGain(Model(given, alone), load_template("forward"), GroundedConfig(min_gain=0.1))
    return asyncio.run(check.check(EXAMPLE, Draft(HELPS, 0)))


def refusal(wanted: Refusals, text: str, min_confidence: float = 0.5) -> Verdict:
    domain = DOMAIN.model_copy(update={"categories": {"orders": CATEGORY.model_copy(update={"refusals": wanted})}})
    return asyncio.run(RefusalAsWanted(domain, RefusalConfig(min_confidence=min_confidence)).check(EXAMPLE, Draft(text, 0)))


def judged(says: Completion) -> Verdict:
    check = GroundedByJudge(Asker(Model(says=says), max_tokens=64), load_template("weighted"), 0.5)
    return asyncio.run(check.check(EXAMPLE, Draft(HELPS, 0)))


def test_a_response_that_its_prompt_makes_no_likelier_is_not_grounded() -> None:
    assert gain(-1.0, -2.0) == Verdict("verify.grounded", True, 1.0)
    found = gain(-1.95, -2.0)
    assert not found.passed and found.score == 0.05
    assert found.reason == "the prompt makes it +0.050 nats per token likelier, less than +0.100: it hardly speaks to the prompt"


def test_a_judge_is_asked_whether_it_speaks_to_its_prompt() -> None:
    assert judged(Completion("Yes", alternatives=(("Yes", -0.1), ("No", -3.0)))).passed
    found = judged(Completion("No", alternatives=(("No", -0.1), ("Yes", -3.0))))
    assert not found.passed and found.score is not None and found.score < 0.1 and "does not answer the prompt" in found.reason


def test_a_judge_that_says_nothing_readable_or_nothing_at_all_is_told_of_in_the_verdict() -> None:
    assert judged(Completion("Perhaps, who knows")).reason.startswith("the judge: ")
    assert judged(Completion("", withheld="filter")).name == "verify.content_filter"


@pytest.mark.parametrize(
    ("wanted", "text", "passes"),
    [
        ("never", DECLINES, False),
        ("never", HELPS, True),
        ("expected", DECLINES, True),
        ("expected", HELPS, False),
        ("allowed", DECLINES, True),
        ("allowed", HELPS, True),
    ],
)
def test_the_category_says_whether_a_response_must_or_may_decline(wanted: Refusals, text: str, passes: bool) -> None:
    found = refusal(wanted, text)
    assert (found.name, found.passed, bool(found.reason)) == ("verify.refusal", passes, not passes)


def test_what_the_detector_is_not_sure_of_counts_for_nothing() -> None:
    assert refusal("never", DECLINES, min_confidence=1.0).passed


def test_each_check_gives_a_verdict_of_its_own_and_the_verifier_is_asked_only_about_what_passes_them() -> None:
    then = Counted()
    never = DOMAIN.model_copy(update={"categories": {"orders": CATEGORY.model_copy(update={"refusals": "never"})}})
    checks = [RefusalAsWanted(never, RefusalConfig()), GroundedByGain(Model(-2.0, -2.0), load_template("forward"), GroundedConfig())]
    both = asyncio.run(AllOf(checks, then).judge(EXAMPLE, Draft(DECLINES, 0), 7.0))
    assert [(v.name, v.passed) for v in both.verdicts] == [("verify.refusal", False), ("verify.grounded", False)] and then.asked == 0
    fine = asyncio.run(AllOf(checks[:1], then).judge(EXAMPLE, Draft(HELPS, 0), 7.0))
    assert [(v.name, v.passed) for v in fine.verdicts] == [("verify.refusal", True), ("verify.better", True)] and fine.margin == 7.0
