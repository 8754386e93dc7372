"""Instructions per second through every detector that looks at instructions, on one core.

    python bench/rules.py [FILE ...]     JSONL with `prompt`, `instruction` or `ask`, and `text`, `output`, `response` or `rude`

Default: examples/tune (short instructions and replies) and, where it is there, ../shared/data. Every text is met once, so that nothing
comes from a detector's memory; texts are decoded anew for each of three rounds, and the best round counts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from safer_instruct.detect import language, words
from safer_instruct.detect.contamination import BenchmarkIndex
from safer_instruct.detect.gibberish import gibberish_reason
from safer_instruct.detect.injection import find_injections, template_mark
from safer_instruct.detect.language import language_of
from safer_instruct.detect.leakage import measure_leakage
from safer_instruct.detect.pii import find_pii
from safer_instruct.detect.repetition import repeated_share
from safer_instruct.detect.secrets import find_secrets
from safer_instruct.filters.rules import refusal_mark

ROOT = Path(__file__).parents[1]
ROUNDS = 3
Pair = tuple[str, str]
INDEX = BenchmarkIndex(
    [("made up", [f"Question {n}: how many of the {n} boats in the harbour leave before noon on day {n} of the year?" for n in range(5_000)])]
)
DETECTORS: dict[str, Callable[[str, str], object]] = {
    "length": lambda prompt, _: len(prompt.split()),
    "template": lambda prompt, _: template_mark(prompt),
    "refusal": lambda prompt, _: refusal_mark(prompt),
    "leakage": lambda prompt, text: measure_leakage(prompt, text),
    "repetition": lambda prompt, _: repeated_share(prompt),
    "language": lambda prompt, _: language_of(prompt),
    "pii": lambda prompt, _: find_pii(prompt),
    "secrets": lambda prompt, _: find_secrets(prompt),
    "injection": lambda prompt, _: find_injections(prompt),
    "gibberish": lambda prompt, _: gibberish_reason(prompt),
    "contamination": lambda prompt, _: INDEX.find(prompt),
}


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    files = [Path(a) for a in sys.argv[1:]] or [
        *(ROOT / "examples" / "tune" / name for name in ("civility-plain.jsonl", "general.jsonl")),
        *sorted((ROOT.parent / "shared" / "data").glob("*.jsonl")),
    ]
    for path in files:
        measure(path)


def measure(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    pairs = read(lines)
    count = len(pairs)
    mean = [sum(len(pair[side].split()) for pair in pairs) / count for side in (0, 1)]
    print(f"\n{path.name}: {count} instructions of {mean[0]:.0f} words, texts of {mean[1]:.0f}")
    for name, detect in DETECTORS.items():
        print(f"  {name:<14} {1e6 * best_seconds(lines, lambda p, t, detect=detect: detect(p, t)) / count:7.1f} us")
    seconds = best_seconds(lines, lambda p, t: [detect(p, t) for detect in DETECTORS.values()])
    print(f"  {'all of them':<14} {1e6 * seconds / count:7.1f} us   {count / seconds:,.0f} instructions/s")


def best_seconds(lines: list[str], detect: Callable[[str, str], object]) -> float:
    took = []
    for _ in range(ROUNDS):
        words._kept.cache_clear()
        language.language_of.cache_clear()
        pairs = read(lines)
        start = time.process_time()
        for prompt, text in pairs:
            detect(prompt, text)
        took.append(time.process_time() - start)
    return min(took)


def read(lines: list[str]) -> list[Pair]:
    rows = (json.loads(line) for line in lines)
    pairs = (
        (
            row.get("prompt") or row.get("instruction") or row.get("ask") or "",
            row.get("text") or row.get("output") or row.get("response") or row.get("rude") or "",
        )
        for row in rows
    )
    return list(dict.fromkeys(pair for pair in pairs if all(pair)))


if __name__ == "__main__":
    main()
