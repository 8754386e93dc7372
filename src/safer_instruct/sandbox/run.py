"""One run of a program in the sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from safer_instruct.sandbox.isolation import FULL, NETWORK_ONLY, Isolation

_CHILD = Path(__file__).with_name("child.py")
_TAIL_BYTES = 2_000
_CPU_SLACK_S = 1  # the clock on the wall ends a program; this is for one that hides from it
_PROCESSES = 64
_NOT_CONFINED = 126
_PROBE_S = 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may take.

    Attributes:
        timeout_s: On the wall, from its start.
        memory_mb: Address space of each of its processes.
        output_kb: Standard output and error together.
        file_mb: Size of any file it writes.
    """

    timeout_s: float = 10.0
    memory_mb: int = 512
    output_kb: int = 1_024
    file_mb: int = 16


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended.

    Attributes:
        code: Exit code, negative for a signal; None where it was stopped.
        tail: The end of its standard error, or where that is empty of its standard output.
        stopped: Why it was stopped; empty where it ended by itself.
    """

    code: int | None
    tail: str
    stopped: str = ""

    @property
    def confined(self) -> bool:
        """False where the sandbox itself could not be set up, so that the program never ran."""
        return self.code != _NOT_CONFINED or "the sandbox cannot be set up" not in self.tail


async def run_program(command: Sequence[str], folder: Path, stdin: Path, limits: Limits | None = None, *, isolation: Isolation | None = None) -> Ran:
    """Run `command` in `folder`, the only place it can write to, with the file `stdin` on its standard input.

    Its environment is empty but for PATH, HOME, TMPDIR and LANG. All processes that it leaves behind end with it, where
    process namespaces are to be had; elsewhere those of its process group do.

    Args:
        command: An absolute path, and arguments.
        folder: A directory of its own.
        stdin: What it may read.
        limits: What it may take.
        isolation: How it is kept apart; by default as strictly as this machine allows.
    """
    limits, level = limits or Limits(), isolation or strictest_isolation()
    with stdin.open("rb") as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        # files and no pipes: nobody need read them, and nothing that outlives the program holds them open for us
        process = await asyncio.create_subprocess_exec(
            *sandboxed(command, limits, level), cwd=folder, env=environment(folder), stdin=given, stdout=out, stderr=err, start_new_session=True
        )
        stopped = ""
        try:
            await asyncio.wait_for(process.wait(), limits.timeout_s)
        except TimeoutError:
            stopped = f"took longer than {limits.timeout_s:g} s"
        finally:
            await _end(process)
        if os.fstat(out.fileno()).st_size + os.fstat(err.fileno()).st_size > limits.output_kb << 10:
            stopped = stopped or f"wrote more than {limits.output_kb} KiB"
        return Ran(None if stopped else process.returncode, _tail(err) or _tail(out), stopped)


def sandboxed(command: Sequence[str], limits: Limits, level: Isolation) -> list[str]:
    """`command` behind those that keep it apart and take away what it must not have."""
    allowed = {
        "memory_bytes": limits.memory_mb << 20,
        "cpu_s": math.ceil(limits.timeout_s) + _CPU_SLACK_S,
        "file_bytes": max(limits.file_mb << 20, limits.output_kb << 11),
        "processes": _PROCESSES if level.network else 0,  # elsewhere all of the user's processes would count
        "files": level.files,
    }
    return [*level.prefix, sys.executable, "-I", "-S", str(_CHILD), json.dumps(allowed), *command]


def environment(folder: Path) -> dict[str, str]:
    """All that a program is told: where programs are, where it may write, and that text is UTF-8."""
    path = os.pathsep.join((str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"))
    return {"PATH": path, "HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8"}


@lru_cache
def strictest_isolation() -> Isolation:
    """The strictest isolation that works here, found by trying once; a lack is logged as a warning."""
    found = next((level for level in (FULL, NETWORK_ONLY) if _works(level)), Isolation())
    if found.note:
        logging.getLogger("safer_instruct").warning("WARNING: %s", found.note)
    return found


def _works(level: Isolation) -> bool:
    with tempfile.TemporaryDirectory(prefix="safer-instruct-") as folder:
        command = sandboxed([sys.executable, "-I", "-S", "-c", ""], Limits(), level)
        try:
            done = subprocess.run(command, cwd=folder, env=environment(Path(folder)), capture_output=True, timeout=_PROBE_S, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0


def _tail(file: IO[bytes]) -> str:
    file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
    return file.read().decode("utf-8", "replace").strip()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of its process group, and wait for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.shield(process.wait())
