"""Seconds and peak memory of exporting a run with many pairs. `python bench/export.py FOLDER --pairs 1000000`.

The run is made once, of random words (30 of the rejected text, 15 of the prompt, 30 of the chosen response). Each export is a
process of its own, so that the peak is its own.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from runs import SUMMED_UP

from safer_instruct import rundir, tables
from safer_instruct.example import Example, Verdict
from safer_instruct.export import Options, export_pairs

CASES: dict[str, tuple[str, Options]] = {
    "jsonl": ("jsonl", Options()),
    "messages": ("messages", Options()),
    "datasets": ("datasets", Options()),
    "datasets, provenance": ("datasets", Options(provenance=True)),
    "parquet, split, equal texts": ("parquet", Options({"test": 0.1}, near=0.0)),
    "parquet, split, near texts": ("parquet", Options({"test": 0.1})),
}


def make_run(folder: Path, pairs: int) -> None:
    """Write a finished run's files."""
    rng, words = random.Random(0), [f"w{i}" for i in range(30_000)]
    passed = (Verdict("prompt.length", True, 15.0), Verdict("consistency", True, 0.4))
    folder.mkdir(parents=True, exist_ok=True)
    with tables.outputs(folder) as out:
        for i in range(pairs):
            drawn = rng.choices(words, k=75)
            text, prompt, chosen = (" ".join(part) for part in (drawn[:30], drawn[30:45], drawn[45:]))
            out.add(Example(str(i), text, "support", "t.jsonl", i, prompt=prompt, chosen=chosen, verdicts=passed))
    domain = {"name": "bench", "description": "Random words.", "misuse": "None.", "guidelines": {"support": "0" * 16}}
    books = {"domain": domain, "license": "", "source_license": "", "models": {}, "stages": {}, "thresholds": "none", "cost": 0.0}
    counts = dict.fromkeys(("set_aside", "calls", "prompt_tokens", "completion_tokens"), 0)
    (folder / rundir.SUMMARY).write_text(json.dumps({**SUMMED_UP, **books, **counts, "rows": pairs, "pairs": pairs}))
    (folder / rundir.RUN).write_text(json.dumps({"models": {}, "templates": {}}))


def measure(folder: Path, case: str) -> None:
    """Export once, and print what it took."""
    format_, options = CASES[case]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        started = time.monotonic()
        exported = export_pairs(folder, format_, Path(out) / "out", options)
        seconds = time.monotonic() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{case:28} {exported.pairs:>9,} pairs {seconds:6.1f} s {peak_mb:6.0f} MB", flush=True)


def main() -> None:
    """Make the run if it is not there, then measure each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--case", choices=CASES)
    given = parser.parse_args()
    if not (given.folder / rundir.SUMMARY).is_file():
        make_run(given.folder, given.pairs)
    if given.case:
        measure(given.folder, given.case)
        return
    for case in CASES:
        subprocess.run([sys.executable, __file__, str(given.folder), "--case", case], check=True)


if __name__ == "__main__":
    main()
