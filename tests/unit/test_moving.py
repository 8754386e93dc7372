"""What is moved aside goes as one, whenever whoever moves it is killed."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from killed import killed_after_each

from safer_instruct import rundir
from safer_instruct.errors import RunDirectoryError
from safer_instruct.holding import hold
from safer_instruct.ledger import read_totals, schema
from safer_instruct.moving import MOVING
from safer_instruct.review.store import Store
from safer_instruct.rundir import open_run_directory
from safer_instruct.training.aside import set_aside

pytestmark = pytest.mark.filterwarnings("error")
OLD: dict[str, Any] = {"config": {"seed": 0}}
NEW: dict[str, Any] = {"config": {"seed": 1}}
CALLS = 300
WORK = f"""
import asyncio, os, signal, sys
from pathlib import Path
from ledgers import some_calls
from safer_instruct import rundir
from safer_instruct.ledger import Ledger
from safer_instruct.models.batch.jobs import Jobs
from safer_instruct.review.store import Store

async def work(path):
    ledger, store, jobs = Ledger(path / rundir.LEDGER), Store(path), Jobs(path / rundir.BATCHES)
    store.join("Ann")
    await asyncio.gather(*(ledger.put(call) for call in some_calls({CALLS})))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(work(Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def killed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed: what its databases hold stands in their logs."""
    path = tmp_path_factory.mktemp("killed") / "run"
    with open_run_directory(path, OLD, "auto"):
        pass
    subprocess.run([sys.executable, "-c", WORK, str(path)], cwd=Path(__file__).parents[1], check=False)
    for name in (rundir.EXAMPLES, rundir.PAIRS, rundir.SUMMARY, rundir.CARD, rundir.SPENT, rundir.REPORT):
        (path / name).write_text("{}")
    for name in (rundir.LEDGER, rundir.REVIEW, rundir.BATCHES):
        assert (path / f"{name}-wal").stat().st_size
    return path


def begin(path: Path, config: dict[str, Any], mode: rundir.Mode) -> None:
    with open_run_directory(path, config, mode):
        pass


def files(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()} - {".lock", "previous-1", rundir.RUN}


def is_whole(path: Path) -> bool:
    """Whether the killed run stands there, with all that its databases held."""
    with closing(sqlite3.connect(path / rundir.REVIEW)) as review:
        annotators = review.execute("SELECT name FROM annotator").fetchall()
    return sum(total.calls for total in read_totals(path / rundir.LEDGER)) == CALLS and annotators == [("Ann",)] and (path / rundir.SUMMARY).is_file()


def test_a_kill_on_the_way_leaves_the_old_run_whole_where_it_was_or_whole_aside(killed_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    where = []

    def prepare() -> None:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(killed_run, path)

    for number in killed_after_each(lambda: begin(path, NEW, "fresh"), prepare):
        if moved := not (path / MOVING).is_dir() and (path / "previous-1").is_dir():
            begin(path, NEW, "auto")
        else:
            if not (path / rundir.SUMMARY).is_file():
                with pytest.raises(RunDirectoryError, match="was being moved aside, by --fresh, and that was not ended: give the command again"):
                    rundir.read_summary(path)
            with pytest.raises(RunDirectoryError, match="a run of another config: seed: 0, now 1"):
                begin(path, NEW, "auto")
            begin(path, OLD, "auto")
        where.append(moved)
        assert is_whole(path / "previous-1" if moved else path), number
        assert not files(path) if moved else not (path / "previous-1").exists(), number
        assert not list(path.rglob("*-wal")) or not moved
    assert where.count(False) > 5 and True in where and where == sorted(where)
    assert is_whole(path / "previous-1") and not files(path)


def test_a_damaged_ledger_goes_with_its_log_and_comes_back_with_it(killed_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    damaged = (rundir.LEDGER, f"{rundir.LEDGER}-wal")

    def prepare() -> None:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(killed_run, path)
        with (path / rundir.LEDGER).open("r+b") as file:
            file.write(b"no database")

    prepare()
    before = [(path / name).read_bytes() for name in damaged]
    for _ in killed_after_each(lambda: begin(path, NEW, "fresh"), prepare):
        with hold(path):
            place = path / "previous-1" if (path / "previous-1").is_dir() else path
            assert [(place / name).read_bytes() for name in damaged] == before
    assert [(path / "previous-1" / name).read_bytes() for name in damaged] == before


def test_a_kill_while_the_move_is_undone_is_made_good_too(killed_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"

    def prepare() -> None:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(killed_run, path)
        begin(path, NEW, "fresh")
        (path / "previous-1").rename(path / MOVING)
        (path / rundir.RUN).unlink()
        (path / MOVING / f"{rundir.BATCHES}-wal").write_text("a log")

    for _ in killed_after_each(lambda: begin(path, OLD, "auto"), prepare):
        begin(path, OLD, "auto")
        assert is_whole(path) and not (path / MOVING).exists() and (path / f"{rundir.BATCHES}-wal").read_text() == "a log"


def test_what_has_come_in_its_place_meanwhile_stays_and_the_old_one_is_aside(tmp_path: Path) -> None:
    begin(tmp_path, OLD, "auto")
    (tmp_path / MOVING).mkdir()
    for name in (rundir.REPORT, rundir.PAIRS, rundir.REVIEW, f"{rundir.REVIEW}-wal"):
        (tmp_path / MOVING / name).write_text("old")
    for name in (rundir.REPORT, rundir.REVIEW):
        (tmp_path / name).write_text("new")
    begin(tmp_path, OLD, "auto")
    assert (tmp_path / rundir.PAIRS).read_text() == "old" and (tmp_path / rundir.REPORT).read_text() == "new"
    assert files(tmp_path) == {rundir.PAIRS, rundir.REPORT, rundir.REVIEW}
    assert files(tmp_path / "previous-1") == {rundir.REPORT, rundir.REVIEW, f"{rundir.REVIEW}-wal"}


def test_nothing_is_moved_while_a_review_is_open(killed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_PAUSE_S", 0.0)
    path = tmp_path / "run"
    shutil.copytree(killed_run, path)
    store = Store(path)
    try:
        with pytest.raises(RunDirectoryError, match=r"review\.sqlite is open in another process, such as 'safer-instruct review': end it, then"):
            begin(path, NEW, "fresh")
        store.join("Ben")
        assert not (path / "previous-1").exists() and is_whole_run(path)
    finally:
        store.close()
    begin(path, NEW, "fresh")
    with closing(sqlite3.connect(path / "previous-1" / rundir.REVIEW)) as review:
        assert review.execute("SELECT name FROM annotator").fetchall() == [("Ann",), ("Ben",)]


def is_whole_run(path: Path) -> bool:
    return sum(total.calls for total in read_totals(path / rundir.LEDGER)) == CALLS


def test_a_training_is_moved_as_one_too(tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = {"tuning.json", "README.md", "adapter_model.safetensors", "adapter_config.json", "checkpoints"}

    def prepare() -> None:
        shutil.rmtree(out, ignore_errors=True)
        (out / "checkpoints" / "checkpoint-5").mkdir(parents=True)
        for name in written - {"checkpoints"}:
            (out / name).write_text(name)

    def whole_in(folder: Path) -> bool:
        return files(folder) == written and (folder / "checkpoints" / "checkpoint-5").is_dir()

    for _ in killed_after_each(lambda: set_aside(out), prepare):
        if (out / MOVING).is_dir():
            assert not (out / "tuning.json").exists(), "what is not all there does not look finished"
        with hold(out):
            assert whole_in(out / "previous-1") if (out / "previous-1").is_dir() else whole_in(out)
    assert whole_in(out / "previous-1") and not files(out)
