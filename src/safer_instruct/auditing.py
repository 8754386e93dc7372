"""`safer-instruct audit`: read a set, ask every check about it, and tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from safer_instruct.audit import Columns, Finding, PairSet, audit_set, read_set
from safer_instruct.audit.run import CHECKS
from safer_instruct.audit.show import as_markdown, as_record, show_audit, show_rows
from safer_instruct.errors import ConfigError
from safer_instruct.replacing import replace_own

__all__ = ["Wanted", "as_record", "audit", "show", "write"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be audited.

    Attributes:
        path: The pairs.
        columns: Which column is which.
        benchmarks: `NAME=FILE`, as on the command line.
        split: Of a folder, as `read_set` has it.
        limit: Read only so many rows.
        check: Ask this one only.
    """

    path: Path
    columns: Columns
    benchmarks: Sequence[str] = ()
    split: str | None = None
    limit: int | None = None
    check: str | None = None


def audit(wanted: Wanted, progress: Console) -> tuple[PairSet, list[Finding]]:
    """Read and ask; what is going on is told on `progress`.

    Raises:
        ConfigError: A benchmark is not of the form NAME=FILE, or there is no such check.
        SourceError: The pairs or a benchmark cannot be read.
        RunDirectoryError: The run is not finished, or damaged.
    """
    benchmarks = _benchmarks(wanted.benchmarks)
    if wanted.check is not None and wanted.check not in CHECKS:
        raise ConfigError(f"there is no check '{wanted.check}'; choose one of {', '.join(CHECKS)}")
    with progress.status("reading") as status:
        pairs = read_set(wanted.path, wanted.columns, split=wanted.split, limit=wanted.limit)
        only = (wanted.check,) if wanted.check else None
        return pairs, audit_set(pairs, benchmarks, lambda name: status.update(f"{len(pairs):,} pairs: {name}"), only=only)


def show(console: Console, pairs: PairSet, found: Sequence[Finding], rows: int | None) -> None:
    """The table, or as many rows behind the one finding."""
    if rows is None:
        show_audit(console, pairs, found)
    else:
        show_rows(console, pairs, found[0], rows)


def write(path: Path, pairs: PairSet, found: Sequence[Finding]) -> None:
    """As Markdown.

    Raises:
        ConfigError: Something other than an audit stands there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_own(path, as_markdown(pairs, found))


def _benchmarks(given: Sequence[str]) -> dict[str, Path]:
    benchmarks = {}
    for one in given:
        name, _, file = one.partition("=")
        if not name or not file:
            raise ConfigError(f"'{one}' is no benchmark; write NAME=FILE, for example --benchmark gsm8k=prompts.txt")
        benchmarks[name] = Path(file)
    return benchmarks
