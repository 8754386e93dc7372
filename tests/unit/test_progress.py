"""What a run says of itself while it goes on, as other processes read it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from safer_instruct import rundir
from safer_instruct.errors import RunDirectoryError
from safer_instruct.progress import published, read_progress
from safer_instruct.state import RunState, StageState
from safer_instruct.views.follow import follow_run


def phase(path: Path) -> str:
    said = read_progress(path)
    assert said
    return str(said["phase"])


def test_a_run_is_running_then_finished_and_follow_ends_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with published(tmp_path, RunState(total=3, pairs=2)):
        assert phase(tmp_path) == "running"
    follow_run(Console(), tmp_path)
    assert "pairs 2" in (said := capsys.readouterr().out) and "finished" in said


def test_rows_that_are_set_aside_go_from_the_total_as_on_the_terminal_of_the_run(tmp_path: Path) -> None:
    state = RunState(total=67, set_aside=2)
    state.stages |= {"collect": StageState(done=65, dropped=3), "twins": StageState(done=4, total=9)}
    with published(tmp_path, state):
        pass
    sent = io.StringIO()
    follow_run(Console(file=sent, width=200), tmp_path)
    assert "verify 0/65  twins 4/9  pairs 0, 2 set aside," in sent.getvalue()
    table = io.StringIO()
    follow_run(Console(file=table, width=200, force_terminal=True, color_system=None), tmp_path)
    assert "65/65" in table.getvalue() and "4/9" in table.getvalue()


def test_a_run_that_failed_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), published(tmp_path, RunState()):
        raise KeyboardInterrupt
    assert phase(tmp_path) == "stopped"


def test_a_run_that_fell_silent_is_lost(tmp_path: Path) -> None:
    with published(tmp_path, RunState()):
        said = json.loads((tmp_path / rundir.PROGRESS).read_text("utf-8"))
    (tmp_path / rundir.PROGRESS).write_text(json.dumps(said | {"phase": "running", "written": said["written"] - 60}), "utf-8")
    assert phase(tmp_path) == "lost"


def test_follow_says_where_no_run_ever_was(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="no run is going on"):
        follow_run(Console(), tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        *("{}", "[]", "null", "7", '"running"', '{"phase": "running", "written": 1.0}', '{"phase": "run', ""),
        *({"written": None}, {"stages": []}, {"stages": {"induce": {}}}, {"reasons": {"a": 1}}, {"reasons": [{}]}, {"pairs": "3"}, {"waits": None}),
    ],
)
def test_what_is_no_such_record_is_as_if_nothing_were_there(tmp_path: Path, text: str | dict[str, object]) -> None:
    with published(tmp_path, RunState(total=3)):
        pass
    file = tmp_path / rundir.PROGRESS
    file.write_text(text if isinstance(text, str) else json.dumps(json.loads(file.read_text("utf-8")) | text), "utf-8")
    assert read_progress(tmp_path) is None
    with pytest.raises(RunDirectoryError, match="no run is going on"):
        follow_run(Console(), tmp_path)


def test_a_record_of_an_earlier_version_is_one_too(tmp_path: Path) -> None:
    with published(tmp_path, RunState()):
        said = json.loads((tmp_path / rundir.PROGRESS).read_text("utf-8"))
    for stage in said["stages"].values():
        del stage["total"]
    (tmp_path / rundir.PROGRESS).write_text(json.dumps(said), "utf-8")
    assert phase(tmp_path) == "running" and said["total"] is None
