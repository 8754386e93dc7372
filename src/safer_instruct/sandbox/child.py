"""Runs inside the sandbox, alone and by path: takes away what the program must not have, then becomes the program.

    python -I -S child.py '{"memory_bytes": ..., ...}' PROGRAM ARGUMENT...

Only the standard library is imported; this process has no environment worth reading.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys

# From linux/prctl.h, linux/mount.h and asm-generic/unistd.h; the numbers are the same on all architectures with Python wheels.
_PR_SET_PDEATHSIG, _PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS = 1, 28, 38
_SECBIT_NOROOT_LOCKED = 0b11
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
_SIGKILL = 9


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def main() -> None:
    """Apply the limits and become the program; exit code 127 where it cannot be started, 126 where it cannot be confined."""
    limits, command = json.loads(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
        if limits["files"]:
            _only_writable(libc, os.getcwd())
        _limit(limits)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    except OSError as exc:
        sys.stderr.write(f"the sandbox cannot be set up: {exc}\n")
        sys.exit(126)
    try:
        os.execve(command[0], command, dict(os.environ))  # noqa: S606 - an argument list, no shell
    except OSError as exc:
        sys.stderr.write(f"{command[0]} cannot be started: {exc}\n")
        sys.exit(127)


def _only_writable(libc: ctypes.CDLL, folder: str) -> None:
    """Make every mount of this mount namespace read-only but `folder`, and give up the right to undo it."""
    _check(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    _check(libc.mount(folder.encode(), folder.encode(), None, _MS_BIND, None))
    _set_attributes(libc, b"/", _MountAttr(_MOUNT_ATTR_RDONLY, 0, 0, 0))
    _set_attributes(libc, folder.encode(), _MountAttr(0, _MOUNT_ATTR_RDONLY, 0, 0))
    os.chdir(folder)
    _check(libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NOROOT_LOCKED, 0, 0, 0))


def _set_attributes(libc: ctypes.CDLL, path: bytes, attributes: _MountAttr) -> None:
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    flags = _AT_RECURSIVE if path == b"/" else 0
    _check(libc.syscall(ctypes.c_long(_MOUNT_SETATTR), ctypes.c_int(_AT_FDCWD), ctypes.c_char_p(path), ctypes.c_uint(flags), ctypes.byref(attributes), size))


def _limit(limits: dict[str, int]) -> None:
    wanted = {
        resource.RLIMIT_AS: limits["memory_bytes"],
        resource.RLIMIT_CPU: limits["cpu_s"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_CORE: 0,
    }
    if limits["processes"]:
        wanted[resource.RLIMIT_NPROC] = limits["processes"]
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()
