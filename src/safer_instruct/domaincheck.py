"""What a domain makes models see: every prompt of every stage, rendered by the stages themselves on a stand-in text."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from safer_instruct.config import InduceConfig, RespondConfig, VerifyConfig
from safer_instruct.domain import Category, Domain
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.models.protocol import Completion, Generated, Generation, Scored, Scoring
from safer_instruct.models.scripted import prompt_text
from safer_instruct.reverse import ReversedTemplate, domain_shots
from safer_instruct.stages.direction import facing
from safer_instruct.stages.experts import Expert, Experts
from safer_instruct.stages.induce import induce
from safer_instruct.stages.programs import ProgramVerifier
from safer_instruct.stages.question import QuestionVerifier
from safer_instruct.stages.respond import respond
from safer_instruct.stages.revise import Critic, Reviser
from safer_instruct.stages.verify import ContrastVerifier, Verifier
from safer_instruct.templates import load_template

_TEXT, _PROMPT, _RESPONSE = "(a text of the corpus)", "(the instruction that was induced)", "(a response that was written)"
_REASON = "(why it was not accepted)"


@dataclass(frozen=True, slots=True)
class Rendered:
    """One prompt.

    Attributes:
        category: Of the domain.
        title: Who is asked what.
        text: As it is sent; the messages of a chat one below the other.
    """

    category: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """What the programs of a category say of one of its example pairs.

    Attributes:
        category: Of the domain.
        number: Of the pair, from 1.
        side: `chosen`, which must pass, or `rejected`.
        failures: Reasons by verdict; empty where it passes.
    """

    category: str
    number: int
    side: str
    failures: dict[str, str]


def render_prompts(domain: Domain) -> list[Rendered]:
    """Every prompt that the domain leads to, as the shipped templates make it.

    Raises:
        ConfigError: A template cannot be rendered.
    """
    return asyncio.run(_render(domain))


def try_programs(domain: Domain) -> list[ProgramResult]:
    """Run the domain's programs on its example pairs.

    Raises:
        ConfigError: A program is not there.
    """
    if not any(domain.programs(name) for name in domain.categories):
        return []
    return asyncio.run(_try_programs(domain))


async def _render(domain: Domain) -> list[Rendered]:
    found, shots = [], domain_shots(domain, InduceConfig().shots)
    for name, category in domain.categories.items():
        example = Example("id", _TEXT, name, "file", 1)
        asked = _Asked()
        for template in (ReversedTemplate(load_template("reverse")), ReversedTemplate(load_template("prompted"), "chat", shots)):
            await induce(example, asked, template, InduceConfig(), seed=0)
        example = replace(example, prompt=_PROMPT)
        await respond(example, asked, load_template("respond"), domain, RespondConfig(), seed=0, attempt=0)
        writer = "expert" if domain.direction == "rejected" else "student"
        found += [Rendered(name, title, text) for title, text in zip(("inducer", "inducer that was not tuned", writer), asked.texts, strict=True)]
        found += await _revision(domain, name, example)
        found += [Rendered(name, title, text) for title, text in await _verification(domain, name, category, example)]
    return found


async def _revision(domain: Domain, name: str, example: Example) -> list[Rendered]:
    """What the critic and the expert are shown where `respond.revise` is on, which mends chosen responses only."""
    if domain.direction == "chosen":
        return []
    asked, config = _Asked(), RespondConfig(revise=1)
    experts = Experts({"expert": Expert("expert", asked, load_template("respond"), config)}, domain, config)
    reviser = Reviser(experts, load_template("revise"), domain, config, Critic(asked, load_template("critique"), domain))
    await reviser.mend(example, Draft(_RESPONSE, 0, verdicts=(Verdict("verify", False, None, _REASON),), expert="expert"), 0)
    titles = ("judge (respond.critique)", "expert (respond.revise)")
    return [Rendered(name, title, text) for title, text in zip(titles, asked.texts, strict=True)]


async def _verification(domain: Domain, name: str, category: Category, example: Example) -> list[tuple[str, str]]:
    alone = domain.model_copy(update={"categories": {name: category}})
    found: list[tuple[str, str]] = []
    verifiers: dict[str, tuple[Verifier, _Asked]] = {}
    if category.criteria:
        judge = _Asked()
        verifiers["judge (verify.form question)"] = QuestionVerifier(judge, load_template("question"), load_template("pairwise"), alone, VerifyConfig()), judge
    if category.contrast:
        scorer = _Asked()
        verifiers["scorer (verify.form contrast)"] = ContrastVerifier(scorer, load_template("contrast"), alone, VerifyConfig()), scorer
    for title, (verifier, asked) in verifiers.items():
        facing_it = facing(verifier, domain.direction)
        await facing_it.judge(example, Draft(_RESPONSE, 0), await facing_it.baseline(example))
        found += [(title, text) for text in dict.fromkeys(asked.texts)]
    return found


async def _try_programs(domain: Domain) -> list[ProgramResult]:
    verifier = ProgramVerifier(domain, None) if all(domain.programs(name) for name in domain.categories) else ProgramVerifier(domain, _Anything())
    found = []
    for name, category in domain.categories.items():
        for number, pair in enumerate(category.examples if domain.programs(name) else (), 1):
            example = Example("id", pair.rejected, name, "file", 1, prompt=pair.prompt)
            for side, text in (("chosen", pair.chosen), ("rejected", pair.rejected)):
                judged = await verifier.judge(example, Draft(text, 0), 0.0)
                found.append(ProgramResult(name, number, side, {v.name: v.reason for v in judged.verdicts if not v.passed}))
    return found


class _Asked:
    """A model that remembers what it was asked, and agrees."""

    name, fingerprint, concurrency, priced, status = "asked:", "asked:", 1, True, ""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def generate(self, request: Generation) -> Generated:
        """See `Model.generate`."""
        self.texts.append(prompt_text(request.prompt))
        return Generated((Completion("Yes"),))

    async def score(self, request: Scoring) -> Scored:
        """See `Model.score`."""
        self.texts.append(f"{prompt_text(request.prompt)}{request.continuation}")
        return Scored((-1.0,))

    async def close(self) -> None:
        """Nothing to give back."""


class _Anything:
    """A verifier that accepts."""

    async def baseline(self, example: Example) -> float:
        """See `Verifier.baseline`."""
        return 0.0

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        """See `Verifier.judge`."""
        return draft
