"""Runs one server and sees to it that it never outlives the process that wanted it.

    python -I -S guard.py PARENT-PID GRACE-S COMMAND...

Started as a script, so it imports the standard library only. It stands between us and the server because nothing less holds
in every case: an `atexit` handler does not run after kill -9, `PR_SET_PDEATHSIG` follows the thread that forked instead of
the process and reaches the server but not the workers that the server started. The guard ends the server's whole process
group when its standard input closes or its parent is another one than at the start: either means that we are gone or want
no server any more. It ends with the server's own exit status, 128 + N for signal N. Should the guard itself be killed, the
kernel kills the server (Linux only).
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.1


def main(arguments: list[str]) -> int:
    """Run the command until it ends or is no longer wanted."""
    parent, grace_s, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    guard = os.getpid()
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=lambda: _die_with(guard))
    print(f"guard: process {server.pid} is {' '.join(command)}", flush=True)
    try:
        while server.poll() is None and os.getppid() == parent and not _closed(sys.stdin.fileno()):
            pass
    finally:
        _end(server, grace_s)
    print(f"guard: process {server.pid} ended with status {server.returncode}", flush=True)
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


def _die_with(guard: int) -> None:
    """Between fork and exec: ask the kernel for SIGKILL when the guard dies; it may have died already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(1)


def _closed(stdin: int) -> bool:
    """Whether standard input has come to its end; waits a little for that."""
    ready, _, _ = select.select([stdin], [], [], _POLL_S)
    return bool(ready) and not os.read(stdin, 1)


def _end(server: subprocess.Popen[bytes], grace_s: float) -> None:
    """End the server's process group: SIGTERM, and SIGKILL for whatever is left after a while or after a crash."""
    deadline = time.monotonic() + grace_s
    if server.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        while server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
    with suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS, when only zombies are left
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
