"""What the three operators that see every example take for one of them: CPU, and the memory that stays.

    .venv-dev/bin/python bench/ray_serial.py --rows 20000
    .venv-dev/bin/python bench/ray_serial.py --rows 20000 --select

They are the source, the one that knows all instructions, and the driver (docs/ray.md); each runs in a process of its own on chunks
that were made before, without Ray. CPU is that of the thread that does the work, memory the growth of the resident set, both over
the second half of the rows and for each of them, so that what is there from the start is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import pickle
import random
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from ray_runner import write_config

from safer_instruct.budget import Budget
from safer_instruct.config import RunConfig, load_config
from safer_instruct.equipment import equip, new_state
from safer_instruct.example import Example
from safer_instruct.filters import dedup
from safer_instruct.ledger import Ledger
from safer_instruct.pipeline import Work, finished, write_out
from safer_instruct.runners.chunks import Chunk, decode, encode
from safer_instruct.runners.counts import add
from safer_instruct.runners.ray.plan import Plan
from safer_instruct.runners.ray.workers import COLUMN, Distinct, Source, _table

CHUNK = 256


def write_project(folder: Path, rows: int, words: tuple[int, int], *, select: bool) -> None:
    """Texts by Zipf's law, and scripted models that answer in the words of the text."""
    rng = random.Random(1)
    vocabulary = [
        f"{a}{b}{c}"
        for a in ("ka", "lo", "mi", "ter", "san", "vor", "ble", "gri")
        for b in ("na", "ro", "ti", "sel", "dom", "pra")
        for c in map(str, range(200))
    ]
    weights = [1 / (rank + 3) for rank in range(len(vocabulary))]
    texts = (" ".join(rng.choices(vocabulary, weights, k=rng.randint(*words))) for _ in range(rows))
    write_config(folder, texts, **({"select": {"target": rows // 2}} if select else {}))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Meter:
    """CPU of this thread and the resident set, both over the second half of the rows."""

    def __init__(self, rows: int) -> None:
        self._rows, self._seen, self._at = rows, 0, 0
        self.others_s = 0.0  # of what this thread does beside

    def count(self, rows: int) -> None:
        self._seen += rows
        if not self._at and self._seen >= self._rows / 2:
            self._at, self._began_s, self._began = self._seen, time.thread_time() - self.others_s, resident()

    def result(self) -> tuple[float, float, float]:
        """Microseconds for a row, bytes that stay of it, MB at the end."""
        rows, cpu_s = self._seen - self._at, time.thread_time() - self.others_s - self._began_s
        return 1e6 * cpu_s / rows, (resident() - self._began) / rows, resident() / 1e6


class Chunks:
    """Chunks in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, chunks: Iterator[bytes]) -> None:
        with self.path.open("wb") as file:
            for chunk in chunks:
                pickle.dump(chunk, file)

    def __iter__(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while True:
                try:
                    yield pickle.load(file)
                except EOFError:
                    return


def source(folder: Path, rows: int) -> tuple[float, float, float]:
    meter = Meter(rows)

    def chunks() -> Iterator[bytes]:
        for table in Source(_plan(folder), None)(None):
            meter.count(CHUNK)
            yield table[COLUMN][0].as_py()

    Chunks(folder / "source").write(chunks())
    return meter.result()


def distinct(folder: Path, rows: int) -> tuple[float, float, float]:
    meter, operator = Meter(rows), Distinct(_plan(folder), None)

    def chunks() -> Iterator[bytes]:
        for chunk in Chunks(folder / "ahead"):
            began = time.thread_time()
            table = _table(decode(chunk))
            meter.others_s += time.thread_time() - began
            yield operator(table)[COLUMN][0].as_py()
            meter.count(CHUNK)

    Chunks(folder / "distinct").write(chunks())
    return meter.result()


def work(folder: Path, before: str, after: str, part: Callable[[Work, AsyncGenerator[Example, None]], AsyncGenerator[Example, None]]) -> None:
    """What workers do, not measured: the first chunk as they do it, all others after its pattern."""

    async def first(chunk: Chunk) -> list[Example]:
        config = _config(folder)
        async with AsyncExitStack() as stack:
            equipment = await stack.enter_async_context(equip(config, folder, Budget(None, None), new_state(config, None)))
            with Ledger(folder / f"{after}.sqlite") as ledger:
                return [example async for example in part(Work(equipment.recording(ledger)), _stream(chunk.examples))]

    def chunks() -> Iterator[bytes]:
        patterns: list[Example] = []
        for data in Chunks(folder / before):
            chunk = decode(data)
            patterns = patterns or asyncio.run(first(chunk))
            chunk.examples = [_like(pattern, example) for pattern, example in zip(patterns, chunk.examples, strict=False)]
            yield encode(chunk)

    Chunks(folder / after).write(chunks())


def _like(pattern: Example, example: Example) -> Example:
    """What the models would have made of another example."""
    prompt, chosen = f"Explain {' '.join(example.text.split()[:14])}.", f"Gladly: {example.text}."
    candidates = tuple(replace(one, text=prompt) for one in pattern.candidates)
    drafts = tuple(replace(one, text=chosen) for one in pattern.drafts)
    changed = replace(pattern, id=example.id, text=example.text, line=example.line, candidates=candidates, drafts=drafts, prompt=prompt)
    return replace(changed, chosen=chosen) if pattern.chosen else changed


def ahead(folder: Path, _: int) -> None:
    work(folder, "source", "ahead", lambda doing, examples: doing.prompted(examples, 0))


def behind(folder: Path, _: int) -> None:
    work(folder, "distinct", "behind", lambda doing, examples: doing.answered(examples, 0))


def driver(folder: Path, rows: int) -> tuple[float, float, float]:
    config, out = _config(folder), folder / "out"
    out.mkdir()
    state, meter = new_state(config, rows), Meter(rows)

    async def flow() -> AsyncGenerator[Example, None]:
        for data in Chunks(folder / "behind"):
            chunk: Chunk = decode(data)
            for counts in chunk.counts:
                add(counts, state)
            for example in chunk.examples:
                yield example
            meter.count(len(chunk.examples))

    async def through() -> tuple[float, float, float]:
        async with equip(config, out, Budget(None, None), state) as equipment:
            Ledger(out / "ledger.sqlite").close()  # the driver looks whose it is
            await write_out(equipment, out, lambda _: finished(flow(), equipment))
            return meter.result()

    return asyncio.run(through())


def marks(folder: Path, rows: int) -> tuple[float, float, float]:
    """Of one duplicate detector: the part that looks at one text alone, which could be done anywhere."""
    meter, memory = Meter(rows), dedup.Deduplicator("text", 0.7)
    for line in (folder / "texts.jsonl").read_text().splitlines():
        began = time.thread_time()
        text = json.loads(line)["text"]
        meter.others_s += time.thread_time() - began
        memory._marks(text)
        meter.count(1)
    return meter.result()


def _config(folder: Path) -> RunConfig:
    return load_config(folder / "config.yaml")


def _plan(folder: Path) -> Plan:
    return Plan(_config(folder), folder, "bench", CHUNK)


async def _stream(examples: list[Example]) -> AsyncGenerator[Example, None]:
    for example in examples:
        yield example


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--words", type=int, nargs=2, default=(30, 90), help="of a text, at least and at most")
    parser.add_argument("--select", action="store_true")
    options = parser.parse_args()
    print("| | us of CPU for an example | bytes that stay | MB at the end |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-serial-") as name:
        folder = Path(name)
        write_project(folder, options.rows, tuple(options.words), select=options.select)
        for part in (source, marks, ahead, distinct, behind, driver):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                if found := pool.apply(part, (folder, options.rows)):
                    print(f"| {part.__name__} | {found[0]:.0f} | {found[1]:.0f} | {found[2]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
