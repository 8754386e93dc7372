"""Does the gain tell an instruction from others, and how fast?  python bench/consistency.py [--speed | --quality] [--limit N]

Quality: 585 responses (../shared/data), each with its own instruction, a random other one, and the nearest other one by TF-IDF;
AUC over all, and the share of responses whose own instruction gains more. For several token caps and ways to sum up the tokens.
Speed: pairs/s of `TextGains` against a loop over pairs with two score calls each, one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from verifier import auc, pairwise

from safer_instruct.config import ConsistencyConfig
from safer_instruct.filters.consistency import TextGains
from safer_instruct.models.embedded import EmbeddedModel
from safer_instruct.models.protocol import Scoring
from safer_instruct.models.store import EMBEDDED
from safer_instruct.templates import load_template

DATA = Path(__file__).parents[2] / "shared" / "data" / "instruction_response_585.jsonl"
CAPS = (16, 32, 48, 64, 128)
WAYS: dict[str, Callable[[list[float]], float]] = {
    "mean": lambda gains: sum(gains) / len(gains),
    "sum": sum,
    "sum / sqrt(n)": lambda gains: sum(gains) / math.sqrt(len(gains)),
    "sum / (n + 8)": lambda gains: sum(gains) / (len(gains) + 8),
    "mean, clipped at 2": lambda gains: sum(max(-2.0, min(2.0, g)) for g in gains) / len(gains),
}
Tokens = Sequence[float]
forward = load_template("forward")


def nearest(texts: list[str]) -> list[int]:
    """For each text the index of the most similar other one, by cosine of TF-IDF."""
    bags = [Counter(re.findall(r"\w+", text.lower())) for text in texts]
    seen = Counter(word for bag in bags for word in bag)
    vectors = [{w: (1 + math.log(n)) * math.log(len(texts) / seen[w]) for w, n in bag.items()} for bag in bags]
    norms = [math.sqrt(sum(v * v for v in vector.values())) or 1.0 for vector in vectors]

    def similarity(i: int, j: int) -> float:
        return sum(v * vectors[j].get(w, 0.0) for w, v in vectors[i].items()) / (norms[i] * norms[j])

    return [max((j for j in range(len(texts)) if texts[j] != texts[i]), key=lambda j: similarity(i, j)) for i in range(len(texts))]


async def scored(model: EmbeddedModel, prompt: str, text: str, cap: int) -> Tokens:
    return (await model.score(Scoring(forward.render(prompt=prompt), text, cap))).logprobs


async def quality(model: EmbeddedModel, rows: list[dict[str, str]]) -> None:
    own = [row["instruction"] for row in rows]
    draw = random.Random(0)
    others = {"random": [draw.choice([t for t in own if t != text]) for text in own], "hard": [own[j] for j in nearest(own)]}
    texts, cap = [row["output"] for row in rows], max(CAPS)
    asked = {"alone": [""] * len(rows), "own": own, **others}
    tokens = {kind: await asyncio.gather(*(scored(model, p, t, cap) for p, t in zip(prompts, texts, strict=True))) for kind, prompts in asked.items()}
    print(f"{len(rows)} responses\n| tokens | summed up by | AUC, random | AUC, hard | pairwise, random | pairwise, hard | own below 0.1 | random above 0.1 |")
    print("|---|---|---|---|---|---|---|---|")
    for most in CAPS:
        for name, way in WAYS.items():
            values = {
                kind: [
                    way([g - a for g, a in zip(given[:most], alone[:most], strict=True)]) for given, alone in zip(tokens[kind], tokens["alone"], strict=True)
                ]
                for kind in asked
            }
            good = values["own"]
            cells = [f(good, values[kind]) for f in (auc, pairwise) for kind in others]
            bounds = [sum(v < 0.1 for v in good) / len(good), sum(v >= 0.1 for v in values["random"]) / len(good)] if name == "mean" else []
            print(f"| {most} | {name} | " + " | ".join(f"{cell:.3f}" for cell in [*cells, *bounds]) + " |", flush=True)
        plain = {kind: [sum(given[:most]) / len(given[:most]) for given in tokens[kind]] for kind in asked}
        cells = [f(plain["own"], plain[kind]) for f in (auc, pairwise) for kind in others]
        print(f"| {most} | mean log p(response given instruction) alone | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |", flush=True)


async def speed(model: EmbeddedModel, rows: list[dict[str, str]], candidates: int) -> None:
    draw = random.Random(1)
    work = [(row["output"], [row["instruction"], *(draw.choice(rows)["instruction"] for _ in range(candidates - 1))]) for row in rows]
    config, few = ConsistencyConfig(), len(work) // 4

    async def naive(cap: int, most: int) -> list[float]:
        gains = []
        for text, prompts in work[:most]:
            for prompt in prompts:
                given, alone = [await scored(model, p, text, cap) for p in (prompt, "")]
                gains.append(round(sum(given) / len(given) - sum(alone) / len(alone), 6))
        return gains

    async def ours() -> list[float]:
        found = await asyncio.gather(*(TextGains(text, model, forward, config).of(prompts) for text, prompts in work))
        return [gain for gains in found for gain in gains]

    await scored(model, "", "warm up", 8)
    ways = {
        "loop, whole texts": lambda: naive(1024, few),
        f"loop, {config.max_tokens} tokens": lambda: naive(config.max_tokens, len(work)),
        f"ours, {config.max_tokens} tokens": ours,
    }
    print("| way | pairs | pairs/s | of the loop over whole texts |\n|---|---|---|---|")
    first, gains = 0.0, {}
    for name, run in ways.items():
        started = time.perf_counter()
        gains[name] = await run()
        rate = len(gains[name]) / (time.perf_counter() - started)
        first = first or rate
        print(f"| {name} | {len(gains[name])} | {rate:.2f} | {rate / first:.2f} |", flush=True)
    _, loop, grouped = gains.values()
    assert loop == grouped, "the same gains to the last bit, in whatever company they are computed"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=585)
    parser.add_argument("--candidates", type=int, default=4, help="of each text, for --speed")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--quality", action="store_true")
    given = parser.parse_args()
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()][: given.limit]
    model = EmbeddedModel(EMBEDDED)
    if given.speed or not given.quality:
        await speed(model, rows[:16], given.candidates)
    if given.quality or not given.speed:
        await quality(model, rows)


if __name__ == "__main__":
    asyncio.run(main())
