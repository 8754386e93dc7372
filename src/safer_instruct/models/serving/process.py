"""One started server: its process behind a guard, its log, and why it ended."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from safer_instruct.models import store
from safer_instruct.oneline import one_line

GRACE_S = 10.0  # between SIGTERM and SIGKILL
_GUARD = Path(__file__).with_name("guard.py")
_LOGS_KEPT = 50
_TAIL_BYTES, _TAIL_CHARS = 64_000, 400
_PORT_TAKEN = re.compile(r"address already in use|couldn't bind", re.IGNORECASE)
# What a server says when it cannot start, and what to do about it; the first that is found holds.
_HINTS = tuple(
    (re.compile(pattern, re.IGNORECASE), hint)
    for pattern, hint in (
        (
            r"failed to infer device type|no cuda gpus are available|found no nvidia driver|no supported gpu|libcuda\.so",
            "vLLM finds no GPU: start it where 'nvidia-smi' lists one, or serve a GGUF file, which llama.cpp runs on processors too",
        ),
        (
            r"out of memory|less than desired gpu memory|no available memory for the cache|larger than the available kv cache",
            "the GPU's memory does not suffice: lower serve.context, set serve.gpu_memory, spread it with serve.tensor_parallel, or free the GPU",
        ),
        (r"unrecognized arguments|invalid argument|invalid choice|expected one argument", "the server does not take what serve.args says"),
        (
            r"invalid magic|failed to load model|error loading model|not within the file bounds|failed to read",
            "the server cannot read these weights: the file is damaged, or its architecture is newer than the server",
        ),
        (r"failed to (allocate|create context)|unable to allocate", "memory does not suffice: lower serve.context or serve.slots"),
    )
)


def new_log(name: str) -> Path:
    """A new log file in the cache, for its owner's eyes only; the oldest ones go."""
    folder = store.cache_dir() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime_ns)[: -_LOGS_KEPT + 1]:
        old.unlink(missing_ok=True)
    stamp, number = time.strftime("%Y%m%d-%H%M%S"), 0
    while True:
        path = folder / f"{name}-{stamp}-{os.getpid()}-{number}.log"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            return path
        except FileExistsError:
            number += 1


class ServerProcess:
    """A server that runs, or has ended; what it writes is appended to `log`."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, secret: str) -> None:
        """Start it.

        Args:
            command: Its command line.
            environment: What is added to our own environment.
            log: Where its output goes.
            secret: A word that is kept out of whatever is shown of the log.
        """
        self.log = log
        self._secret = secret
        self._log_start = log.stat().st_size
        with log.open("ab") as out:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), f"{GRACE_S:g}", *command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C is for us; we stop the server when the calls have been put away
            )
        self._status: Future[int] = Future()
        # A thread, since asyncio's own ways of waiting for a child depend on the loop and on the thread that it runs in
        threading.Thread(target=lambda: self._status.set_result(self._guard.wait()), name=f"wait for {log.stem}", daemon=True).start()

    def status(self) -> int | None:
        """Exit status, 128 + N for signal N; None while it runs."""
        return self._status.result() if self._status.done() else None

    async def ended(self) -> int:
        """Exit status, once there is one."""
        return await asyncio.shield(asyncio.wrap_future(self._status))

    def stop_soon(self) -> None:
        """Have the guard end it, without waiting."""
        if self._guard.stdin:
            self._guard.stdin.close()

    async def stop(self) -> None:
        """End it and wait until it has ended."""
        self.stop_soon()
        try:
            async with asyncio.timeout(GRACE_S + 5):
                await self.ended()
        except TimeoutError:
            self._guard.kill()  # and on Linux the server with it
            await self.ended()

    @property
    def port_taken(self) -> bool:
        """Whether it says that somebody else has its port."""
        return bool(_PORT_TAKEN.search(self._output()))

    def hint(self) -> str:
        """': ' and what its output says about why it does not run, and what to do; empty when it is not known."""
        output = self._output()
        return next((f": {hint}" for pattern, hint in _HINTS if pattern.search(output)), "")

    def evidence(self, *, lines: int = 3) -> str:
        """Where the log is and how it ends, fit for one line of a message."""
        said = [one_line(line) for line in self._output().splitlines()]
        words = " | ".join([line for line in said if line and not line.startswith("guard: ")][-lines:]) or "nothing"
        return f"log: {self.log}, which ends: {words if len(words) <= _TAIL_CHARS else '...' + words[-_TAIL_CHARS:]}"

    def _output(self) -> str:
        """The end of what it has written since it was started."""
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_start, size - _TAIL_BYTES))
                return file.read().decode("utf-8", "replace").replace(self._secret, "[key]")
        except FileNotFoundError:  # somebody has tidied up the cache
            return ""
