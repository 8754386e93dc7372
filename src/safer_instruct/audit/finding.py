"""What one check of an audit says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["ok", "look", "bad", "none"]
"""`none`: it could not be asked; `found` says what it lacks."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the audit.

    Attributes:
        check: Its name, for `--show`.
        level: The verdict.
        found: What was measured, in a sentence.
        do: What to do about it; empty where nothing is to be done.
        rows: Rows that it speaks of, by position in the set; where all is well, those that its shares count.
        notes: Why a row is here, by position; not every row needs one.
        figures: The numbers, for programs.
    """

    check: str
    level: Level
    found: str
    do: str = ""
    rows: Sequence[int] = ()
    notes: Mapping[int, str] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)


def graded(value: float, look: float, bad: float) -> Level:
    """`look` and `bad` from these bounds on."""
    return "bad" if value >= bad else "look" if value >= look else "ok"


def share(part: int, whole: int) -> float:
    """0 of an empty whole."""
    return part / whole if whole else 0.0
