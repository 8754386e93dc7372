"""What a finished run tells of its judges."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from runs import summed_up

from safer_instruct import rundir, tables
from safer_instruct.cli import main
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.judging import read_judging

BASE = Example("x", "Rejected.", "support", "texts.jsonl", 1, prompt="A prompt?", chosen="A reply.")


def draft(*votes: tuple[str, str, float]) -> Draft:
    return Draft("A reply.", 0, verdicts=tuple(Verdict(f"vote.{judge}.{point}", True, score) for judge, point, score in votes))


def run_of(path: Path, *drafts: Draft) -> Path:
    path.mkdir()
    with tables.outputs(path) as files:
        for i, one in enumerate(drafts):
            files.add(replace(BASE, id=str(i), drafts=(one,), verdicts=one.verdicts))
    (path / rundir.SUMMARY).write_text(json.dumps(summed_up(path)), encoding="utf-8")
    return path


def test_votes_stand_side_by_side_and_flips_are_averaged(tmp_path: Path) -> None:
    path = run_of(
        tmp_path / "run",
        draft(("judge", "verify.polite", 1.0), ("other", "verify.polite", 1.0), ("judge", "judge.flips", 0.5), ("other", "judge.flips", 0.0)),
        draft(("judge", "verify.polite", 0.0), ("other", "verify.polite", 1.0), ("other", "verify.better", 1.0), ("judge", "judge.flips", 0.0)),
    )
    found = read_judging(path)
    assert found.judges == ("judge", "other") and found.flips == {"judge": (0.25, 2), "other": (0.0, 1)}
    assert found.votes == {"verify.polite": [[1.0, 1.0], [0.0, 1.0]], "verify.better": [[None, 1.0]]}


def test_the_command_shows_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    votes = [(1.0, 1.0), (1.0, 1.0), (0.0, 0.0), (0.0, 1.0)]
    path = run_of(tmp_path / "run", *(draft(("judge", "p", a), ("b", "p", b), ("judge", "judge.flips", 0.25)) for a, b in votes))
    with pytest.raises(SystemExit) as stopped:
        main(["judges", str(path)])
    said = capsys.readouterr().out
    assert stopped.value.code == 0 and "judge: 25.0% of its answers turned" in said
    assert "0.533" in said and "0.500" in said and "0.750" in said, "alpha, kappa and agreement, worked out by hand"


def test_a_single_judge_s_flips_are_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_of(tmp_path / "run", Draft("A reply.", 0, verdicts=(Verdict("judge.flips", True, 0.5), Verdict("verify.better", True, 0.7))))
    assert read_judging(path).flips == {"judge": (0.5, 1)} and read_judging(path).judges == ()


def test_a_judge_that_writes_was_asked_in_both_orders_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    better = [Verdict("verify.better", won == 2, None, "" if won == 2 else f"the judge preferred it in {won} of 2 orders") for won in (2, 1, 0, 2)]
    path = run_of(tmp_path / "run", *(Draft("A reply.", 0, verdicts=(one,)) for one in better))
    with pytest.raises(SystemExit):
        main(["judges", str(path)])
    assert capsys.readouterr().out == "judge: 25.0% of its answers turned when only the order changed (4 drafts)\n"
