"""Expert evaluation (paper, section 2.4): is the response acceptable, and better than the rejected text?"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from safer_instruct.config import VerifyConfig
from safer_instruct.domain import Category, Domain
from safer_instruct.errors import ConfigError
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.models.protocol import Generation, Model, Sampling, Scoring, Turn
from safer_instruct.templates import Template

Write = Callable[[Example, int], Awaitable[list[Draft]]]


class Verifier(Protocol):
    """Judges drafts, each against the rejected text."""

    async def baseline(self, example: Example) -> float:
        """What there is to know of the rejected text alone; asked once per example.

        Raises:
            ModelError: The judging model failed after its retries.
        """

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        """A copy of `draft` with `margin` and `verdicts` set.

        Raises:
            ModelError: The judging model failed after its retries.
        """


async def answer(example: Example, write: Write, verifier: Verifier, config: VerifyConfig) -> Example:
    """Write and judge until a draft passes, for at most `config.rounds` rounds.

    Args:
        example: An example with a prompt.
        write: One round of drafts: `write(example, attempt)`.
        verifier: Judges each draft.
        config: Rounds and bounds.

    Returns:
        A copy with `chosen` and `margin` set, or dropped with the verdicts of the last round's best draft.

    Raises:
        ModelError: The expert or the verifier failed after its retries.
    """
    drafts: list[Draft] = []
    best: Draft | None = None
    baseline = await verifier.baseline(example)
    for attempt in range(config.rounds):
        judged, accepted = await _round(example, await write(example, attempt), verifier, config, baseline)
        drafts += judged
        best = max(accepted or judged, key=_margin, default=None)
        if accepted and best:
            done = replace(example, drafts=tuple(drafts), chosen=best.text, margin=best.margin)
            return done.with_verdicts(*best.verdicts)
    verdicts = best.verdicts if best else (Verdict("respond.empty", False, None, "the expert wrote nothing"),)
    return replace(example, drafts=tuple(drafts)).with_verdicts(*verdicts)


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
        return await self.contrast(example.prompt, example.text, self._domain.category(example.category))

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        """See `Verifier.judge`."""
        chosen = await self.contrast(example.prompt, draft.text, self._domain.category(example.category))
        margin = round(chosen - baseline, 6)
        acceptable = chosen >= self._config.min_contrast
        better = margin >= self._config.min_margin
        verdicts = (
            Verdict("verify.acceptable", acceptable, chosen, "" if acceptable else f"contrast {chosen:+.3f} is below {self._config.min_contrast:+.3f}"),
            Verdict("verify.better", better, margin, "" if better else f"margin {margin:+.3f} over the rejected text is below {self._config.min_margin:+.3f}"),
        )
        return replace(draft, margin=margin, verdicts=(*draft.verdicts, *verdicts))

    async def contrast(self, prompt: str, response: str, category: Category) -> float:
        """The contrast of one response, nats per token; positive speaks for the good guideline."""
        assert category.contrast is not None  # noqa: S101 - checked on construction
        shown = category.examples[: self._config.examples]
        good = [{"prompt": e.prompt, "response": e.chosen} for e in shown]
        bad = [{"prompt": e.prompt, "response": e.rejected} for e in shown]
        likely = await self._mean(prompt, response, category.contrast.good, good)
        unlikely = await self._mean(prompt, response, category.contrast.bad, bad)
        return round(likely - unlikely, 6)

    async def _mean(self, prompt: str, response: str, description: str, examples: list[dict[str, str]]) -> float:
        rendered = self._template.render(description=description, examples=examples, prompt=prompt)
        return (await self._scorer.score(Scoring(rendered, response))).mean


class QuestionVerifier:
    """A judge answers the category's criteria with yes or no, and says which response is better, in both orders."""

    def __init__(self, judge: Model, question: Template, pairwise: Template, domain: Domain) -> None:
        """Check that every category has criteria.

        Raises:
            ConfigError: One has none.
        """
        self._model, self._question, self._pairwise, self._domain = judge, question, pairwise, domain
        for name, category in domain.categories.items():
            if not category.criteria:
                raise ConfigError(f"domain '{domain.name}', category '{name}': verify.form 'question' needs 'criteria'; give them, or use form 'contrast'")

    async def baseline(self, example: Example) -> float:
        """Nothing: the judge sees the rejected text beside each draft."""
        return 0.0

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        """See `Verifier.judge`; the margin is the share of orders won less the share lost."""
        category = self._domain.category(example.category)
        verdicts = list(draft.verdicts)
        for number, criterion in enumerate(category.criteria, 1):
            said = await self._ask(self._question.render(prompt=example.prompt, response=draft.text, question=criterion))
            passed = _first_word(said, "yes", "no") == "yes"
            verdicts.append(Verdict(f"verify.criterion_{number}", passed, None, "" if passed else f"the judge said {said[:20]!r} to: {criterion}"))
        won = [
            await self._prefers(category, example.prompt, draft.text, example.text) == "A",
            await self._prefers(category, example.prompt, example.text, draft.text) == "B",
        ]
        better = all(won)
        verdicts.append(Verdict("verify.better", better, None, "" if better else f"the judge preferred it in {sum(won)} of 2 orders"))
        return replace(draft, margin=float(sum(won) - 1), verdicts=tuple(verdicts))

    async def _prefers(self, category: Category, prompt: str, first: str, second: str) -> str:
        """The letter that the judge chose, `A` for `first`; empty when it chose none."""
        said = await self._ask(self._pairwise.render(guideline=category.guideline, prompt=prompt, first=first, second=second))
        return _first_word(said, "A", "B")

    async def _ask(self, text: str) -> str:
        request = Generation((Turn("user", text),), Sampling(max_tokens=8, temperature=0.0))
        return (await self._model.generate(request)).completions[0].text.strip()


def _first_word(said: str, *options: str) -> str:
    """The option that the judge's answer begins with, perhaps behind 'Answer:' or 'Reply'; empty when it begins otherwise."""
    end = r"(?=\W*$|[.,:;!)*\n]|\s+is\b)" if max(map(len, options)) == 1 else r"\b"  # 'A better reply is B' does not say A
    found = re.match(rf"\W*(?:(?:the )?(?:answer|reply|response)\b(?: is)?\W*)?({'|'.join(options)}){end}", said, re.I)
    return next((o for o in options if found and found.group(1).lower() == o.lower()), "")


async def _round(example: Example, drafts: list[Draft], verifier: Verifier, config: VerifyConfig, baseline: float) -> tuple[list[Draft], list[Draft]]:
    """All drafts of a round, judged as far as `config.pick` asks, and those that passed."""
    judged: list[Draft] = []
    for number, draft in enumerate(drafts):
        judged.append(await _judge(example, draft, verifier, config, baseline))
        if config.pick == "first" and _passed(judged[-1]):
            return [*judged, *drafts[number + 1 :]], [judged[-1]]
    return judged, [d for d in judged if _passed(d)]


def _passed(draft: Draft) -> bool:
    return all(v.passed for v in draft.verdicts)


async def _judge(example: Example, draft: Draft, verifier: Verifier, config: VerifyConfig, baseline: float) -> Draft:
    """The checks that need no model first; a draft that fails one costs no call."""
    form = _form(example, draft, config)
    return await verifier.judge(example, draft, baseline) if form is None else replace(draft, verdicts=(form,))


def _form(example: Example, draft: Draft, config: VerifyConfig) -> Verdict | None:
    if not draft.finished:
        return Verdict("verify.unfinished", False, None, "was cut at the token limit (respond.max_tokens)")
    count = len(draft.text.split())
    if count < config.min_words:
        return Verdict("verify.length", False, count, f"{count} words, fewer than {config.min_words}")
    if draft.text.casefold() in (example.text.casefold(), example.prompt.casefold()):
        return Verdict("verify.copy", False, None, "repeats the prompt or the rejected text")
    return None


def _margin(draft: Draft) -> float:
    return draft.margin if draft.margin is not None else float("-inf")
