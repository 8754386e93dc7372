"""Steps of a study: each is done once for what it depends on, and is known as done by a file that says so."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from safer_instruct.study.settings import digest_of
from safer_instruct.wholefile import write_whole

STEPS = "steps"
CONTENT = "content"  # of a result: the digest of what later steps depend on
Result = dict[str, Any]
Inner = Callable[[int, int, str], None]
"""Is told how far a step is: pieces done, pieces in all, and what is being done."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        name: Unique within the study; also the name of its mark.
        kind: Steps of a kind take time alike.
        needs: The steps whose results it works with.
        depends: What it depends on besides, as plain data; it is given their results.
        do: Does it, and gives a result that JSON can hold. It is given their results, its own digest, and whom to tell how far it is.
        size: How much work it is beside others of its kind.
    """

    name: str
    kind: str
    needs: tuple[str, ...]
    depends: Callable[[Mapping[str, Result]], Any]
    do: Callable[[Mapping[str, Result], str, Inner], Result]
    size: float = 1.0


@dataclass(frozen=True, slots=True)
class Mark:
    """What a finished step left: the digest of what it depended on, its result, and what it took."""

    digest: str
    result: Result
    seconds: float
    kind: str
    size: float


@dataclass(frozen=True, slots=True)
class News:
    """For the progress display.

    Attributes:
        number: Of the step, from 1.
        total: Steps in all.
        name: Of the step.
        state: `begun`, `at work`, `done`, or `kept` where it was done before.
        seconds: That it took, where it is done.
        left: Seconds that what is left will take; None where nobody knows.
        done: Pieces of it that are done, and `of` how many.
        doing: What it is about.
    """

    number: int
    total: int
    name: str
    state: str
    seconds: float = 0.0
    left: float | None = None
    done: int = 0
    of: int = 0
    doing: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """A step in a dry run: whether it is done, and the seconds that it is expected to take; None where nobody knows."""

    name: str
    done: bool
    expected: float | None


@dataclass(slots=True)
class Rates:
    """Seconds per piece of work by kind of step, as far as steps of the kind were done; the median, as machines are busy at times."""

    found: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, marks: Iterable[Mark]) -> Rates:
        """What finished steps tell."""
        rates = cls()
        for mark in marks:
            rates.add(mark)
        return rates

    def add(self, mark: Mark) -> None:
        """One more is done."""
        self.found.setdefault(mark.kind, []).append(mark.seconds / max(mark.size, 1e-9))

    def expected(self, step: Step) -> float | None:
        """Seconds that a step will take."""
        known = self.found.get(step.kind)
        return median(known) * step.size if known else None


def carry_out(steps: Sequence[Step], out: Path, report: Callable[[News], None], earlier: Iterable[Mark] = ()) -> dict[str, Result]:
    """Do what is not done yet, in order, and return all results by the steps' names.

    A step whose mark bears another digest is done again; the steps after it only if its result has another content.

    Args:
        steps: Each after those that it needs.
        out: The study's directory.
        report: Is told what happens.
        earlier: Finished steps of another run of the study, for the time that is left.
    """
    rates, results = Rates.of([*earlier, *read_marks(out).values()]), dict[str, Result]()
    for number, step in enumerate(steps, 1):
        digest, mark = _digest(step, results), _read(_place(out, step.name))
        later = [other for other in steps[number:] if _read(_place(out, other.name)) is None]
        news = News(number, len(steps), step.name, "kept")
        if mark is None or mark.digest != digest:
            report(replace(news, state="begun", left=_left([step, *later], rates)))
            mark = _done(step, results, digest, partial(_at_work, report, news))
            (out / STEPS).mkdir(parents=True, exist_ok=True)
            write_whole(_place(out, step.name), json.dumps(_record(step, mark), indent=1) + "\n")
            rates.add(mark)
            news = replace(news, state="done", seconds=mark.seconds, left=_left(later, rates))
        report(news)
        results[step.name] = mark.result
    return results


def rehearse(steps: Sequence[Step], out: Path, earlier: Iterable[Mark] = ()) -> list[Planned]:
    """What is done and what is to be done; nothing is written."""
    rates, results = Rates.of([*earlier, *read_marks(out).values()]), dict[str, Result]()
    planned = []
    for step in steps:
        mark = _read(_place(out, step.name)) if all(name in results for name in step.needs) else None
        done = mark is not None and mark.digest == _digest(step, results)
        if done and mark:
            results[step.name] = mark.result
        planned.append(Planned(step.name, done, rates.expected(step)))
    return planned


def read_marks(out: Path) -> dict[str, Mark]:
    """What finished steps left, by file name."""
    found = {path.stem: _read(path) for path in sorted((out / STEPS).glob("*.json"))}
    return {name: mark for name, mark in found.items() if mark}


def _done(step: Step, results: Mapping[str, Result], digest: str, inner: Inner) -> Mark:
    started = time.monotonic()
    result = step.do({name: results[name] for name in step.needs}, digest, inner)
    return Mark(digest, result, round(time.monotonic() - started, 3), step.kind, step.size)


def _digest(step: Step, results: Mapping[str, Result]) -> str:
    needed = {name: results[name] for name in step.needs}
    return digest_of(step.kind, step.depends(needed), [result[CONTENT] for result in needed.values()])


def _left(steps: Sequence[Step], rates: Rates) -> float | None:
    """Seconds for all of these; None where one is of a kind that nobody has timed."""
    expected = [rates.expected(step) for step in steps]
    return None if None in expected else sum(seconds for seconds in expected if seconds)


def _at_work(report: Callable[[News], None], news: News, done: int, of: int, doing: str) -> None:
    report(replace(news, state="at work", done=done, of=of, doing=doing))


def _place(out: Path, name: str) -> Path:
    return out / STEPS / f"{name.replace(' ', '_')}.json"


def _record(step: Step, mark: Mark) -> dict[str, Any]:
    return {"step": step.name, "kind": mark.kind, "size": mark.size, "seconds": mark.seconds, "digest": mark.digest, "result": mark.result}


def _read(path: Path) -> Mark | None:
    """The mark in a file; None where there is none, or none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Mark(found["digest"], found["result"], float(found["seconds"]), found["kind"], float(found["size"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
