"""Whole runs of the command line that are disturbed: by the network, the clock, the disk or the user; and what is said meanwhile."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from misbehaving import Faults, Server, serve
from test_ledger_disk import mount_missing

from safer_instruct.ledger import read_calls

ROWS, CONCURRENCY = 60, 8
AGAIN = "give the same command again"
FILES = ("examples.parquet", "pairs.parquet", "pairs.jsonl", "rejected_rows.jsonl", "README.md")
KEY = "sk-proj-0123456789abcdefghijklmnop"


class Project:
    """A folder with all that a run takes; inducer and expert stand behind servers."""

    def __init__(self, folder: Path, *servers: Server, **settings: Any) -> None:
        self.folder, self.servers, self.out = folder, servers, folder / "out"
        self.server = servers[0]
        rng = random.Random(1)
        texts = [" ".join(rng.choice(("kettle", "parcel", "lamp", "tent")) + f" {rng.randrange(10**6)}" for _ in range(12)) for _ in range(ROWS)]
        (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        reached = {
            "base_url": [s.base_url for s in servers],
            "revision": "1",
            "concurrency": CONCURRENCY,
            "price_per_million": [1.0, 2.0],
            "timeout_s": 10.0,
            **settings,
        }
        config = {
            "domain": "civility",
            "source": {"path": "texts.jsonl"},
            "models": {"inducer": {"model": "openai:inducer", **reached}, "expert": {"model": "openai:expert", **reached}, "scorer": "scripted:"},
            "filter": {"prompt": None, "near_duplicate": None, "consistency": None},
            "verify": {"min_contrast": -9, "min_margin": -9, "min_words": 1},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))

    def start(
        self, out: Path | None = None, *, entry: tuple[str, ...] = ("-m", "safer_instruct.cli"), options: tuple[str, ...] = (), **environment: str
    ) -> subprocess.Popen[str]:
        command = [sys.executable, *entry, "run", str(self.folder / "config.yaml"), "--out", str(out or self.out), *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})

    def run(self, out: Path | None = None, **options: Any) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a run."""
        return ended(self.start(out, **options))

    def finish(self, out: Path | None = None, **options: Any) -> dict[str, Any]:
        """The summary of a run, which must succeed."""
        code, _, err = self.run(out, **options)
        assert (code, err) == (0, "")
        summary: dict[str, Any] = json.loads(((out or self.out) / "summary.json").read_text())
        assert summary["rows"] == summary["pairs"] == ROWS
        return summary

    def saved(self) -> int:
        """Calls to the servers that the ledger holds."""
        return sum(call.model.startswith("openai:") for call in read_calls(self.out / "ledger.sqlite"))

    def asked_twice(self) -> int:
        return sum(server.answered for server in self.servers) - len(set().union(*(server.good for server in self.servers)))


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=90)
    return process.returncode, out, err


def wait_until(moment: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not moment():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)


def is_one_line(err: str) -> bool:
    return err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")


class TestEndpoints:
    def test_a_restart_in_the_middle_goes_unnoticed(self, tmp_path: Path) -> None:
        with serve(latency_s=0.02) as server:
            project = Project(tmp_path, server)
            undisturbed = project.finish(tmp_path / "undisturbed")
            server.good.clear()
            process = project.start()
            wait_until(lambda: server.answered > 60, process)
            server.crash()
            time.sleep(2.0)
            server.listen()
            assert ended(process)[::2] == (0, "")
            assert project.asked_twice() <= 2 * CONCURRENCY
        summary = json.loads((project.out / "summary.json").read_text())
        assert {k: v for k, v in summary.items() if k != "timing"} == {k: v for k, v in undisturbed.items() if k != "timing"}
        assert all((project.out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes() for name in FILES)

    def test_all_down_ends_the_run_in_time_and_costs_nothing_twice(self, tmp_path: Path) -> None:
        with serve(latency_s=0.02) as one, serve(latency_s=0.02) as other:
            project = Project(tmp_path, one, other, max_pause_s=3.0)
            process = project.start()
            wait_until(lambda: one.answered + other.answered > 60, process)
            one.crash(), other.crash()
            down_at = time.monotonic()
            code, _, err = ended(process)
            assert time.monotonic() - down_at < 25
            assert code == 2 and is_one_line(err) and "none of 2 endpoints answers" in err and "Connection refused" in err and AGAIN in err
            saved = project.saved()
            assert saved > 20
            one.listen(), other.listen()
            assert project.finish()["timing"]["calls_from_ledger"] >= saved
            assert project.asked_twice() <= 2 * 2 * CONCURRENCY  # what was on its way from each to each model

    def test_one_that_was_never_there_is_told(self, tmp_path: Path) -> None:
        with serve() as server:
            project = Project(tmp_path, server, max_pause_s=3.0)
            server.crash()
            code, _, err = project.run()
            assert code == 2 and is_one_line(err) and "Connection refused" in err
            server.listen()
            project.finish()
        assert project.asked_twice() == 0


class TestInterrupt:
    def test_it_loses_nothing_and_pays_nothing_twice(self, tmp_path: Path) -> None:
        with serve(latency_s=0.05) as server:
            project = Project(tmp_path, server)
            for answered in (20, 60, 100):
                process = project.start()
                wait_until(lambda answered=answered: server.answered > answered, process)  # type: ignore[misc]
                process.send_signal(signal.SIGINT)
                code, _, err = ended(process)
                waits, said = err.splitlines()
                assert (code, said) == (130, f"error: stopped; finished model calls are saved: {AGAIN} to go on")
                assert re.fullmatch(r"stopping: waiting up to 20 s for [0-9]+ calls under way, which may be billed; a second signal ends it at once", waits)
            saved = project.saved()
            assert project.finish()["timing"]["calls_from_ledger"] >= saved
        assert project.asked_twice() == 0


class TestTarget:
    def test_calls_that_are_under_way_when_it_is_reached_are_kept_for_a_run_that_wants_more(self, tmp_path: Path) -> None:
        with serve(latency_s=0.3) as server:
            project = Project(tmp_path, server)
            config = yaml.safe_load((tmp_path / "config.yaml").read_text())
            for target in (4, 30):
                (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, "target": target}))
                assert project.run(options=("--continue",))[::2] == (0, "")
                summary = json.loads((project.out / "summary.json").read_text())
                assert summary["pairs"] == target and project.saved() == server.answered
            assert summary["timing"]["calls_from_ledger"] > 0 and project.asked_twice() == 0


CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>

static long ahead(void) { /* an hour back, right, an hour ahead: a fifth of a second each */
  static int (*real)(clockid_t, struct timespec *);
  struct timespec t;
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  real(CLOCK_MONOTONIC, &t);
  return 3600 * ((t.tv_sec * 5 + t.tv_nsec / 200000000) % 3 - 1);
}
int clock_gettime(clockid_t which, struct timespec *t) {
  int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(which, t);
  if (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE) t->tv_sec += ahead();
  return failed;
}
int gettimeofday(struct timeval *restrict t, void *restrict zone) {
  int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
  int failed = real(t, zone);
  t->tv_sec += ahead();
  return failed;
}
time_t time(time_t *t) {
  time_t (*real)(time_t *) = dlsym(RTLD_NEXT, "time");
  time_t now = real(0) + ahead();
  if (t) *t = now;
  return now;
}
"""


class TestClock:
    """The wall clock is set an hour ahead and back five times a second, for Python, Rust and SQLite alike."""

    @pytest.fixture
    def jumping(self, tmp_path: Path) -> Mapping[str, str]:
        if not sys.platform.startswith("linux") or not (compiler := shutil.which("cc")):
            pytest.skip("no C compiler for a clock that jumps, or no Linux")
        (tmp_path / "clock.c").write_text(CLOCK)
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", "clock.so", "clock.c", "-ldl"], cwd=tmp_path, check=True, timeout=60)
        return {"LD_PRELOAD": str(tmp_path / "clock.so")}

    def test_it_changes_nothing(self, tmp_path: Path, jumping: Mapping[str, str]) -> None:
        faults = {"error": 0.05, "rate_limit": 0.03, "retry_after": ("date:0", "0.1"), "latency_s": 0.03, "per_body": 2, "seed": 4}
        with serve(latency_s=0.03) as server:
            wanted = Project(tmp_path, server).finish(tmp_path / "undisturbed")
        with serve(**faults) as server:
            project = Project(tmp_path, server)
            began = time.monotonic()
            summary = project.finish(**jumping)
            took_s = time.monotonic() - began
            assert server.status["429"] and server.asked_twice == 0
            assert project.finish(**jumping)["timing"]["calls_from_ledger"] == summary["calls"]
            assert server.asked_twice == 0
        calls = list(read_calls(project.out / "ledger.sqlite"))
        hours = {round((call.finished_at - time.time()) / 3600) for call in calls}
        assert hours == {-1, 0, 1}, "the clock did not jump"
        assert any(later.finished_at < earlier.finished_at for earlier, later in pairwise(calls))
        assert all(0 <= call.usage.seconds < took_s for call in calls) and 0 < summary["timing"]["wall_s"] < took_s < 60
        assert {k: v for k, v in summary.items() if k != "timing"} == {k: v for k, v in wanted.items() if k != "timing"}
        assert all((project.out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes() for name in FILES)


FULL_DISK = r"""
import json, os, subprocess, sys
disk, run = sys.argv[1], [sys.executable, "-m", "safer_instruct.cli", *sys.argv[2:]]
mount = ["mount", "-t", "tmpfs", "-o"]
subprocess.run([*mount, "size=1m", "none", disk], check=True)
with open(f"{disk}/ballast", "wb") as file:
    file.write(bytes(800 << 10))
first, again = (subprocess.run(run, capture_output=True, text=True) for _ in range(2))
ledger = subprocess.run([sys.executable, "-c", "import sys; from pathlib import Path; from safer_instruct.ledger import read_calls; "
    "print(sum(c.model.startswith('openai:') for c in read_calls(Path(sys.argv[1]))))", f"{disk}/out/ledger.sqlite"], capture_output=True, text=True)
left = json.load(open(f"{disk}/out/spent.json"))["cost_usd"]
subprocess.run([*mount, "remount,size=64m", "none", disk], check=True)
last = subprocess.run(run, capture_output=True, text=True)
print(json.dumps({"codes": [first.returncode, again.returncode, last.returncode], "errors": [first.stderr, again.stderr, last.stderr],
    "saved": int(ledger.stdout), "spent": json.load(open(f"{disk}/out/spent.json"))["cost_usd"], "left": left,
    "summary": json.load(open(f"{disk}/out/summary.json")) if not last.returncode else {}}))
"""


@pytest.mark.skipif(bool(mount_missing()), reason=mount_missing())
def test_a_full_disk_stops_the_run_and_what_is_saved_is_not_paid_again(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with serve(latency_s=0.01) as server:
        Project(tmp_path, server)
        command = ["run", str(tmp_path / "config.yaml"), "--out", str(disk / "out")]
        done = subprocess.run(
            ["unshare", "-m", "--propagation", "private", sys.executable, "-c", FULL_DISK, str(disk), *command], capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout.splitlines()[-1])
        print(said["errors"], said["saved"], server.asked_twice)
        assert said["codes"] == [2, 2, 0] and said["errors"][2] == ""
        for error in said["errors"][:2]:
            assert is_one_line(error) and str(disk / "out") in error and "the disk is full" in error and AGAIN in error
        assert said["saved"] > 0 and said["summary"]["timing"]["calls_from_ledger"] >= said["saved"]
        assert server.asked_twice <= 2 * 2 * 2 * CONCURRENCY  # both times: what was on its way, and what waited for the commit that failed
        worked = sum(read + 2 * written for read, written in server.worked.values()) / 1e6
        assert said["spent"] > worked - 1e-9
        assert said["spent"] < worked + 1e-9 and said["left"] <= said["spent"], "what was under way has come back, and nothing is set aside for good"


DEBUGGED = (
    "import asyncio, logging, sys; logging.basicConfig(level=logging.DEBUG); logging.captureWarnings(True); "
    "from safer_instruct.cli import main; main(['--debug', *sys.argv[1:]])"
)


def test_a_key_is_written_nowhere(tmp_path: Path) -> None:
    """The server quotes the key in each of its errors; the run fails, goes on, and logs all that it can."""
    environment = {"MY_KEY": KEY, "PYTHONASYNCIODEBUG": "1", "RUST_LOG": "trace"}
    said = ""
    some: dict[str, Any] = {"error": 0.2, "rate_limit": 0.05, "empty": 0.1, "truncated": 0.1, "reset": 0.05, "per_body": 3}
    with serve() as server:
        project = Project(tmp_path, server, api_key_env="MY_KEY", retries=3, max_pause_s=2.0)
        for status, body in ((500, f"quoting {KEY}"), (200, {"error": {"message": f"quoting {KEY}"}}), (401, {"detail": ["x" * 280, KEY]})):
            server.faults = Faults(reject=(status, body))
            code, out, err = project.run(entry=("-c", DEBUGGED), **environment)
            assert code == 1 and "Traceback" in err
            said += out + err
        server.faults = Faults(**some, quote_key=True, seed=5)
        code, out, err = project.run(entry=("-c", DEBUGGED), **environment)
        assert code == 0, err
        said += out + err
        assert {authorization for _, _, authorization in server.seen} == {f"Bearer {KEY}"}
        assert server.status["500"] and server.status["empty"]
    assert "quoting [key]" in said
    assert KEY not in said and KEY[8:] not in said
    written = [file for file in project.out.rglob("*") if file.is_file()]
    assert len(written) > 8 and not [file for file in written if KEY.encode() in file.read_bytes()]
