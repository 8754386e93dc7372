"""Ledgers to test with: calls that look like a run's, and the way the first schema stored them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sqlite3
import zlib
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from functools import cache
from pathlib import Path

from safer_instruct.ledger import Call, Ledger
from safer_instruct.ledger.content import KEY_BYTES, decode_generated, decode_scored, encode_answer, is_scoring
from safer_instruct.models.protocol import Completion, Generated, Generation, Sampling, Scored, Scoring, Turn, Usage, encode_request

TEMPLATE = "Below is a response to a certain instruction. Write the instruction that the response is trying to complete.\n\n### response:\n"
WORDS = ["umbrella", "kettle", "parcel", "lamp", "cake", "bicycle", "ticket", "tent", "ladder", "sofa", "piano", "broke", "bent", "melted", "cracked"]


@cache
def a_call(number: int, stage: str = "induce", model: str = "scripted:m", *, words: int = 30) -> Call:
    """Call `number`: of every four one completion and three scorings."""
    rng = random.Random(number)
    text = " ".join(rng.choice(WORDS) + str(rng.randrange(1000)) for _ in range(words))
    usage = Usage(rng.randrange(300), rng.randrange(90), rng.random() / 1000, rng.random())
    answer: Generated | Scored
    if number % 4:
        request = encode_request("score", Scoring(TEMPLATE + text, f"answer {number}"))
        answer = Scored(tuple(-int(rng.expovariate(1e-6)) / 2**20 for _ in range(20)))
    else:
        request = encode_request("generate", Generation((Turn("user", TEMPLATE + text),), Sampling(), number))
        text = f"Tell me why the {rng.choice(WORDS)} {number} {rng.choice(WORDS)}!"
        answer = Generated((Completion(text, -rng.random(), tokens=number if number % 8 else None),))
    key = hashlib.sha256(f"{model}\n".encode() + request).digest()[:KEY_BYTES]
    return Call(key, stage, model, request, encode_answer(answer), usage, 1.7e9 + number / 7)


def some_calls(count: int, stage: str = "induce", *, first: int = 0, words: int = 30) -> list[Call]:
    """Calls `first` to `first + count` of one stage."""
    return [a_call(number, stage, words=words) for number in range(first, first + count)]


def fill(path: Path, calls: Iterable[Call], *, group: int = 100) -> None:
    """Commit `calls` through a ledger, so many at a time."""

    async def work() -> None:
        with Ledger(path) as ledger:
            left = list(calls)
            while left:
                await asyncio.gather(*(ledger.put(call) for call in left[:group]))
                del left[:group]

    asyncio.run(work())


SCHEMA_1 = """
CREATE TABLE IF NOT EXISTS calls (
    key BLOB PRIMARY KEY,           -- SHA-256 of fingerprint and request
    stage TEXT NOT NULL,
    model TEXT NOT NULL,
    kind TEXT NOT NULL,             -- generate, score
    request BLOB NOT NULL,          -- zlib of JSON
    answer BLOB NOT NULL,           -- zlib of JSON
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost REAL NOT NULL,
    seconds REAL NOT NULL,
    finished_at REAL NOT NULL       -- Unix time
)
"""


def write_version_1(path: Path, calls: Iterable[Call]) -> None:
    """A ledger as version 0.1.0 of this package wrote it before schema 2."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        with connection:
            connection.execute(SCHEMA_1)
            connection.execute("PRAGMA user_version = 1")
            connection.executemany("INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_row_1, calls))


def _row_1(call: Call) -> tuple[object, ...]:
    usage = call.usage
    took = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens, "cost": usage.cost, "seconds": usage.seconds}
    answer: dict[str, object]
    if is_scoring(call):
        answer = {"logprobs": decode_scored(call.answer, usage).logprobs, "usage": took}
    else:
        completions = decode_generated(call.answer, usage).completions
        answer = {"completions": [_completion_1(c) for c in completions], "usage": took}
    packed = zlib.compress(json.dumps(answer, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    key = hashlib.sha256(f"{call.model}\n".encode() + call.request).digest()
    kind = "score" if is_scoring(call) else "generate"
    return (key, call.stage, call.model, kind, zlib.compress(call.request), packed, *took.values(), call.finished_at)


def _completion_1(completion: Completion) -> dict[str, object]:
    """As it was before it had `tokens`, where it has none."""
    fields = asdict(completion)
    return fields if completion.tokens is not None else {name: value for name, value in fields.items() if name != "tokens"}
