"""The Ray runner on a real Ray cluster of several nodes on this machine: the same result as the local runner, whatever is lost on the way."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import misbehaving
import pytest
import yaml
from misbehaving import Server, serve
from s3_server import S3Server
from test_kill import NOUNS, PRICE, VERBS, check_equal

from safer_instruct.config import load_config
from safer_instruct.errors import BudgetError, StorageError
from safer_instruct.pipeline import run
from safer_instruct.remote.copies import fetch_run
from safer_instruct.remote.publish import read_manifest
from safer_instruct.runners.ray import Cluster, run_on_ray
from safer_instruct.spent import read_spent
from safer_instruct.stopping import stop_told_to
from safer_instruct.storage.address import parse
from safer_instruct.storage.client import Bucket

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed")

ROWS, CONCURRENCY = 150, 16
PATIENCE_S = 240.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head, where the driver is, and a further node."""
    os.environ.update(RAY_DEDUP_LOGS="1", RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    import ray
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes()
    add_node(nodes, include_dashboard=False)
    add_node(nodes)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def add_node(nodes: Any, **settings: Any) -> Any:
    """A node with one CPU; on a busy machine one may take longer to start than Ray waits for it."""
    for _ in range(10):
        try:
            return nodes.add_node(num_cpus=1, object_store_memory=80 << 20, **settings)
        except Exception as exc:
            if "timed out" not in str(exc):
                raise
    raise AssertionError("no node of Ray's could be started")


def write_config(folder: Path, **changes: Any) -> Path:
    """Texts, some of them twice and one broken, and scripted models that drop some of them."""
    rng = random.Random(1)
    texts = [" ".join(f"{rng.choice(NOUNS)} {rng.choice(VERBS)} {rng.randrange(1000)}" for _ in range(6)) for _ in range(ROWS)]
    texts[ROWS // 2 :: 20] = texts[: len(texts[ROWS // 2 :: 20])]
    lines = [json.dumps({"text": text}) for text in texts]
    (folder / "texts.jsonl").write_text("\n".join([*lines[:70], "{broken", *lines[70:]]) + "\n")
    asked, said = "Please tell me about {words}.", "Gladly, here is what I know of {words}."
    script = {
        "generate": [{"match": "umbrella broke", "answers": ["Tell me of the umbrella."]}, {"match": "Instruction", "answers": [asked]}, {"answers": [said]}],
        "score": [{"match": "### Instruction:\nPlease tell me about [b-f]", "logprob": -3.0}, {"match": "### Instruction", "logprob": -1.0}, {"logprob": -2.0}],
    }
    (folder / "script.yaml").write_text(yaml.safe_dump(script))
    models = dict.fromkeys(("inducer", "expert", "scorer", "student"), "scripted:script.yaml") | changes.pop("models", {})
    config = {
        "domain": "civility",
        "source": {"path": "texts.jsonl"},
        "models": models,
        "filter": {"prompt": {"language": None}},
        "verify": {"min_words": 1, "min_margin": -1.0, "min_contrast": -1.0},
    } | changes
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


def over_http(server: Server) -> dict[str, Any]:
    """Inducer, expert and judge behind a server that counts what it is asked, and a judge's questions."""
    roles = {
        name: {"model": f"openai:{name}", "base_url": server.base_url, "concurrency": CONCURRENCY, "price_per_million": list(PRICE)}
        for name in ("inducer", "expert", "judge")
    }
    return {"models": roles, "verify": {"form": "question", "min_words": 1}}


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(misbehaving, "_text", misbehaving.text_of_a_judge(VERBS))


def on_ray(config: Path, out: Path, workers: int = 1) -> dict[str, Any]:
    return run_on_ray(load_config(config), out, Cluster(workers=(workers, workers))).summary


def locally(config: Path, out: Path) -> dict[str, Any]:
    return run(load_config(config), out).summary


@pytest.mark.usefixtures("cluster")
def test_everything_that_looks_at_all_examples_comes_out_as_with_the_local_runner(tmp_path: Path) -> None:
    config = write_config(tmp_path, respond={"boilerplate": {"near": 0.2}}, rejected={"form": "student"}, select={"target": 40})
    plain = locally(config, tmp_path / "local")
    assert plain["pairs"] == 40
    dropped = {name for stage in plain["stages"].values() for name in stage["dropped"]}
    assert {"dedup.text", "dedup.prompt", "select"} <= dropped and plain["stages"]["respond"]["calls"] > plain["stages"]["induce"]["calls"]
    on_ray(config, tmp_path / "ray")
    check_equal(tmp_path / "ray", tmp_path / "local")
    assert not (tmp_path / "ray" / "ledger-shards").exists()


@pytest.mark.usefixtures("cluster", "judged")
def test_a_cap_holds_over_all_workers_and_a_higher_one_goes_on_to_the_local_result_with_nothing_paid_twice(tmp_path: Path) -> None:
    with serve() as server:
        config = write_config(tmp_path, **over_http(server), budget={"max_cost": 0.03})
        with pytest.raises(BudgetError, match=r"budget of 0\.030 USD used up.*raise budget\.max_cost"):
            on_ray(config, tmp_path / "ray", workers=2)
        spent = read_spent(tmp_path / "ray" / "spent.json")
        assert spent is not None and worked(server) <= spent.cost <= 0.03 and worked(server) > 0.01
        config = write_config(tmp_path, **over_http(server), budget={"max_cost": 5.0})
        summary = on_ray(config, tmp_path / "ray", workers=2)
        assert server.asked_twice == 0 and summary["timing"]["calls_from_ledger"] > 0
        assert summary["timing"]["budget"]["spent_cost"] == pytest.approx(summary["cost"], abs=1e-5)
        asked = server.requests
        locally(config, tmp_path / "local")
        assert server.requests == 2 * asked, "both runners ask the same"
    check_equal(tmp_path / "ray", tmp_path / "local")


def worked(server: Server) -> float:
    return sum(read * PRICE[0] + written * PRICE[1] for read, written in server.worked.copy().values()) / 1e6


@pytest.mark.usefixtures("judged")
def test_a_node_that_is_lost_in_the_middle_costs_no_more_than_what_was_in_flight(tmp_path: Path, cluster: Any) -> None:
    with serve(latency_s=0.05) as server:
        config = write_config(tmp_path, **over_http(server))
        locally(config, tmp_path / "local")
        asked, before = server.requests, server.attempts.copy()
        victim = add_node(cluster)
        lost: list[int] = []

        def kill() -> None:
            wait_for(lambda: server.requests > asked * 1.3)
            lost.append(server.in_flight)
            cluster.remove_node(victim, allow_graceful=False)

        with _in_thread(kill):
            on_ray(config, tmp_path / "ray", workers=3)
        assert lost, "the run had ended before the node was lost"
        twice = sum(times - 1 - before[body] for body, times in server.attempts.items() if times - before[body] > 1)
    check_equal(tmp_path / "ray", tmp_path / "local")
    assert twice <= 2 * CONCURRENCY, (twice, lost)


@pytest.mark.usefixtures("cluster", "judged")
def test_a_quick_source_does_not_run_ahead_by_the_whole_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = tmp_path / "texts.jsonl"
    monkeypatch.setattr("safer_instruct.runners.ray.run._UNDER_WAY_MB", 8)  # 16 MB with one worker
    monkeypatch.setattr("safer_instruct.runners.ray.plan._CHUNKS_PER_WORKER", 150)  # of 0.3 MB each; workers have some eight of them in hand
    states: list[Any] = []
    read: list[float] = []

    def look() -> None:
        wait_for(lambda: bool(states) and states[0].stages["verify"].done >= 160)
        read.extend(at / texts.stat().st_size for at in _read_to(texts))

    with serve(latency_s=0.1) as server:
        config = write_config(tmp_path, **over_http(server))
        numbers = [*range(320), *[0] * 4_480]  # one text again and again keeps nobody but the source busy
        rows = (f"{NOUNS[number % len(NOUNS)]} {VERBS[number % len(VERBS)]} {number} {number * 7} {'o' * 10_000}" for number in numbers)
        texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
        with _in_thread(look):
            run_on_ray(load_config(config), tmp_path / "out", Cluster(workers=(1, 1)), watch=states.append)
    assert read, "when a thirtieth of the examples was finished, the source had been read to its end"
    assert max(read) < 0.75, read


@pytest.mark.usefixtures("judged")
def test_a_driver_that_is_killed_goes_on_with_either_runner_and_only_calls_in_flight_are_made_again(tmp_path: Path, cluster: Any) -> None:
    with serve(latency_s=0.05) as server:
        config = write_config(tmp_path, **over_http(server))
        out = tmp_path / "ray"
        command = [sys.executable, "-m", "safer_instruct.cli", "run", str(config), "--out", str(out)]
        command += ["--runner", "ray", "--address", cluster.address, "--workers", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                wait_for(lambda: server.answered >= ROWS, process)
            finally:
                process.send_signal(signal.SIGKILL)
        wait_for(lambda: not server.in_flight, quiet_s=2.0)
        assert (out / "ledger-shards").exists() and not (out / "summary.json").exists()
        other = tmp_path / "other"
        shutil.copytree(out, other)
        answered = server.good.copy()
        on_ray(config, out)
        assert sum(server.good[body] - times for body, times in answered.items()) <= 2 * CONCURRENCY
        asked = server.requests
        on_ray(config, out)
        assert server.requests == asked, "a finished run asks nothing"
        locally(config, other)
        locally(config, tmp_path / "undisturbed")
    for path in (out, other):
        check_equal(path, tmp_path / "undisturbed")
        assert not (path / "ledger-shards").exists()


@pytest.mark.usefixtures("judged")
def test_a_run_that_is_stopped_waits_for_calls_under_way_wherever_they_are_and_nothing_is_asked_twice(tmp_path: Path, cluster: Any) -> None:
    stops = [
        (signal.SIGINT, ["--workers", "1"], 0.2),
        (signal.SIGTERM, ["--workers", "2", "--address", cluster.address], 0.4),
        (signal.SIGHUP, ["--workers", "1"], 0.6),
    ]
    with serve(latency_s=0.3) as server:
        config, out = write_config(tmp_path, **over_http(server)), tmp_path / "ray"
        for number, workers, part in stops:
            command = [sys.executable, "-m", "safer_instruct.cli", "run", str(config), "--out", str(out), "--runner", "ray", *workers]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
                wait_for(lambda part=part: server.answered > part * 2 * ROWS and server.in_flight, process)  # type: ignore[misc]
                if number == signal.SIGHUP:  # of a terminal that closes, which all that stand in front hear
                    os.killpg(process.pid, number)
                else:
                    process.send_signal(number)
                _, err = process.communicate(timeout=PATIENCE_S)
            waits, said = [line for line in err.splitlines() if not line.startswith("[")]  # what Ray logs
            assert (process.returncode, said) == (128 + number, "error: stopped; finished model calls are saved: give the same command again to go on")
            assert re.fullmatch(r"stopping: waiting up to 20 s for [0-9]+ calls under way, which may be billed; a second signal ends it at once", waits)
            assert not server.in_flight and not server.status["gone"]
        on_ray(config, out)
        assert server.asked_twice == 0
        locally(config, tmp_path / "local")
    check_equal(out, tmp_path / "local")


@pytest.mark.usefixtures("cluster", "judged")
def test_a_second_signal_waits_for_nothing_also_where_the_caller_goes_on_with_ray(tmp_path: Path) -> None:
    told: list[float] = []

    def stop(_: str = "") -> None:
        told.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    def stop_in_the_middle() -> None:
        wait_for(lambda: server.answered > 20)
        server.may_answer.clear()
        wait_for(lambda: server.in_flight > 0)
        stop()

    with serve() as server:
        config, out = write_config(tmp_path, **over_http(server)), tmp_path / "ray"
        with stop_told_to(stop), _in_thread(stop_in_the_middle), pytest.raises(KeyboardInterrupt):
            on_ray(config, out)
        assert len(told) == 2 and time.monotonic() - told[1] < 15
        server.may_answer.set()
        on_ray(config, out)
        locally(config, tmp_path / "local")
    check_equal(out, tmp_path / "local")


@pytest.mark.usefixtures("cluster", "judged")
def test_endpoints_that_turn_away_what_comes_too_fast_get_little_more_than_they_take_from_several_workers(tmp_path: Path) -> None:
    with serve(per_s=60.0, retry_after=None) as server:
        config = write_config(tmp_path, **over_http(server))
        summary = on_ray(config, tmp_path / "ray", workers=2)
        assert summary["pairs"] > 100 and server.asked_twice == 0
        assert server.status["429"] <= 0.25 * server.answered, server.status
        server.faults = misbehaving.Faults()
        locally(config, tmp_path / "local")
    check_equal(tmp_path / "ray", tmp_path / "local")


@pytest.mark.usefixtures("judged")
def test_a_run_at_an_address_whose_driver_is_killed_goes_on_in_the_shared_folder_and_publishes_the_local_result(
    tmp_path: Path, cluster: Any, s3: S3Server
) -> None:
    address, shared = parse("s3://lab/runs/ray"), tmp_path / "shared"
    with serve(latency_s=0.02) as server:
        config = write_config(tmp_path, **over_http(server))
        command = [sys.executable, "-m", "safer_instruct.cli", "run", str(config), "--out", str(address), "--work", str(shared)]
        command += ["--runner", "ray", "--address", cluster.address, "--workers", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | s3.environment) as process:
            try:
                wait_for(lambda: server.answered >= ROWS, process)
            finally:
                process.send_signal(signal.SIGKILL)
        wait_for(lambda: not server.in_flight, quiet_s=2.0)
        assert read_manifest(Bucket(address), address) is None and [*(shared / "ledger-shards").iterdir()]
        with pytest.raises(StorageError, match="--work"):
            run_on_ray(load_config(config), str(address), Cluster(address=cluster.address, workers=(1, 1)))
        answered = server.good.copy()
        run_on_ray(load_config(config), str(address), Cluster(address=cluster.address, workers=(1, 1)), work=shared)
        assert sum(server.good[body] - times for body, times in answered.items()) <= 2 * CONCURRENCY
        locally(config, tmp_path / "local")
    check_equal(fetch_run(address, ledger=True), tmp_path / "local")
    assert not [each.key for each in Bucket(address).list(address.key) if "ledger-shards" in each.key or each.key.endswith(".calls")]


def _read_to(path: Path) -> Iterator[int]:
    """How far each process has read that has the file open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if link.readlink() == path:
                yield int((link.parents[1] / "fdinfo" / link.name).read_text().split()[1])


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes] | None = None, quiet_s: float = 0.0) -> None:
    """Until the condition has held for a while."""
    deadline, since = time.monotonic() + PATIENCE_S, time.monotonic()
    while True:
        now = time.monotonic()
        assert now < deadline, "waited in vain"
        assert process is None or process.poll() is None, process.stdout.read() if process.stdout else ""
        since = since if condition() else now
        if now > since + quiet_s or (not quiet_s and since < now):
            return
        time.sleep(0.005)


class _in_thread:
    """Runs something beside the block; its error is the block's."""

    def __init__(self, work: Callable[[], None]) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._pool = ThreadPoolExecutor(1)
        self._future = self._pool.submit(work)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._future.result()
        self._pool.shutdown(wait=kind is None)
