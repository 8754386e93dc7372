"""From a prompt to a finished pair: write, judge, mend, and the filters on pairs; once more where a response repeats others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from safer_instruct.config import RunConfig
from safer_instruct.domain import Direction
from safer_instruct.example import Draft, Example
from safer_instruct.filters.checks import Check, check_all
from safer_instruct.stages.direction import sides
from safer_instruct.stages.experts import Experts, one_writes
from safer_instruct.stages.revise import Reviser
from safer_instruct.stages.verify import Verifier, answer


class Finisher:
    """All that happens to an example once it has its prompt."""

    def __init__(
        self, experts: Experts, reviser: Reviser | None, verifier: Verifier, checks: Sequence[Check], config: RunConfig, direction: Direction, seed: int
    ) -> None:
        """Take those who write, mend and judge, the filters on pairs, and the seed of the draws."""
        self._experts, self._reviser, self._verifier, self._checks = experts, reviser, verifier, tuple(checks)
        self._config, self._direction, self._seed = config, direction, seed
        self._alike = one_writes(config) and config.respond.boilerplate is None  # which may ask for another draft that passed

    async def finish(self, example: Example) -> Example:
        """A pair, or dropped with what stood in the way.

        Raises:
            ModelError: A model failed after its retries.
        """
        verify, revisions = self._config.verify, self._config.respond.revise
        return self._checked(await answer(example, self._write, self._verifier, verify, mend=self._mend, revisions=revisions, alike=self._alike))

    async def again(self, example: Example, warmer: float) -> Example:
        """One further round for an example whose last response was taken back: mended where that is on, else drawn `warmer`.

        Raises:
            ModelError: A model failed after its retries.
        """
        taken_back = example.drafts[-1] if example.drafts else None

        async def write(example: Example, attempt: int) -> list[Draft]:
            if taken_back and (mended := await self._mend(example, taken_back)):
                return [replace(mended, attempt=attempt)]
            return await self._experts.write(example, attempt, seed=self._seed, warmer=warmer)

        once = self._config.verify.model_copy(update={"rounds": 1})
        return self._checked(await answer(example, write, self._verifier, once))

    def with_draft(self, example: Example, draft: Draft) -> Example:
        """`example`, which has no response now, with one of its drafts that passed."""
        return self._checked(replace(example, chosen=draft.text, margin=draft.margin).with_verdicts(*draft.verdicts))

    def _checked(self, example: Example) -> Example:
        done = sides(example, self._direction)
        return done.with_verdicts(*check_all(self._checks, done)) if done.alive else done

    async def _write(self, example: Example, attempt: int) -> list[Draft]:
        return await self._experts.write(example, attempt, seed=self._seed)

    async def _mend(self, example: Example, draft: Draft) -> Draft | None:
        return await self._reviser.mend(example, draft, self._seed) if self._reviser else None
