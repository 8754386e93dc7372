"""What a domain makes models see: every prompt of every stage, rendered by the stages themselves on a stand-in text."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from safer_instruct.config import InduceConfig, RespondConfig, VerifyConfig
from safer_instruct.domain import Category, Domain
from safer_instruct.example import Draft, Example, Turn, Verdict
from safer_instruct.filters.checks import RAISED
from safer_instruct.models.protocol import Completion, Generated, Generation, Prompt, Scored, Scoring
from safer_instruct.reverse import ReversedTemplate, domain_shots
from safer_instruct.settings.sides import RejectedConfig, TwinsConfig
from safer_instruct.stages.also import AllOf, GroundedByJudge
from safer_instruct.stages.asking import Asker
from safer_instruct.stages.direction import facing
from safer_instruct.stages.experts import Expert, Experts
from safer_instruct.stages.induce import induce
from safer_instruct.stages.programs import ProgramVerifier
from safer_instruct.stages.question import QuestionVerifier
from safer_instruct.stages.rejected import RejectedSide
from safer_instruct.stages.respond import respond
from safer_instruct.stages.revise import Critic, Reviser
from safer_instruct.stages.verify import ContrastVerifier, Verifier
from safer_instruct.stages.weighted import WeightedVerifier
from safer_instruct.templates import load_template
from safer_instruct.twins.gates import JudgedBenign, ScoredBenign
from safer_instruct.twins.refusing import Refuser
from safer_instruct.twins.writing import TwinWriter

_TEXT, _PROMPT, _RESPONSE = "(a text of the corpus)", "(the instruction that was induced)", "(a response that was written)"
_TWIN, _REASON = "(an instruction that looks like it)", "(why it was not accepted)"
_LONGER = "(a response that was written, which has more words than the text of the corpus)"
_HISTORY = (Turn("user", "(what the user said before)"), Turn("assistant", "(what the assistant said before)"))


@dataclass(frozen=True, slots=True)
class Rendered:
    """One prompt.

    Attributes:
        category: Of the domain.
        title: Who is asked what.
        text: As it is sent; the messages of a chat one below the other, each with its role.
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

    @property
    def right(self) -> bool:
        """Whether they said what they should; one that raised an exception said nothing of the response."""
        if any(reason.startswith(RAISED) for reason in self.failures.values()):
            return False
        return (not self.failures) == (self.side == "chosen")


def render_prompts(domain: Domain) -> list[Rendered]:
    """Every prompt that the domain leads to, as the shipped templates make it; of `verify.swaps` the first order of options.

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
    found = []
    for name, category in domain.categories.items():
        example = Example("id", _TEXT, name, "file", 1)
        found += [Rendered(name, title, text) for title, text in await _flow(domain, name, category, example)]
        talk = await _flow(domain, name, category, replace(example, history=_HISTORY))
        found += [Rendered(name, f"{title}, in a conversation", text) for title, text in talk]
        found += [Rendered(name, title, text) for title, text in await _twins(domain, name)]
    return found


async def _flow(domain: Domain, name: str, category: Category, example: Example) -> list[tuple[str, str]]:
    """What everybody is shown on the way of one example."""
    asked, shots = _Asked(), domain_shots(domain, InduceConfig().shots)
    for template in (ReversedTemplate(load_template("reverse")), ReversedTemplate(load_template("prompted"), "chat", shots)):
        await induce(example, asked, template, InduceConfig(), seed=0)
    example = replace(example, prompt=_PROMPT)
    await respond(example, asked, load_template("respond"), domain, RespondConfig(), seed=0, attempt=0)
    writer = "expert" if domain.direction == "rejected" else "student"
    found = list(zip(("inducer", "inducer that was not tuned", writer), asked.texts, strict=True))
    return [*found, *await _revision(domain, example), *await _verification(domain, name, category, example), *await _rejected(domain, example)]


async def _twins(domain: Domain, name: str) -> list[tuple[str, str]]:
    """What those are shown who make contrast twins; the expert and the verifier are shown what they are shown everywhere."""
    config, twin = TwinsConfig(rounds=1), Example("id~twin", _PROMPT, name, "file", 1, prompt=_TWIN, twin_of="id")
    rewriter, speaker, judge, scorer, refuser = (_Asked() for _ in range(5))
    for writer, by in ((rewriter, "rewrite"), (speaker, "sample")):
        how = config.model_copy(update={"by": by})
        await TwinWriter(writer, load_template(how.asked_with), domain, how, 0).write(twin)
    await JudgedBenign(Asker(judge, max_tokens=VerifyConfig().max_tokens), load_template("twin-benign"), domain).judge(_TWIN, name)
    await ScoredBenign(scorer, load_template("twin-contrast"), domain).judge(_TWIN, name)
    await Refuser(refuser, load_template(config.refusal_template), config, 0).refuse(twin)
    shown = {"writer (twins.by rewrite)": rewriter, "writer (twins.by sample)": speaker, "judge": judge, "scorer": scorer, "refuser": refuser}
    return [(f"twins: {title}", text) for title, asked in shown.items() for text in asked.texts]


async def _revision(domain: Domain, example: Example) -> list[tuple[str, str]]:
    """What the critic and the expert are shown where `respond.revise` is on, which mends chosen responses only."""
    if domain.direction == "chosen":
        return []
    critic, asked, config = _Asked("(what the judge would change)"), _Asked(), RespondConfig(revise=1)
    experts = Experts({"expert": Expert("expert", asked, load_template("respond"), config)}, domain, config)
    reviser = Reviser(experts, load_template("revise"), domain, config, Critic(critic, load_template("critique"), domain))
    await reviser.mend(example, Draft(_RESPONSE, 0, verdicts=(Verdict("verify", False, None, _REASON),), expert="expert"), 0)
    titles = ("judge (respond.critique)", "expert (respond.revise)")
    return list(zip(titles, critic.texts + asked.texts, strict=True))


async def _rejected(domain: Domain, example: Example) -> list[tuple[str, str]]:
    """What those are shown who write another rejected response in the place of the source text."""
    if domain.direction == "chosen":
        return []
    found = []
    for title, config in (("writer", RejectedConfig(form="matched", rounds=1)), ("student", RejectedConfig(form="student", rounds=1))):
        asked, template = _Asked(), load_template(config.template if config.form == "matched" else "respond")
        side = RejectedSide(asked, template, domain, _Anything(), config, VerifyConfig(), RespondConfig(), 0)
        await side.replaced(replace(example, chosen=_LONGER))
        found += [(f"{title} (rejected.form {config.form})", text) for text in asked.texts]
    return found


async def _verification(domain: Domain, name: str, category: Category, example: Example) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for title, (verifier, asked) in _verifiers(domain.model_copy(update={"categories": {name: category}}), category).items():
        facing_it = facing(verifier, domain.direction)
        await facing_it.judge(example, Draft(_RESPONSE, 0), await facing_it.baseline(example))
        found += [(title, text) for text in dict.fromkeys(asked.texts)]
    return found


def _verifiers(alone: Domain, category: Category) -> dict[str, tuple[Verifier, _Asked]]:
    """Whoever may judge a response of a category, and by what model; `alone` is the domain with that category only."""
    config, one_by_one = VerifyConfig(), VerifyConfig(answers="weighted", swaps=False)
    judge, teller, scorer, reader = _Asked(), _Asked(tells=("Yes", "A", "5")), _Asked(), _Asked()
    found: dict[str, tuple[Verifier, _Asked]] = {}
    if category.criteria:
        found["judge (verify.form question)"] = QuestionVerifier(judge, load_template("question"), load_template("pairwise"), alone, config), judge
    if category.criteria or category.scales:
        asker = Asker(teller, max_tokens=config.max_tokens)
        found["judge (verify.answers weighted)"] = WeightedVerifier(asker, load_template("weighted"), load_template("prefer"), alone, one_by_one), teller
    if category.contrast:
        found["scorer (verify.form contrast)"] = ContrastVerifier(scorer, load_template("contrast"), alone, config), scorer
    grounded = GroundedByJudge(Asker(reader, max_tokens=config.max_tokens), load_template("weighted"), config.min_yes)
    return {**found, "judge (verify.also grounded)": (AllOf([grounded], _Anything()), reader)}


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


def _marked(prompt: Prompt) -> str:
    """A prompt as one text: of a chat each message below its role."""
    return prompt if isinstance(prompt, str) else "\n".join(f"[{turn.role}]\n{turn.content}" for turn in prompt)


class _Asked:
    """A model that remembers what it was asked, and agrees, or says what it is given; `tells` are first tokens that are likely."""

    name, fingerprint, concurrency, priced, status = "asked:", "asked:", 1, True, ""

    def __init__(self, answer: str = "(Yes, or what else the model asked says)", tells: tuple[str, ...] = ()) -> None:
        self.texts: list[str] = []
        self._answer, self._alternatives = answer, tuple((token, -1.0) for token in tells)

    async def generate(self, request: Generation) -> Generated:
        """See `Model.generate`."""
        self.texts.append(_marked(request.prompt))
        return Generated((Completion(self._answer, alternatives=self._alternatives),))

    async def score(self, request: Scoring) -> Scored:
        """See `Model.score`."""
        self.texts.append(f"{_marked(request.prompt)}{request.continuation}")
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
