"""Sheets that people fill in, as CSV that spreadsheets open: written once, and never over what somebody wrote."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from safer_instruct.errors import ConfigError
from safer_instruct.oneline import many
from safer_instruct.sources.tables import FilledRows
from safer_instruct.wholefile import whole

_NONE: Mapping[str, str] = {}


def write_sheet(path: Path, columns: Sequence[str], filled_in: str, rows: Iterable[Sequence[str]], given: Mapping[str, str] = _NONE) -> int:
    """Write a sheet; one that stands there is written anew as long as nobody has filled in a row of it.

    Args:
        path: Where.
        columns: Its header.
        filled_in: The column that people fill in.
        rows: Cells in the order of `columns`.
        given: Of the rows that are filled in from the start, by their first cell: what is.

    Returns:
        How many rows it has.

    Raises:
        ConfigError: As `check_place`.
    """
    check_place(path, columns, filled_in, given)
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part, part.open("w", encoding="utf-8-sig", newline="") as file:  # Excel knows UTF-8 by its mark
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow(row)
            count += 1
    return count


def check_place(path: Path, columns: Sequence[str], filled_in: str, given: Mapping[str, str] = _NONE) -> None:
    """That a sheet may be written there; what is `given` was not filled in by anybody who saw it.

    Raises:
        ConfigError: The file that stands there is filled in, or is something else.
    """
    if not path.is_file():
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = FilledRows(file)
            ours = set(columns) <= set(reader.fieldnames or ())
            names = {filled_in, *(set(reader.fieldnames or ()) - set(columns))}  # a column of one's own, for remarks
            filled = sum(1 for row in reader if _by_somebody(row, filled_in, names, given.get(row.get(columns[0]) or "")))
    except (OSError, UnicodeDecodeError, csv.Error):
        ours, filled = False, 0
    if filled and ours:
        raise ConfigError(f"{path} is filled in, in {many(filled, 'row')}; give --sheet another name, or move it away")
    if not ours:
        raise ConfigError(f"{path} exists already, and is no such sheet; give --sheet another name, or move it away")


def _by_somebody(row: Mapping[str, str | None], filled_in: str, names: Iterable[str], given: str | None) -> bool:
    """Whether a row holds what was not there from the start."""
    return any(cell and not (name == filled_in and cell == given) for name in names if (cell := (row.get(name) or "").strip()))
