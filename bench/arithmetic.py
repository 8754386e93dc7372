"""How far the embedded engine's log-probabilities are off those of float32, and how long it takes, in each arithmetic that this machine has.

    python bench/arithmetic.py      prints a row for each: int8 by oneDNN, int8 by MKL, float32

Twelve answers of `../shared/data` after their instructions, the same int8 weights in all rows. What the engine takes by itself: `models/arithmetic.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safer_instruct.models import embedded, store
from safer_instruct.models.convert import convert_apart
from safer_instruct.models.protocol import Scoring

DATA = Path(__file__).parents[2] / "shared" / "data" / "instruction_response_585.jsonl"
MODEL, ROWS, CHARS = "smollm2-135m-instruct", 12, 500
KINDS = {"float32": ("float32", "0"), "int8, oneDNN": ("int8", "0"), "int8, MKL": ("int8", "1")}


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(scored(*sys.argv[1:])))
        return
    print("| arithmetic | nats a token off | largest | seconds |\n|---|---|---|---|")
    exact: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        convert_apart(store.gguf_path(MODEL), Path(folder))
        for name, (kind, mkl) in KINDS.items():
            command = [sys.executable, __file__, kind, folder]
            done = subprocess.run(command, env=os.environ | {"CT2_USE_MKL": mkl}, stdout=subprocess.PIPE, text=True, check=True)
            found, seconds = json.loads(done.stdout)
            exact = exact or found
            off = [abs(a - b) for a, b in zip(exact, found, strict=True)]
            print(f"| {name} | {sum(off) / len(off):.2f} | {max(off):.1f} | {seconds:.1f} |", flush=True)


def scored(kind: str, folder: str) -> tuple[list[float], float]:
    """The log-probability of every token, and the seconds that all of them took."""
    embedded.arithmetic = lambda: kind  # type: ignore[assignment]
    model = embedded.EmbeddedModel(folder)
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()[:ROWS]]
    began = time.monotonic()
    logprobs = [asyncio.run(model.score(Scoring(row["instruction"] + "\n", row["output"][:CHARS]))).logprobs for row in rows]
    return [value for row in logprobs for value in row], time.monotonic() - began


if __name__ == "__main__":
    main()
