"""The run directory: which config it belongs to, and the names of its files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import yaml

from safer_instruct.changes import differences, few, moved
from safer_instruct.config import completed
from safer_instruct.errors import RunDirectoryError
from safer_instruct.holding import hold, holder, of_others
from safer_instruct.ledger import bears_mark, fold_log, read_totals, was_recovered
from safer_instruct.moving import MOVING, move_aside
from safer_instruct.nearest import did_you_mean
from safer_instruct.oneline import listed, many, one_line
from safer_instruct.spent import read_spent
from safer_instruct.storage.attached import home_of
from safer_instruct.wholefile import write_whole

EXAMPLES, PAIRS, PAIRS_JSONL, BAD_ROWS = "examples.parquet", "pairs.parquet", "pairs.jsonl", "rejected_rows.jsonl"
LEDGER, BATCHES, RUN, SUMMARY, CARD, SPENT = "ledger.sqlite", "batches.sqlite", "run.yaml", "summary.json", "README.md", "spent.json"
PROGRESS, REVIEW, REVIEW_INDEX, REVIEW_LABELS = "progress.json", "review.sqlite", "review-index.sqlite", "review-labels.csv"
SELECTED, SELECTED_JSONL, SELECTION = "selected.parquet", "selected.jsonl", "selection.json"
REPORT, REPORT_MD = "report.html", "report.md"
EXPORTS = ("export.*", "export-*")  # of `export` without --out
EXPORTED = ".exports.json"  # which pairs they were made of
SHARDS = "ledger-shards"  # finished calls of a run on a cluster, until they are in the ledger
ASIDE = ".earlier"  # what was made of the pairs of a run that is made again, until it has ended
HOW = "how"  # the section of run.yaml that says nothing of the result: addresses, rates, budget
_SUMMED_UP = (
    "rows",
    "set_aside",
    "dropped",
    "pairs",
    "stages",
    "calls",
    "prompt_tokens",
    "completion_tokens",
    "cost",
    "models",
    "thresholds",
    "timing",
)  # what every summary has, of whatever version
_RECOVERED = "ledger.recovered.sqlite"  # of a recovery that was cut short: the next ledger here would take it for its own
_DATABASES = tuple(f"{name}{end}" for name in (LEDGER, BATCHES, REVIEW) for end in ("", "-wal", "-shm"))
_FILES = (
    EXAMPLES,
    PAIRS,
    PAIRS_JSONL,
    BAD_ROWS,
    *_DATABASES,
    _RECOVERED,
    SHARDS,
    RUN,
    SUMMARY,
    CARD,
    SPENT,
    SELECTED,
    SELECTED_JSONL,
    SELECTION,
    REPORT,
    REPORT_MD,
    ASIDE,
    EXPORTED,
    PROGRESS,
    REVIEW_INDEX,
    REVIEW_LABELS,
)
Mode = Literal["auto", "continue", "fresh"]


@contextmanager
def open_run_directory(path: Path, resolved: dict[str, Any], mode: Mode) -> Iterator[Path]:
    """Hold the directory for one run of `resolved`, the config with everything that its result depends on.

    Args:
        path: The directory; made if it is not there.
        resolved: What goes into `run.yaml`.
        mode: What to do with a run of another config: `auto` refuses, `continue` goes on and pays again only for calls
            that changed, `fresh` moves the old run into `previous-N/` first.

    Raises:
        RunDirectoryError: Another process holds the directory, or it holds a run of another config, or one whose ledger is missing
            or another one, or files that no run wrote.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise RunDirectoryError(f"{path} cannot be a run directory: {_in_the_way(path) or exc.strerror or exc}; choose another --out") from exc
    with hold(path):
        text = _as_yaml(resolved)
        _refuse_files_of_others(path)
        if mode == "fresh":
            move_run_aside(path)
        else:
            _refuse_lost_ledger(path)
            _refuse_other_ledger(path)
        if mode == "auto":
            _refuse_other_config(path, resolved)
        write_whole(path / RUN, text)
        yield path


def _in_the_way(path: Path) -> str:
    """What stands in the place of a folder, on the way there or at its end; empty where nothing does."""
    for place in (*reversed(path.parents), path):
        if place.is_symlink() and not place.exists():
            return f"{'it' if place == path else place} is a link to {place.readlink()}, where nothing is"
        if place.exists() and not place.is_dir():
            return f"{'it' if place == path else place} is {'a file' if place.is_file() else 'no folder'}"
    return ""


def move_run_aside(path: Path) -> None:
    """Move what a run has written into `previous-N/`; the caller holds the directory. Its databases go without their logs, or damaged beside them.

    Raises:
        RunDirectoryError: Another process has one of the databases open; nothing is moved.
    """
    for name in (LEDGER, BATCHES, REVIEW):
        fold_log(path / name)
    move_aside(path, (*_FILES, *EXPORTS))


def read_summary(path: Path) -> dict[str, Any]:
    """`summary.json` of a run directory.

    Raises:
        RunDirectoryError: There is none, or it is damaged.
    """
    file = path / SUMMARY
    if not file.is_file():
        if not _is_training(path) and (at_work := holder(path)):
            ahead = f"wait until it has ended; how far it is: safer-instruct status {path}"
            raise RunDirectoryError(f"{path} holds no finished run (it is in progress by process {at_work}); {ahead}")
        raise RunDirectoryError(f"{path} holds no finished run ({_no_run(path)}); {_remedy(path)}")
    try:
        return _summed_up(file)
    except ValueError as exc:
        raise RunDirectoryError(f"{file} is damaged ({exc}); run again to write it anew") from exc


def unreadable(file: Path, exc: Exception) -> RunDirectoryError:
    """The error for a file of a finished run that cannot be read: a run whose `run.yaml` is gone or broken goes on with --continue alone."""
    said = f"cannot be read ({one_line(str(exc))})" if os.path.lexists(file) else "is missing"
    again = "give the 'run' command again, with --continue," if file.name == RUN else "give the 'run' command again"
    return RunDirectoryError(f"{file} {said}; {again} to write it anew, from the ledger")


def _summed_up(file: Path) -> dict[str, Any]:
    """What stands in a summary; ValueError where that is not all that every summary has."""
    summary = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(summary, dict):
        raise ValueError("it holds no keys")
    if lacking := [key for key in _SUMMED_UP if key not in summary]:
        raise ValueError(f"it lacks {', '.join(lacking[:3])}{', ...' if len(lacking) > 3 else ''}")
    return summary


def is_of_run(file: Path) -> bool:
    """Whether a run keeps something in `file`: an output must not take its place."""
    return file.name in _FILES and any((file.parent / name).exists() for name in (RUN, LEDGER))


def _remedy(path: Path) -> str:
    """What to do where `path` holds no run."""
    if path.is_file() and (path.parent / RUN).is_file():
        return f"give the folder: {path.parent}"
    if path.suffix in (".yaml", ".yml"):
        return f"give the run directory, such as runs/{path.stem}"
    if path.resolve() == Path.cwd():
        return "give the run directory, such as runs/NAME, which 'safer-instruct run NAME.yaml' makes"
    if path.is_file():
        return f"give the folder of a run; for a data set there is: safer-instruct audit {path}"
    if runs := _runs_in(path):
        return f"give one of them, such as {path / runs[0]}"
    return f"run: safer-instruct run CONFIG --out {path}"


def _no_run(path: Path) -> str:
    """Why `path` holds none, as far as one can tell from outside."""
    if (path / MOVING).is_dir():
        return "one was being moved aside, by --fresh, and that was not ended: give the command again"
    if path.is_dir():
        if _is_training(path):
            return "it is the folder of a training, which its command, given again, goes on with or tells of"
        if (path / LEDGER).is_file():
            return f"{SUMMARY} is missing: it was begun and not ended, so give its command again"
        return f"runs in it: {listed(runs)}" if (runs := _runs_in(path)) else f"{SUMMARY} is missing"
    if path.exists():
        return "it is a file"
    runs = [file.parent.name for file in path.parent.glob(f"*/{SUMMARY}")] if path.name else []
    hint = did_you_mean(path.name, runs)
    return f"there is no such folder{'; ' if hint else ''}{hint}"


def _runs_in(path: Path) -> list[str]:
    """The finished runs of a folder that is none itself."""
    return [] if (path / LEDGER).is_file() else sorted(file.parent.name for file in path.glob(f"*/{SUMMARY}"))


def _is_training(path: Path) -> bool:
    """Whether it is the folder of a training, which is no run."""
    return any((path / name).exists() for name in ("tuning.json", "checkpoints"))


def _refuse_files_of_others(path: Path) -> None:
    """A folder that no run has begun in may be one's project, with a `run.yaml` and a `README.md` of its own."""
    if not (there := of_others(path, (RUN, CARD, PAIRS_JSONL, PAIRS, EXAMPLES), (LEDGER, BATCHES, SUMMARY))):
        return
    run = path / RUN
    if run.is_file() and "config" in (_deciding(run.read_text(encoding="utf-8", errors="replace")) or ()):
        return
    raise RunDirectoryError(f"{path} holds {', '.join(there)} and no ledger of a run, and a run would write over that; choose another --out")


def _refuse_other_config(path: Path, resolved: dict[str, Any]) -> None:
    run = path / RUN
    if not (run.is_file() or (path / SUMMARY).is_file()) or _came_to_nothing(path):
        return
    old, new = _deciding(run.read_text(encoding="utf-8", errors="replace")) if run.is_file() else None, _deciding(_as_yaml(resolved))
    changes = differences(old, new) if old and new else [f"{RUN} there {'cannot be read' if run.is_file() else 'is missing'}"]
    if not changes:
        return
    again = moved(_models(old), _models(new))
    raise RunDirectoryError(
        f"{path} holds a run of another config: {few(changes)}{again}. Add --continue to go on with the new config (finished calls "
        "that still apply are not paid again), or --fresh to move the old run aside and start anew"
    )


def _models(deciding: dict[str, Any] | None) -> dict[str, str]:
    """Role -> identity of its model, in that part of a `run.yaml`."""
    models = (deciding or {}).get("models")
    return {role: str(identity) for role, identity in models.items()} if isinstance(models, dict) else {}


def _refuse_lost_ledger(path: Path) -> None:
    """A run whose ledger is gone would make, and pay for, all its calls again without a word."""
    if any((path / name).exists() for name in (LEDGER, _RECOVERED, SHARDS)) or not (told := _what_was_paid(path)):
        return
    raise RunDirectoryError(
        f"{path} holds {told}, and its {LEDGER} is missing, so that all of them would be made again: bring that file back, "
        "or add --fresh to move what is left aside and make them again"
    )


def _refuse_other_ledger(path: Path) -> None:
    """A finished run beside the ledger of another one, or an older copy of its own, would likewise pay again for what that lacks.

    One that was recovered may have lost calls, as `ledger --recover` said; a damaged one is told of when it is opened.
    """
    try:
        summary = _summed_up(path / SUMMARY)
        mark = summary["timing"]["ledger"]  # which those of older versions lack
        if bears_mark(path / LEDGER, mark) or was_recovered(path / LEDGER):
            return
        held = sum(total.calls for total in read_totals(path / LEDGER))
    except (FileNotFoundError, ValueError, TypeError, KeyError, RunDirectoryError):
        return
    raise RunDirectoryError(
        f"{path} holds a finished run of {many(summary['calls'], 'call')}, and its {LEDGER}, with {many(held, 'answer')}, is another than the one with "
        f"{mark['calls']:,} that the run ended with, so that calls would be made again: bring that file back, or add --fresh to move what is there "
        f"aside and begin anew; to go on with the ledger that is there, delete {path / SUMMARY}"
    )


def _what_was_paid(path: Path) -> str:
    """What the files beside the ledger tell of calls that were made; empty where they tell of none."""
    with suppress(FileNotFoundError, ValueError):
        if calls := _summed_up(path / SUMMARY)["calls"]:
            return f"a finished run of {many(calls, 'call')}"
    spent = None if home_of(path) else read_spent(path / SPENT)  # an address keeps it before there is a ledger
    return f"a run whose calls took up to {spent.tokens:,} tokens" if spent and spent.tokens else ""


def _came_to_nothing(path: Path) -> bool:
    """Whether the run ended before its first call, over a wrong path or a missing key for instance, so that nothing is lost with it."""
    if any((path / name).exists() for name in (SUMMARY, BATCHES)):
        return False
    try:
        return not (path / LEDGER).is_file() or not read_totals(path / LEDGER)
    except RunDirectoryError:
        return False


def _deciding(text: str) -> dict[str, Any] | None:
    """The part of a `run.yaml` that the result depends on, with every setting that it leaves at its default; None where it is damaged."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    if not isinstance(data, dict):
        return None
    return {k: completed(v) if k == "config" else v for k, v in data.items() if k != HOW}


def _as_yaml(data: dict[str, Any]) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
