"""Examples as they stand in `examples.parquet`: all of them as a stream, or one without reading the others."""

from __future__ import annotations

import difflib
import heapq
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from safer_instruct.conversation import as_turns
from safer_instruct.errors import RunDirectoryError
from safer_instruct.example import Candidate, Draft, Example, Verdict
from safer_instruct.nearest import did_you_mean
from safer_instruct.oneline import many
from safer_instruct.rundir import BAD_ROWS, EXAMPLES
from safer_instruct.tables import opened

VERDICTS_ONLY = (
    "category",
    "twin_of",
    *(f"{of}verdicts.list.element.{name}" for of in ("", "candidates.list.element.", "drafts.list.element.") for name in ("name", "passed", "reason", "flag")),
)
"""Columns that hold what the checks said, and no text."""
_ROWS_READ = 500
_GROUPS_COMPARED = 25  # row groups whose ids are compared letter by letter with one that is not there


def read_examples(path: Path, columns: Sequence[str] | None = None) -> Iterator[Example]:
    """The examples of a finished run, in input order, some hundred of them in memory at a time.

    Args:
        path: The run directory.
        columns: Those to read, in Parquet's names; what is left out is empty.

    Raises:
        RunDirectoryError: The directory holds no finished run, or the file is damaged.
    """
    with opened(path, EXAMPLES) as parquet:
        for batch in parquet.iter_batches(_ROWS_READ, columns=list(columns) if columns else None):
            yield from map(as_example, batch.to_pylist())


def find_example(path: Path, id_: str) -> Example:
    """The example of that id, or the one whose id begins so; of the others nothing but ids is read.

    Raises:
        RunDirectoryError: The run has none of that id, or several that begin so, is not finished, or its file is damaged.
    """
    begin: list[tuple[int, int, str]] = []
    near: list[str] = []
    with opened(path, EXAMPLES) as parquet:
        for group, ids in _column(parquet, "id"):
            if id_ in ids:
                return read_row(parquet, group, ids.index(id_))
            begin += [(group, at, other) for at, other in enumerate(ids) if other.startswith(id_)][:3]
            if group < _GROUPS_COMPARED:
                near += difflib.get_close_matches(id_, ids, n=3)
        if len(begin) == 1 and id_:
            return read_row(parquet, *begin[0][:2])
    nearest = list(dict.fromkeys([*(other for *_, other in begin), *difflib.get_close_matches(id_, near)]))[:3]
    hint = f"the nearest: {', '.join(nearest)}" if nearest else "pairs.jsonl and examples.parquet hold the ids"
    raise RunDirectoryError(f"{path}: no example has the id '{id_}'; {_set_aside(path, id_, hint)}")


def _set_aside(path: Path, id_: str, hint: str) -> str:
    """Where and why a row was set aside that has `id_` for a word, as far as its beginning is kept; else the hint, and that there are such rows."""
    word = re.compile(rf"(?<![\w.-]){re.escape(id_)}(?![\w-]|\.\w)")
    count = 0
    with suppress(OSError, ValueError, KeyError, TypeError), (path / BAD_ROWS).open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            count += 1
            if id_ and word.search(row["excerpt"]):
                why = f"was set aside ({row['reason']}): mend it there, and give the 'run' command again"
                return f"the row {row['file']}:{row['line']}, which holds it and stands in {BAD_ROWS}, {why}"
    return f"{hint}; {many(count, 'row')} set aside, of which no example was made: {BAD_ROWS}" if count else hint


def sample_failed(path: Path, name: str, count: int, rank: Callable[[str], int]) -> tuple[list[Example], int]:
    """Some of the examples that one filter dropped, or flagged where it drops none.

    Args:
        path: The run directory.
        name: The filter, as in its verdicts.
        count: How many.
        rank: Of an id; those with the lowest are taken.

    Returns:
        They, in input order, and how many there are in all.

    Raises:
        RunDirectoryError: It dropped and flagged none, or there is no such filter; or as for `find_example`.
    """
    names: set[str] = set()

    def flagged(verdicts: list[dict[str, Any]]) -> bool:
        names.update(v["name"] for v in verdicts)
        return any(v["name"] == name and not v["passed"] and v.get("flag") for v in verdicts)

    with opened(path, EXAMPLES) as parquet:
        found, total = _lowest(_matching(parquet, "dropped_by", lambda by: by == name), count, rank)
        if not total:
            found, total = _lowest(_matching(parquet, "verdicts", flagged), count, rank)
        if not total and name not in names:
            hint = did_you_mean(name, names, otherwise=f"there are {', '.join(sorted(names)) or 'none'}", cutoff=0.7)
            raise RunDirectoryError(f"{path}: no example has a verdict '{name}'; {hint}")
        if not total:
            did = Counter(by for _, group in _column(parquet, "dropped_by") for by in group if by)
            known = ", ".join(f"{by} ({n})" for by, n in sorted(did.items())) or "nothing"
            raise RunDirectoryError(f"{path}: '{name}' dropped no example; what did: {known}")
        return [read_row(parquet, group, at) for group, at in found], total


def _column(parquet: Any, name: str) -> Iterator[tuple[int, list[Any]]]:
    """A column, one row group at a time, with the group's number."""
    for group in range(parquet.num_row_groups):
        yield group, parquet.read_row_group(group, columns=[name])[name].to_pylist()


def _matching(parquet: Any, column: str, matches: Callable[[Any], bool]) -> Iterator[tuple[str, int, int]]:
    """Id, row group and place there of each row whose `column` matches."""
    for (group, ids), (_, values) in zip(_column(parquet, "id"), _column(parquet, column), strict=True):
        yield from ((id_, group, at) for at, (id_, value) in enumerate(zip(ids, values, strict=True)) if matches(value))


def _lowest(rows: Iterable[tuple[str, int, int]], count: int, rank: Callable[[str], int]) -> tuple[list[tuple[int, int]], int]:
    """Where the `count` rows stand whose ids rank lowest, in order, and how many rows there are."""
    kept: list[tuple[int, int, int]] = []
    total = 0
    for id_, group, at in rows:
        total += 1
        kept.append((rank(id_), group, at))
        if len(kept) > 2 * count:
            kept = heapq.nsmallest(count, kept)
    return sorted((group, at) for _, group, at in heapq.nsmallest(count, kept)), total


def read_row(parquet: Any, group: int, at: int) -> Example:
    """The example at place `at` of a row group, which is gone through in parts."""
    for batch in parquet.iter_batches(_ROWS_READ, row_groups=[group]):
        if at < batch.num_rows:
            return as_example(batch.slice(at, 1).to_pylist()[0])
        at -= batch.num_rows
    raise AssertionError("the id column is as long as the others")


def as_example(row: dict[str, Any]) -> Example:
    """A row of `examples.parquet`; columns that were not read are left empty."""
    return Example(
        row.get("id", ""),
        row.get("text", ""),
        row.get("category", ""),
        row.get("file", ""),
        row.get("line", 0),
        tuple(Candidate(**{"text": "", **c, "verdicts": _verdicts(c)}) for c in row.get("candidates", ())),
        row.get("prompt", ""),
        row.get("chosen", ""),
        row.get("rejected", ""),
        row.get("margin"),
        tuple(Draft(**{"text": "", "attempt": 0, **d, "verdicts": _verdicts(d)}) for d in row.get("drafts", ())),
        _verdicts(row),
        as_turns(row.get("history")),
        row.get("license", ""),
        row.get("place", ""),
        row.get("twin_of") or "",
    )


def _verdicts(row: dict[str, Any]) -> tuple[Verdict, ...]:
    return tuple(Verdict(v["name"], v["passed"], v.get("score"), v["reason"], bool(v.get("flag"))) for v in row.get("verdicts", ()))
