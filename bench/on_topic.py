"""Do the answers of a study's arms speak to their prompts? The gain of `grounded`, for answers instead of pairs.

    python bench/on_topic.py runs/study/experiments/civility

For each system of the experiment's evaluation: the mean gain of its answers under their own prompts and under other prompts (three each,
the same for all systems), and how often the own prompt is the likeliest of the four. The embedded scorer; about a minute for ten systems.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from statistics import fmean

from grounded import SCORER, own_and_others

from safer_instruct.config import ModelConfig
from safer_instruct.models import open_model


async def main(experiment: Path) -> None:
    """Print the table."""
    scorer = open_model(ModelConfig(model=SCORER), Path())
    print("| system | answers | gain, own prompt | gain, other prompts | own prompt first of four |\n|---|---|---|---|---|")
    for file in sorted((experiment / "evaluation" / "outputs").glob("*.json")):
        told = [(row["instruction"], row["output"]) for row in json.loads(file.read_text("utf-8")) if row["output"].strip()]
        beside = await own_and_others(told, scorer)
        own, others = fmean(mine for mine, _ in beside), fmean(gain for _, rest in beside for gain in rest)
        first = fmean(mine > max(rest) for mine, rest in beside)
        print(f"| {file.stem} | {len(told)} | {own:+.2f} | {others:+.2f} | {first:.2f} |", flush=True)
    await scorer.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
