"""What `bench/figures.yaml` says that README and docs claim stands there, and can be found again."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
from doc_parsers import read_command
from scripts import script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    return script("bench/figures.py")


def test_every_claim_stands_in_its_file_with_a_number_for_each_group(figures: ModuleType) -> None:
    measurements = figures.load()
    assert sum(len(m.claims) for m in measurements) > 100
    for measurement in measurements:
        for claim in measurement.claims:
            assert claim.phrase in (ROOT / claim.file).read_text("utf-8"), (measurement.name, claim.phrase)
            assert claim.find.groups == len(claim.numbers) > 0, (measurement.name, claim.says)


def test_every_command_is_one_that_its_program_takes(figures: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for measurement in figures.load():
        for command in (*measurement.first, measurement.command):
            assert command.startswith(("safer-instruct ", "bench/")), command
            read_command(command, whole=True, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("claimed", "found", "more", "agrees"),
    [
        ("{0.76}", 0.761, {"within": 0.005}, True),
        ("{0.76}", 0.77, {"within": 0.005}, False),
        ("{475}", 300.0, {"times": 1.6}, True),
        ("{475}", 290.0, {"times": 1.6}, False),
        ("{475}", 770.0, {"times": 1.6}, False),
        ("{1,000}", 1000.0, {}, True),
        ("{1,000}", 1001.0, {}, False),
    ],
)
def test_a_claim_agrees_within_its_stated_range_alone(figures: ModuleType, claimed: str, found: float, more: dict[str, float], agrees: bool) -> None:
    claim = figures._claim({"says": f"it takes {claimed}", **more}, "README.md")
    assert claim.agrees([found]) is agrees
    assert re.search(claim.find, f"it takes {found}")


def test_a_command_that_fails_or_hangs_is_ended_and_told_and_the_others_are_measured(
    figures: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, program in (
        ("good", "print('it takes 5 s')"),
        ("broken", "raise SystemExit('no such file')"),
        ("hanging", f"import subprocess, sys; print('it takes 5 s', flush=True); subprocess.run([sys.executable, '-c', {SLOW!r}])"),
    ):
        (tmp_path / f"{name}.py").write_text(program)
    claim = figures._claim({"says": "it takes {5} s"}, "README.md")
    limits = {"broken": 60.0, "hanging": 4.0, "good": 60.0, "left": 60.0}
    every = [Limited(figures.Measurement(name, f"{tmp_path / name}.py", 0.1, (claim,)), limit_s) for name, limit_s in limits.items()]
    assert figures.measure_all(every, every[:3]) == 1
    told = capsys.readouterr()
    assert "| hanging | it takes 5 s | 5 |  |" in told.out and "| good | it takes 5 s | 5 |  |" in told.out  # what it said before it hung counts
    assert told.out.endswith("\n3 claims of 3 commands, 1 off; failed: broken hanging; not measured: left\n")
    assert "broken.py: ended with 1: no such file" in told.err and "hanging.py: did not end within 4 s" in told.err
    assert figures.measure_all(every[2:], every[2:3]) == 0


SLOW = "import time; time.sleep(600)"


class Limited:
    """A measurement that is given up sooner."""

    def __init__(self, measurement: object, limit_s: float) -> None:
        self._measurement, self.limit_s = measurement, limit_s

    def __getattr__(self, name: str) -> object:
        return getattr(self._measurement, name)
