"""How far a running pipeline is, in a small file that other processes read: `progress.json`, written about once a second."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeGuard

from safer_instruct import rundir
from safer_instruct.errors import RunDirectoryError
from safer_instruct.state import RunState, StageState

EVERY_S = 1.0
_STALE_S = 10.0  # a run that has written nothing for so long is not running any more
Phase = Literal["running", "finished", "stopped"]


@contextmanager
def published(path: Path, state: RunState) -> Iterator[None]:
    """Write the live figures of `state` into the run directory until the block ends, and a last time then."""
    stop = threading.Event()

    def publish() -> None:
        while not stop.wait(EVERY_S):
            _write(path, state, "running")

    _write(path, state, "running")
    thread = threading.Thread(target=publish, name="progress", daemon=True)
    thread.start()
    phase: Phase = "stopped"
    try:
        yield
        phase = "finished"
    finally:
        stop.set()
        thread.join()
        _write(path, state, phase)


def read_progress(path: Path) -> dict[str, Any] | None:
    """What a run in `path` last said of itself; `phase` is `lost` where it fell silent, `usable` as in `RunState`.

    None where none ever did, or the file is no such record.
    """
    try:
        said = json.loads((path / rundir.PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not _is_record(said):
        return None
    said["usable"] = None if said["total"] is None else said["total"] - said["set_aside"]
    said["age_s"] = max(0.0, time.time() - said["written"])
    if said["phase"] == "running" and said["age_s"] > _STALE_S:
        said["phase"] = "lost"
    return said


def calls_told(path: Path) -> int:
    """Model calls that a run made by its own account, with those read from its ledger; 0 where it gives none."""
    with suppress(RunDirectoryError):
        return int(rundir.read_summary(path)["calls"])
    said = read_progress(path)
    return sum(stage["calls"] for stage in said["stages"].values()) if said else 0


def _write(path: Path, state: RunState, phase: Phase) -> None:
    part = path / f".{rundir.PROGRESS}.part"
    with suppress(OSError):  # a full disk stops the run where something is lost by it, not here
        part.write_text(json.dumps(_as_record(state, phase)), encoding="utf-8")
        part.replace(path / rundir.PROGRESS)


def _as_record(state: RunState, phase: Phase) -> dict[str, Any]:
    reasons = [{"stage": stage, "by": by, "count": count} for (stage, by), count in dict(state.reasons).items()]
    return {
        "phase": phase,
        "pid": os.getpid(),
        "written": time.time(),
        "elapsed_s": time.monotonic() - state.started,
        "left_s": state.left_s,
        "total": state.total,
        "rows": state.rows,
        "set_aside": state.set_aside,
        "pairs": state.pairs,
        "stages": {name: _stage(stage) for name, stage in state.stages.items()},
        "reasons": sorted(reasons, key=lambda r: -r["count"]),
        "spent": str(state.budget),
        "waits": state.waits(),
    }


def _is_record(said: Any) -> TypeGuard[dict[str, Any]]:
    """Whether it has all that a run says of itself, of the same kinds; what an earlier version did not say may be missing."""
    stage = _stage(StageState()) | {"cost": None}
    del stage["total"]
    return (
        _is_like(said, _as_record(RunState(), "running"))
        and all(_is_like(each, stage) for each in said["stages"].values())
        and all(_is_like(each, {"stage": "", "by": "", "count": 0}) for each in said["reasons"])
    )


def _is_like(said: Any, sample: dict[str, Any]) -> bool:
    return isinstance(said, dict) and all(name in said and isinstance(said[name], _kinds(value)) for name, value in sample.items())


def _kinds(value: Any) -> tuple[type, ...]:
    """Those that may stand where `value` does; a number may where there is none yet."""
    if value is None:
        return int, float, NoneType
    return (int, float) if isinstance(value, int | float) else (type(value),)


def _stage(stage: StageState) -> dict[str, Any]:
    fresh = stage.meter.fresh
    return {
        "done": stage.done,
        "total": stage.total,
        "dropped": stage.dropped,
        "refused": stage.refused,
        "calls": stage.meter.calls,
        "replayed": stage.meter.replayed,
        "fresh_tokens": fresh.prompt_tokens + fresh.completion_tokens,
        "cost": stage.cost,
    }
