"""What a run at an address costs beside one in a local folder: seconds, CPU, and objects for its calls.

    python bench/storage.py --rows 400 --concurrency 64

An S3 server (moto) and a model server run on the loopback; each kind of run is made twice, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import yaml
from misbehaving import serve
from s3_server import serve_s3

from safer_instruct.config import load_config
from safer_instruct.pipeline import run
from safer_instruct.storage.journal import Journal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency-s", type=float, default=0.2, help="of an answer")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serve_s3() as s3, serve(latency_s=given.latency_s) as server, counted() as puts:
        os.environ.update(s3.environment)
        os.environ["SAFER_INSTRUCT_STATE"] = folder
        s3.create_bucket("lab")
        config = load_config(write_config(Path(folder), given.rows, given.concurrency, server.base_url))
        for number in range(2):
            for kind, out in (("folder", f"{folder}/{number}"), ("address", f"s3://lab/{number}")):
                puts.clear()
                began, cpu = time.perf_counter(), cpu_s()
                calls = run(config, out).summary["calls"]
                took = f"{time.perf_counter() - began:.1f} s, CPU {cpu_s() - cpu:.2f} s with the model server's"
                print(f"{kind:8} {calls} calls: {took}; {len(puts)} objects, {1000 * sum(puts) / max(1, len(puts)):.0f} ms each")


def write_config(folder: Path, rows: int, concurrency: int, base_url: str) -> Path:
    draw = random.Random(1)
    texts = [" ".join(f"{draw.choice(('umbrella', 'kettle', 'parcel', 'lamp'))} {draw.randrange(10_000)}" for _ in range(9)) for _ in range(rows)]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    (folder / "scorer.yaml").write_text(yaml.safe_dump({"score": [{"match": "### Instruction", "logprob": -1.0}, {"logprob": -2.0}]}), encoding="utf-8")
    model = {"base_url": base_url, "concurrency": concurrency}
    roles = {name: {"model": f"openai:{name}", **model} for name in ("inducer", "expert")}
    config = {"domain": "civility", "source": {"path": "texts.jsonl"}, "models": {**roles, "scorer": "scripted:scorer.yaml"}}
    config |= {"filter": {"prompt": {"language": None}}, "verify": {"min_words": 1}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder / "config.yaml"


@contextmanager
def counted() -> Iterator[list[float]]:
    """Seconds of each commit that goes to the store."""
    seconds, plain = [], Journal.append

    def append(self: Journal, calls: Sequence[Any]) -> None:
        began = time.perf_counter()
        plain(self, calls)
        seconds.append(time.perf_counter() - began)

    Journal.append = append
    try:
        yield seconds
    finally:
        Journal.append = plain


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
