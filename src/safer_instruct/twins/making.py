"""One twin, from the pair that it looks like to a pair of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from safer_instruct.config import VerifyConfig
from safer_instruct.example import Example
from safer_instruct.filters.checks import Check, check_all
from safer_instruct.seeds import derive_seed
from safer_instruct.stages.verify import Verifier, Write, answer
from safer_instruct.twins.gates import Gates
from safer_instruct.twins.refusing import Refuser
from safer_instruct.twins.writing import TwinWriter

SUFFIX = "~twin"


@dataclass(frozen=True, slots=True)
class TwinMaker:
    """Everybody who takes part in a twin.

    Attributes:
        writer: Draws instructions that look like the pair's.
        gates: Take one of them.
        refuser: Writes the rejected response.
        write: One round of responses of the run's expert.
        verifier: Says which of them complies and is good.
        checks: The run's filters on finished pairs.
        verify: Bounds of the verifier.
    """

    writer: TwinWriter
    gates: Gates
    refuser: Refuser
    write: Write
    verifier: Verifier
    checks: Sequence[Check]
    verify: VerifyConfig

    async def make(self, twin: Example) -> Example:
        """Write, check and answer a twin; what stands in its way is among its verdicts.

        Raises:
            ModelError: A model failed after its retries.
        """
        for step in (self.writer.write, self.gates.choose, self.refuser.refuse, self._help):
            twin = await step(twin)
            if not twin.alive:
                return twin
        return twin.with_verdicts(*check_all(self.checks, twin))

    async def _help(self, twin: Example) -> Example:
        """The chosen response; the refusal stands in the place of the source text while it is looked for."""
        answered = await answer(replace(twin, text=twin.rejected), self.write, self.verifier, self.verify)
        return replace(answered, text=twin.text, drafts=(*twin.drafts, *answered.drafts))


def wants_twin(example: Example, share: float, seed: int) -> bool:
    """Whether a pair gets a twin; seed and instruction decide, not order."""
    return derive_seed(seed, "wants a twin", example.prompt) < share * (1 << 31)


def seed_of(example: Example) -> Example:
    """What a twin begins with: the place of its pair, and the instruction that it is to look like."""
    return Example(f"{example.id}{SUFFIX}", example.prompt, example.category, example.file, example.line, history=example.history, twin_of=example.id)
