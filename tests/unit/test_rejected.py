"""When another rejected response takes the place of the source text, and what happens where none may."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from safer_instruct.config import RespondConfig, RunConfig, VerifyConfig
from safer_instruct.domain import Category, Contrast, Domain
from safer_instruct.errors import RequestError
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.models.protocol import Completion, Generated, Generation
from safer_instruct.models.scripted import ScriptedModel
from safer_instruct.settings.sides import RejectedConfig
from safer_instruct.stages.rejected import RejectedSide, rejected_template
from safer_instruct.stages.verify import HopelessError
from safer_instruct.templates import load_template

pytestmark = pytest.mark.filterwarnings("error")

DOMAIN = Domain(
    name="test",
    description="For tests.",
    categories={"support": Category(definition="A rude reply.", guideline="Be kind.", contrast=Contrast(good="kind", bad="rude"))},
)
SOURCE = "Read the leaflet before you write to us, it has pictures for people like you, and it came with the tent that you say is so hard to put up."
CHOSEN = "Here is how it goes up: poles first, then the pegs, then the sheet."
PAIR = Example("r1", SOURCE, "support", "t.jsonl", 1, prompt="How do I put up the tent?", chosen=CHOSEN, margin=0.4, drafts=(Draft(CHOSEN, 0),))
REWRITE = "It has a leaflet with pictures for people like you, so read it first."


class Writes(ScriptedModel):
    """Writes one text whatever it is asked, or refuses the request."""

    def __init__(self, text: str = "", *, finished: bool = True, withheld: Any = "", refuse: bool = False) -> None:
        super().__init__()
        self.completion, self.refuse, self.asked = Completion(text, finished=finished, withheld=withheld), refuse, list[Generation]()

    async def generate(self, request: Generation) -> Generated:
        self.asked.append(request)
        if self.refuse:
            raise RequestError("HTTP 400: no")
        return Generated((self.completion,))


class Compares:
    """Finds the chosen response better than whatever it was not told is as good."""

    def __init__(self, *as_good: str, acceptable: bool = True) -> None:
        self.as_good, self.acceptable = as_good, acceptable

    async def baseline(self, example: Example) -> float:
        return 0.0

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        if not self.acceptable:
            return replace(draft, verdicts=(Verdict("verify.criterion_1", False, None, "not kind"),))
        better = example.text not in self.as_good
        return replace(draft, margin=0.2, verdicts=(Verdict("verify.acceptable", True), Verdict("verify.better", better, 0.2, "" if better else "even")))


class Programs:
    """Passes what holds a word; nobody compares."""

    def __init__(self, word: str, *, must_fail: bool = False) -> None:
        self.word, self.must_fail = word, must_fail

    async def baseline(self, example: Example) -> float:
        if self.must_fail and self.word in example.text:
            raise HopelessError(Verdict("verify.program.p", False, None, "the rejected text passes it as well"))
        return 0.0

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        return replace(draft, verdicts=(Verdict("verify.program.p", self.word in draft.text),))


def replaced(model: Writes, verifier: Any, pair: Example = PAIR, **config: Any) -> Example:
    asked = RejectedConfig(**{"form": "matched", **config})
    template = load_template("matched" if asked.form == "matched" else "respond")
    return asyncio.run(RejectedSide(model, template, DOMAIN, verifier, asked, VerifyConfig(), RespondConfig(), 0).replaced(pair))


def test_a_rewrite_that_is_still_worse_takes_the_place_of_the_source_text() -> None:
    model = Writes(f'"{REWRITE}"')
    found = replaced(model, Compares())
    assert (found.rejected, found.rejected_text, found.text, found.chosen, found.margin) == (REWRITE, REWRITE, SOURCE, CHOSEN, 0.2)
    assert [v.name for v in found.verdicts] == ["rejected.ratio", "rejected.form", "rejected.kept", "rejected.worse"] and found.alive
    assert found.drafts[0] == PAIR.drafts[0] and found.drafts[1].text == REWRITE and len(model.asked) == 1
    asked = model.asked[0].prompt
    assert (
        not isinstance(asked, str)
        and "about 14 words, at least 11 and at most 18" in asked[0].content
        and DOMAIN.categories["support"].definition in asked[0].content
    )


def test_a_source_text_that_fits_already_is_left_alone() -> None:
    model = Writes()
    found = replaced(model, Compares(), replace(PAIR, text=REWRITE))
    assert not model.asked and not found.rejected and [(v.name, v.passed) for v in found.verdicts] == [("rejected.ratio", True)]


def test_what_is_said_of_a_rewrite_says_what_is_wrong_and_nothing_where_nothing_is() -> None:
    good = replaced(Writes(REWRITE), Compares()).drafts[-1].verdicts
    assert [(v.name, v.passed, v.reason) for v in good] == [(f"rejected.{name}", True, "") for name in ("ratio", "form", "kept", "worse")]
    refuses = "I'm sorry, but I can't help you with that request of yours today."
    (kept,) = [v for v in replaced(Writes(refuses), Compares()).drafts[-1].verdicts if not v.passed]
    assert (kept.name, kept.reason) == ("rejected.kept", "declines instead of rewriting")
    long_ = [v for v in replaced(Writes(f"{REWRITE} {REWRITE}\n- and so on"), Compares()).drafts[-1].verdicts if not v.passed]
    assert [(v.name, v.reason) for v in long_] == [
        ("rejected.ratio", "has 2.29 of the chosen response's words, not 0.8 to 1.25"),
        ("rejected.form", "has list where the chosen response has none"),
    ]


@pytest.mark.parametrize(("words", "fits"), [(10, True), (9, False), (20, True), (21, False)])
def test_a_length_that_just_reaches_a_bound_fits(words: int, fits: bool) -> None:
    pair = replace(PAIR, text=" ".join(["no"] * words), chosen=" ".join(["well"] * 20))
    model = Writes("no good")
    found = replaced(model, Compares(), pair, ratio=(0.5, 1.0))
    assert bool(model.asked) != fits
    if fits:
        assert found.verdicts[0].score == words / 20


def test_the_template_is_that_of_who_writes() -> None:
    models = {"inducer": "embedded", "expert": "embedded", "student": "embedded"}
    config = RunConfig.model_validate({"domain": "civility", "source": {"path": "t.jsonl"}, "models": models, "rejected": {"form": "matched"}})
    assert rejected_template(config) == config.rejected.template
    assert rejected_template(config.model_copy(update={"rejected": RejectedConfig(form="student")})) == config.respond.template != config.rejected.template


@pytest.mark.parametrize(
    ("model", "verifier", "verdict"),
    [
        (Writes(REWRITE), Compares(REWRITE), "rejected.worse"),
        (Writes(REWRITE), Compares(acceptable=False), "rejected.worse"),
        (Writes(REWRITE), Programs("leaflet", must_fail=True), "rejected.worse"),
        (Writes(REWRITE), Programs("pictures"), "rejected.worse"),
        (Writes(CHOSEN.upper()), Compares(), "rejected.copy"),
        (Writes(REWRITE, finished=False), Compares(), "rejected.unfinished"),
        (Writes("Read it."), Compares(), "rejected.length"),
        (Writes("No.", withheld="filter"), Compares(), "rejected.content_filter"),
        (Writes(refuse=True), Compares(), "rejected.refused"),
    ],
)
def test_where_none_passes_the_source_text_stays_or_the_example_goes(model: Writes, verifier: Any, verdict: str) -> None:
    kept = replaced(model, verifier)
    assert kept.alive and not kept.rejected and kept.margin == 0.4
    assert [(v.name, v.flag) for v in kept.verdicts if not v.passed] == [(verdict, True)] and len(model.asked) == (1 if model.refuse else 2)
    dropped = replaced(model, verifier, fallback="drop", rounds=1).dropped_by
    assert dropped is not None and dropped.name == verdict


class Answers(Writes):
    """Gives several at once."""

    async def generate(self, request: Generation) -> Generated:
        return Generated((Completion(REWRITE), Completion(REWRITE.replace("leaflet", "booklet"))))


@pytest.mark.parametrize("alike", [True, False])
def test_where_all_that_pass_have_the_same_margin_the_first_of_them_is_taken_and_the_rest_not_judged(alike: bool) -> None:
    config = RejectedConfig(form="matched", drafts=2)
    side = RejectedSide(Answers(), load_template("matched"), DOMAIN, Compares(), config, VerifyConfig(), RespondConfig(), 0, alike)
    found = asyncio.run(side.replaced(PAIR))
    assert found.rejected == found.drafts[1].text
    judged = [any(v.name == "rejected.worse" for v in draft.verdicts) for draft in found.drafts[1:]]
    assert judged == ([True, False] if alike else [True, True])


def test_where_programs_alone_decide_what_fails_one_is_worse() -> None:
    assert replaced(Writes(REWRITE), Programs("poles")).rejected == REWRITE


def test_the_student_is_shown_the_prompt_and_nothing_of_the_guideline() -> None:
    model = Writes("Put it up somehow, whatever works for you.")
    found = replaced(model, Compares(), form="student", max_tokens=77, drafts=3)
    (asked,) = model.asked
    assert found.rejected == model.completion.text and [(t.role, t.content) for t in asked.prompt if not isinstance(t, str)] == [("user", PAIR.prompt)]
    assert (asked.sampling.max_tokens, asked.sampling.n) == (77, 3)
