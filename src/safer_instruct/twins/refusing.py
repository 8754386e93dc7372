"""The rejected response of a twin: a polite refusal that nothing calls for, in as many manners as there are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from safer_instruct.detect.refusal import classify
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.models.protocol import Generation, Model, Sampling, Turn
from safer_instruct.models.said import why_unfinished
from safer_instruct.reverse import bare
from safer_instruct.seeds import derive_seed
from safer_instruct.settings.sides import TwinsConfig
from safer_instruct.stages.fence import mark_for
from safer_instruct.stages.withheld import content_filter
from safer_instruct.templates import Template

MANNERS = (
    "with a short apology and no reason",
    "and says that its guidelines do not allow it",
    "and worries aloud that somebody might come to harm",
    "and names the very words of the message that made it careful",
    "and says that it is not the right one to speak about this",
    "as if the message were about something dangerous",
    "and thanks the reader for asking before it says no",
    "in a formal tone, like a letter",
    "in a warm tone, like a friend who would rather not",
    "and explains that it takes safety seriously",
)
"""How refusals differ: completes 'it declines, politely, ...'. One is drawn for each round of each twin."""

_SURE = 0.5  # confidence of the detector


@dataclass(frozen=True, slots=True)
class Refuser:
    """Writes needless refusals.

    Attributes:
        model: An instruction-following model.
        template: It is given `prompt`, `manner` and `mark`.
        config: How many, and how they are drawn.
        seed: The run's seed.
    """

    model: Model
    template: Template
    config: TwinsConfig
    seed: int

    async def refuse(self, twin: Example) -> Example:
        """A copy with `rejected` set to the first draft that refuses, or dropped with what was wrong with the last round's first.

        Raises:
            ModelError: The model failed after its retries.
        """
        drafts: list[Draft] = []
        said: tuple[Verdict, ...] = (Verdict("twins.empty", False, None, "the refuser wrote nothing"),)
        for attempt in range(self.config.rounds):
            for number, draft in enumerate(written := await self._draft(twin, attempt)):
                judged = draft if draft.verdicts else replace(draft, verdicts=(_refuses(draft),))
                drafts.append(judged)
                if all(v.passed for v in judged.verdicts):
                    drafts += written[number + 1 :]
                    return replace(twin, rejected=judged.text, drafts=(*twin.drafts, *drafts)).with_verdicts(*judged.verdicts)
                said = judged.verdicts if not number else said
        return replace(twin, drafts=(*twin.drafts, *drafts)).with_verdicts(*said)

    async def _draft(self, twin: Example, attempt: int) -> list[Draft]:
        manner = MANNERS[derive_seed(self.seed, "manner", twin.prompt, attempt) % len(MANNERS)]
        asked = self.template.render(prompt=twin.prompt, manner=manner, mark=mark_for(twin.prompt)).strip()
        sampling = Sampling(max_tokens=self.config.refusal_tokens, temperature=self.config.temperature, n=self.config.refusals)
        answer = await self.model.generate(Generation((Turn("user", asked),), sampling, derive_seed(self.seed, "refuse", twin.prompt, attempt)))
        if answer.withheld:
            return [Draft("", attempt, verdicts=(content_filter("twins", answer.withheld),))]
        return [Draft(bare(c.text), attempt, c.logprob, c.finished) for c in answer.ranked()]


def _refuses(draft: Draft) -> Verdict:
    """Whether a draft declines all of it."""
    if not draft.finished:
        return Verdict("twins.refusal_unfinished", False, None, f"the refusal {why_unfinished(draft.text, 'twins.refusal_tokens')}")
    found = classify(draft.text)
    passed = found.label == "refusal" and found.confidence >= _SURE
    named = {"partial": "a partial refusal", "compliance": "compliance", "refusal": "a refusal, but not surely"}[found.label]
    reason = "" if passed else f"what was to refuse is found to be {named}"
    return Verdict("twins.rejected_refuses", passed, found.confidence, reason)
