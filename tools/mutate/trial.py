"""A copy of the repository in which mutants meet the tests."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from forking import run_forked
from mutants import Mutant
from session import ENDS, SURVIVED, Chosen, Repeatable, Trials

ROOT = Path(__file__).parents[2]
_PRELOADED = ("numpy", "pyarrow.parquet", "pydantic", "jinja2", "typer", "rich.console", "rich.progress", "yaml", "uvloop")


class Copy:
    """The sources and tests in a folder of their own; the rest is linked."""

    def __init__(self, folder: Path) -> None:
        self.root, self._scratch = folder / "tree", folder / "scratch"
        self._scratch.mkdir()
        self.root.mkdir()
        for entry in ROOT.iterdir():
            if entry.name in ("src", "tests"):
                shutil.copytree(entry, self.root / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
            elif not entry.name.startswith("."):
                (self.root / entry.name).symlink_to(entry)
        self._changes = 0
        os.chdir(self.root)
        os.environ |= {"PYTHONPATH": f"{self.root / 'src'}:{self.root / 'tests'}", "PYTHONHASHSEED": "0", "TMPDIR": str(self._scratch)}
        sys.path[:0] = [str(self.root / "src"), str(self.root / "tests")]
        for name in _PRELOADED:
            importlib.import_module(name)

    def try_all(self, mutants: dict[str, list[Mutant]], tests: list[str], without: Iterable[str], told: Callable[[str, Mutant, str], None]) -> None:
        """Tell of each mutant what becomes of it: 'killed', 'hung' (killed by the time limit), 'survived' or 'unreached' by any test.

        Args:
            mutants: By the path of their file in the repository.
            tests: Files of tests.
            without: Names of tests that are left out.

        Raises:
            SystemExit: A test fails as it is.
        """
        noted = self._scratch / "ends.jsonl"
        order = {str(self.root / file): file for file in mutants}

        def note(path: str, mutant: Mutant, end: str, reached: dict[str, float]) -> None:
            with noted.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps([order[path], mutants[order[path]].index(mutant), end, reached]) + "\n")
            sys.stderr.write(f"{end:10} {order[path]}:{mutant}\n")

        trials = Trials(self.root / "src", {str(self.root / file): some for file, some in mutants.items()}, without, self._scratch / "watched.json", note)
        noted.write_text("")
        code = run_forked(lambda: int(pytest.main([*self._arguments(), "-s", *tests], plugins=[trials, Repeatable()])), quiet=False)
        if code != SURVIVED:
            sys.exit(f"pytest ended with {code}")
        for line in noted.read_text("utf-8").splitlines():
            file, at, end, reached = json.loads(line)
            mutant = mutants[file][at]
            told(file, mutant, self._try_on_import(file, mutant, reached) if end == "elsewhere" else end)

    def _try_on_import(self, file: str, mutant: Mutant, tests: dict[str, float]) -> str:
        """In a process that has imported nothing of the package yet: what runs on import is changed too."""
        path, source = self.root / file, (ROOT / file).read_bytes()
        self._write(path, mutant.applied(source))
        paths = sorted({test.partition("::")[0] for test in tests})
        try:
            code = run_forked(lambda: int(pytest.main([*self._arguments(), "-x", *paths], plugins=[Chosen(tests), Repeatable()])))
        finally:
            self._write(path, source)
        return ENDS.get(code, "killed")

    def _write(self, path: Path, source: bytes) -> None:
        """With a time of its own to the second: bytecode counts as fresh by the source's size and its time in whole seconds."""
        self._changes += 1
        path.write_bytes(source)
        os.utime(path, (self._changes, self._changes))

    def _arguments(self) -> list[str]:
        return ["-q", "-p", "no:cacheprovider", "--basetemp", str(self._scratch / "tests"), "--no-header", "--tb", "no", "-W", "ignore"]
