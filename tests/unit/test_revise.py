"""Drafts that were not accepted are mended by who wrote them, who is told why."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

import pytest
from test_experts import DOMAIN, EXAMPLE, TEMPLATE, Writes

from safer_instruct.config import RespondConfig, VerifyConfig
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.models.protocol import Completion, Generated, Generation, Sampling
from safer_instruct.stages.experts import Expert, Experts
from safer_instruct.stages.revise import Critic, Reviser
from safer_instruct.stages.verify import answer
from safer_instruct.templates import load_template

REFUSED = Draft("Look again yourself.", 0, expert="expert", verdicts=(Verdict("a", True), Verdict("verify.criterion_1", False, None, "it is not kind")))


class Counts(Writes):
    """Writes `try 1`, `try 2` and so on."""

    async def generate(self, request: Generation) -> Generated:
        self.asked.append(request)
        return Generated((Completion(f"this is try number {len(self.asked)}"),))


class Wants:
    """A verifier that accepts one text, and says of the others what it wants."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted

    async def baseline(self, example: Example) -> float:
        return 0.0

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        good = draft.text == self._wanted
        return replace(
            draft, margin=1.0 if good else -1.0, verdicts=(*draft.verdicts, Verdict("verify.wanted", good, None, "" if good else f"not {draft.text}"))
        )


def reviser(expert: Writes, critic: Critic | None = None, times: int = 2) -> Reviser:
    config = RespondConfig(revise=times)
    return Reviser(Experts({"expert": Expert("expert", expert, TEMPLATE, config)}, DOMAIN, config), load_template("revise"), DOMAIN, config, critic)


def shown(model: Writes) -> str:
    prompt = model.asked[-1].prompt
    assert not isinstance(prompt, str)
    return prompt[-1].content


def finished(wanted: str, revisions: int, rounds: int = 1) -> Example:
    expert = Counts("e")
    mending = reviser(expert)

    async def write(example: Example, attempt: int) -> list[Draft]:
        return [Draft((await expert.generate(Generation("write", Sampling()))).completions[0].text, attempt, expert="expert")]

    async def mend(example: Example, draft: Draft) -> Draft | None:
        return await mending.mend(example, draft, 0)

    return asyncio.run(answer(EXAMPLE, write, Wants(wanted), VerifyConfig(rounds=rounds), mend=mend, revisions=revisions))


def test_the_expert_is_shown_guideline_draft_and_reasons_between_marks() -> None:
    expert = Writes("e")
    mended = asyncio.run(reviser(expert).mend(EXAMPLE, REFUSED, 0))
    assert mended == Draft("e answers", 0, -1.0, expert="expert", revision=1)
    text = shown(expert)
    mark = re.search(r"DATA-[0-9a-f]{12}", text)
    assert mark and "Be kind." in text
    for fenced in (EXAMPLE.prompt, REFUSED.text, "- it is not kind"):
        assert f"{mark[0]}\n{fenced}\n{mark[0]}" in text
    assert "What a reader would change" not in text


def test_a_draft_that_was_withheld_or_has_nothing_against_it_is_not_mended() -> None:
    expert = Writes("e")
    for draft in (replace(REFUSED, text=""), replace(REFUSED, verdicts=())):
        assert asyncio.run(reviser(expert).mend(EXAMPLE, draft, 0)) is None
    assert not expert.asked


def test_a_critic_reads_the_draft_by_the_guideline_before_and_what_it_says_is_data() -> None:
    expert, judge = Writes("e"), Writes("judge")
    critic = Critic(judge, load_template("critique"), DOMAIN)
    asyncio.run(reviser(expert, critic).mend(EXAMPLE, REFUSED, 0))
    assert "Be kind." in shown(judge) and "- it is not kind" in shown(judge)
    assert re.search(r"What a reader would change:\n(DATA-[0-9a-f]{12})\njudge answers\n\1\n", shown(expert))


def test_each_revision_mends_the_one_before_until_one_passes() -> None:
    done = finished("this is try number 3", revisions=4)
    assert (done.alive, done.chosen) == (True, "this is try number 3")
    assert [(d.text[-1], d.revision, d.attempt) for d in done.drafts] == [("1", 0, 0), ("2", 1, 0), ("3", 2, 0)]
    assert done.accepted is done.drafts[-1]


def test_after_all_rounds_the_example_is_dropped_and_every_draft_keeps_its_reason() -> None:
    done = finished("never", revisions=2, rounds=2)
    assert done.dropped_by and done.dropped_by.name == "verify.wanted"
    assert [(d.attempt, d.revision) for d in done.drafts] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert [v.reason for d in done.drafts for v in d.verdicts] == [f"not this is try number {i}" for i in range(1, 7)]


@pytest.mark.parametrize("revisions", [0, 1])
def test_a_draft_that_passes_is_not_mended(revisions: int) -> None:
    assert len(finished("this is try number 1", revisions).drafts) == 1


def test_critic_and_expert_are_asked_as_each_is_to_be_asked() -> None:
    expert, judge = Writes("e"), Writes("judge")
    mending = reviser(expert, Critic(judge, load_template("critique"), DOMAIN), times=3)
    asyncio.run(mending.mend(EXAMPLE, REFUSED, 0))
    assert mending.times == 3
    assert (judge.asked[0].sampling.temperature, judge.asked[0].sampling.top_k, judge.asked[0].sampling.max_tokens) == (0.0, 0, 256), "always the same"
    assert [[turn.role for turn in asked[0].prompt if not isinstance(turn, str)] for asked in (judge.asked, expert.asked)] == [["user"], ["system", "user"]]
    settings, sampling = RespondConfig(), expert.asked[0].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_k) == (settings.max_tokens, settings.temperature, settings.top_k)


def test_each_revision_draws_anew_and_counts_on() -> None:
    expert = Writes("e")
    first = asyncio.run(reviser(expert).mend(EXAMPLE, REFUSED, 0))
    assert first
    second = asyncio.run(reviser(expert).mend(EXAMPLE, replace(first, verdicts=REFUSED.verdicts), 0))
    assert second and (first.revision, second.revision, second.attempt) == (1, 2, 0)
    asyncio.run(reviser(expert).mend(EXAMPLE, replace(REFUSED, attempt=1), 0))
    asyncio.run(reviser(expert).mend(EXAMPLE, REFUSED, 1))
    assert len({asked.seed for asked in expert.asked}) == 4
