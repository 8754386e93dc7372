"""Expert evaluation (arXiv 2311.08685): is the response acceptable, and better than the rejected text?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from operator import attrgetter
from statistics import fmean
from typing import Protocol

from safer_instruct.config import VerifyConfig
from safer_instruct.conversation import in_context
from safer_instruct.domain import Category, Domain, ExamplePair, Opposites
from safer_instruct.errors import ConfigError
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.models.protocol import Model, Scoring
from safer_instruct.models.said import why_unfinished
from safer_instruct.models.together import together
from safer_instruct.oneline import many
from safer_instruct.templates import Template

Write = Callable[[Example, int], Awaitable[list[Draft]]]
_rank = attrgetter("rank")
Mend = Callable[[Example, Draft], Awaitable[Draft | None]]


class HopelessError(Exception):
    """No draft can make this example a pair; the verdict says why."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


class Verifier(Protocol):
    """Judges drafts, each against the rejected text."""

    async def baseline(self, example: Example) -> float:
        """What there is to know of the rejected text alone; asked once per example.

        Raises:
            HopelessError: No draft can be better.
            ModelError: The judging model failed after its retries.
        """

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        """A copy of `draft` with `margin` and `verdicts` set.

        Raises:
            ModelError: The judging model failed after its retries.
        """


async def answer(
    example: Example, write: Write, verifier: Verifier, config: VerifyConfig, *, mend: Mend | None = None, revisions: int = 0, alike: bool = False
) -> Example:
    """Write and judge until a draft passes, for at most `config.rounds` rounds.

    Args:
        example: An example with a prompt; rounds that it has behind it are not repeated, and their drafts stay.
        write: One round of drafts: `write(example, attempt)`.
        verifier: Judges each draft.
        config: Rounds and bounds.
        mend: Has a draft that did not pass written anew, knowing why; None where nobody does.
        revisions: How often in each round.
        alike: Whether all that pass have the same margin: then the first of them is the best of its round, and the rest are not judged.

    Returns:
        A copy with `chosen` and `margin` set, or dropped with the verdicts of the last round's best draft.

    Raises:
        ModelError: The expert or the verifier failed after its retries.
    """
    drafts = list(example.drafts)
    begun = max((draft.attempt + 1 for draft in drafts), default=0)
    best: Draft | None = None
    try:
        baseline = await verifier.baseline(example)
    except HopelessError as exc:
        return example.with_verdicts(exc.verdict)
    first = alike or config.pick == "first"
    for attempt in range(begun, begun + config.rounds):
        judged, accepted = await _round(example, await write(example, attempt), verifier, config, baseline, first=first)
        if mend and not accepted and judged:
            mended = await _mended(example, max(judged, key=_rank), mend, revisions, lambda d: _judge(example, d, verifier, config, baseline))
            judged, accepted = [*judged, *mended], [d for d in mended if d.passed]
        drafts += judged
        best = max(accepted or judged, key=_rank, default=None)
        if accepted and best:
            done = replace(example, drafts=tuple(drafts), chosen=best.text, margin=best.margin)
            return done.with_verdicts(*best.verdicts)
    verdicts = best.verdicts if best else (Verdict("respond.empty", False, None, "the expert wrote nothing"),)
    return replace(example, drafts=tuple(drafts)).with_verdicts(*verdicts)


async def _mended(example: Example, draft: Draft, mend: Mend, revisions: int, judge: Callable[[Draft], Awaitable[Draft]]) -> list[Draft]:
    """Revisions of a draft, each of the one before it, until one passes."""
    mended: list[Draft] = []
    for _ in range(revisions):
        written = await mend(example, mended[-1] if mended else draft)
        if written is None:
            break
        mended.append(await judge(written))
        if mended[-1].passed:
            break
    return mended


class ContrastVerifier:
    """Guideline contrast: mean log p(response | good guideline) - mean log p(response | its opposite), in nats per token.

    The scorer serves as a generative classifier (Ng and Jordan 2001 on the idea; measured in bench/README.md).
    """

    def __init__(self, scorer: Model, template: Template, domain: Domain, config: VerifyConfig) -> None:
        """Check that every category has a contrast.

        Raises:
            ConfigError: One has none.
        """
        self._scorer, self._template, self._domain, self._config = scorer, template, domain, config
        for name, category in domain.categories.items():
            if category.contrast is None:
                raise ConfigError(f"domain '{domain.name}', category '{name}': verify.form 'contrast' needs 'contrast'; give it, or use form 'question'")

    async def baseline(self, example: Example) -> float:
        """The contrast of the rejected text."""
        return await self.contrast(in_context(example.history, example.prompt), example.text, self._domain.category(example.category))

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        """See `Verifier.judge`."""
        chosen = await self.contrast(in_context(example.history, example.prompt), draft.text, self._domain.category(example.category))
        margin = round(chosen - baseline, 6)
        acceptable = chosen >= self._config.min_contrast
        better = margin >= self._config.min_margin
        verdicts = (
            Verdict("verify.acceptable", acceptable, chosen, "" if acceptable else f"contrast {chosen:+.3f} is below {self._config.min_contrast:+.3f}"),
            Verdict("verify.better", better, margin, "" if better else f"margin {margin:+.3f} over the rejected text is below {self._config.min_margin:+.3f}"),
        )
        return replace(draft, margin=margin, verdicts=(*draft.verdicts, *verdicts))

    async def contrast(self, prompt: str, response: str, category: Category) -> float:
        """The contrast of one response, nats per token; positive speaks for the good guideline.

        With further wordings it is the mean of two: that of the first wording with the examples, and that of all wordings
        without (bench/README.md).
        """
        assert category.contrast is not None  # noqa: S101 - checked on construction
        first, *others = wordings = (category.contrast, *category.contrast.also)
        shown = category.examples[: self._config.examples]
        if not others:
            return round(await self._difference(prompt, response, first, shown), 6)
        bare = fmean(await together(self._difference(prompt, response, wording, ()) for wording in wordings))
        return round((await self._difference(prompt, response, first, shown) + bare) / 2 if shown else bare, 6)

    async def _difference(self, prompt: str, response: str, wording: Opposites, shown: Sequence[ExamplePair]) -> float:
        good = [{"prompt": e.prompt, "response": e.chosen} for e in shown]
        bad = [{"prompt": e.prompt, "response": e.rejected} for e in shown]
        likely, unlikely = await together((self._mean(prompt, response, wording.good, good), self._mean(prompt, response, wording.bad, bad)))
        return likely - unlikely

    async def _mean(self, prompt: str, response: str, description: str, examples: list[dict[str, str]]) -> float:
        rendered = self._template.render(description=description, examples=examples, prompt=prompt)
        return (await self._scorer.score(Scoring(rendered, response))).mean


async def _round(
    example: Example, drafts: list[Draft], verifier: Verifier, config: VerifyConfig, baseline: float, *, first: bool
) -> tuple[list[Draft], list[Draft]]:
    """All drafts of a round, judged to the end or up to the first that passes, and those that passed."""
    if not first:
        judged = await together(_judge(example, draft, verifier, config, baseline) for draft in drafts)
        return judged, [d for d in judged if d.passed]
    judged = []
    for number, draft in enumerate(drafts):
        judged.append(await _judge(example, draft, verifier, config, baseline))
        if judged[-1].passed:
            return [*judged, *drafts[number + 1 :]], [judged[-1]]
    return judged, []


async def _judge(example: Example, draft: Draft, verifier: Verifier, config: VerifyConfig, baseline: float) -> Draft:
    """The checks that need no model first; a draft that fails one, or was withheld, costs no call."""
    if not draft.passed:
        return draft
    form = _form(example, draft, config)
    return await verifier.judge(example, draft, baseline) if form is None else replace(draft, verdicts=(form,))


def _form(example: Example, draft: Draft, config: VerifyConfig) -> Verdict | None:
    if not draft.finished:
        return Verdict("verify.unfinished", False, None, why_unfinished(draft.text, "respond.max_tokens"))
    count = len(draft.text.split())
    if count < config.min_words:
        return Verdict("verify.length", False, count, f"{many(count, 'word')}, fewer than {config.min_words}")
    if draft.text.casefold() in (example.text.casefold(), example.prompt.casefold()):
        return Verdict("verify.copy", False, None, "repeats the prompt or the source text")
    if draft.text.casefold() in (turn.content.casefold() for turn in example.history):
        return Verdict("verify.copy", False, None, "repeats what was said before")
    return None
