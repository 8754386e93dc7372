"""What was made of a run's pairs, while that run is made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from safer_instruct import derived, rundir

MADE = {name: f"{name} of the pairs" for name in derived.DERIVED}


class KilledError(BaseException):
    """Stands for kill -9."""


def finish(path: Path, pairs: str = "one\n", **summary: Any) -> None:
    """What a run writes at its end."""
    (path / rundir.PAIRS_JSONL).write_text(pairs)
    (path / rundir.EXAMPLES).write_bytes(b"examples")
    (path / rundir.SUMMARY).write_text(json.dumps({"pairs": 1, "timing": {"wall_s": 3.5}} | summary))


def finished(path: Path) -> None:
    finish(path)
    for name, text in MADE.items():
        (path / name).write_text(text)


def standing(path: Path) -> dict[str, str]:
    return {name: (path / name).read_text() for name in derived.DERIVED if (path / name).exists()}


def test_it_is_away_while_the_run_goes_on_and_back_where_it_came_out_the_same(tmp_path: Path) -> None:
    finished(tmp_path)
    made = derived.forget_results(tmp_path)
    assert set(made) == set(MADE) and standing(tmp_path) == {} and not (tmp_path / rundir.SUMMARY).exists()
    finish(tmp_path, timing={"wall_s": 0.1})
    assert derived.bring_back(tmp_path, made) == () and standing(tmp_path) == MADE and not (tmp_path / rundir.ASIDE).exists()


@pytest.mark.parametrize("other", [{"pairs": "two\n"}, {"cost": 3}])
def test_of_another_run_it_is_gone_and_named(tmp_path: Path, other: dict[str, Any]) -> None:
    finished(tmp_path)
    made = derived.forget_results(tmp_path)
    finish(tmp_path, **other)
    assert derived.bring_back(tmp_path, made) == derived.DERIVED and standing(tmp_path) == {} and not (tmp_path / rundir.ASIDE).exists()


def test_it_is_not_taken_for_that_of_a_run_which_nobody_knows(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / rundir.SUMMARY).unlink()
    made = derived.forget_results(tmp_path)
    finish(tmp_path)
    assert derived.bring_back(tmp_path, made) == derived.DERIVED and standing(tmp_path) == {}


def test_a_damaged_summary_is_like_no_other(tmp_path: Path) -> None:
    for damaged in ("{", "[1]"):
        finished(tmp_path)
        (tmp_path / rundir.SUMMARY).write_text(damaged)
        made = derived.forget_results(tmp_path)
        finish(tmp_path)
        assert derived.bring_back(tmp_path, made) == derived.DERIVED


def test_where_nothing_was_made_nothing_is_set_aside(tmp_path: Path) -> None:
    finish(tmp_path)
    assert derived.forget_results(tmp_path) == () and not (tmp_path / rundir.ASIDE).exists()


def given_again(path: Path, pairs: str) -> tuple[str, ...]:
    """The run given again, with other pairs perhaps; which exports it finds to be of others."""
    made = derived.forget_results(path)
    finish(path, pairs)
    derived.bring_back(path, made)
    return derived.stale_exports(path)


def test_exports_of_other_pairs_are_named_at_every_run_until_they_are_made_again(tmp_path: Path) -> None:
    finish(tmp_path)
    assert given_again(tmp_path, "one\n") == () and not (tmp_path / rundir.EXPORTED).exists()
    (tmp_path / "export.jsonl").write_text("one\n")
    (tmp_path / "export-datasets").mkdir()
    assert given_again(tmp_path, "one\n") == ()
    assert given_again(tmp_path, "two\n") == ("export.jsonl", "export-datasets")
    assert given_again(tmp_path, "two\n") == ("export.jsonl", "export-datasets")
    (tmp_path / "again").write_text("two\n")
    (tmp_path / "again").replace(tmp_path / "export.jsonl")
    assert given_again(tmp_path, "two\n") == ("export-datasets",)
    assert given_again(tmp_path, "three\n") == ("export.jsonl", "export-datasets")
    assert given_again(tmp_path, "two\n") == ("export-datasets",), "the pairs are those again that it was made of"
    (tmp_path / "export-datasets").rmdir()
    assert given_again(tmp_path, "two\n") == ()
    for damaged in ("{", "[1]", '{"export.jsonl": 1}'):
        (tmp_path / rundir.EXPORTED).write_text(damaged)
        assert given_again(tmp_path, "three\n") == ("export.jsonl",) and given_again(tmp_path, "two\n") == ()


@contextmanager
def killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The `number`-th change of the disk, and every later one, does not happen."""
    done = [0]

    def counting(real: Any) -> Any:
        def change(*args: Any, **kwargs: Any) -> Any:
            done[0] += 1
            if done[0] > number:
                raise KilledError
            return real(*args, **kwargs)

        return change

    with monkeypatch.context() as patch:
        for owner, name in ((Path, "replace"), (Path, "unlink"), (Path, "mkdir"), (Path, "write_text"), (shutil, "rmtree")):
            patch.setattr(owner, name, counting(getattr(owner, name)))
        yield done


def test_a_kill_at_any_moment_loses_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number, reached = 0, True
    while reached:
        path = tmp_path / str(number)
        path.mkdir()
        finished(path)
        with killed_at(number, monkeypatch), suppress(KilledError):
            made = derived.forget_results(path)
            finish(path)
            derived.bring_back(path, made)
            reached = False
        made = derived.forget_results(path)
        finish(path)
        assert derived.bring_back(path, made) == () and standing(path) == MADE, f"after {number} changes"
        number += 1
    assert number > 15
