"""Runs of the command line in processes of their own that start at once: forks of one that has imported everything.

with Forks(tmp_path / "said.txt") as forks:
    forks.run_until(moment, config, out)     # kill -9 as soon as `moment()` is true
    forks.finish(config, out)
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PATIENCE_S = 240.0
_PARENT = """
import json, os, sys
import pycld2, rensa, rich.table, yaml
import pyreqwest.client
from safer_instruct import cli, estimate, pipeline, terminal
for line in sys.stdin:
    arguments, said = json.loads(line)
    pid = os.fork()
    if not pid:
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.exit(cli.main(arguments))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Forks:
    """One run after the other; what the last one said stands in a file."""

    def __init__(self, said: Path) -> None:
        self._said = said
        self._parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._parent.stdin and self._parent.stdout
        self._parent.stdin.close()
        self._parent.wait(PATIENCE_S)
        self._parent.stdout.close()

    def finish(self, config: Path, out: Path | str) -> float:
        """Run to the end, in a folder or at an address; gives the seconds that it took."""
        began = time.monotonic()
        self._start(("run", str(config), "--out", str(out)))
        assert (code := self._ended(PATIENCE_S)) == 0, (code, self._said.read_text())
        return time.monotonic() - began

    def run_until(self, moment: Callable[[], bool], config: Path, out: Path | str) -> bool:
        """Run, and kill -9 as soon as `moment` is there; False when the run ended before."""
        pid = self._start(("run", str(config), "--out", str(out)))
        deadline, code = time.monotonic() + PATIENCE_S, None
        try:
            while (code := self._ended(0.0005)) is None and not moment():
                assert time.monotonic() < deadline, "the moment never came"
        finally:
            if code is None:
                os.kill(pid, signal.SIGKILL)  # not gone before the parent has been told to wait for it, and it tells us then
                code = self._ended(PATIENCE_S)
        assert code in (-9, 0), (code, self._said.read_text())
        return code == -9

    def _start(self, arguments: Sequence[str]) -> int:
        assert self._parent.stdin
        self._parent.stdin.write(json.dumps([arguments, str(self._said)]).encode() + b"\n")
        pid = self._read(PATIENCE_S)
        assert pid is not None
        return pid

    def _ended(self, timeout_s: float) -> int | None:
        """The exit code of the run, or the negative number of the signal that ended it; None while it runs."""
        return self._read(timeout_s)

    def _read(self, timeout_s: float) -> int | None:
        assert self._parent.stdout
        if not select.select([self._parent.stdout], [], [], timeout_s)[0]:
            return None
        return int(self._parent.stdout.readline())
