"""The rejected response in another shape than the source text: in the length and format of the chosen one, or on-policy.

Whoever can tell chosen from rejected by length learns length from the pair (Singhal et al. 2024), so `matched` has the source text
rewritten in the size and form of the chosen response. `student` takes what the model to be trained answers itself. Both must be
found worse than the chosen response by the run's own verifier.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from safer_instruct.config import RespondConfig, RunConfig, VerifyConfig
from safer_instruct.conversation import in_context
from safer_instruct.detect.refusal import classify
from safer_instruct.domain import Domain
from safer_instruct.errors import RequestError
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.models.protocol import Generation, Model, Sampling, Turn
from safer_instruct.reverse import bare
from safer_instruct.seeds import derive_seed
from safer_instruct.settings.sides import RejectedConfig
from safer_instruct.stages.fence import mark_for
from safer_instruct.stages.respond import respond
from safer_instruct.stages.verify import HopelessError, Verifier, answer
from safer_instruct.stages.withheld import content_filter
from safer_instruct.templates import Template

FORMS = {
    "list": re.compile(r"^[ \t]*(?:[-*+]|\d+[.)])[ \t]", re.M),
    "headings": re.compile(r"^#{1,6}[ \t]", re.M),
    "code block": re.compile(r"^[ \t]*```", re.M),
    "bold": re.compile(r"\*\*\S"),
}
"""What a format is told by."""


def rejected_template(config: RunConfig) -> str:
    """Name or path of the template that the rejected response is asked for with: the student is asked as every writer is."""
    return config.rejected.template if config.rejected.form == "matched" else config.respond.template


def form_of(text: str) -> tuple[str, ...]:
    """The marks of format in a text, in the order of `FORMS`."""
    return tuple(name for name, pattern in FORMS.items() if pattern.search(text))


@dataclass(frozen=True, slots=True)
class RejectedSide:
    """Writes rejected responses and has them judged.

    Attributes:
        model: Rewrites the source text, or is the student.
        template: For `matched`: given `prompt`, `response`, `definition`, `words`, `least`, `most`, `form` and `mark`. For `student`: the
            system prompt, as of `stages.respond`.
        domain: Holds definitions, and the student's system prompt.
        verifier: The run's own; the source text is the rejected one to it.
        config: How they are drawn.
        verify: Bounds of the verifier.
        respond: How answers are drawn, for the student.
        seed: The run's seed.
        alike: Whether all that pass have the same margin, as for `stages.verify.answer`.
    """

    model: Model
    template: Template
    domain: Domain
    verifier: Verifier
    config: RejectedConfig
    verify: VerifyConfig
    respond: RespondConfig
    seed: int
    alike: bool = False

    async def replaced(self, example: Example) -> Example:
        """A finished pair with another rejected response.

        Where none passes it keeps the source text, with what was wrong as flags, or is dropped: `rejected.fallback` says which.

        Raises:
            ModelError: A model failed after its retries.
        """
        matched = self.config.form == "matched"
        if matched and _alike(example.text, example.chosen, self.config.ratio):
            return example.with_verdicts(_ratio(example.text, example.chosen, self.config.ratio))
        judge = _Worse(self.verifier, self.config.ratio if matched else None, example)
        bounds = self.verify.model_copy(update={"rounds": self.config.rounds})
        try:
            write = self._match if matched else self._answer
            tried = await answer(replace(example, drafts=(), verdicts=()), write, judge, bounds, alike=self.alike)
        except RequestError as exc:
            tried = replace(example, drafts=(), verdicts=(Verdict("rejected.refused", False, None, str(exc)),))
        verdicts = tuple(map(_renamed, tried.verdicts))
        done = replace(example, drafts=(*example.drafts, *(replace(d, verdicts=tuple(map(_renamed, d.verdicts))) for d in tried.drafts)))
        if tried.alive:
            return replace(done, rejected=tried.chosen, margin=tried.margin).with_verdicts(*verdicts)
        return done.with_verdicts(*(replace(v, flag=True) if self.config.fallback == "source" else v for v in verdicts))

    async def _match(self, example: Example, attempt: int) -> list[Draft]:
        """One round of rewrites of the source text."""
        count = len(example.chosen.split())
        low, high = self.config.ratio
        shown = {"prompt": in_context(example.history, example.prompt), "response": example.text}
        asked = self.template.render(
            definition=self.domain.category(example.category).definition,
            words=count,
            least=round(low * count),
            most=round(high * count),
            form=", ".join(form_of(example.chosen)) or "plain sentences, without lists, headings or bold",
            mark=mark_for(*shown.values()),
            **shown,
        ).strip()
        sampling = Sampling(max_tokens=self.config.max_tokens, temperature=self.config.temperature, n=self.config.drafts)
        answered = await self.model.generate(Generation((Turn("user", asked),), sampling, derive_seed(self.seed, "match", example.text, attempt)))
        if answered.withheld:
            return [Draft("", attempt, verdicts=(content_filter("rejected", answered.withheld),))]
        return [Draft(bare(c.text), attempt, c.logprob, c.finished) for c in answered.ranked()]

    async def _answer(self, example: Example, attempt: int) -> list[Draft]:
        """One round of the student's own answers, without the guideline."""
        told = {"drafts": self.config.drafts, "max_tokens": self.config.max_tokens, "temperature": self.config.temperature}
        return await respond(
            example,
            self.model,
            self.template,
            self.domain.model_copy(update={"direction": "chosen"}),
            self.respond.model_copy(update=told),
            seed=self.seed,
            attempt=attempt,
        )


class _Worse:
    """Judges drafts of the rejected response, each against the chosen one, which stands fast."""

    def __init__(self, verifier: Verifier, ratio: tuple[float, float] | None, pair: Example) -> None:
        self._verifier, self._ratio, self._pair = verifier, ratio, pair

    async def baseline(self, example: Example) -> float:
        """Nothing: each draft has its own."""
        return 0.0

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        """See `Verifier.judge`; the margin is that of the chosen response over the draft."""
        if draft.text.casefold() == self._pair.chosen.casefold():
            return replace(draft, verdicts=(*draft.verdicts, Verdict("rejected.copy", False, None, "repeats the chosen response")))
        if self._ratio is not None:
            draft = replace(draft, verdicts=(*draft.verdicts, *_matches(draft.text, self._pair, self._ratio)))
        if not draft.passed:
            return draft
        worse, margin = await self._worse(draft)
        return replace(draft, margin=margin, verdicts=(*draft.verdicts, worse))

    async def _worse(self, draft: Draft) -> tuple[Verdict, float | None]:
        swapped = replace(self._pair, text=draft.text)
        try:
            baseline = await self._verifier.baseline(swapped)
            judged = await self._verifier.judge(swapped, Draft(self._pair.chosen, draft.attempt), baseline)
        except HopelessError as exc:
            return replace(exc.verdict, name="rejected.worse"), None
        better = next((v for v in judged.verdicts if v.name == "verify.better"), None)
        if better is not None:
            reason = f"the chosen response is not found better than it: {better.reason}" if not better.passed else ""
            return Verdict("rejected.worse", better.passed, better.score, reason), judged.margin
        if failed := next((v for v in judged.verdicts if v.drops), None):
            return Verdict("rejected.worse", False, None, f"the chosen response is not accepted beside it: {failed.reason}"), None
        alone = await self._verifier.judge(self._pair, Draft(draft.text, draft.attempt), baseline)  # nobody compares: programs alone
        worse = not alone.passed
        return Verdict("rejected.worse", worse, None, "" if worse else "it passes all that the chosen response must pass"), None


def _matches(text: str, pair: Example, ratio: tuple[float, float]) -> tuple[Verdict, ...]:
    """Length and format of a rewrite, and that it is no refusal where the source text is none: that would be another badness."""
    form, wanted = form_of(text), form_of(pair.chosen)
    unlike = "" if form == wanted else f"has {', '.join(form) or 'no marks of format'} where the chosen response has {', '.join(wanted) or 'none'}"
    declines = classify(text, pair.prompt).label == "refusal" and classify(pair.text, pair.prompt).label != "refusal"
    return (
        _ratio(text, pair.chosen, ratio),
        Verdict("rejected.form", not unlike, None, unlike),
        Verdict("rejected.kept", not declines, None, "declines instead of rewriting" if declines else ""),
    )


def _ratio(text: str, chosen: str, ratio: tuple[float, float]) -> Verdict:
    found = round(len(text.split()) / max(1, len(chosen.split())), 4)
    passed = ratio[0] <= found <= ratio[1]
    return Verdict("rejected.ratio", passed, found, "" if passed else f"has {found:.2f} of the chosen response's words, not {ratio[0]:g} to {ratio[1]:g}")


def _alike(text: str, chosen: str, ratio: tuple[float, float]) -> bool:
    return _ratio(text, chosen, ratio).passed and form_of(text) == form_of(chosen)


def _renamed(verdict: Verdict) -> Verdict:
    """What is said of the rejected response stands under its own name, so that nobody takes it for the chosen one's."""
    reason = verdict.reason.replace("respond.max_tokens", "rejected.max_tokens")
    return replace(verdict, name=f"rejected.{verdict.name.rpartition('.')[2]}", reason=reason)
