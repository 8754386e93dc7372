"""`--fresh` of `train` and `tune`: what a training has written makes room for the next one."""

from __future__ import annotations

from pathlib import Path

from safer_instruct.holding import hold
from safer_instruct.moving import move_aside
from safer_instruct.tuning.finished import WRITTEN, check_out


def set_aside(out: Path) -> None:
    """Move what a training has written in `out` into `previous-N/` below it; log-probabilities of a reference stay, which are kept by what they are of.

    Raises:
        RunDirectoryError: Another process holds the folder, or something that is no training stands in it.
    """
    if out.exists():
        check_out(out)
        with hold(out):
            move_aside(out, WRITTEN)
