"""Near-duplicate removal beside its peers: precision, recall, time and memory on instructions of known truth.

python bench/dedup.py                                   # 100,000 rows, all clients
python bench/dedup.py --rows 100000 300000 1000000 --only ours streaming rensa

A row that went is right if it is one of a true pair (Jaccard 0.7 or more), and a true pair is found if either of it went, as
libraries differ in which they keep. Each client runs in a process and an environment of its own (bench/peers/dedup_*.py).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from environments import CACHE, UnavailableError, interpreter, requirements
from near_corpus import write_corpus

PEERS = Path(__file__).parent / "peers"
CLIENTS = {name: PEERS / f"dedup_{name}.py" for name in ("ours", "streaming", "rensa", "datatrove", "datasketch")}
TIMEOUT_S = 900
NEAR = 0.7


@dataclass(frozen=True)
class Truth:
    """The near pairs of a corpus, and how many rows it has."""

    pairs: list[tuple[int, int]]
    rows: int

    def score(self, dropped: set[int]) -> tuple[float, float]:
        """Precision and recall."""
        near = {row for pair in self.pairs for row in pair}
        found = sum(a in dropped or b in dropped for a, b in self.pairs)
        return len(dropped & near) / max(len(dropped), 1), found / max(len(self.pairs), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--only", nargs="+", choices=CLIENTS, default=list(CLIENTS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("| client | version | rows | precision | recall | wall s | CPU s | rows/s | peak MB |\n|---|---|---|---|---|---|---|---|---|")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="dedup-") as folder:
        for rows in arguments.rows:
            corpus = Path(folder) / f"{rows}.jsonl"
            write_corpus(corpus, rows, arguments.seed)
            truth = read_truth(corpus)
            for name in arguments.only:
                print(measure(name, corpus, truth), flush=True)
            corpus.unlink()


def read_truth(corpus: Path) -> Truth:
    pairs, count = [], 0
    with corpus.open(encoding="utf-8") as file:
        for count, row in enumerate(map(json.loads, file), 1):  # noqa: B007 - the last number is the count
            if row["of"] is not None and row["jaccard"] >= NEAR:
                pairs.append((row["of"], row["id"]))
    return Truth(pairs, count)


def measure(name: str, corpus: Path, truth: Truth) -> str:
    """One row of the table."""
    script, result = CLIENTS[name], corpus.with_suffix(".result")
    try:
        python = interpreter(script)
        kept = {"PATH", "LANG", "HOME"} | ({"PYTHONPATH"} if not requirements(script) else set())
        environment = {key: value for key, value in os.environ.items() if key in kept}
        done = subprocess.run([python, script, corpus, result], env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (UnavailableError, subprocess.TimeoutExpired) as exc:
        return f"| {name} | {exc} |"
    if done.returncode:
        return f"| {name} | {(done.stderr.strip().splitlines() or ['it said nothing'])[-1][:200]} |"
    figures = json.loads(result.read_text())
    precision, recall = truth.score(set(figures["dropped"]))
    version = (requirements(script) or ["this tree"])[0]
    cells = (name, version, f"{truth.rows:,}", f"{precision:.4f}", f"{recall:.4f}", f"{figures['wall_s']:.1f}", f"{figures['cpu_s']:.1f}")
    return "| " + " | ".join([*cells, f"{truth.rows / figures['wall_s']:,.0f}", f"{figures['peak_mb']:,.0f}"]) + " |"


if __name__ == "__main__":
    sys.exit(main())
