"""What a twin must pass: near in surface and not equal, a fair instruction, new to the set, and harmless."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from safer_instruct.analysis.similarity import chrf
from safer_instruct.detect.words import words_of
from safer_instruct.domain import Domain
from safer_instruct.errors import AnswerError
from safer_instruct.example import Candidate, Example, Verdict
from safer_instruct.filters.checks import Check, check_all
from safer_instruct.filters.detected import Leakage
from safer_instruct.filters.rules import Copying
from safer_instruct.models.protocol import Model, Scoring
from safer_instruct.models.said import why_unfinished
from safer_instruct.models.together import together
from safer_instruct.stages.asking import YES_NO, Asker
from safer_instruct.stages.withheld import WithheldError, content_filter
from safer_instruct.templates import Template

LookUp = Callable[[str, str], Verdict]
"""Text and id of the pair that it is the twin of -> whether it is new to the set."""
_MIN_YES, _MIN_CONTRAST = 0.5, 0.0
_WHOLE_FROM_WORDS = 4  # shorter ones stand in many a longer one by chance


class Benign(Protocol):
    """Says whether an instruction is harmless: that it can be answered in full without a text of the category."""

    async def judge(self, prompt: str, category: str) -> Verdict:
        """The verdict `twins.benign`.

        Raises:
            ModelError: The model failed after its retries.
        """


@dataclass(frozen=True, slots=True)
class JudgedBenign:
    """A judge is asked; the score is the probability of yes.

    Attributes:
        asker: Puts the question.
        template: It is given `prompt`, `definition`, `mark` and `written`.
        domain: Holds the definitions.
        least: Least probability of yes.
    """

    asker: Asker
    template: Template
    domain: Domain
    least: float | None = None

    async def judge(self, prompt: str, category: str) -> Verdict:
        """See `Benign.judge`."""
        least = _MIN_YES if self.least is None else self.least
        try:
            said = await self.asker.ask(self.template, YES_NO, prompt=prompt, definition=self.domain.category(category).definition)
        except AnswerError as exc:
            return Verdict("twins.unreadable", False, None, f"the judge: {exc}")
        except WithheldError as exc:
            return content_filter("twins", exc.completion)
        yes = round(said["Yes"], 6)
        reason = "" if yes >= least else f"the judge calls it harmless with probability {yes:.2f}, less than {least:g}"
        return Verdict("twins.benign", not reason, yes, reason)


@dataclass(frozen=True, slots=True)
class ScoredBenign:
    """A model that scores compares two descriptions of the instruction; the score is the contrast, in nats per token.

    It is the contrast of `stages.verify.ContrastVerifier`, of an instruction in place of a response: mean log p(instruction | a harmless
    one) - mean log p(instruction | one that asks for a text of the category).

    Attributes:
        scorer: A model that scores.
        template: It is given `description`.
        domain: Holds the definitions.
        least: Least contrast.
    """

    scorer: Model
    template: Template
    domain: Domain
    least: float | None = None

    async def judge(self, prompt: str, category: str) -> Verdict:
        """See `Benign.judge`."""
        least = _MIN_CONTRAST if self.least is None else self.least
        asks_for = self.domain.category(category).definition
        described = ("that is harmless and that anybody may be helped with.", f"that asks for a text of this kind: {asks_for}")
        rendered = [self.template.render(description=description) for description in described]
        harmless, not_harmless = await together(self.scorer.score(Scoring(text, prompt)) for text in rendered)
        contrast = round(harmless.mean - not_harmless.mean, 6)
        return Verdict("twins.benign", contrast >= least, contrast, "" if contrast >= least else f"contrast {contrast:+.3f} is below {least:+.3f}")


@dataclass(frozen=True, slots=True)
class Gates:
    """What a candidate must pass, cheapest first.

    Attributes:
        min_similarity: Least chrF2 of twin and instruction, as a share of 1.
        checks: The run's filters on instructions; those that compare with a source text are left out.
        look_up: Whether it is new to the set.
        benign: Asked last.
    """

    min_similarity: float
    checks: Sequence[Check]
    look_up: LookUp
    benign: Benign

    async def choose(self, twin: Example) -> Example:
        """Take the likeliest candidate that passes all, as the prompt; otherwise drop the twin with the verdicts of the likeliest.

        Raises:
            ModelError: The model that says what is harmless failed after its retries.
        """
        judged: list[Candidate] = []
        for candidate in twin.candidates:
            verdicts = self._form(candidate, twin)
            if not any(v.drops for v in verdicts):
                verdicts = (*verdicts, await self.benign.judge(candidate.text, twin.category))
            judged.append(replace(candidate, verdicts=verdicts))
            if not any(v.drops for v in verdicts):
                rest = twin.candidates[len(judged) :]
                return replace(twin, candidates=(*judged, *rest), prompt=candidate.text).with_verdicts(*verdicts)
        said = judged[0].verdicts if judged else (Verdict("twins.empty", False, None, "nothing was written"),)
        return replace(twin, candidates=tuple(judged)).with_verdicts(*said)

    def _form(self, candidate: Candidate, twin: Example) -> tuple[Verdict, ...]:
        """The gates that need no model."""
        if not candidate.text:
            return (Verdict("twins.empty", False, None, "nothing was written"),)
        if not candidate.finished:
            return (Verdict("twins.unfinished", False, None, why_unfinished(candidate.text, "twins.max_tokens")),)
        near = round(chrf(candidate.text, twin.text) / 100, 4)
        reason = "" if near >= self.min_similarity else f"chrF {near:.2f} to the instruction, less than {self.min_similarity:g}"
        surface = (Verdict("twins.near", not reason, near, reason),)
        mine, theirs = words_of(candidate.text), words_of(twin.text)
        if mine.list == theirs.list:
            return (*surface, Verdict("twins.equal", False, None, "has the same words as the instruction"))
        if len(theirs.list) >= _WHOLE_FROM_WORDS and theirs.joined in mine.joined:
            return (*surface, Verdict("twins.whole", False, None, "holds the whole instruction"))
        compared = [check for check in self.checks if not isinstance(check.filter, Copying | Leakage)]
        return (*surface, *check_all(compared, replace(twin, prompt=candidate.text)), self.look_up(candidate.text, twin.twin_of))
