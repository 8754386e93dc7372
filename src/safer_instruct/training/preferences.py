"""Preference pairs in TRL's columns, as text or as messages, from run directories, files and datasets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safer_instruct.errors import RunDirectoryError
from safer_instruct.models.protocol import Turn
from safer_instruct.rundir import PAIRS_JSONL, RUN, read_summary
from safer_instruct.settings.pairs import RowSource
from safer_instruct.settings.preference import PreferenceSource
from safer_instruct.sources import BadRow, SourceRow, excerpt
from safer_instruct.sources.conversations import checked, is_transcript, turn_of
from safer_instruct.sources.records import RowRefused, lacking, visible
from safer_instruct.storage.address import STORES, parse
from safer_instruct.tables import check_rows, lines_of, pairs_and_twins
from safer_instruct.tuning.open import open_rows, other_splits
from safer_instruct.tuning.pairs import Pair, named_group

Fields = Mapping[str, object]
_SIDES = ("chosen", "rejected")
_TRANSCRIPTS = (
    "'{}' and '{}' are transcripts ('Human: ... Assistant: ...'), which only 'audit' reads; write each as a list of messages of {{role, content}}, "
    "or what both begin with into a column 'prompt' and leave the answers alone in theirs"
)


@dataclass(frozen=True, slots=True)
class Preference(Pair):
    """A prompt, the response that is preferred, and the one that is not.

    Attributes:
        prompt: The last message of the user, or the whole prompt.
        response: The chosen one.
        rejected: The other one.
        history: What was said before, system message included.
    """

    rejected: str = ""


def read_preferences(sources: Sequence[PreferenceSource], base: Path) -> Iterator[Preference | BadRow]:
    """The pairs of all `sources`, in order; a row that gives none comes as a bad row, with the reason.

    Args:
        sources: Where they are.
        base: What paths are relative to.

    Raises:
        SourceError: A source is missing.
        RunDirectoryError: A source is a run that has not ended, or whose `pairs.jsonl` is of another run.
    """
    for source in sources:
        for row in open_rows(_rows_of(source, base), base):
            if isinstance(row, BadRow):
                yield row
                continue
            try:
                yield _preference(row, source)
            except RowRefused as exc:
                yield BadRow(row.file, row.line, str(exc), excerpt(dict(row.fields)))


def passed_over(source: PreferenceSource, base: Path) -> list[str]:
    """The splits of a folder that `read_preferences` leaves out, by name; of a run none, for its `pairs.jsonl` is all that is read there."""
    return [] if (base / source.path / PAIRS_JSONL).is_file() else other_splits(source, base)


def _rows_of(source: PreferenceSource, base: Path) -> RowSource:
    """Where the rows are: of a run directory, here or at an address, its pairs."""
    if source.path.partition("://")[0] in STORES:
        from safer_instruct.remote.copies import holds_run

        address = parse(source.path)
        return RowSource(path=str(address.below(PAIRS_JSONL))) if holds_run(address) else source
    folder = base / source.path
    if not source.path.startswith("hf:") and (folder / RUN).is_file():
        summary = read_summary(folder)  # says what is missing where it has not ended
        if not (folder / PAIRS_JSONL).is_file():
            raise RunDirectoryError(f"{folder}: its {PAIRS_JSONL} is missing; give the 'run' command again to write it anew")
        check_rows(folder / PAIRS_JSONL, lines_of(folder / PAIRS_JSONL), pairs_and_twins(summary))
    if source.path.startswith("hf:") or not (folder / PAIRS_JSONL).is_file():
        return source
    return RowSource(path=f"{source.path.rstrip('/')}/{PAIRS_JSONL}")


def _preference(row: SourceRow, source: PreferenceSource) -> Preference:
    missing = [name for name in (source.chosen, source.rejected) if name not in row.fields]
    if not missing and source.prompt not in row.fields and isinstance(row.fields[source.chosen], str):
        missing = [source.prompt]  # only sides that are whole conversations hold their prompt
    if missing == [source.prompt] and all(is_transcript(row.fields[name]) for name in (source.chosen, source.rejected)):
        raise RowRefused(_TRANSCRIPTS.format(*map(visible, (source.chosen, source.rejected))))
    if missing:
        raise RowRefused(lacking(missing[0], row.fields))
    fields = {"prompt": row.fields.get(source.prompt), "chosen": row.fields[source.chosen], "rejected": row.fields[source.rejected]}
    history, prompt, chosen, rejected = _whole(fields) if fields["prompt"] is None else _parted(fields)
    for name, text in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
        if not text.strip():
            raise RowRefused(f"its '{name}' is empty")
    if chosen == rejected:
        raise RowRefused("'chosen' and 'rejected' are the same")
    group = named_group(row, source.group) if source.group else "\n".join([*(t.content for t in history), prompt])
    return Preference(prompt, chosen, group, _stem(row.file), history, row.file, row.line, rejected)


def _stem(file: str) -> str:
    """A name for the figures: a run's pairs are named by the run."""
    path = Path(file)
    return path.parent.name or path.stem if path.name == PAIRS_JSONL else path.stem


def _parted(fields: Fields) -> tuple[tuple[Turn, ...], str, str, str]:
    """History, prompt, chosen, rejected, of a row whose prompt stands in a column of its own."""
    chosen, rejected = (_answer(fields[name], name) for name in _SIDES)
    given = fields["prompt"]
    if not isinstance(given, list | tuple):
        return (), checked(given, "column 'prompt'"), chosen, rejected
    turns = _turns(given, "prompt")
    return _asked(turns), turns[-1].content, chosen, rejected


def _whole(fields: Fields) -> tuple[tuple[Turn, ...], str, str, str]:
    """The same of a row whose two sides are whole conversations."""
    chosen, rejected = (_turns(fields[name], name) for name in _SIDES)
    if len(chosen) != len(rejected) or chosen[:-1] != rejected[:-1] or len(chosen) < 2:
        raise RowRefused("without 'prompt', 'chosen' and 'rejected' must be conversations that differ in their last message only")
    return _asked(chosen[:-1]), chosen[-2].content, _spoken(chosen[-1:], "chosen"), _spoken(rejected[-1:], "rejected")


def _asked(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    if turns[-1].role != "user":
        raise RowRefused("the prompt's last message is not the user's")
    return tuple(turns[:-1])


def _turns(value: object, name: str) -> list[Turn]:
    if not isinstance(value, list | tuple) or not value:
        raise RowRefused(f"column '{name}' is neither text nor a list of messages" if name == "prompt" else f"column '{name}' is no list of messages")
    return [turn_of(item, "role", "content", number) for number, item in enumerate(value, 1)]


def _answer(value: object, name: str) -> str:
    return _spoken(_turns(value, name), name) if isinstance(value, list | tuple) else checked(value, f"column '{name}'")


def _spoken(turns: Sequence[Turn], name: str) -> str:
    if len(turns) != 1 or turns[0].role != "assistant":
        raise RowRefused(f"'{name}' is not one message of the assistant")
    return turns[0].content
