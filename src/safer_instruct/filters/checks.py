"""Filters at work: each is asked, whatever the others said, so that it is known what each of them alone would do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from safer_instruct.errors import ConfigError, SaferInstructError
from safer_instruct.example import Example, Turn, Verdict
from safer_instruct.filters.protocol import Filter, Finding
from safer_instruct.oneline import one_line, shortened

RAISED = "raised "
"""What the reason of a filter begins with that raised an error instead of a finding."""
_REASON_CHARS = 300
_SAID_CHARS = 60
_RETURN = "return Finding(passed, score, reason): True or False, a number or None, and why it did not pass"
_HOPELESS = 20  # errors in a row from the first text on


@dataclass(slots=True)
class Tally:
    """How often a filter has raised an error so far, as long as it has done nothing else; None from its first finding on."""

    raised: int | None = 0


@dataclass(frozen=True, slots=True)
class Check:
    """A filter in its place.

    Attributes:
        name: PLACE.NAME, as in the config below `filter` and in every verdict.
        filter: What is asked.
        sha256: Of the file that a filter from outside this package came from; None for those that ship.
        tally: Whether it has worked so far.
    """

    name: str
    filter: Filter
    sha256: str | None = None
    tally: Tally = field(default_factory=Tally, compare=False)

    def verdict(self, example: Example) -> Verdict:
        """What the filter says; an error that it raises is a failure with that reason.

        Raises:
            ConfigError: It has raised one each of the first times that it was asked.
        """
        return self._told(lambda: self._ask(example), self.filter.mode != "drop")

    def mended(self, example: Example) -> Example:
        """`example` with the text that the filter makes of its own, and the verdict; likewise what was said before it.

        Where that fails it is dropped and its texts emptied: what was to be masked goes nowhere.
        """
        left = replace(example, text="", history=(), candidates=())

        def look() -> Finding:
            nonlocal left
            found = self._ask(replace(example, history=(*example.history, *(Turn("user", c.text) for c in example.candidates))))
            left = example if found.passed else self._masked(example)
            return found._replace(reason=f"masked: {found.reason}")

        verdict = self._told(look, True)
        return left.with_verdicts(verdict)

    def _masked(self, example: Example) -> Example:
        if not example.history and not example.candidates:
            return replace(example, text=self.filter.mend(example))

        def mended(text: str) -> str:
            alone = replace(example, text=text, history=())
            return text if self._ask(alone).passed else self.filter.mend(alone)

        history = tuple(replace(turn, content=mended(turn.content)) for turn in example.history)
        candidates = tuple(replace(candidate, text=mended(candidate.text)) for candidate in example.candidates)
        return replace(example, text=mended(example.text), history=history, candidates=candidates)

    def _ask(self, example: Example) -> Finding:
        said: object = self.filter.check(example)
        if (wrong := _no_finding(said)) is not None:
            code = getattr(type(self.filter).check, "__code__", None)
            where = f"{PurePath(code.co_filename).name}:{code.co_firstlineno}: " if code else ""
            shown = shortened(one_line(repr(said)), _SAID_CHARS)
            raise TypeError(f"{where}{type(self.filter).__name__}.check returned {shown}{wrong}; {_RETURN}")
        return Finding(*said)  # type: ignore[misc]

    def _told(self, look: Callable[[], Finding], flag: bool) -> Verdict:
        try:
            passed, score, reason = look()
            self.tally.raised = None
            if passed:
                return Verdict(self.name, True, None if score is None else float(score), flag=flag)
            return Verdict(self.name, False, None if score is None else float(score), shortened(one_line(reason), _REASON_CHARS), flag)
        except SaferInstructError:
            raise  # says what to do, and is not of this example
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever a user's filter raises is told in the verdict
            flag = flag and self.filter.mode == "flag"
            reason = shortened(one_line(f"{RAISED}{type(exc).__name__}: {exc}"), _REASON_CHARS)
            self._note_raised(reason)
            return Verdict(self.name, False, None, reason, flag)

    def _note_raised(self, reason: str) -> None:
        """A filter that has raised an error every time so far would drop all that is paid for."""
        if self.tally.raised is None:
            return
        self.tally.raised += 1
        if self.tally.raised == _HOPELESS:
            raise ConfigError(f"the filter '{self.name}' {reason}, and so the first {_HOPELESS} times that it was asked; mend it, or leave it out")


def _no_finding(said: object) -> str | None:
    """Why what a filter returned is no finding: which of its parts is wrong, or '' for all of it; None where it is one."""
    if not isinstance(said, tuple) or len(said) != len(Finding._fields):
        return ""
    passed, score, reason = said
    if passed not in (True, False):
        return ", whose 'passed' is neither True nor False"
    try:
        score is None or float(score)
    except (TypeError, ValueError):
        return ", whose 'score' is neither a number nor None"
    return None if passed or isinstance(reason, str) else ", whose 'reason' is no text"


def sifted(checks: Sequence[Check], example: Example) -> Example:
    """A source text as the filters leave it: those that mask come first, so that no other sees, or tells, what they found."""
    for check in checks:
        if check.filter.mode == "mask":
            example = check.mended(example)
            if not example.alive:
                return example
    return example.with_verdicts(*check_all([check for check in checks if check.filter.mode != "mask"], example))


def check_all(checks: Sequence[Check], example: Example) -> tuple[Verdict, ...]:
    """One verdict per filter, in order, also of those behind one that did not pass."""
    return tuple([check.verdict(example) for check in checks])
