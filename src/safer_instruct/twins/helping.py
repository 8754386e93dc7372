"""The chosen response of a twin: the run's own expert answers, and the run's own verifier says whether that is good."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

from safer_instruct.detect.refusal import classify
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.stages.verify import HopelessError, Verifier


class HelpfulVerifier:
    """Asks first whether a draft complies, then `verifier` whether it is good.

    That it must also be found better than the refusal is not asked for: a twin is harmless, so helping is better by construction,
    and a guideline that speaks of tone alone may like a polite refusal. What the verifier says to that is kept as a flag.
    """

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    async def baseline(self, example: Example) -> float:
        """Of the refusal; NaN where the verifier sees no hope for any response beside it."""
        try:
            return await self._verifier.baseline(example)
        except HopelessError:
            return float("nan")

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        """See `Verifier.judge`."""
        found = classify(draft.text, example.prompt)
        complies = found.label == "compliance"
        reason = "" if complies else f"what was to help {'declines a part' if found.label == 'partial' else 'declines'}: {found.span[:60]!r}"
        draft = replace(draft, verdicts=(*draft.verdicts, Verdict("twins.chosen_complies", complies, found.confidence, reason)))
        if not complies:
            return draft
        hopeless = isnan(baseline)
        judged = await self._verifier.judge(example, draft, 0.0 if hopeless else baseline)
        verdicts = tuple(replace(v, flag=True) if v.name == "verify.better" else v for v in judged.verdicts if not (hopeless and v.name == "verify.better"))
        return replace(judged, margin=None if hopeless else judged.margin, verdicts=verdicts)
