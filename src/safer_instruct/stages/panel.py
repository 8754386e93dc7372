"""Several judges: the majority decides, and what each of them said is kept, so that their agreement can be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.models.together import together
from safer_instruct.stages.verify import Verifier

VOTE = "vote."  # then the judge's name, a dot, and the verdict's; a vote never drops anything


class PanelVerifier:
    """Verifiers by the names of their judges."""

    def __init__(self, verifiers: Mapping[str, Verifier]) -> None:
        """Judge nothing yet; the first verifier's words stand for a verdict where it voted with the majority."""
        self._verifiers = dict(verifiers)

    async def baseline(self, example: Example) -> float:
        """Nothing: the judges see the rejected text beside each draft."""
        return 0.0

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        """See `Verifier.judge`; the margin is the mean of those judges' that give one."""
        bare = replace(draft, verdicts=())
        judged = dict(zip(self._verifiers, await together(v.judge(example, bare, baseline) for v in self._verifiers.values()), strict=True))
        said = {name: {v.name: v for v in done.verdicts} for name, done in judged.items()}
        names = dict.fromkeys(verdict for verdicts in said.values() for verdict in verdicts)
        votes = [_vote(judge, verdict) for judge, verdicts in said.items() for verdict in verdicts.values()]
        decided = [_decided([verdicts[name] for verdicts in said.values() if name in verdicts], len(said)) for name in names]
        margins = [done.margin for done in judged.values() if done.margin is not None]
        accepted = all(v.passed for v in decided)
        return replace(draft, margin=round(fmean(margins), 6) if accepted and margins else None, verdicts=(*draft.verdicts, *decided, *votes))


def _vote(judge: str, verdict: Verdict) -> Verdict:
    score = float(verdict.passed) if not verdict.name.startswith("judge.") else verdict.score
    return Verdict(f"{VOTE}{judge}.{verdict.name}", True, score)


def _decided(said: Sequence[Verdict], judges: int) -> Verdict:
    """What most judges say on one point; one that was not asked there had said no before, and counts as that."""
    passed = sum(v.passed for v in said)
    wins = 2 * passed > judges
    if said[0].name.startswith("judge."):
        return Verdict(said[0].name, True, round(fmean(v.score or 0.0 for v in said), 6))
    scores = [v.score for v in said if v.score is not None]
    against = " / ".join(v.reason for v in said if v.reason)
    return Verdict(said[0].name, wins, round(fmean(scores), 6) if scores else None, "" if wins else f"{passed} of {judges} judges say yes: {against}")
