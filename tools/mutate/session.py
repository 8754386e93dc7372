"""One pytest session in which tests are collected once, and run again in a fork for each mutant."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
from forking import run_forked
from mutants import Mutant
from swapping import swap
from watching import Lines, noting

SURVIVED, KILLED, ELSEWHERE, UNREACHED, HUNG = 0, 1, 7, -1, -signal.SIGALRM
ENDS = {SURVIVED: "survived", ELSEWHERE: "elsewhere", UNREACHED: "unreached", HUNG: "hung"}


@dataclass(frozen=True, slots=True)
class Watched:
    """How long one test takes, and the lines of the statements that it runs, by file."""

    seconds: float
    lines: dict[str, list[int]]


class Repeatable:
    """A pytest plugin: property tests try the same examples each time, fewer of them, and remember none."""

    def pytest_sessionstart(self) -> None:
        """After the project's own profile is loaded, and before the tests are."""
        from hypothesis import settings

        settings.register_profile("repeatable", settings(), derandomize=True, database=None, max_examples=50)
        settings.load_profile("repeatable")


class Chosen:
    """A pytest plugin: run some tests only, the quickest first, and end the process when one takes much longer than it did."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep and order."""
        items[:] = sorted((item for item in items if item.nodeid in self._seconds), key=lambda item: self._seconds[item.nodeid])

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Set the clock."""
        _end_after(self._seconds[item.nodeid])


class Trials:
    """A pytest plugin that runs the tests of a session once as they are, and then against each mutant."""

    def __init__(
        self, source: Path, mutants: dict[str, list[Mutant]], without: Iterable[str], notes: Path, told: Callable[[str, Mutant, str, dict[str, float]], None]
    ) -> None:
        self._source, self._mutants, self._without, self._notes, self._told = source, mutants, tuple(without), notes, told
        self._failed: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what takes too long to be run for each mutant."""
        items[:] = [item for item in items if item.originalname not in self._without]  # type: ignore[attr-defined]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what failed."""
        if report.failed:
            self._failed.append(report.nodeid)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Instead of pytest's."""
        for path in self._mutants:  # what is imported only when it is used would not be there to be changed
            import_module(".".join(Path(path).relative_to(self._source).with_suffix("").parts))
        if session.testsfailed or run_forked(lambda: self._watch(session.items)) != SURVIVED:
            raise pytest.UsageError(
                "the tests fail as they are, so they can tell nothing of a mutant: " + (self._notes.read_text("utf-8") if self._notes.exists() else "")
            )
        watched = {test: Watched(*seen) for test, seen in json.loads(self._notes.read_text("utf-8")).items()}
        for path, mutants in self._mutants.items():
            source = Path(path).read_bytes()
            for mutant in mutants:
                tests = _reaching(mutant, path, watched)
                chosen = sorted((item for item in session.items if item.nodeid in tests), key=lambda item: tests[item.nodeid])
                code = run_forked(partial(self._try, path, source, mutant, chosen, tests)) if chosen else UNREACHED
                self._told(path, mutant, ENDS.get(code, "killed"), tests)
        return True

    def _watch(self, items: list[pytest.Item]) -> int:
        for path in self._mutants:
            source = Path(path).read_bytes()
            swap(path, source, noting(path, source))
        watched = {}
        for item in items:
            lines, began = Lines(), time.monotonic()
            item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
            watched[item.nodeid] = time.monotonic() - began, {path: sorted(run) for path, run in lines.run.items()}
        self._notes.write_text(" ".join(self._failed) if self._failed else json.dumps(watched), encoding="utf-8")
        return KILLED if self._failed else SURVIVED

    def _try(self, path: str, source: bytes, mutant: Mutant, items: list[pytest.Item], seconds: dict[str, float]) -> int:
        if not swap(path, source, compile(mutant.applied(source), path, "exec", dont_inherit=True)):
            return ELSEWHERE
        for item in items:
            _end_after(seconds[item.nodeid])
            item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
            if self._failed:
                return KILLED
        return SURVIVED


def _reaching(mutant: Mutant, path: str, watched: dict[str, Watched]) -> dict[str, float]:
    """The tests that run its statement, with their seconds; what runs on import concerns all that use the file."""
    using = {test: seen.seconds for test, seen in watched.items() if path in seen.lines}
    running = {test: seconds for test, seconds in using.items() if mutant.first in watched[test].lines[path]}
    return running if running or not mutant.on_import else using


def _end_after(seconds: float) -> None:
    """The process ends, by SIGALRM, when a test that took so long takes ten times as long and 10 s more."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 10 + 10 * seconds)
