"""Do the answers of a study's arms speak to their prompts? The gain of `grounded`, for answers instead of pairs.

    python bench/on_topic.py runs/study/experiments/civility

For each system of the experiment's evaluation: the mean gain of its answers under their own prompts and under other prompts (three each,
the same for all systems), and how often the own prompt is the likeliest of the four. The embedded scorer; about a minute for ten systems.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path
from statistics import fmean

from safer_instruct.config import ConsistencyConfig, ModelConfig
from safer_instruct.filters.consistency import TextGains
from safer_instruct.models import open_model
from safer_instruct.templates import load_template


async def main(experiment: Path) -> None:
    """Print the table."""
    scorer, forward, config = open_model(ModelConfig(model="embedded:smollm2-135m-instruct"), Path()), load_template("forward"), ConsistencyConfig()
    print("| system | answers | gain, own prompt | gain, other prompts | own prompt first of four |\n|---|---|---|---|---|")
    for file in sorted((experiment / "evaluation" / "outputs").glob("*.json")):
        rows, rng = [row for row in json.loads(file.read_text("utf-8")) if row["output"].strip()], random.Random(0)
        own, other, first = list[float](), list[float](), 0
        for row in rows:
            others = rng.sample([r["instruction"] for r in rows if r is not row], 3)
            mine, *rest = await TextGains(row["output"], scorer, forward, config).of([row["instruction"], *others])
            own.append(mine)
            other += rest
            first += mine > max(rest)
        print(f"| {file.stem} | {len(rows)} | {fmean(own):+.2f} | {fmean(other):+.2f} | {first / len(rows):.2f} |", flush=True)
    await scorer.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
