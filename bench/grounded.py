"""Does the gain of the check `grounded` tell a response to its own prompt from one to another, and from boilerplate?

    python bench/grounded.py runs/civility

For each pair of a finished run: the gain of the chosen response under its prompt, under three other prompts of the run, and that of a
boilerplate reply under its prompt; then AUC, and which share of each a bound keeps. The embedded scorer; about a minute for the demo.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from verifier import auc

from safer_instruct.config import ConsistencyConfig, ModelConfig
from safer_instruct.filters.consistency import TextGains
from safer_instruct.models import open_model
from safer_instruct.models.protocol import Model
from safer_instruct.tables import read_pairs
from safer_instruct.templates import load_template

SCORER = "embedded:smollm2-135m-instruct"
BOILERPLATE = "Thank you for writing to us. I am sorry for the trouble, and I will find out more and write back to you today."
BOUNDS = (0.0, 0.1, 0.2, 0.3, 0.5)


def gains_of(response: str, scorer: Model) -> TextGains:
    """What prompts add to the likelihood of a response, as the check `grounded` asks."""
    return TextGains(response, scorer, load_template("forward"), ConsistencyConfig())


async def own_and_others(told: Sequence[tuple[str, str]], scorer: Model) -> list[tuple[float, list[float]]]:
    """For each (prompt, response) the gain under its own prompt, and those under three of the others, the same ones each time."""
    rng, found = random.Random(0), []
    for at, (prompt, response) in enumerate(told):
        others = rng.sample([other for number, (other, _) in enumerate(told) if number != at], 3)
        own, *rest = await gains_of(response, scorer).of([prompt, *others])
        found.append((own, rest))
    return found


async def main(path: Path) -> None:
    """Print the table."""
    pairs = list(read_pairs(path))
    scorer = open_model(ModelConfig(model=SCORER), Path())
    beside = await own_and_others([(pair["prompt"], pair["chosen"]) for pair in pairs], scorer)
    own, other = [first for first, _ in beside], [gain for _, rest in beside for gain in rest]
    boilerplate = await gains_of(BOILERPLATE, scorer).of([pair["prompt"] for pair in pairs])
    await scorer.close()
    for name, gains in (("own prompt", own), ("other prompt", other), ("boilerplate", boilerplate)):
        kept = "  ".join(f"{bound:.1f}: {sum(gain >= bound for gain in gains) / len(gains):.0%}" for bound in BOUNDS)
        print(f"{name:13} mean {fmean(gains):+.2f}, {min(gains):+.2f} to {max(gains):+.2f}; kept from {kept}")
    print(f"AUC own over other {auc(own, other):.3f}, over boilerplate {auc(own, boilerplate):.3f} ({len(pairs)} pairs)")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
