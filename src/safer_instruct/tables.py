"""The tables in a run directory, examples and pairs: their columns, how they are written, and how pairs are read again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from safer_instruct.conversation import as_messages, as_texts, conversational
from safer_instruct.errors import RunDirectoryError
from safer_instruct.example import Example
from safer_instruct.rundir import BAD_ROWS, EXAMPLES, PAIRS, PAIRS_JSONL, SELECTED, SUMMARY, read_summary, unreadable
from safer_instruct.sources import BadRow
from safer_instruct.tally import UnreadTally
from safer_instruct.wholefile import room_for, whole

PAIR_COLUMNS = ("prompt", "chosen", "rejected", "category", "id")
CONVERSATION = "conversation"  # column of runs over conversations: those of one are not independent of each other
TWIN_OF = "twin_of"  # a further column of the pairs of a run that makes twins: the id of the pair, empty for those that are none
_ROWS_PER_GROUP, _ROWS_READ = 2_000, 200


class Outputs:
    """Writes examples, pairs and bad rows as they come; memory holds one row group.

    Attributes:
        unread: The files that were not read to their end, as the bad rows tell.
    """

    def __init__(self, examples: Path, pairs: Path, jsonl: Path, bad_rows: Path, *, conversations: bool = False, twins: bool = False) -> None:
        import pyarrow.parquet as pq

        self._folder, self._conversations, self._twins = examples.parent, conversations, twins
        self._examples = pq.ParquetWriter(examples, example_schema(conversations=conversations), compression="zstd")
        self._pairs = pq.ParquetWriter(pairs, pair_schema(conversations=conversations, twins=twins), compression="zstd")
        self._jsonl: IO[str] = jsonl.open("w", encoding="utf-8")
        self._bad: IO[str] = bad_rows.open("w", encoding="utf-8")
        self._rows: list[Example] = []
        self.unread = UnreadTally()

    def add(self, example: Example) -> None:
        """Write one finished example, and its pair if it came through."""
        self._rows.append(example)
        if len(self._rows) >= _ROWS_PER_GROUP:
            with room_for(self._folder):
                self._flush()

    def add_bad(self, row: BadRow) -> None:
        """Write one row that was set aside."""
        self.unread.add(row)
        with room_for(self._folder):
            self._bad.write(json.dumps(asdict(row), ensure_ascii=True) + "\n")

    def close(self) -> None:
        """Write what is left and close the files."""
        with room_for(self._folder):
            self._flush()
            for file in (self._examples, self._pairs, self._jsonl, self._bad):
                file.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._rows:
            return
        self._examples.write_table(pa.Table.from_pylist([_example_row(e) for e in self._rows], schema=self._examples.schema))
        pairs: list[dict[str, Any]] = [pair_row(e, twins=self._twins) for e in self._rows if e.alive]
        if self._conversations:
            pairs = [conversational(conversation_row(e, twins=self._twins)) for e in self._rows if e.alive]
        self._pairs.write_table(pa.Table.from_pylist(pairs, schema=self._pairs.schema))
        self._jsonl.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in pairs)
        self._rows.clear()


@contextmanager
def outputs(path: Path, *, conversations: bool = False, twins: bool = False) -> Iterator[Outputs]:
    """The four data files of a run directory, which appear together when the block ends well.

    Args:
        path: The run directory, which the caller holds.
        conversations: With their histories.
        twins: With a column that marks them.
    """
    files = (whole(path / name, sole=True) for name in (EXAMPLES, PAIRS, PAIRS_JSONL, BAD_ROWS))
    with next(files) as examples, next(files) as pairs, next(files) as jsonl, next(files) as bad:
        with room_for(path):
            out = Outputs(examples, pairs, jsonl, bad, conversations=conversations, twins=twins)
        try:
            yield out
        finally:
            out.close()


def pair_row(example: Example, *, twins: bool = False) -> dict[str, str]:
    """One preference pair, in TRL's column names; with `twins` also which pair it is the twin of."""
    row = {"prompt": example.prompt, "chosen": example.chosen, "rejected": example.rejected_text, "category": example.category, "id": example.id}
    return row | {TWIN_OF: example.twin_of} if twins else row


def conversation_row(example: Example, *, twins: bool = False) -> dict[str, Any]:
    """A pair of a run over conversations: besides, what was said before the prompt, and which conversation it is from."""
    return {**pair_row(example, twins=twins), CONVERSATION: f"{example.file}:{example.line}", "history": as_messages(example.history)}


def pair_schema(*, conversations: bool = False, twins: bool = False) -> Any:
    """Arrow schema of `pairs.parquet`: text columns; of `conversations` prompt and responses are lists of messages."""
    import pyarrow as pa

    said = ("prompt", "chosen", "rejected") if conversations else ()
    names = (*PAIR_COLUMNS, *([CONVERSATION] if conversations else []), *([TWIN_OF] if twins else []))
    return pa.schema([(name, _messages_type() if name in said else pa.string()) for name in names])


def selected_ids(path: Path) -> frozenset[str]:
    """Ids of the pairs that `select` chose.

    Raises:
        RunDirectoryError: It was not asked yet, or its file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = path / SELECTED
    if not file.is_file():
        raise RunDirectoryError(f"{path} has no selection yet; make one: safer-instruct select {path}")
    try:
        return frozenset(pq.read_table(file, columns=["id"])["id"].to_pylist())
    except (OSError, pa.ArrowException) as exc:
        raise RunDirectoryError(f"{file} cannot be read ({exc}); make it anew: safer-instruct select {path}") from exc


def pairs_and_twins(summary: Mapping[str, Any]) -> int:
    """Rows of `pairs.parquet`: the pairs that came of rows, and the contrast twins, which the summary counts apart."""
    return int(summary["pairs"]) + int(summary.get("twins", {}).get("out", 0))


def holds_conversations(path: Path) -> bool:
    """Whether the pairs of a finished run have conversations for prompts.

    Raises:
        RunDirectoryError: As for `opened`.
    """
    with opened(path, PAIRS) as parquet:
        return CONVERSATION in parquet.schema_arrow.names


def read_pairs(path: Path) -> Iterator[dict[str, Any]]:
    """The pairs of a finished run, in order, a batch of them in memory at a time.

    Prompt and responses are texts; of a run over conversations `history` holds the messages before the prompt.

    Raises:
        RunDirectoryError: As for `opened`.
    """
    with opened(path, PAIRS) as parquet:
        conversations = CONVERSATION in parquet.schema_arrow.names
        for batch in parquet.iter_batches(_ROWS_READ, columns=[*PAIR_COLUMNS, TWIN_OF, *([CONVERSATION] if conversations else [])]):
            yield from map(as_texts, batch.to_pylist()) if conversations else batch.to_pylist()


@contextmanager
def opened(path: Path, name: str) -> Iterator[Any]:
    """A table of a finished run as a `ParquetFile`, closed again; while a run goes on in the directory, it is of an earlier one.

    Args:
        path: The run directory.
        name: Which: `examples.parquet` or `pairs.parquet`.

    Raises:
        RunDirectoryError: The directory holds no finished run, or the file is missing, damaged or of another run.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    summary, file = read_summary(path), path / name
    try:
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            told = pairs_and_twins(summary) if name == PAIRS else _examples(summary)
            check_rows(file, parquet.metadata.num_rows, told)
            yield parquet
    except (OSError, pa.ArrowException) as exc:
        raise unreadable(file, exc) from exc


def check_rows(file: Path, rows: int, told: int) -> None:
    """Check a file of a finished run against its summary.

    Raises:
        RunDirectoryError: It has other `rows` than are `told`, so it is of another run.
    """
    if rows != told:
        raise RunDirectoryError(
            f"{file} has {rows:,} rows and {SUMMARY} beside it tells of {told:,}, so they are of two runs; "
            "give the 'run' command again to write both anew, from the ledger"
        )


def lines_of(path: Path) -> int:
    """How many lines a file has."""
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _examples(summary: Mapping[str, Any]) -> int:
    """Rows of `examples.parquet`: what was not set aside, and the contrast twins that were begun."""
    return int(summary["rows"]) - int(summary["set_aside"]) + int(summary.get("twins", {}).get("in", 0))


def example_schema(*, conversations: bool = False) -> Any:
    """Arrow schema of `examples.parquet`: the fields of `Example`, and which verdict dropped it; of `conversations` with `history`."""
    import pyarrow as pa

    text, real = pa.string(), pa.float64()
    verdicts = pa.list_(pa.struct([("name", text), ("passed", pa.bool_()), ("score", real), ("reason", text), ("flag", pa.bool_())]))
    candidate = pa.struct([("text", text), ("logprob", real), ("finished", pa.bool_()), ("verdicts", verdicts)])
    written = [("text", text), ("attempt", pa.int32()), ("logprob", real), ("finished", pa.bool_()), ("margin", real), ("verdicts", verdicts)]
    draft = pa.struct([*written, ("expert", text), ("revision", pa.int32())])
    fields = [("id", text), ("text", text), ("category", text), ("file", text), ("line", pa.int64())]
    fields += [("candidates", pa.list_(candidate)), ("prompt", text), ("chosen", text), ("rejected", text), ("margin", real), ("drafts", pa.list_(draft))]
    history = [("history", _messages_type())] if conversations else []
    ends = [(name, text) for name in ("license", "place", "twin_of", "dropped_by", "drop_reason")]
    return pa.schema([*fields, *history, ("verdicts", verdicts), *ends])


def _messages_type() -> Any:
    import pyarrow as pa

    return pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def _example_row(example: Example) -> dict[str, Any]:
    dropped = example.dropped_by
    return {**asdict(example), "dropped_by": dropped.name if dropped else None, "drop_reason": example.drop_reason if dropped else None}
