"""Checks that every response must pass besides the form of verification: it speaks to its prompt, it declines only where it should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from safer_instruct.config import ConsistencyConfig
from safer_instruct.conversation import in_context
from safer_instruct.detect.refusal import classify
from safer_instruct.domain import Domain, Refusals
from safer_instruct.errors import AnswerError
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.filters.consistency import TextGains
from safer_instruct.models.protocol import Model
from safer_instruct.models.together import together
from safer_instruct.settings.answers import GroundedConfig, RefusalConfig
from safer_instruct.stages.asking import YES_NO, Asker
from safer_instruct.stages.verify import Verifier
from safer_instruct.stages.withheld import WithheldError, content_filter
from safer_instruct.templates import Template

_SPEAKS_TO_IT = "Question about the reply: does it answer this very message, speaking of what the message is about, and not just any message?"
_WRONG = {("never", "refusal"): "declines, where it may be helped", ("expected", "compliance"): "helps, where it must decline"}
_SPAN_CHARS = 60


class AlsoCheck(Protocol):
    """One question about a response; the rejected text is not looked at."""

    async def check(self, example: Example, draft: Draft) -> Verdict:
        """The verdict.

        Raises:
            ModelError: A model failed after its retries.
        """


class AllOf:
    """Every check first, each with a verdict of its own; then, of a response that passes them all, the verifier."""

    def __init__(self, checks: Sequence[AlsoCheck], then: Verifier) -> None:
        """Ask `checks` side by side, then `then`."""
        self._checks, self._then = tuple(checks), then

    async def baseline(self, example: Example) -> float:
        """See `Verifier.baseline`."""
        return await self._then.baseline(example)

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        """See `Verifier.judge`."""
        draft = replace(draft, verdicts=(*draft.verdicts, *await together(check.check(example, draft) for check in self._checks)))
        return await self._then.judge(example, draft, baseline) if draft.passed else draft


class GroundedByGain:
    """Does the prompt make the response likelier than it is by itself? The gain of `filters.consistency`, read the other way.

    The gain of a boilerplate answer, which would do for any prompt, is near 0 (bench/grounded.py).
    """

    def __init__(self, scorer: Model, forward: Template, config: GroundedConfig) -> None:
        """Take the forward model and its template."""
        self._scorer, self._forward, self._least = scorer, forward, config.min_gain
        self._gains = ConsistencyConfig(min_gain=config.min_gain, max_tokens=config.max_tokens)

    async def check(self, example: Example, draft: Draft) -> Verdict:
        """See `AlsoCheck.check`; the score is the gain in nats per token."""
        gain = (await TextGains(draft.text, self._scorer, self._forward, self._gains, example.history).of([example.prompt]))[0]
        grounded = gain >= self._least
        reason = "" if grounded else f"the prompt makes it {gain:+.3f} nats per token likelier, less than {self._least:+.3f}: it hardly speaks to the prompt"
        return Verdict("verify.grounded", grounded, gain, reason)


class GroundedByJudge:
    """A judge says whether the response speaks to its prompt."""

    def __init__(self, asker: Asker, question: Template, min_yes: float) -> None:
        """Take a judge, the template of one question, and the least P(yes)."""
        self._asker, self._question, self._least = asker, question, min_yes

    async def check(self, example: Example, draft: Draft) -> Verdict:
        """See `AlsoCheck.check`; the score is P(yes)."""
        shown = {"prompt": in_context(example.history, example.prompt), "response": draft.text, "question": _SPEAKS_TO_IT}
        try:
            yes = round((await self._asker.ask(self._question, YES_NO, options_="one word, Yes or No", **shown))["Yes"], 6)
        except AnswerError as exc:
            return Verdict("verify.grounded", False, None, f"the judge: {exc}")
        except WithheldError as exc:
            return content_filter("verify", exc.completion)
        grounded = yes >= self._least
        reason = "" if grounded else f"the judge says with probability {1 - yes:.2f} that it does not answer the prompt"
        return Verdict("verify.grounded", grounded, yes, reason)


class RefusalAsWanted:
    """Does the response decline where its category wants that, and help where it wants that? A partial refusal does both."""

    def __init__(self, domain: Domain, config: RefusalConfig) -> None:
        """Take what each category says."""
        self._domain, self._least = domain, config.min_confidence

    async def check(self, example: Example, draft: Draft) -> Verdict:
        """See `AlsoCheck.check`; the score is the detector's confidence in the class that it found."""
        wanted: Refusals = self._domain.category(example.category).refusals
        found = classify(draft.text, example.prompt)
        wrong = _WRONG.get((wanted, found.label), "") if found.confidence >= self._least else ""
        span = f": {found.span[:_SPAN_CHARS]!r}" if wrong and found.span else ""
        return Verdict("verify.refusal", not wrong, found.confidence, wrong and f"{wrong}{span}")
