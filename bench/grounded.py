"""Does the gain of the check `grounded` tell a response to its own prompt from one to another, and from boilerplate?

    python bench/grounded.py runs/civility

For each pair of a finished run: the gain of the chosen response under its prompt, under three other prompts of the run, and that of a
boilerplate reply under its prompt; then AUC, and which share of each a bound keeps. The embedded scorer; about a minute for the demo.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from statistics import fmean

from verifier import auc

from safer_instruct.config import ConsistencyConfig, ModelConfig
from safer_instruct.filters.consistency import TextGains
from safer_instruct.models import open_model
from safer_instruct.rundir import read_pairs
from safer_instruct.templates import load_template

BOILERPLATE = "Thank you for writing to us. I am sorry for the trouble, and I will find out more and write back to you today."
BOUNDS = (0.0, 0.1, 0.2, 0.3, 0.5)


async def main(path: Path) -> None:
    """Print the table."""
    pairs, rng = list(read_pairs(path)), random.Random(0)
    scorer, forward, config = open_model(ModelConfig(model="embedded:smollm2-135m-instruct"), Path()), load_template("forward"), ConsistencyConfig()
    own, other = list[float](), list[float]()
    for pair in pairs:
        others = rng.sample([p["prompt"] for p in pairs if p is not pair], 3)
        first, *rest = await TextGains(pair["chosen"], scorer, forward, config).of([pair["prompt"], *others])
        own.append(first)
        other += rest
    boilerplate = await TextGains(BOILERPLATE, scorer, forward, config).of([pair["prompt"] for pair in pairs])
    await scorer.close()
    for name, gains in (("own prompt", own), ("other prompt", other), ("boilerplate", boilerplate)):
        kept = "  ".join(f"{bound:.1f}: {sum(gain >= bound for gain in gains) / len(gains):.0%}" for bound in BOUNDS)
        print(f"{name:13} mean {fmean(gains):+.2f}, {min(gains):+.2f} to {max(gains):+.2f}; kept from {kept}")
    print(f"AUC own over other {auc(own, other):.3f}, over boilerplate {auc(own, boilerplate):.3f} ({len(pairs)} pairs)")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
