"""What commands made of a run's pairs, the report and a selection: set aside while the run is made again, brought back where it came out the same.

A kill at any moment loses none of it: it lies in `.earlier/` beside the digest of the results that it speaks of, and the next run that ends
looks at both.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from safer_instruct.rundir import ASIDE, BAD_ROWS, CARD, EXAMPLES, PAIRS_JSONL, REPORT, REPORT_MD, SELECTED, SELECTED_JSONL, SELECTION, SUMMARY
from safer_instruct.storage.attached import home_of
from safer_instruct.wholefile import write_whole

DERIVED = (SELECTED, SELECTED_JSONL, SELECTION, REPORT, REPORT_MD)
_OF = "sha256"


def forget_results(path: Path) -> tuple[str, ...]:
    """Take away what speaks of an earlier run's pairs, until this one has its own: an unfinished directory must look so.

    Returns:
        The files that were made of its pairs, for `bring_back`.
    """
    aside = path / ASIDE
    any_made = any((folder / name).is_file() for folder in (path, aside) for name in DERIVED)
    if any_made and (path / SUMMARY).is_file() and _read(aside / _OF) != (of := _digest(path)):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        write_whole(aside / _OF, of)  # before anything else goes, so that whoever is killed below has it
    for name in (SUMMARY, CARD):
        (path / name).unlink(missing_ok=True)
    for name in DERIVED:
        if (path / name).is_file():
            aside.mkdir(exist_ok=True)
            (path / name).replace(aside / name)
    home = home_of(path)
    in_store = home.retract() if home else ()
    return tuple(name for name in DERIVED if name in in_store or (aside / name).is_file())


def bring_back(path: Path, made: Sequence[str]) -> tuple[str, ...]:
    """Bring back what was made of the pairs, where they and all that is told of them are the same; returns which of `made` are gone."""
    aside = path / ASIDE
    if aside.is_dir():
        if _read(aside / _OF) == _digest(path):
            for name in DERIVED:
                if (aside / name).is_file():
                    (aside / name).replace(path / name)
        shutil.rmtree(aside)
    return tuple(name for name in made if not (path / name).is_file())


def _digest(path: Path) -> str:
    """Of a finished run's results, but for how long they took."""
    found = hashlib.sha256()
    for name in (EXAMPLES, PAIRS_JSONL, BAD_ROWS):
        if (path / name).is_file():
            with (path / name).open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    try:
        summary = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
        summary["timing"] = None
    except (ValueError, TypeError):  # damaged: it is like no other
        return ""
    found.update(json.dumps(summary, sort_keys=True).encode())
    return found.hexdigest()


def _read(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.is_file() else None
