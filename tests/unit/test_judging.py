"""Judges by probability, panels, reward models: what is asked, what is read, what is decided."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safer_instruct.config import VerifyConfig
from safer_instruct.domain import Category, Contrast, Domain, ExamplePair, Opposites, Scale
from safer_instruct.errors import AnswerError, ConfigError, ModelError
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.models.protocol import Completion, Generated, Generation, Scored, Scoring, Turn
from safer_instruct.stages.asking import YES_NO, Asker, Interview, expected_score, option_probabilities
from safer_instruct.stages.fence import mark_for
from safer_instruct.stages.panel import PanelVerifier
from safer_instruct.stages.question import QuestionVerifier
from safer_instruct.stages.reward import RewardVerifier
from safer_instruct.stages.verify import ContrastVerifier
from safer_instruct.stages.weighted import WeightedVerifier
from safer_instruct.stages.withheld import WithheldError
from safer_instruct.templates import load_template

pytestmark = pytest.mark.filterwarnings("error")

ASKED = Example("r1", "Look again, or stop writing to us.", "support", "texts.jsonl", 1, prompt="Where is my parcel?")
KIND = "I am so sorry, it comes tomorrow."
CRITERION, SCALED = "Is it polite?", Scale(question="How helpful is it?", least=3.0)


def domain(*criteria: str, scales: tuple[Scale, ...] = ()) -> Domain:
    return Domain(
        name="test", description="For tests.", categories={"support": Category(definition="Rude.", guideline="Be kind.", criteria=criteria, scales=scales)}
    )


@dataclass
class Judge:
    """Answers each prompt with what `says` makes of it, first tokens or a text."""

    says: Callable[[str], dict[str, float] | str]
    asked: list[Generation] = field(default_factory=list)
    name: str = "judge:"
    fingerprint: str = "judge"
    concurrency: int = 1
    priced: bool = True
    status: str = ""

    async def generate(self, request: Generation) -> Generated:
        self.asked.append(request)
        said = self.says(request.prompt[0].content) if isinstance(request.prompt[0], Turn) else ""
        if isinstance(said, str):
            return Generated((Completion(said),))
        likeliest = sorted(((token, math.log(p)) for token, p in said.items()), key=lambda pair: -pair[1])
        return Generated((Completion(likeliest[0][0], alternatives=tuple(likeliest)),))

    async def score(self, request: Scoring) -> Scored:
        return Scored((float(len(request.continuation)),))

    async def close(self) -> None: ...


def weighted(judge: Judge, where: Domain, **config: Any) -> WeightedVerifier:
    verify = VerifyConfig(form="question", answers="weighted", **config)
    return WeightedVerifier(Asker(judge, max_tokens=64), load_template("weighted"), load_template("prefer"), where, verify)


def judged(verifier: Any, text: str = KIND) -> Draft:
    done: Draft = asyncio.run(verifier.judge(ASKED, Draft(text, 0), asyncio.run(verifier.baseline(ASKED))))
    return done


# --- reading probabilities


def test_case_and_white_space_make_no_difference() -> None:
    found = option_probabilities([(" Yes", math.log(0.3)), ("yes", math.log(0.3)), ("NO", math.log(0.2)), ("Maybe", math.log(0.2))], YES_NO)
    assert math.isclose(found["Yes"], 0.75) and math.isclose(found["No"], 0.25)


def test_a_judge_that_means_to_say_something_else_has_not_answered() -> None:
    assert option_probabilities([("Well", math.log(0.96)), ("Yes", math.log(0.04))], YES_NO) == {} == option_probabilities([], YES_NO)


def test_the_score_of_a_scale_is_its_mean() -> None:
    assert expected_score({"1": 0.5, "2": 0.0, "3": 0.0, "4": 0.0, "5": 0.5}) == 3.0


# --- marks


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_no_text_holds_its_mark(texts: list[str]) -> None:
    mark = mark_for(*texts)
    assert not any(mark in text for text in texts) and mark == mark_for(*texts)


def test_a_text_that_holds_the_mark_it_would_get_gets_another() -> None:
    first = mark_for("data")
    assert mark_for("data", first) not in ("data", first)


@pytest.mark.parametrize(
    "attack", [json.loads(line) for line in (Path(__file__).parents[2] / "bench" / "data" / "injections.jsonl").read_text("utf-8").splitlines()]
)
def test_what_a_text_says_stays_between_its_marks(attack: dict[str, str]) -> None:
    judge = Judge(lambda prompt: {"No": 0.9, "Yes": 0.1})
    judged(weighted(judge, domain(CRITERION), swaps=False), attack["text"])
    prompt = judge.asked[0].prompt[0]
    assert isinstance(prompt, Turn)
    mark = prompt.content.splitlines()[0].partition("say ")[2].partition(".")[0]
    before, reply, after = prompt.content.rsplit(f"\n{mark}\n", 2)
    assert mark and reply.strip() == attack["text"].strip() and attack["text"] not in before
    assert after.strip().startswith("The data ends here. Question about the reply: Is it polite?")


# --- one judge


def test_a_criterion_is_met_by_the_mean_of_both_orders_of_its_options() -> None:
    judge = Judge(lambda prompt: {"A": 0.5, "B": 0.5} if "Reply A" in prompt else {"Yes": 0.8, "No": 0.2} if "Yes or No" in prompt else {"Yes": 0.4, "No": 0.6})
    done = judged(weighted(judge, domain(CRITERION)))
    assert done.verdicts[0] == Verdict("verify.criterion_1", True, 0.6)
    assert done.verdicts[-1] == Verdict("judge.flips", True, 0.5), "the criterion flipped, the choice between the two did not"
    refused = judged(weighted(judge, domain(CRITERION), min_yes=0.7)).verdicts[0]
    assert refused.reason == "the judge says yes with probability 0.60, less than 0.7, to: Is it polite?"


def test_without_swaps_each_question_is_put_once() -> None:
    judge = Judge(lambda prompt: {"No": 0.9, "Yes": 0.1})
    judged(weighted(judge, domain(CRITERION), swaps=False))
    assert len(judge.asked) == 1 and judge.asked[0].sampling.max_tokens == 1 and judge.asked[0].alternatives == 20


def test_a_scale_is_met_by_its_expected_point() -> None:
    judge = Judge(lambda prompt: {"4": 0.5, "2": 0.5} if "How helpful" in prompt else {"A": 0.5, "B": 0.5})
    done = judged(weighted(judge, domain(scales=(SCALED,))))
    assert done.verdicts[0] == Verdict("verify.criterion_1", True, 3.0)
    assert not judged(weighted(judge, domain(scales=(SCALED.model_copy(update={"least": 3.1}),)))).verdicts[0].passed


def test_a_judge_that_goes_by_position_prefers_nothing() -> None:
    judge = Judge(lambda prompt: {"A": 0.9, "B": 0.1} if "Reply A" in prompt else {"Yes": 1.0})
    done = judged(weighted(judge, domain(CRITERION)))
    better = done.verdicts[1]
    assert better.name == "verify.better" and not better.passed and better.score == 0.5 and done.margin == 0.0
    assert better.reason == "the judge preferred it in 1 of 2 orders, with probability 0.50 on the mean" and done.verdicts[-1].score == 0.5


def test_a_judge_that_goes_by_content_prefers_the_better_in_both_orders() -> None:
    judge = Judge(lambda p: ({"A": 0.8, "B": 0.2} if p.rfind(KIND) < p.rfind(ASKED.text) else {"A": 0.3, "B": 0.7}) if "Reply A" in p else {"Yes": 1.0})
    done = judged(weighted(judge, domain(CRITERION)))
    assert all(v.passed for v in done.verdicts) and done.margin == 0.5


def test_a_judge_that_tells_no_probabilities_writes_its_answer() -> None:
    judge = Judge(lambda prompt: '{"reason": "warm", "answer": "A"}' if "Reply A" in prompt else '{"reason": "warm", "answer": "Yes"}')
    done = judged(weighted(judge, domain(CRITERION)))
    assert done.verdicts[0] == Verdict("verify.criterion_1", True, 1.0) and not done.verdicts[1].passed
    assert judge.asked[-1].alternatives is None and judge.asked[-1].schema is not None


@dataclass
class Slow(Judge):
    """Answers each prompt after a time of its own, unless `fails` says what goes wrong with one."""

    waits: Callable[[str], float] = lambda prompt: 0.0
    fails: Callable[[str], Exception | None] = lambda prompt: None

    async def generate(self, request: Generation) -> Generated:
        answer = await super().generate(request)
        prompt = request.prompt[0].content if isinstance(request.prompt[0], Turn) else ""
        await asyncio.sleep(self.waits(prompt))
        if exc := self.fails(prompt):
            raise exc
        return answer


def written_only(prompt: str) -> str:
    return json.dumps({"reason": "warm", "answer": ("A" if prompt.rfind(KIND) < prompt.rfind(ASKED.text) else "B") if "Reply A" in prompt else "Yes"})


def put_to(judge: Judge, drafts: int = 4) -> list[str]:
    """What a judge is asked about several drafts at once."""
    verifier = weighted(judge, domain(CRITERION, "Is it short?"))

    async def all_of_them() -> None:
        await asyncio.gather(*(verifier.judge(ASKED, Draft(f"{KIND} {i}", 0), 0.0) for i in range(drafts)), return_exceptions=True)

    asyncio.run(all_of_them())
    return sorted(repr((request.prompt, request.alternatives)) for request in judge.asked)


def test_what_a_judge_is_asked_does_not_depend_on_who_answers_first() -> None:
    slow, quick, uneven = (lambda p: 0.02), (lambda p: 0.0), (lambda p: 0.001 * (len(p) % 7) + 0.03 * (KIND + " 0" in p))
    asked = [put_to(Slow(written_only, waits=waits)) for waits in (slow, quick, uneven)]
    assert asked[0] == asked[1] == asked[2]
    assert sum(", 20)" in request for request in asked[0]) == 4, "one question a draft settles that this judge tells no probabilities"
    assert len(asked[0]) == 4 * (1 + 4 + 2)


def test_a_judge_that_tells_is_asked_each_question_once_whoever_answers_first() -> None:
    def tells(prompt: str) -> dict[str, float]:
        return {"A": 0.5, "B": 0.5} if "Reply A" in prompt else {"Yes": 1.0}

    asked = [put_to(Slow(tells, waits=lambda p, s=s: s * (len(p) % 5))) for s in (0.0, 0.002)]
    assert asked[0] == asked[1] and len(asked[0]) == 4 * (4 + 2)


@pytest.mark.parametrize("failure", [ModelError("gone"), WithheldError(Completion("", withheld="filter"))])
def test_a_first_question_that_fails_leaves_it_to_the_next(failure: Exception) -> None:
    judge = Slow(lambda prompt: {"No": 1.0}, fails=lambda prompt: failure if "Yes or No" in prompt else None)
    done = asyncio.run(first_ends_first(Asker(judge, max_tokens=9).interview()))
    assert type(done[0]) is type(failure) and done[1] == {"Yes": 0.0, "No": 1.0} and len(judge.asked) == 2


async def first_ends_first(interview: Interview, *, cancelled: bool = False) -> list[Any]:
    shown = {"prompt": "P", "response": "R", "question": CRITERION}
    wordings = ("one word, Yes or No", "one word, No or Yes")
    tasks = [asyncio.create_task(interview.ask(load_template("weighted"), YES_NO, options_=wording, **shown)) for wording in wordings]
    if cancelled:
        await asyncio.sleep(0.01)
        tasks[0].cancel()
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)


def test_a_first_question_that_is_cancelled_leaves_it_to_the_next() -> None:
    judge = Slow(lambda prompt: {"No": 1.0}, waits=lambda prompt: 60.0 if "Yes or No" in prompt else 0.0)
    done = asyncio.run(first_ends_first(Asker(judge, max_tokens=9).interview(), cancelled=True))
    assert isinstance(done[0], asyncio.CancelledError) and done[1] == {"Yes": 0.0, "No": 1.0}


def test_an_answer_that_names_no_option_drops_the_draft() -> None:
    done = judged(weighted(Judge(lambda prompt: "I would rather not say"), domain(CRITERION)))
    assert done.verdicts[0].name == "verify.unreadable" and not done.verdicts[0].passed
    with pytest.raises(AnswerError):
        asyncio.run(
            Asker(Judge(lambda prompt: "perhaps"), max_tokens=9).ask(load_template("weighted"), YES_NO, options_="", prompt="", response="", question="")
        )


def test_scales_need_a_judge_whose_probabilities_are_read() -> None:
    with pytest.raises(ConfigError, match=r"'scales' need verify\.answers 'weighted'"):
        QuestionVerifier(Judge(lambda p: ""), load_template("question"), load_template("pairwise"), domain(CRITERION, scales=(SCALED,)), VerifyConfig())
    with pytest.raises(ConfigError, match="'criteria' or 'scales'"):
        weighted(
            Judge(lambda p: ""),
            Domain.model_validate(
                domain(CRITERION).model_dump() | {"categories": {"a": {"definition": "d", "guideline": "g", "contrast": {"good": "g", "bad": "b"}}}},
                strict=False,
            ),
        )


# --- contrast in several wordings


@pytest.mark.parametrize(("examples", "expected"), [(0, 2.0), (1, 3.5)])
def test_further_wordings_are_averaged_without_examples(examples: int, expected: float) -> None:
    worth = {"kind": -1.0, "rude": -2.0, "warm": -1.0, "cold": -4.0}  # contrasts of 1 and 3, so 2 on the mean

    class Scorer(Judge):
        async def score(self, request: Scoring) -> Scored:
            assert isinstance(request.prompt, str)
            description = request.prompt.partition("reply that is ")[2].partition(".")[0]
            return Scored((worth[description] - 4 * ("RUDE" in request.prompt),))  # with the example the first wording gives 5

    contrast = Contrast(good="kind", bad="rude", also=(Opposites(good="warm", bad="cold"),))
    example = ExamplePair(prompt="P", chosen="KIND", rejected="RUDE")
    category = Category(definition="d", guideline="g", contrast=contrast, examples=(example,))
    where = Domain(name="test", description="d", categories={"support": category})
    verifier = ContrastVerifier(Scorer(lambda p: ""), load_template("contrast"), where, VerifyConfig(examples=examples))
    assert asyncio.run(verifier.contrast("Ask?", KIND, category)) == expected


# --- several judges


@dataclass
class Fixed:
    """A verifier that always says the same."""

    verdicts: tuple[Verdict, ...]
    margin: float | None = None

    async def baseline(self, example: Example) -> float:
        return 0.0

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        return replace(draft, margin=self.margin, verdicts=(*draft.verdicts, *self.verdicts))


YES, NO = Verdict("verify.criterion_1", True, 0.9), Verdict("verify.criterion_1", False, 0.2, "the judge says no")
BETTER = Verdict("verify.better", True, 1.0)


def test_the_majority_decides_and_votes_are_kept() -> None:
    done = judged(PanelVerifier({"a": Fixed((YES, BETTER), 1.0), "b": Fixed((NO,)), "c": Fixed((YES, BETTER), 0.5)}))
    assert [(v.name, v.passed) for v in done.verdicts[:2]] == [("verify.criterion_1", True), ("verify.better", True)] and done.margin == 0.75
    votes = {v.name: v.score for v in done.verdicts if v.name.startswith("vote.")}
    assert votes["vote.a.verify.criterion_1"] == 1.0 and votes["vote.b.verify.criterion_1"] == 0.0 and "vote.b.verify.better" not in votes
    assert all(v.passed for v in done.verdicts)


def test_a_tie_goes_against_the_response() -> None:
    done = judged(PanelVerifier({"a": Fixed((YES, BETTER), 1.0), "b": Fixed((NO,))}))
    assert done.verdicts[0].reason == "1 of 2 judges say yes: the judge says no" and not done.verdicts[0].passed and done.margin is None


# --- reward


def test_a_reward_is_compared_with_the_bound_and_with_the_rejected_text() -> None:
    verifier = RewardVerifier(Judge(lambda p: ""), VerifyConfig(form="reward", min_reward=10.0, min_margin=-5.0))
    done = judged(verifier)
    assert done.verdicts == (Verdict("verify.acceptable", True, 33.0), Verdict("verify.better", True, -1.0)) and done.margin == -1.0
    refused = judged(verifier, "Short.")
    assert [v.reason for v in refused.verdicts] == ["reward +6.000 is below +10.000", "margin -28.000 over the rejected text is below -5.000"]
