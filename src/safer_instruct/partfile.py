"""Names for what is being written and has not taken its place yet: each writer has its own, and what a killed one left is swept up."""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

_OLD_S = 7 * 86_400.0  # of a writer that cannot be asked for, on another machine or before this one was started again
_numbers = itertools.count(1)


def part_of(path: Path, ending: str = "part") -> Path:
    """A hidden name beside `path` that no other writer has, in whatever thread, process or machine."""
    while (part := path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{next(_numbers)}.{ending}")).exists():
        pass  # of a process that was killed and had our number
    return part


def left_over(path: Path, ending: str = "part", *, sole: bool = False) -> Iterator[Path]:
    """What writers of `path` left that are gone.

    Args:
        path: What they were to write.
        ending: As for `part_of`.
        sole: Whether nobody else can be writing it, so that all there is has been left. Otherwise that is asked of processes of this
            machine, and what others began is left once it has not changed for a week.
    """
    name = re.compile(rf"\.{re.escape(path.name)}(?:\.([0-9a-f]{{8}})-(\d{{1,9}})-\d+)?\.{ending}(?:-wal|-shm|-journal)?")
    for there in os.listdir(path.parent):
        if (found := name.fullmatch(there)) and (sole or _is_gone(path.with_name(there), *found.groups())):
            yield path.with_name(there)


def sweep(path: Path, *, sole: bool = False) -> None:
    """Remove what `left_over` gives, as far as that can be done."""
    with suppress(OSError):
        for part in left_over(path, sole=sole):
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)


def _is_gone(part: Path, machine: str | None, process: str | None) -> bool:
    if process and machine == _machine():
        return not _is_alive(int(process))
    try:
        return time.time() - part.stat().st_mtime > _OLD_S
    except OSError:
        return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return True


@cache
def _machine() -> str:
    """Of those whose processes can be told apart by their numbers: a machine since it was started, or a container."""
    seen = platform.node()
    with suppress(OSError):
        seen += Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    with suppress(OSError):
        seen += os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(seen.encode()).hexdigest()[:8]
