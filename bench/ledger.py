"""What the ledger costs: calls through `Recorded` over a model that answers at once.

python bench/ledger.py                       # a million calls
python bench/ledger.py --calls 20000 --profile
python bench/ledger.py --prefill 10000000 --calls 100000   # in a ledger that already holds so many
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import random
import resource
import shutil
import statistics
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from safer_instruct.ledger import Ledger, Meter, Recorded
from safer_instruct.models.protocol import Completion, Generated, Generation, Sampling, Scored, Scoring, Usage

TEMPLATE = """Below is a response to a certain instruction. Write the instruction that the response is trying to complete.
Write it as a customer would: in the first person, naming things, without quoting the response itself.

### response:
{text}

### Instruction:
"""
SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
_RNG = random.Random(0)
PROSE = " ".join("".join(_RNG.choices(SYLLABLES, k=_RNG.randint(1, 4))) for _ in range(200_000))
FLOATS = tuple(-int(_RNG.expovariate(1e-6)) / 2**20 for _ in range(100_003))
LOOKUPS = 2_000
FLOATS_PACKED = b"f" + struct.pack("<40f", *FLOATS[:40])


class Instant:
    """A model that answers at once: three of four calls are scorings of 40 tokens."""

    name, fingerprint, concurrency, priced, status = "instant:m", "instant", 64, True, ""

    async def generate(self, request: Generation) -> Generated:
        at = request.seed * 104_729 % (len(PROSE) - 200)
        return Generated((Completion(PROSE[at : at + 180], FLOATS[request.seed % 100_003]),), Usage(120, 35, 0.000123, 0.8))

    async def score(self, request: Scoring) -> Scored:
        at = int(request.continuation.partition(" ")[0]) * 41 % 99_900
        return Scored(FLOATS[at : at + 40], Usage(160, 0, 0.0, 0.1))

    async def close(self) -> None: ...


def ask(number: int) -> Generation | Scoring:
    at = number * 7_919 % (len(PROSE) - 300)
    prompt = TEMPLATE.replace("{text}", PROSE[at : at + 240])
    return Scoring(prompt, f"{number} {PROSE[at : at + 120]}") if number % 4 else Generation(prompt, Sampling(), number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--prefill", type=int, default=0, help="calls that the ledger holds before, written in bulk")
    parser.add_argument("--profile", action="store_true", help="under cProfile, which makes Python code about twice as slow")
    parser.add_argument("--dir", type=Path, help="where to work; a temporary folder by default")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ledger-", dir=arguments.dir))
    profiler = cProfile.Profile()
    try:
        if arguments.prefill:
            prefill(folder / "ledger.sqlite", arguments.prefill)
        if arguments.profile:
            profiler.enable()
        asyncio.run(measure(folder / "ledger.sqlite", arguments.calls, arguments.in_flight))
    finally:
        shutil.rmtree(folder)
    if arguments.profile:
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(30)


def prefill(path: Path, calls: int) -> None:
    """As many calls as wanted, in order of their keys, which no run would do: bulk loading that leaves the same tree."""
    from safer_instruct.ledger import schema
    from safer_instruct.ledger.content import Call
    from safer_instruct.ledger.rows import Appender

    step = (1 << 128) // calls
    with schema.building(path) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        appender = Appender(connection)
        for begin in range(0, calls, 10_000):
            numbers = range(begin, min(begin + 10_000, calls))
            connection.execute("BEGIN")
            appender.append(Call((n * step).to_bytes(16, "big"), "old", "instant:m", b"[]", FLOATS_PACKED, Usage(160, 0, 0.0, 0.1), 1.8e9 + n) for n in numbers)
            connection.execute("COMMIT")


async def measure(path: Path, calls: int, in_flight: int) -> None:
    """Make the calls, tenth by tenth; the model's own time is measured apart and taken off."""
    model = Instant()
    own = await own_cpu(model)
    print(f"load of the machine {os.getloadavg()[0]:.1f}; the model itself takes {own * 1e6:.0f} us of CPU per call, taken off below")
    print("     calls   calls/s  CPU us/call   RSS MB  peak MB  bytes/call  lookup us: mean  p99  miss")
    with Ledger(path) as ledger:
        recorded = Recorded(model, ledger, "bench", Meter())
        for tenth in range(10):
            numbers = iter(range(calls * tenth // 10, calls * (tenth + 1) // 10))
            count = calls * (tenth + 1) // 10 - calls * tenth // 10
            began, cpu = time.perf_counter(), cpu_s()
            await asyncio.gather(*(work(recorded, numbers) for _ in range(in_flight)))
            wall, spent = time.perf_counter() - began, cpu_s() - cpu
            size = sum(f.stat().st_size for f in path.parent.glob("ledger.sqlite*"))
            stored = calls * (tenth + 1) // 10
            hits, misses = lookups(ledger, recorded, stored)
            print(
                f"{stored:10,} {count / wall:9,.0f} {(spent / count - own) * 1e6:12.1f} {rss_mb('VmRSS'):8.0f} {rss_mb('VmHWM'):8.0f} {size / stored:11.0f}"
                f" {statistics.mean(hits) * 1e6:16.1f} {statistics.quantiles(hits, n=100)[98] * 1e6:5.1f} {statistics.mean(misses) * 1e6:5.1f}",
                flush=True,
            )


async def work(recorded: Recorded, numbers: Iterator[int]) -> None:
    for number in numbers:
        request = ask(number)
        await (recorded.generate(request) if isinstance(request, Generation) else recorded.score(request))


async def own_cpu(model: Instant, count: int = 5_000) -> float:
    """CPU seconds per call that making a request and its answer takes without any ledger."""
    began = cpu_s()
    for number in range(count):
        request = ask(number)
        await (model.generate(request) if isinstance(request, Generation) else model.score(request))
    return (cpu_s() - began) / count


def lookups(ledger: Ledger, recorded: Recorded, stored: int) -> tuple[list[float], list[float]]:
    """Seconds for keys all over the ledger, and for keys that are not in it."""
    from safer_instruct.models.protocol import encode_request

    rng = random.Random(stored)
    asked = [ask(rng.randrange(stored)) for _ in range(LOOKUPS)]
    keys = [recorded._key(encode_request("generate" if isinstance(r, Generation) else "score", r)) for r in asked]
    return [timed(ledger, key, found=True) for key in keys], [timed(ledger, rng.randbytes(16), found=False) for _ in range(LOOKUPS)]


def timed(ledger: Ledger, key: bytes, *, found: bool) -> float:
    began = time.perf_counter()
    call = ledger.get(key)
    took = time.perf_counter() - began
    assert (call is not None) is found
    return took


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def rss_mb(name: str) -> float:
    return next(int(line.split()[1]) / 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))


if __name__ == "__main__":
    main()
