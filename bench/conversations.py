"""What the history changes at the consistency gate: for induced instructions of a run, and for the messages that users really wrote.

    safer-instruct run examples/dialogues/dialogues.yaml --out runs/dialogues
    python bench/conversations.py runs/dialogues examples/dialogues/dialogues.jsonl

Both gains are those of `filters/consistency.py` under the embedded model: given the history, as a run counts them, and without it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from safer_instruct.config import ConsistencyConfig, ModelConfig, SourceConfig
from safer_instruct.example import Turn
from safer_instruct.filters.consistency import TextGains
from safer_instruct.models import open_model
from safer_instruct.models.protocol import Model
from safer_instruct.sources import SourceText, read_source
from safer_instruct.stored import read_examples
from safer_instruct.templates import load_template

CONFIG = ConsistencyConfig()


async def main() -> None:
    run, source = map(Path, sys.argv[1:3])
    model = open_model(ModelConfig(model="embedded:smollm2-135m-instruct"), Path())
    await induced(run, model)
    await real(source, model)
    await model.close()


async def induced(run: Path, model: Model) -> None:
    """Of the candidates that a run looked at: how many the gate stopped, and how many of those would pass if nothing had been said before."""
    for with_history in (True, False):
        looked = stopped = spared = 0
        for example in (e for e in read_examples(run) if bool(e.history) is with_history):
            looked += sum(bool(c.verdicts) for c in example.candidates)
            told = [c.text for c in example.candidates if any(v.name == "consistency" and v.drops for v in c.verdicts)]
            stopped += len(told)
            spared += sum(gain >= CONFIG.min_gain for gain in await gains(model, example.text, told, ()))
        print(f"{'with' if with_history else 'no'} history: {looked} candidates looked at, {stopped} stopped by the gate, {spared} of them not without history")


async def real(source: Path, model: Model) -> None:
    """Of the messages that users wrote: how many pass the gate."""
    rows = [r for r in read_source(SourceConfig(path=source.name, messages="messages", turns="all"), source.parent) if isinstance(r, SourceText)]
    for with_history in (True, False):
        asked = [row for row in rows if bool(row.history) is with_history]
        passed = [(await gains(model, row.text, [row.asked], row.history))[0] >= CONFIG.min_gain for row in asked]
        print(f"{'with' if with_history else 'no'} history: {sum(passed)} of {len(passed)} messages that users wrote pass the gate")


async def gains(model: Model, text: str, prompts: list[str], history: tuple[Turn, ...]) -> list[float]:
    return await TextGains(text, model, load_template("forward"), CONFIG, history).of(prompts) if prompts else []


if __name__ == "__main__":
    asyncio.run(main())
