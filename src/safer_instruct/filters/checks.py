"""Filters at work: each is asked, whatever the others said, so that it is known what each of them alone would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from safer_instruct.errors import SaferInstructError
from safer_instruct.example import Example, Verdict
from safer_instruct.filters.protocol import Filter
from safer_instruct.oneline import one_line, shortened

RAISED = "raised "
"""What the reason of a filter begins with that raised an error instead of a finding."""
_REASON_CHARS = 300


@dataclass(frozen=True, slots=True)
class Check:
    """A filter in its place.

    Attributes:
        name: PLACE.NAME, as in the config below `filter` and in every verdict.
        filter: What is asked.
        sha256: Of the file that a filter from outside this package came from; None for those that ship.
    """

    name: str
    filter: Filter
    sha256: str | None = None

    def verdict(self, example: Example) -> Verdict:
        """What the filter says; an error that it raises is a failure with that reason."""
        flag = self.filter.mode == "flag"
        try:
            passed, score, reason = self.filter.check(example)
            if passed:
                return Verdict(self.name, True, None if score is None else float(score), flag=flag)
            return Verdict(self.name, False, None if score is None else float(score), shortened(one_line(reason), _REASON_CHARS), flag)
        except SaferInstructError:
            raise  # says what to do, and is not of this example
        except Exception as exc:  # noqa: BLE001 - whatever a user's filter raises is told in the verdict
            return Verdict(self.name, False, None, shortened(one_line(f"{RAISED}{type(exc).__name__}: {exc}"), _REASON_CHARS), flag)


def check_all(checks: Sequence[Check], example: Example) -> tuple[Verdict, ...]:
    """One verdict per filter, in order, also of those behind one that did not pass."""
    return tuple([check.verdict(example) for check in checks])
