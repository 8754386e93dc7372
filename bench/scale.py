"""How a run scales: rows/s, CPU per row, and whether memory is flat, with scripted models, so with no time for any model.

python bench/scale.py --rows 10000
python bench/scale.py --rows 100000 --again      # and a second run, where every call comes from the ledger
python bench/scale.py --rows 3000 --profile      # where the time goes
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

SYLLABLES = [c + v for c in ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "st", "t", "v", "z", "sh", "pl") for v in ("a", "e", "i", "o", "u", "ar", "en")]
SCRIPT = """\
generate:
  - match: "certain instruction"
    answers: ["Please tell me about {words}.", "Can you help me with {words}?", "What do you make of {words}, then?"]
  - answers: ["Gladly, here is what I know of {words}.", "Thank you for asking about {words}, let me help."]
score:
  - {match: "kind, respectful", logprob: -1.0}
  - {match: "rude, sarcastic", logprob: -2.0}
  - {match: "### Instruction", logprob: -1.5}
  - {logprob: -2.5}
"""
CONFIG = """\
domain: civility
source: {path: texts.jsonl}
models: {inducer: "scripted:script.yaml", expert: "scripted:script.yaml", scorer: "scripted:script.yaml"}
filter: {prompt: {language: null}}
"""
SAMPLE_EVERY_S = 0.2


@dataclass
class Watched:
    """One process: what it took, and (calls in the ledger, resident MB) every 0.2 s."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    samples: list[tuple[int, float]] = field(default_factory=list)

    def memory_at(self, share: float, calls: int) -> float:
        """Resident MB when the ledger had grown by that share of the calls."""
        return next((mb for done, mb in self.samples if done >= share * calls), self.samples[-1][1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--words", type=int, default=40, help="mean length of a text")
    parser.add_argument("--near-duplicate", default="0.7", help="threshold, or null")
    parser.add_argument("--again", action="store_true", help="run a second time: every call from the ledger")
    parser.add_argument("--profile", action="store_true", help="run in this process under cProfile")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it there")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="scale-"))
    try:
        write_project(folder, arguments.rows, arguments.words, arguments.near_duplicate)
        if arguments.profile:
            profile(folder)
            return
        report(folder, arguments.rows, watch_run(folder), "first run")
        if arguments.again:
            report(folder, arguments.rows, watch_run(folder), "again, from the ledger")
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)


def write_project(folder: Path, rows: int, words: int, near_duplicate: str) -> None:
    """Texts of a Zipf-like vocabulary: of 100 rows one is a copy, one a near-copy, and one broken."""
    rng = random.Random(0)
    vocabulary = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(20_000)]
    folder.mkdir(parents=True, exist_ok=True)
    last = ["nothing", "has", "been", "said", "so", "far"]
    with (folder / "texts.jsonl").open("w", encoding="utf-8") as file:
        for i in range(rows):
            kind = i % 100
            if kind == 33:
                file.write("{broken\n")
                continue
            if kind == 66:
                last = [*last[:-1], "indeed"]
            elif kind != 99:
                last = [vocabulary[int(20_000 ** rng.random()) - 1] for _ in range(rng.randint(words // 2, words * 3 // 2))]
            file.write(json.dumps({"text": " ".join(last)}) + "\n")
    (folder / "script.yaml").write_text(SCRIPT)
    (folder / "config.yaml").write_text(CONFIG.replace("languages: []}", f"languages: []}}, near_duplicate: {near_duplicate}"))


def watch_run(folder: Path) -> Watched:
    """Run in a process of its own, and look at it from outside."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "safer_instruct.cli", "run", str(folder / "config.yaml"), "--out", str(folder / "out")]
    watched = Watched()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with suppress(OSError, sqlite3.Error):
                memory = memory_mb(process.pid)
                watched.peak_mb = max(watched.peak_mb, memory["VmHWM"])
                watched.samples.append((ledger_calls(folder), memory["VmRSS"]))
            time.sleep(SAMPLE_EVERY_S)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        sys.exit(f"the run failed with exit code {process.returncode}")
    watched.wall_s = time.monotonic() - began
    watched.cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return watched


def memory_mb(pid: int) -> dict[str, float]:
    """Resident memory of a process, now and at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    if len(found) < 2:
        raise OSError("the process has ended")
    return found


def ledger_calls(folder: Path) -> int:
    with closing(sqlite3.connect(f"file:{folder / 'out' / 'ledger.sqlite'}?mode=ro", uri=True)) as ledger:
        return int(ledger.execute("SELECT max(rowid) FROM calls").fetchone()[0] or 0)


def report(folder: Path, rows: int, watched: Watched, title: str) -> None:
    """Print the figures of one run."""
    summary = json.loads((folder / "out" / "summary.json").read_text())
    calls, sizes = summary["calls"], {f.name: f.stat().st_size / 1e6 for f in (folder / "out").iterdir()}
    stored = sum(size for name, size in sizes.items() if name.startswith("ledger"))
    print(f"{title}: {rows:,} rows, {summary['pairs']:,} pairs, {calls:,} calls ({summary['timing']['calls_from_ledger']:,} from the ledger)")
    print(
        f"  {watched.wall_s:.1f} s wall, {rows / watched.wall_s:.0f} rows/s, {calls / watched.wall_s:.0f} calls/s; load of the machine {os.getloadavg()[0]:.1f}"
    )
    print(f"  {watched.cpu_s:.1f} s CPU, {watched.cpu_s / rows * 1e3:.2f} ms/row, {watched.cpu_s / calls * 1e6:.0f} us/call")
    grown = max(done for done, _ in watched.samples) > watched.samples[0][0]
    at = {f"{share:.0%}": watched.memory_at(share, watched.samples[-1][0]) for share in (0.1, 0.25, 0.5, 0.75, 1.0)} if grown else {}
    print(f"  memory: peak {watched.peak_mb:.0f} MB" + "".join(f", {mb:.0f} at {share}" for share, mb in at.items()))
    print(
        f"  ledger {stored:.0f} MB ({stored * 1e6 / calls:.0f} bytes/call); " + ", ".join(f"{n} {sizes[n]:.1f} MB" for n in ("examples.parquet", "pairs.jsonl"))
    )


def profile(folder: Path) -> None:
    """Run in this process under cProfile, which makes Python code about twice as slow, and print what took longest."""
    from safer_instruct.config import load_config
    from safer_instruct.pipeline import run

    profiler = cProfile.Profile()
    profiler.enable()
    run(load_config(folder / "config.yaml"), folder / "out")
    profiler.disable()
    stats = pstats.Stats(profiler)
    for order in ("tottime", "cumulative"):
        stats.sort_stats(order).print_stats(30)


if __name__ == "__main__":
    main()
