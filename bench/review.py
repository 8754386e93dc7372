"""How fast the review app answers at a million pairs: python bench/review.py [PAIRS] [FOLDER].

Writes a finished run of made-up pairs, builds its index, and asks what the page asks, each question 50 times from places
spread over the run. Times are of the whole answer in the process (index, Parquet row, label, sync to disk), without HTTP,
which adds 1 to 2 ms.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from runs import SUMMED_UP

from safer_instruct import rundir, tables
from safer_instruct.example import Example, Verdict
from safer_instruct.review.desk import Change, Desk, Plan
from safer_instruct.review.index import ensure_index
from safer_instruct.review.queue import Filters
from safer_instruct.review.store import Store
from safer_instruct.settings.review import ReviewConfig

_PARTS = [
    f"{a}{b}{c}" for a in ("par", "tic", "lo", "mer", "su", "ban") for b in ("ke", "li", "no", "ra", "ti") for c in ("t", "nd", "m", "s", "x", "ro", "ve")
]
WORDS = [first + second for first in _PARTS for second in _PARTS]  # 44,100


def write_run(path: Path, pairs: int) -> None:
    """A run of `pairs` examples of about 120 words each, one in ten dropped."""
    draw = random.Random(0)
    path.mkdir(parents=True, exist_ok=True)
    chunks = [" ".join(draw.choices(WORDS, k=15)) for _ in range(5_000)]
    with tables.outputs(path) as out:
        for number in range(pairs):
            prompt, *rest = draw.choices(chunks, k=8)
            example = Example(f"e{number}", " ".join(rest[:4]), f"c{number % 4}", "made-up", number + 1, prompt=prompt, chosen=" ".join(rest[4:]))
            out.add(example.with_verdicts(Verdict("verify.better", number % 10 > 0, 0.5)))
    (path / rundir.SUMMARY).write_text(json.dumps(SUMMED_UP | {"rows": pairs, "pairs": sum(number % 10 > 0 for number in range(pairs))}), "utf-8")


def timed(name: str, ask: Callable[[str], object], ids: list[str]) -> None:
    """Print median and maximum over `ids`, in milliseconds."""
    taken = []
    for id_ in ids:
        begun = time.perf_counter()
        ask(id_)
        taken.append(1e3 * (time.perf_counter() - begun))
    print(f"{name:46} median {statistics.median(taken):6.1f} ms   slowest {max(taken):6.1f} ms", flush=True)


def main(pairs: int, path: Path) -> None:
    """Build and ask."""
    if not (path / rundir.SUMMARY).is_file():
        write_run(path, pairs)
    begun = time.perf_counter()
    index = ensure_index(path)
    print(f"{pairs:,} examples: index in {time.perf_counter() - begun:.0f} s, {index.stat().st_size / 1e6:.0f} MB", flush=True)
    store = Store(path)
    desk, reader = Desk(path, Plan(ReviewConfig(), {}), store), store.join("bench")
    ids = [f"e{n * pairs // 50}" for n in range(50)]

    def say(id_: str) -> None:
        item = desk.item(reader, id_)
        assert item
        desk.say(reader, id_, Change(key=uuid.uuid4().hex, digest=item["digest"], decision="accept"))

    timed("open a pair", lambda id_: desk.item(reader, id_), ids)
    timed("the next pair to read", lambda id_: desk.step(reader, Filters(), id_, back=False), ids)
    timed("the next of one category, dropped", lambda id_: desk.step(reader, Filters("c2", "verify.better"), id_, back=False), ids)
    timed("the next with two words", lambda id_: desk.step(reader, Filters(search="parketparket"), id_, back=False), ids)
    timed("a click, synced to disk", say, ids)
    timed("undo", lambda id_: desk.undo(reader, uuid.uuid4().hex), ids)
    timed("list: 50 of all", lambda id_: desk.listed(reader, Filters(state="any"), id_), ids[:10])
    timed("list: a search", lambda id_: desk.listed(reader, Filters(search="parketparket"), None), ids[:10])
    timed("list: the beginning of 1,470 words", lambda id_: desk.listed(reader, Filters(search="parketparket banke*"), None), ids[:3])
    desk.close()
    store.close()


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    if len(sys.argv) > 2:
        main(count, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(count, Path(folder))
