"""Some examples on their way between processes, as bytes: tuples of plain values, which pickle five times faster than records."""

from __future__ import annotations

import pickle
from dataclasses import astuple, dataclass, field
from operator import attrgetter
from typing import Any

from safer_instruct.example import Candidate, Draft, Example, Turn, Verdict
from safer_instruct.runners.counts import Counts
from safer_instruct.sources import BadRow

MULTIPLE = 32  # of examples in every chunk but the last: responses are compared in waves of so many (`variety.py`)


@dataclass(slots=True)
class Chunk:
    """Examples that stand behind each other in the source.

    Attributes:
        number: 0, 1, 2 ... in input order.
        examples: In input order.
        bad: Rows that were set aside on the way to them.
        counts: What each part of the work that they have gone through comes to.
    """

    number: int
    examples: list[Example] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    counts: list[Counts] = field(default_factory=list)


def encode(chunk: Chunk) -> bytes:
    """The chunk as bytes, for a process of the same version."""
    return pickle.dumps((chunk.number, list(map(_plain, chunk.examples)), list(map(astuple, chunk.bad)), chunk.counts), pickle.HIGHEST_PROTOCOL)


def decode(data: bytes) -> Chunk:
    """The inverse of `encode`; only for what this package has written."""
    number, examples, bad, counts = pickle.loads(data)  # noqa: S301 - written by another process of the same run
    return Chunk(number, list(map(_example, examples)), [BadRow(*row) for row in bad], counts)


_verdict_fields, _turn_fields, _candidate_fields, _draft_fields, _example_fields = (
    attrgetter(*record.__dataclass_fields__) for record in (Verdict, Turn, Candidate, Draft, Example)
)
_NAMES = list(Example.__dataclass_fields__)
_CANDIDATES, _DRAFTS, _VERDICTS, _HISTORY = map(_NAMES.index, ("candidates", "drafts", "verdicts", "history"))
_OF_CANDIDATE, _OF_DRAFT = (list(record.__dataclass_fields__).index("verdicts") for record in (Candidate, Draft))


def _plain(example: Example) -> list[Any]:
    fields = list(_example_fields(example))
    fields[_CANDIDATES] = [_with_plain_verdicts(_candidate_fields(c), _OF_CANDIDATE) for c in example.candidates]
    fields[_DRAFTS] = [_with_plain_verdicts(_draft_fields(d), _OF_DRAFT) for d in example.drafts]
    fields[_VERDICTS] = list(map(_verdict_fields, example.verdicts))
    fields[_HISTORY] = list(map(_turn_fields, example.history))
    return fields


def _with_plain_verdicts(fields: tuple[Any, ...], at: int) -> list[Any]:
    plain = list(fields)
    plain[at] = list(map(_verdict_fields, plain[at]))
    return plain


def _example(fields: list[Any]) -> Example:
    for which, at, record in ((_CANDIDATES, _OF_CANDIDATE, Candidate), (_DRAFTS, _OF_DRAFT, Draft)):
        for row in fields[which]:
            row[at] = _verdicts(row[at])
        fields[which] = tuple([record(*row) for row in fields[which]])
    fields[_VERDICTS] = _verdicts(fields[_VERDICTS])
    fields[_HISTORY] = tuple([Turn(*row) for row in fields[_HISTORY]])
    return Example(*fields)


def _verdicts(rows: list[tuple[Any, ...]]) -> tuple[Verdict, ...]:
    return tuple([Verdict(*row) for row in rows])
