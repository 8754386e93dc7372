"""A machine that vanishes: kill -9 in the middle, its disk gone, and the same command elsewhere goes on from the store.

The model server counts what it is asked: nothing is answered twice but what was in flight at the kills.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import misbehaving
import pytest
import yaml
from forks import Forks
from misbehaving import Server, serve
from s3_server import S3Server

from safer_instruct.ledger import read_calls as read_local
from safer_instruct.remote.copies import fetch_run
from safer_instruct.remote.folders import work_folder
from safer_instruct.storage.address import parse
from safer_instruct.storage.claim import LOCK, claimed
from safer_instruct.storage.client import Bucket
from safer_instruct.storage.journal import list_segments, read_calls

ROWS, CONCURRENCY, KILLS = 16, 4, 3
MOST_IN_FLIGHT = 2 * max(16, 4 * CONCURRENCY)  # the windows of the two stages that call the server
OUT = "s3://lab/runs/killed"
COMPARED = ("examples.parquet", "pairs.parquet", "pairs.jsonl", "rejected_rows.jsonl", "README.md", "run.yaml")


def write_config(folder: Path, server: Server) -> Path:
    rng = random.Random(1)
    words = ["umbrella", "kettle", "parcel", "lamp", "cake", "bent", "melted", "leaked", "rusted", "froze", "sank", "tore"]
    texts = [" ".join(f"{rng.choice(words)} {rng.randrange(1000)}" for _ in range(9)) for _ in range(ROWS)]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts) + "{broken\n")
    match = f"### Instruction:\n({'|'.join(misbehaving._WORDS[:11])})"
    (folder / "scorer.yaml").write_text(
        yaml.safe_dump({"score": [{"match": match, "logprob": -3.0}, {"match": "### Instruction", "logprob": -1.0}, {"logprob": -2.0}]})
    )
    roles = {name: {"model": f"openai:{name}", "base_url": server.base_url, "concurrency": CONCURRENCY} for name in ("inducer", "expert")}
    config = {
        "domain": "civility",
        "source": {"path": "texts.jsonl"},
        "models": {**roles, "scorer": "scripted:scorer.yaml"},
        "filter": {"prompt": {"language": None}},
        "verify": {"min_words": 1},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


def lose_the_disk() -> None:
    shutil.rmtree(work_folder(parse(OUT)))


def test_killed_machines_lose_nothing_but_what_was_in_flight(tmp_path: Path, s3: S3Server) -> None:
    undisturbed, address = tmp_path / "undisturbed", parse(OUT)
    bucket = Bucket(address)
    with serve(latency_s=0.01) as server, Forks(tmp_path / "said.txt") as forks:
        config = write_config(tmp_path, server)
        forks.finish(config, undisturbed)
        asked_once = server.requests
        assert server.asked_twice == 0
        before = server.good.copy()
        lost, killed, saved = [], 0, 0
        for count in [asked_once * (k + 1) // (KILLS + 1) for k in range(KILLS)]:
            good = server.good.copy()
            killed += forks.run_until(_answered(server, before, count), config, OUT)
            while server.in_flight:
                time.sleep(0.01)
            calls = list(read_calls(bucket, address, list_segments(bucket, address)))
            remote = [call for call in calls if call.model.startswith("openai:")]
            assert len({call.key for call in remote}) == len(remote) >= saved, "what is in the store stays there, once"
            answered = sum(times for digest, times in (server.good - good).items())
            lost.append(answered - (len(remote) - saved))
            saved = len(remote)
            lose_the_disk()
        forks.finish(config, OUT)
        paid = sum((server.good - before).values())
    assert killed == KILLS and saved > 0
    assert all(0 <= one <= MOST_IN_FLIGHT for one in lost), lost
    assert paid == asked_once + sum(lost), "each call was paid once, but for those in flight at a kill"
    copy = fetch_run(address, ledger=True)
    for name in COMPARED:
        assert (copy / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert list_segments(bucket, address) == [] and not bucket.head(address.below(LOCK).key)


def _answered(server: Server, before: Counter[str], count: int) -> Callable[[], bool]:
    """So many different requests have been answered since, and some in this sitting."""
    first: list[int] = []

    def reached() -> bool:
        first[:] = first or [server.requests]
        return server.requests > first[0] and len(server.good - before) >= count

    return reached


def test_calls_whose_upload_failed_are_sent_before_the_next_run_here_goes_on(tmp_path: Path, s3: S3Server) -> None:
    address = parse("s3://lab/runs/offline")
    with serve(latency_s=0.01) as server, Forks(tmp_path / "said.txt") as forks:
        config = write_config(tmp_path, server)
        bucket, answered = Bucket(address), _answered(server, server.good.copy(), ROWS)
        assert forks.run_until(lambda: answered() and len(list_segments(bucket, address)) > 1, config, str(address))
        while server.in_flight:
            time.sleep(0.01)
        kept = {call.key for call in read_local(work_folder(address) / "ledger.sqlite") if call.model.startswith("openai:")}
        lost = sum(server.good.values()) - len(kept)
        last = list_segments(bucket, address)[-1]
        bucket.delete([address.below(f"ledger/{last.name}").key])  # as if its upload had failed
        forks.finish(config, str(address))
        assert server.asked_twice <= lost, "what stood in the local ledger was asked again"
    published = {call.key for call in read_local(fetch_run(address, ledger=True) / "ledger.sqlite")}
    assert kept and kept <= published


def test_a_second_writer_is_refused_while_the_first_is_alive(tmp_path: Path, s3: S3Server, capfd: pytest.CaptureFixture[str]) -> None:
    from safer_instruct.cli import main

    address = parse("s3://lab/runs/taken")
    with serve() as server:
        config = write_config(tmp_path, server)
        with claimed(Bucket(address), address, pytest.fail), pytest.raises(SystemExit) as ended:
            main(["run", str(config), "--out", str(address)])
        assert ended.value.code == 2 and server.requests == 0
    assert f"s3://lab/runs/taken is in use by process {os.getpid()}" in capfd.readouterr().err
