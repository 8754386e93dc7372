"""Critique and revise: who wrote a draft that was not accepted is shown why, and mends it.

The loop of generate, feedback, refine (Madaan et al. 2023, Self-Refine, section 2) with the verifiers' reasons as feedback, and the
guideline as the rubric of the critique (as in Bai et al. 2022, Constitutional AI, section 3.1).
"""

from __future__ import annotations

from safer_instruct.config import RespondConfig
from safer_instruct.conversation import in_context
from safer_instruct.domain import Domain
from safer_instruct.example import Draft, Example
from safer_instruct.models.protocol import Generation, Model, Sampling, Turn
from safer_instruct.models.said import is_unended
from safer_instruct.oneline import one_line, shortened
from safer_instruct.seeds import derive_seed
from safer_instruct.stages.experts import Experts
from safer_instruct.stages.fence import mark_for
from safer_instruct.templates import Template

_REASON_CHARS, _CRITIQUE_CHARS = 400, 2_000
_CRITIQUE_TOKENS = 256


class Critic:
    """A judge that says what is to be changed."""

    def __init__(self, judge: Model, template: Template, domain: Domain) -> None:
        """Take a model that is good at reading, and a template that shows it guideline, prompt, draft and reasons."""
        self._judge, self._template, self._domain = judge, template, domain

    async def critique(self, example: Example, draft: Draft, reasons: list[str]) -> str:
        """What is to be changed; empty where the judge's answer was withheld, or never came to an end of its reasoning.

        Raises:
            ModelError: The judge failed after its retries.
        """
        shown = _shown(example, draft, reasons, self._domain)
        request = Generation((Turn("user", self._template.render(**shown)),), Sampling(_CRITIQUE_TOKENS, 0.0, 0))
        said = (await self._judge.generate(request)).completions[0]
        return "" if said.withheld or is_unended(said.text) else shortened(said.text.strip(), _CRITIQUE_CHARS)


class Reviser:
    """Has drafts mended by those who wrote them."""

    def __init__(self, experts: Experts, template: Template, domain: Domain, config: RespondConfig, critic: Critic | None = None) -> None:
        """Mend nothing yet.

        Args:
            experts: Who wrote the drafts.
            template: Shows `guideline`, `prompt`, `response`, `reasons` and `critique` between marks (`mark`).
            domain: Holds the guideline.
            config: How often (`times`), and the cap on a response.
            critic: Asked before each revision; None for the verifiers' reasons alone.
        """
        self._experts, self._template, self._domain, self._critic = experts, template, domain, critic
        self.times = config.revise

    async def mend(self, example: Example, draft: Draft, seed: int) -> Draft | None:
        """A draft in the place of one that was not accepted; None where there is nothing to mend, or nothing came back.

        Raises:
            ModelError: The expert or the critic failed after its retries.
        """
        reasons = failures(draft)
        if not draft.text or not reasons:
            return None
        expert = self._experts.named(draft.expert)
        critique = await self._critic.critique(example, draft, reasons) if self._critic else ""
        shown = _shown(example, draft, reasons, self._domain, critique)
        category = self._domain.category(example.category)
        system = expert.template.render(domain=self._domain, category=category).strip()
        asked = Turn("user", self._template.render(critique=critique, **shown))
        config = expert.config
        sampling = Sampling(config.max_tokens, config.temperature, config.top_k, config.repetition_penalty)
        draw = derive_seed(seed, "revise", example.prompt, draft.attempt, draft.revision, draft.expert)
        answer = await expert.model.generate(Generation((Turn("system", system), asked) if system else (asked,), sampling, draw))
        written = answer.ranked()
        if not written:
            return None
        best = written[0]
        return Draft(best.text, draft.attempt, best.logprob, best.finished, expert=draft.expert, revision=draft.revision + 1)


def failures(draft: Draft) -> list[str]:
    """Why a draft was not accepted, one line for each verdict."""
    return [shortened(one_line(v.reason or v.name), _REASON_CHARS) for v in draft.verdicts if v.drops]


def _shown(example: Example, draft: Draft, reasons: list[str], domain: Domain, critique: str = "") -> dict[str, object]:
    """What both templates show; the mark stands in none of the texts that are not ours."""
    prompt = in_context(example.history, example.prompt)
    return {
        "mark": mark_for(prompt, draft.text, critique, *reasons),
        "guideline": domain.category(example.category).guideline,
        "prompt": prompt,
        "response": draft.text,
        "reasons": reasons,
    }
