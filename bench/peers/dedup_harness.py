"""What every measured deduplicator shares: its arguments, the texts, and the measurement of its own process. Standard library only.

A client is started by bench/dedup.py as `CLIENT.py CORPUS RESULT` and writes the ids that it would drop, and what that took from
the texts in memory on (or from the file on, where a library reads itself).
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterable
from pathlib import Path

THRESHOLD = 0.7


def measure(drop: Callable[[list[str]], Iterable[int]], *, from_file: Callable[[Path], Iterable[int]] | None = None) -> None:
    """Run on the corpus of the command line; `drop` gives the positions of what goes, `from_file` likewise from a path."""
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", type=Path)
    parser.add_argument("result", type=Path)
    arguments = parser.parse_args()
    texts = [] if from_file else [json.loads(line)["text"] for line in arguments.corpus.open(encoding="utf-8")]
    cpu, wall = _cpu_s(), time.perf_counter()
    dropped = [int(i) for i in (from_file(arguments.corpus) if from_file else drop(texts))]
    wall, cpu = time.perf_counter() - wall, _cpu_s() - cpu
    peak_mb = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    arguments.result.write_text(json.dumps({"dropped": dropped, "wall_s": wall, "cpu_s": cpu, "peak_mb": peak_mb}))


def trigrams(text: str) -> list[str]:
    """Word trigrams of the corpus, whose words stand between spaces in lower case."""
    parts = text.split()
    return [" ".join(part) for part in zip(parts, parts[1:], parts[2:], strict=False)]


def _cpu_s() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)
