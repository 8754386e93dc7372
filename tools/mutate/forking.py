"""One thing done in a process of its own: what it breaks, leaves behind or never ends is gone with it."""

from __future__ import annotations

import os
import random
import resource
import signal
from collections.abc import Callable
from contextlib import suppress

_MOST_MEMORY = 12 * 2**30
BROKEN = 99


def run_forked(run: Callable[[], int], *, quiet: bool = True) -> int:
    """The exit code of `run` in a fork of this process, or the signal that ended it, negative; whatever it started ends with it."""
    pid = os.fork()
    if not pid:
        status = BROKEN
        try:
            _become_apart(quiet=quiet)
            status = run()
        finally:  # whatever is raised: what this process was in the middle of is the other one's
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


def _become_apart(*, quiet: bool) -> None:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    random.seed(0)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if quiet:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
