"""Seconds per check and peak memory of an audit of made-up pairs: `python bench/audit.py 100000`."""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from safer_instruct.audit import audit_set, read_set

REFUSALS = ["I am sorry, but I can't help with that.", "I cannot assist with this request.", "I won't do that, and I would rather you didn't either."]


def write_pairs(path: Path, count: int, seed: int = 0) -> None:
    """Pairs of 30 and 2 x 120 words on average out of 30,000 by Zipf's law; each twentieth prompt comes again, 4% of chosen are pasted."""
    draw = random.Random(seed)
    vocabulary = ["".join(draw.choices("abcdefghilmnoprstu", k=draw.randrange(2, 10))) for _ in range(30_000)]
    weights = [1 / (rank + 3) for rank in range(len(vocabulary))]
    pool = draw.choices(vocabulary, weights, k=2_000_000)

    def text(mean: int) -> str:
        size, at = max(3, int(draw.expovariate(1 / mean))), draw.randrange(len(pool) - 2_000)
        said = pool[at : at + min(size, 2_000)]
        draw.shuffle(said)
        for place in range(9, len(said), 12):
            said[place] += draw.choice([".", ",", ".\n\n- ", "!"])
        return " ".join(said).capitalize() + "."

    prompts: list[str] = []
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            prompt = draw.choice(prompts) if number % 20 == 19 else text(30)
            prompts.append(prompt)
            chosen = draw.choice(REFUSALS) if number % 25 == 0 else text(120)
            file.write(json.dumps({"prompt": prompt, "chosen": chosen, "rejected": text(120)}) + "\n")


def main() -> None:
    """Print a line per check."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pairs.jsonl")
        write_pairs(path, count)
        print(f"{count:,} pairs, {path.stat().st_size / 1e6:.0f} MB")
        begun = last = time.perf_counter()
        pairs = read_set(path)
        steps: list[tuple[str, float]] = []

        def told(name: str) -> None:
            nonlocal last
            now = time.perf_counter()
            steps.append((name, now - last))
            last = now

        audit_set(pairs, {"made": Path(__file__)}, told)
        told("end")
        names = ["reading", *(name for name, _ in steps[:-1])]
        for name, (_, seconds) in zip(names, steps, strict=True):
            print(f"{name:20} {seconds:6.1f} s")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{'in all':20} {time.perf_counter() - begun:6.1f} s, peak memory {peak:,.0f} MB")


if __name__ == "__main__":
    main()
