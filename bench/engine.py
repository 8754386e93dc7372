"""Tokens per second of processor time of the embedded engine: how generation and scoring are best cut into requests.

    python bench/engine.py                 # completions of 24 tokens, about as long as an instruction; a minute on two idle cores
    python bench/engine.py --tokens 128    # longer ones: opening the generator and reading the prompt count for less

Generation: two requests at a time, one thread each, as a run sends them. Scoring: sequences of equal length in batches, on one thread, through
CTranslate2 itself; then one at a time on as many threads as cores, as `EmbeddedModel` does it. Processor time, so that a busy machine changes little.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import time

from safer_instruct.models.codec import Codec
from safer_instruct.models.embedded import EmbeddedModel
from safer_instruct.models.protocol import Generation, Sampling, Scoring
from safer_instruct.models.store import EMBEDDED, converted

PROMPT = "A customer of a small shop asks about a parcel that has not come. " * 4
KINDS = {"top-k 40": 40, "all tokens": 0}
COMPLETIONS = (1, 4, 8, 16)
REQUESTS = 4  # for each cell
LENGTHS, BATCHES, SCORED = (64, 128, 256), (1, 4, 8, 16), 16


async def generating(model: EmbeddedModel, max_tokens: int) -> None:
    print(f"| completions per request | {' | '.join(KINDS)} |\n|---|{'---|' * len(KINDS)}")
    seeds = itertools.count()
    for n in COMPLETIONS:
        cells = [f"{await generated_per_s(model, Sampling(max_tokens, n=n, top_k=top_k), seeds):.0f}" for top_k in KINDS.values()]
        print(f"| {n} | {' | '.join(cells)} |", flush=True)


async def generated_per_s(model: EmbeddedModel, sampling: Sampling, seeds: itertools.count[int]) -> float:
    """Tokens per CPU second of a few requests."""
    requests = [Generation(PROMPT, sampling, next(seeds)) for _ in range(REQUESTS)]
    began = time.process_time()
    done = await asyncio.gather(*map(model.generate, requests))
    return sum(found.usage.completion_tokens for found in done) / (time.process_time() - began)


def scoring_in_batches() -> None:
    import ctranslate2

    folder, _ = converted(EMBEDDED, None)
    engine, codec = ctranslate2.Generator(str(folder), intra_threads=1, compute_type="int8"), Codec(folder)
    print(f"\n| tokens | {' | '.join(f'batches of {size}' for size in BATCHES)} |\n|---|{'---|' * len(BATCHES)}")
    draw = random.Random(0)
    for length in LENGTHS:
        texts = [codec.tokens([draw.randrange(100, 40_000) for _ in range(length)]) for _ in range(SCORED)]
        cells = []
        for size in BATCHES:
            began = time.process_time()
            for at in range(0, SCORED, size):
                engine.score_batch(texts[at : at + size])
            cells.append(f"{SCORED * length / (time.process_time() - began):.0f}")
        print(f"| {length} | {' | '.join(cells)} |", flush=True)


async def scoring(model: EmbeddedModel) -> None:
    draw = random.Random(1)
    for length in LENGTHS:
        asked = [Scoring(f"{number}:", " ".join(f"{draw.choice('abcdefgh')}{draw.randrange(99)}" for _ in range(length)), length) for number in range(SCORED)]
        began = time.process_time()
        done = await asyncio.gather(*map(model.score, asked))
        tokens = sum(len(found.logprobs) for found in done)
        print(f"one at a time, {length} tokens: {tokens / (time.process_time() - began):.0f} tokens per CPU second on {model.concurrency} threads", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=24, help="of each completion, at most")
    parser.add_argument("--only", choices=("generation", "scoring"))
    given = parser.parse_args()
    model = EmbeddedModel(EMBEDDED)
    if given.only != "scoring":
        await generating(model, given.tokens)
    if given.only != "generation":
        scoring_in_batches()
        await scoring(model)


if __name__ == "__main__":
    asyncio.run(main())
