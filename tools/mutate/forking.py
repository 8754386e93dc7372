"""One thing done in a process of its own: what it breaks, leaves behind or never ends is gone with it."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress

_MOST_MEMORY = 12 * 2**30


def run_forked(run: Callable[[], int], limit_s: float, *, quiet: bool = True) -> int | None:
    """The exit code of `run` in a fork of this process, None if it did not end in time; whatever it started ends with it."""
    pid = os.fork()
    if not pid:
        _become_apart(quiet=quiet)
        os._exit(run())
    end, status = time.monotonic() + limit_s, None
    while status is None and time.monotonic() < end:
        time.sleep(0.005)
        done, code = os.waitpid(pid, os.WNOHANG)
        status = os.waitstatus_to_exitcode(code) if done else None
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if status is None:
        os.waitpid(pid, 0)
    return status


def _become_apart(*, quiet: bool) -> None:
    os.setsid()
    random.seed(0)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if quiet:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
