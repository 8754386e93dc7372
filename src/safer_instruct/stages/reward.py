"""Expert evaluation by a reward model: a classifier that gives a response one number, higher for better."""

from __future__ import annotations

from dataclasses import replace

from safer_instruct.config import VerifyConfig
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.models.protocol import Model, Scoring, Turn


class RewardVerifier:
    """Compares the reward of a draft with a bound and with that of the rejected text."""

    def __init__(self, model: Model, config: VerifyConfig) -> None:
        """Take a model whose `score` gives a single number, the reward: `reward:` models do."""
        self._model, self._config = model, config

    async def baseline(self, example: Example) -> float:
        """The reward of the rejected text."""
        return await self._reward(example, example.text)

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        """See `Verifier.judge`; the margin is the difference of the two rewards."""
        reward, least = await self._reward(example, draft.text), self._config.min_reward
        margin = round(reward - baseline, 6)
        acceptable, better = least is None or reward >= least, margin >= self._config.min_margin
        verdicts = (
            Verdict("verify.acceptable", acceptable, reward, "" if acceptable else f"reward {reward:+.3f} is below {least:+.3f}"),
            Verdict("verify.better", better, margin, "" if better else f"margin {margin:+.3f} over the rejected text is below {self._config.min_margin:+.3f}"),
        )
        return replace(draft, margin=margin, verdicts=(*draft.verdicts, *verdicts))

    async def _reward(self, example: Example, response: str) -> float:
        asked = (*example.history, Turn("user", example.prompt))
        return round((await self._model.score(Scoring(asked, response))).mean, 6)
