"""Work that is killed (SIGKILL) after each change of a name on disk, one after the other: renames, and files and folders that go.

for number in killed_after_each(lambda: work(path), prepare):
    ...                                     # what a kill after `number` changes left
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

_CHANGES = ("rename", "replace", "unlink", "remove", "rmdir")


def killed_after_each(work: Callable[[], object], prepare: Callable[[], object]) -> Iterator[int]:
    """Prepare, do the work in a fork that is killed after so many changes, give the number; until one comes to its end, which is not given."""
    for number in count(1):
        prepare()
        if not _killed(work, number):
            return
        yield number


def _killed(work: Callable[[], object], number: int) -> bool:
    sys.stdout.flush()
    if not (pid := os.fork()):
        try:
            _kill_after(number)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def _kill_after(number: int) -> None:
    left = [number]

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*args: Any, **options: Any) -> Any:
            result = change(*args, **options)
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return changed

    for name in _CHANGES:
        setattr(os, name, counted(getattr(os, name)))
