"""What commands made of a run's pairs, the report and a selection: set aside while the run is made again, brought back where it came out the same.

A kill at any moment loses none of it: it lies in `.earlier/` beside the digest of the results that it speaks of, and the next run that ends
looks at both. Exports stay where they are: a run notes which pairs those were made of that it finds, and says at its end which are of others.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safer_instruct.rundir import (
    ASIDE,
    BAD_ROWS,
    CARD,
    EXAMPLES,
    EXPORTED,
    EXPORTS,
    PAIRS_JSONL,
    REPORT,
    REPORT_MD,
    SELECTED,
    SELECTED_JSONL,
    SELECTION,
    SUMMARY,
)
from safer_instruct.storage.attached import home_of
from safer_instruct.wholefile import sha256_of, write_whole

DERIVED = (SELECTED, SELECTED_JSONL, SELECTION, REPORT, REPORT_MD)
_OF = "sha256"


def forget_results(path: Path) -> tuple[str, ...]:
    """Take away what speaks of an earlier run's pairs, until this one has its own: an unfinished directory must look so.

    Returns:
        The files that were made of its pairs, for `bring_back`.
    """
    _note_exports(path)
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


def stale_exports(path: Path) -> tuple[str, ...]:
    """The exports in a run directory that were made of other pairs than it holds now, as far as runs have noted."""
    noted = _noted(path)
    made = {name: noted[name].get(PAIRS_JSONL) for name, at in _exports(path).items() if name in noted and noted[name].get("changed") == at}
    pairs = sha256_of(path / PAIRS_JSONL) if made else ""
    return tuple(name for name, of in made.items() if of != pairs)


def _note_exports(path: Path) -> None:
    """Note of the exports that were written since the run before that they are of its pairs, before those may change."""
    exports, noted = _exports(path), _noted(path)
    if not (path / PAIRS_JSONL).is_file() or not (exports or noted):
        return
    known = {name: noted[name] for name, at in exports.items() if name in noted and noted[name].get("changed") == at}
    if len(known) < len(exports):
        pairs = sha256_of(path / PAIRS_JSONL)
        known |= {name: {"changed": at, PAIRS_JSONL: pairs} for name, at in exports.items() if name not in known}
    if known != noted:
        write_whole(path / EXPORTED, json.dumps(known, indent=1) + "\n")


def _exports(path: Path) -> dict[str, int]:
    """The exports in a run directory, and when each was written, in nanoseconds."""
    return {file.name: file.lstat().st_mtime_ns for pattern in EXPORTS for file in sorted(path.glob(pattern))}


def _noted(path: Path) -> dict[str, dict[str, Any]]:
    """What runs have noted of exports; nothing where that is damaged."""
    try:
        noted = json.loads(_read(path / EXPORTED) or "{}")
        return {name: of for name, of in noted.items() if isinstance(of, dict)}
    except (ValueError, AttributeError):
        return {}


def _digest(path: Path) -> str:
    """Of a finished run's results, but for how long they took."""
    found = hashlib.sha256()
    for name in (EXAMPLES, PAIRS_JSONL, BAD_ROWS):
        if (path / name).is_file():
            found.update(bytes.fromhex(sha256_of(path / name)))
    try:
        summary = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
        summary["timing"] = None
    except (ValueError, TypeError):  # damaged: it is like no other
        return ""
    found.update(json.dumps(summary, sort_keys=True).encode())
    return found.hexdigest()


def _read(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.is_file() else None
