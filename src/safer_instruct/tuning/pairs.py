"""Tuning pairs: an instruction, the response to it, and where both came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from safer_instruct.errors import SourceError
from safer_instruct.holding import finished_runs, is_finished_run
from safer_instruct.models.protocol import Turn
from safer_instruct.settings.pairs import PairSource
from safer_instruct.sources import BadRow, SourceRow, excerpt
from safer_instruct.sources.records import RowRefused
from safer_instruct.tuning.formats import Reader, detect, reader
from safer_instruct.tuning.open import first_rows, open_rows


@dataclass(frozen=True, slots=True)
class Pair:
    """An instruction and the response to it.

    Attributes:
        prompt: The instruction.
        response: What answers it.
        group: What the split goes by.
        source: Stem of the file it came from; losses are reported per source.
        history: What was said before, where the source keeps it.
        file: As results show it.
        line: Counted from 1.
    """

    prompt: str
    response: str
    group: str
    source: str
    history: tuple[Turn, ...] = ()
    file: str = ""
    line: int = 0


def read_pairs(sources: tuple[PairSource, ...], base: Path, told: Callable[[str], None] = lambda _: None) -> Iterator[Pair | BadRow]:
    """The pairs of all `sources`, in order; a row that gives none comes as a bad row, with the reason.

    Args:
        sources: Where they are.
        base: What paths are relative to.
        told: Is given a line on the format of each source.

    Raises:
        SourceError: A source is missing, is a run directory, or its columns fit no format.
    """
    for source in sources:
        _refuse_runs(source, base)
        rows, early = open_rows(source, base), list[BadRow]()
        first = first_rows(rows, early.append)
        yield from early
        if not first:
            continue
        form = source.format
        if form == "auto":
            form = detect([row.fields for row in first if isinstance(row, SourceRow)], source, first[0].file)
        told(f"{source.path}: format {form}" + (", told by its columns" if source.format == "auto" and form != "pairs" else ""))
        read = reader(form, source)
        for row in chain(first, rows):
            if isinstance(row, BadRow):
                yield row
            else:
                yield from _pairs(row, read, source)


def _refuse_runs(source: PairSource, base: Path) -> None:
    """A run holds preference pairs, and its tables what was dropped, too."""
    folder = base / source.path
    if is_finished_run(folder) or finished_runs(folder):
        what = "is a run directory" if is_finished_run(folder) else "holds run directories"
        raise SourceError(
            f"{folder} {what}, which 'train' takes and 'tune' does not; to tune on what a run chose, name its pairs.jsonl, "
            "with 'prompt: prompt' and 'response: chosen'"
        )


def _pairs(row: SourceRow, read: Reader, source: PairSource) -> Iterator[Pair | BadRow]:
    try:
        found = read(row.fields)
        named = None if source.group is None else named_group(row, source.group)
    except RowRefused as exc:
        yield BadRow(row.file, row.line, str(exc), excerpt(dict(row.fields)))
        return
    conversation = found[0].prompt if found else ""  # its first message stands for all of it
    for turn in found:
        yield Pair(turn.prompt, turn.response, named or conversation, Path(row.file).stem, turn.history if source.history else (), row.file, row.line)


def named_group(row: SourceRow, column: str) -> str:
    """What `column` says the row is split by.

    Raises:
        RowRefused: It says nothing.
    """
    value = row.fields.get(column)
    if not isinstance(value, str | int) or value == "":
        raise RowRefused(f"group column '{column}' is missing or empty")
    return str(value)


def whole_pairs(sources: tuple[PairSource, ...], base: Path) -> list[Pair]:
    """The pairs of sources that must not have a bad row, such as examples that a model is shown.

    Raises:
        SourceError: As for `read_pairs`, or a row gives no pair.
    """
    pairs = []
    for item in read_pairs(sources, base):
        if isinstance(item, BadRow):
            raise SourceError(f"{item.file}:{item.line}: {item.reason}")
        pairs.append(item)
    return pairs
