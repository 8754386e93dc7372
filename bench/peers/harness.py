"""What every measured client shares: its arguments, the prompts, and the measurement of its own process. Standard library only.

A client is started by bench/calls.py as `CLIENT.py BASE_URL RESULT --calls N --warm-up N --concurrency N` and writes its figures to
RESULT as JSON, since a library may print what it likes.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import resource
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PROMPT_CHARS = 200
MAX_TOKENS = 64
TIMEOUT_S = 120.0
TEXT = "the parcel kettle invoice came late again broken twice without any word from your support team who keeps asking for the same order number"


@dataclass(frozen=True)
class Job:
    """What a client is asked to do."""

    base_url: str
    result: Path
    calls: int
    warm_up: int
    concurrency: int


def parse_job(description: str) -> Job:
    """The command line of a client."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("base_url")
    parser.add_argument("result", type=Path)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--warm-up", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    return Job(**vars(parser.parse_args()))


def prompt(number: int) -> str:
    """A chat message of exactly `PROMPT_CHARS` characters."""
    text = f"Case {number}: {' '.join(random.Random(number).choices(TEXT.split(), k=60))}"
    return text[:PROMPT_CHARS]


async def measure_calls(job: Job, ask: Callable[[str], Awaitable[str]]) -> None:
    """Measure single calls, `concurrency` at a time, once the warm-up has opened the connections."""
    warm_up, measured = distinct_prompts(job.warm_up, job.calls)
    await _ask_all(ask, warm_up, job.concurrency)
    cpu_began, wall_began = cpu_s(), time.perf_counter()
    await _ask_all(ask, measured, job.concurrency)
    _write(job, job.warm_up + job.calls, cpu_s() - cpu_began, time.perf_counter() - wall_began)


def measure_runs(job: Job, run: Callable[[Sequence[str]], Sequence[str | None]]) -> None:
    """Measure a library that takes a whole list: what a long run takes more than a short one.

    So what every run costs, however long it is, is not part of the cost of a call; `whole_cpu_s` is the long run with all of it.
    """
    warm_up, short, long = distinct_prompts(job.warm_up, job.warm_up, job.warm_up + job.calls)
    spent = []
    for asked in (warm_up, short, long):
        cpu_began, wall_began = cpu_s(), time.perf_counter()
        answers = run(asked)
        spent.append((cpu_s() - cpu_began, time.perf_counter() - wall_began))
        _check(len(asked), answers)
    (short_cpu, short_wall), (long_cpu, long_wall) = spent[1:]
    _write(job, len(warm_up) + len(short) + len(long), long_cpu - short_cpu, long_wall - short_wall, whole_cpu_s=long_cpu * job.calls / len(long))


def distinct_prompts(*counts: int) -> list[list[str]]:
    """As many lists of prompts as counts, no prompt twice."""
    numbers = itertools.count()
    return [[prompt(number) for number in itertools.islice(numbers, count)] for count in counts]


def cpu_s() -> float:
    """User and system time of this process and of those that it has started and waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


async def _ask_all(ask: Callable[[str], Awaitable[str]], prompts: Sequence[str], concurrency: int) -> None:
    waiting, answers = iter(prompts), []

    async def work(prompts: Iterator[str]) -> None:
        for text in prompts:
            answers.append(await ask(text))

    await asyncio.gather(*(work(waiting) for _ in range(concurrency)))
    _check(len(prompts), answers)


def _check(asked: int, answers: Sequence[str | None]) -> None:
    good = sum(bool(answer) for answer in answers)
    if good != asked:
        raise SystemExit(f"{good} answers to {asked} calls")


def _write(job: Job, asked: int, cpu: float, wall: float, *, whole_cpu_s: float | None = None) -> None:
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {"calls": job.calls, "asked": asked, "cpu_s": cpu, "wall_s": wall, "whole_cpu_s": whole_cpu_s, "peak_mb": peak_mb}
    job.result.write_text(json.dumps(figures))
