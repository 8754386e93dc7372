"""The measured clients, and one run of one of them against the loopback server, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from environments import CACHE, interpreter, requirements

HERE = Path(__file__).parent
RUN_TIMEOUT_S = 600


@dataclass(frozen=True)
class Client:
    """One row of the table; `peer` clients are slow, and so get fewer calls."""

    title: str
    script: Path
    peer: bool = False

    @property
    def version(self) -> str:
        """What is pinned; `this tree` for ours."""
        return requirements(self.script)[0] if requirements(self.script) else "this tree"


FLOOR = Client("bare aiohttp", HERE / "peers" / "bare_aiohttp.py")
TRANSPORT = Client("bare pyreqwest, uvloop", HERE / "peers" / "bare_pyreqwest.py")
OURS = Client("ours, durable ledger on", HERE / "peers" / "ours.py")
PEERS = [
    Client("openai SDK", HERE / "peers" / "openai_sdk.py", peer=True),
    Client("LiteLLM", HERE / "peers" / "litellm_acompletion.py", peer=True),
    Client("curator", HERE / "peers" / "curator_llm.py", peer=True),
    Client("distilabel", HERE / "peers" / "distilabel_pipeline.py", peer=True),
]


@dataclass(frozen=True)
class Load:
    """What a client is put under."""

    calls: int
    warm_up: int
    concurrency: int


@dataclass(frozen=True)
class Figures:
    """What one run of a client showed."""

    calls: int
    asked: int  # prompts in all, those of the warm-up too
    cpu_s: float
    wall_s: float
    whole_cpu_s: float | None  # of a library that takes a whole list: the part of a run that falls to `calls`, fixed costs and all
    peak_mb: float
    requests: int  # that the server saw
    exit_code: int

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.calls * 1e6

    @property
    def calls_per_s(self) -> float:
        return self.calls / self.wall_s


class RunError(Exception):
    """A client did not do what it was asked."""


@contextmanager
def serving(latency_ms: float) -> Iterator[str]:
    """The loopback server in a process of its own; gives the address that clients take as base_url."""
    command = [str(interpreter(HERE / "server.py")), str(HERE / "server.py"), "--port", "0", "--latency-ms", str(latency_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        port = process.stdout.readline().strip()
        try:
            if not port:
                raise RunError("bench/server.py did not start")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder on the disk of the cache, for a durable ledger must not lie in memory; gone afterwards."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="run-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def run_client(client: Client, base_url: str, load: Load) -> Figures:
    """Start a client, wait for its end, and compare what it says with what the server saw.

    Raises:
        UnavailableError: It cannot be installed.
        RunError: It failed, or not every prompt was asked.
    """
    _call(base_url, "POST", "/reset")
    with work_folder() as folder:
        result, log = folder / "result.json", folder / "log.txt"
        with log.open("w") as output:
            process = subprocess.Popen(command_of(client, base_url, load, result), stdout=output, stderr=output, env=environment_of(client, folder), cwd=folder)
            exit_code = _wait(process)
        if not result.exists():
            raise RunError(f"exit code {exit_code}: {_last_line(log)}")
        figures = json.loads(result.read_text())
    seen = _call(base_url, "GET", "/stats")
    if seen["distinct"] < figures["asked"]:
        raise RunError(f"the server saw {seen['distinct']} prompts of {figures['asked']}")
    return Figures(**figures, requests=seen["requests"], exit_code=exit_code)


def command_of(client: Client, base_url: str, load: Load, result: Path) -> list[str]:
    options = {"--calls": load.calls, "--warm-up": load.warm_up, "--concurrency": load.concurrency}
    return [str(interpreter(client.script)), str(client.script), base_url, str(result), *(str(part) for pair in options.items() for part in pair)]


def environment_of(client: Client, folder: Path) -> dict[str, str]:
    """Nothing of the caller's keys, proxies and caches; PYTHONPATH, which may name the tree under test, for ours alone."""
    kept = {"PATH", "LANG"} | ({"PYTHONPATH"} if not requirements(client.script) else set())
    return {name: value for name, value in os.environ.items() if name in kept} | {"HOME": str(folder)}


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(timeout=RUN_TIMEOUT_S)
    except subprocess.TimeoutExpired as exc:
        raise RunError(f"not done after {RUN_TIMEOUT_S} s") from exc
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][-300:] if lines else "it said nothing"


def _call(base_url: str, method: str, path: str) -> dict[str, int]:
    request = urllib.request.Request(base_url.removesuffix("/v1") + path, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as response:
        return dict(json.load(response))
