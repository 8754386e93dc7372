"""One pytest session in which tests are collected once, and run again in a fork for each mutant."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from forking import run_forked
from mutants import Mutant
from swapping import swap

SURVIVED, KILLED, ELSEWHERE = 0, 1, 7


@dataclass(frozen=True, slots=True)
class Watched:
    """How long one test takes, and the lines that it runs of each file."""

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
    """A pytest plugin: run some tests only, the quickest first."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep and order."""
        items[:] = sorted((item for item in items if item.nodeid in self._seconds), key=lambda item: self._seconds[item.nodeid])


class Trials:
    """A pytest plugin that runs the tests of a session once as they are, and then against each mutant."""

    def __init__(self, mutants: dict[str, list[Mutant]], without: Iterable[str], notes: Path, told: Callable[[str, Mutant, str, dict[str, float]], None]) -> None:
        self._mutants, self._without, self._notes, self._told = mutants, tuple(without), notes, told
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
        if session.testsfailed or run_forked(lambda: self._watch(session.items), 3600) != SURVIVED:
            raise pytest.UsageError("the tests fail as they are, so they can tell nothing of a mutant: " + (self._notes.read_text("utf-8") if self._notes.exists() else ""))
        watched = {test: Watched(*seen) for test, seen in json.loads(self._notes.read_text("utf-8")).items()}
        for path, mutants in self._mutants.items():
            source = Path(path).read_bytes()
            for mutant in mutants:
                tests = _reaching(mutant, path, watched)
                chosen = sorted((item for item in session.items if item.nodeid in tests), key=lambda item: tests[item.nodeid])
                limit_s = 30 + 10 * sum(tests.values())
                code = run_forked(lambda: self._try(path, source, mutant, chosen), limit_s) if chosen else -1
                end = {None: "hung", -1: "unreached", SURVIVED: "survived", ELSEWHERE: "elsewhere"}.get(code, "killed")
                self._told(path, mutant, end, tests)
        return True

    def _watch(self, items: list[pytest.Item]) -> int:
        files = frozenset(self._mutants)
        watched = {}
        for item in items:
            watch = _Watch(files)
            began = time.monotonic()
            with watch:
                item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
            watched[item.nodeid] = time.monotonic() - began, {path: sorted(lines) for path, lines in watch.lines.items()}
        self._notes.write_text(" ".join(self._failed) if self._failed else json.dumps(watched), encoding="utf-8")
        return KILLED if self._failed else SURVIVED

    def _try(self, path: str, source: bytes, mutant: Mutant, items: list[pytest.Item]) -> int:
        if not swap(path, source, mutant.applied(source)):
            return ELSEWHERE
        for item in items:
            item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
            if self._failed:
                return KILLED
        return SURVIVED


class _Watch:
    """Which lines of some files are run meanwhile, in any thread of this process."""

    def __init__(self, files: frozenset[str]) -> None:
        self._files = files
        self.lines: dict[str, set[int]] = {}

    def __enter__(self) -> None:
        threading.settrace(self._enter)
        sys.settrace(self._enter)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        self.lines.setdefault(frame.f_code.co_filename, set()).add(frame.f_lineno)
        return self._step

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            self.lines.setdefault(frame.f_code.co_filename, set()).add(frame.f_lineno)
        return self._step


def _reaching(mutant: Mutant, path: str, watched: dict[str, Watched]) -> dict[str, float]:
    """The tests that run its statement, with their seconds; what runs on import concerns all that use the file."""
    using = {test: seen for test, seen in watched.items() if path in seen.lines}
    statement = set(range(mutant.first, mutant.last + 1))
    running = {test: seen.seconds for test, seen in using.items() if statement & set(seen.lines[path])}
    return running if running or mutant.is_run_when_called else {test: seen.seconds for test, seen in using.items()}
