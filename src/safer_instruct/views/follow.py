"""A running pipeline, watched from another terminal by what it writes into its directory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from safer_instruct import rundir
from safer_instruct.errors import RunDirectoryError
from safer_instruct.prices import show_usd
from safer_instruct.progress import EVERY_S, read_progress
from safer_instruct.state import TWINS
from safer_instruct.terminal import safe, time_left

_PLAIN_EVERY_S = 10.0
_ENDS = {"finished": "finished", "stopped": "stopped before its end", "lost": "silent: its process is gone, or hangs"}


def follow_run(console: Console, path: Path) -> None:
    """Show the run in `path` until it ends or falls silent; on anything but a terminal a line now and then.

    Raises:
        RunDirectoryError: No run has said anything there.
    """
    said = _said(path)
    if not console.is_terminal:
        while said["phase"] == "running":
            console.print(_line(said), highlight=False, markup=False, soft_wrap=True)
            said = _after(path, _PLAIN_EVERY_S)
        console.print(_line(said), highlight=False, markup=False, soft_wrap=True)
        return
    with Live(console=console, refresh_per_second=4, get_renderable=lambda: _table(said)):
        while said["phase"] == "running":
            said = _after(path, EVERY_S)


def _after(path: Path, pause_s: float) -> dict[str, Any]:
    """What the run says after a pause, or as soon as it has ended."""
    until = time.monotonic() + pause_s
    said = _said(path)
    while said["phase"] == "running" and time.monotonic() < until:
        time.sleep(min(0.25, pause_s))
        said = _said(path)
    return said


def _said(path: Path) -> dict[str, Any]:
    said = read_progress(path)
    if said is None:
        raise RunDirectoryError(f"{path} has no {rundir.PROGRESS}: no run is going on there; begin one: safer-instruct run CONFIG --out {path}")
    return said


def _table(said: dict[str, Any]) -> RenderableType:
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "done", "dropped by then", "refused", "calls", "tokens/s", "USD"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    elapsed = max(1e-9, said["elapsed_s"])
    for name, stage in said["stages"].items():
        done = _done(name, stage, said)
        rate = f"{stage['fresh_tokens'] / elapsed:.0f}" if stage["fresh_tokens"] else ""
        table.add_row(
            safe(name), done, str(stage["dropped"]), str(stage["refused"]), str(stage["calls"]), rate, show_usd(stage["cost"]) if stage["calls"] else ""
        )
    below = [Text(_line(said), style="dim"), *(safe(f"waiting: {message}") for message in said["waits"])]
    return Group(table, *below)


def _done(name: str, stage: dict[str, Any], said: dict[str, Any]) -> str:
    """As the terminal of the run itself shows it: rows that are set aside go from the total."""
    total = stage.get("total", said["usable"]) if name == TWINS else said["usable"]
    return f"{stage['done']}/{total}" if total else str(stage["done"])


def _line(said: dict[str, Any]) -> str:
    phase = _ENDS.get(said["phase"], "running")
    stages = "  ".join(f"{name} {_done(name, stage, said)}" for name, stage in said["stages"].items())
    aside = f", {said['set_aside']} set aside" if said["set_aside"] else ""
    tokens = sum(stage["fresh_tokens"] for stage in said["stages"].values())
    left = time_left(said.get("left_s")) if said["phase"] == "running" else ""
    return f"[{said['elapsed_s']:.0f} s] {stages}  pairs {said['pairs']}{aside}, {tokens:,} tokens, spent {safe(said['spent']).plain}{left}; {phase}"
