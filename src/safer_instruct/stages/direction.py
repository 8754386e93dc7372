"""Which side of the pair the corpus is.

In direction `rejected` the source text is the rejected response, and what was written is the chosen one. In direction
`chosen` it is the other way round, and whoever verifies is shown them so.
"""

from __future__ import annotations

from dataclasses import replace

from safer_instruct.domain import Direction
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.stages.verify import HopelessError, Verifier


def sides(example: Example, direction: Direction) -> Example:
    """`example` with both sides in their places, once a draft was accepted (as `chosen`)."""
    if direction == "rejected" or not example.chosen:
        return example
    return replace(example, chosen=example.text, rejected=example.chosen)


def facing(verifier: Verifier, direction: Direction) -> Verifier:
    """`verifier`, shown the sides as they will stand in the pair."""
    return verifier if direction == "rejected" else _SourceChosen(verifier)


class _SourceChosen:
    """Has the source text judged as the response, against the draft as the rejected text.

    What is asked of the source text alone is the same request for every draft, so the ledger answers it from the second on.
    """

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    async def baseline(self, example: Example) -> float:
        """Nothing: there is no rejected text yet."""
        return 0.0

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        """See `Verifier.judge`; the margin is that of the source text over the draft."""
        swapped = replace(example, text=draft.text)
        try:
            judged = await self._verifier.judge(swapped, Draft(example.text, draft.attempt), await self._verifier.baseline(swapped))
        except HopelessError as exc:
            return replace(draft, verdicts=(*draft.verdicts, exc.verdict))
        return replace(draft, margin=judged.margin, verdicts=(*draft.verdicts, *map(_of_source, judged.verdicts)))


def _of_source(verdict: Verdict) -> Verdict:
    return replace(verdict, reason=f"the source text: {verdict.reason}") if verdict.reason else verdict
