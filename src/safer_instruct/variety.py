"""Boilerplate: responses that say nearly the same as one accepted before are written anew, and how varied a set came out.

What is decided depends on the order of the examples alone: they are taken in waves of fixed size, those of a wave are looked at in
input order, and those that repeat an accepted response are written anew side by side, round after round. So neither timing nor
the number of calls in flight changes the outcome, and a run that goes on finds every call of it in the ledger.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.filters.dedup import Deduplicator, Deduplicators
from safer_instruct.models.together import together
from safer_instruct.settings.answers import BoilerplateConfig
from safer_instruct.state import stage_of

BOILERPLATE = "pair.boilerplate"
NEAR = 0.7  # the similarity that the share of unique responses is reported at, whatever a config asks for
_WAVE = 32  # part of what decides the result, so it does not follow the number of calls in flight
_BEFORE_ANSWERS = ("collect", "induce", "filter")


class Variety:
    """Remembers accepted responses, and has those that repeat one written anew."""

    def __init__(
        self,
        config: BoilerplateConfig,
        seen: Deduplicators,
        again: Callable[[Example, float], Awaitable[Example]],
        with_draft: Callable[[Example, Draft], Example],
    ) -> None:
        """Take what counts as a repeat, the memory, and how an example gets one further round (`again`) or another of its drafts."""
        self._config, self._seen, self._again, self._with_draft = config, seen, again, with_draft

    async def through(self, examples: AsyncGenerator[Example, None]) -> AsyncGenerator[Example, None]:
        """All examples, in input order, those that still repeat others dropped."""
        wave: list[Example] = []
        async with aclosing(examples):
            async for example in examples:
                wave.append(example)
                if len(wave) == _WAVE:
                    for settled in await self._settled(wave):
                        yield settled
                    wave = []
        for settled in await self._settled(wave):
            yield settled

    async def _settled(self, wave: list[Example]) -> list[Example]:
        """The wave after all its rounds."""
        left = [at for at, example in enumerate(wave) if example.alive]
        found: dict[int, Verdict] = {}
        for number in range(self._config.regenerate + 1):
            if number:
                written = await together(self._again(wave[at], round(number * self._config.warmer, 6)) for at in left)
                for at, example in zip(left, written, strict=True):
                    wave[at] = example
            left = [at for at in left if not self._accepted(wave, at, found)]
        for at in left:
            tried = f"; {self._config.regenerate} further rounds gave nothing else" if self._config.regenerate else ""
            wave[at] = wave[at].with_verdicts(replace(found[at], reason=found[at].reason + tried))
        return wave

    def _accepted(self, wave: list[Example], at: int, found: dict[int, Verdict]) -> bool:
        """Whether the response of `wave[at]`, or another draft of the round that passed as well, repeats none; otherwise it has none any more."""
        example = wave[at]
        draft = example.accepted
        while example.alive and draft is not None:
            verdict = replace(self._seen.check(draft.text, example.id, example.category), name=BOILERPLATE)
            if verdict.passed:
                wave[at] = example.with_verdicts(verdict)
                return True
            found[at] = verdict
            example = _taken_back(example, draft, verdict)
            others = [d for d in example.drafts if d.attempt == draft.attempt and d.verdicts and d.passed]
            draft = max(others, key=lambda d: d.rank, default=None)
            example = self._with_draft(example, draft) if draft else example
        wave[at] = _reopened(example)
        return False


class Unique:
    """How many chosen responses repeat none that came before them; those of contrast twins are not among them."""

    def __init__(self) -> None:
        self._seen, self._pairs, self._exact, self._near = Deduplicator("chosen", NEAR), 0, 0, 0

    def add(self, example: Example) -> None:
        """Count a finished example, if it is a pair of a row."""
        if not example.alive or example.twin_of:
            return
        self._pairs += 1
        verdict = self._seen.check(example.chosen, f"{self._pairs}")
        self._exact += not verdict.passed and verdict.score is None
        self._near += not verdict.passed and verdict.score is not None

    def record(self) -> dict[str, Any]:
        """For the summary: the share of unique ones, and how many repeat others exactly or nearly (similarity from `near`)."""
        share = 1 - (self._exact + self._near) / self._pairs if self._pairs else None
        return {"share": None if share is None else round(share, 4), "exact_repeats": self._exact, "near_repeats": self._near, "near": NEAR}

    def close(self) -> None:
        """Forget them."""
        self._seen.close()


def _taken_back(example: Example, draft: Draft, verdict: Verdict) -> Example:
    """`example` without its response: the draft has `verdict` against it, and stands last among the drafts."""
    others = tuple(other for other in example.drafts if other is not draft)
    return replace(_reopened(example), drafts=(*others, replace(draft, verdicts=(*draft.verdicts, verdict))))


def _reopened(example: Example) -> Example:
    """`example` as it was with its prompt, and with all its drafts."""
    verdicts = tuple(v for v in example.verdicts if stage_of(v) in _BEFORE_ANSWERS)
    return replace(example, chosen="", rejected="", margin=None, verdicts=verdicts)
