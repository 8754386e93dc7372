"""Files that appear whole or not at all, and what is said where they cannot."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from killed import killed_after_each

from safer_instruct.errors import RunDirectoryError
from safer_instruct.wholefile import whole, whole_folder, write_whole

Way = Callable[[Path], AbstractContextManager[Path]]
FULL, SYSTEM = Path("/dev/full"), Path("/sys")
both = pytest.mark.parametrize("way", [whole, whole_folder])


@both
@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_told_with_the_place_that_was_meant_and_leaves_nothing(way: Way, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"/out cannot be written: the disk is full; .* make room"), way(tmp_path / "out"):
        FULL.write_text("more than it holds")
    assert list(tmp_path.iterdir()) == []


@both
@pytest.mark.skipif(not SYSTEM.is_dir(), reason="only Linux has a folder where not even root may write")
def test_where_nobody_may_write_the_place_that_was_meant_is_told(way: Way) -> None:
    with pytest.raises(RunDirectoryError, match=r"^/sys/out cannot be written: .*; choose a place where you may write$"), way(SYSTEM / "out") as part:
        part.write_text("x")


@both
def test_other_errors_of_the_system_stay_what_they_are(way: Way, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), way(tmp_path / "out"):
        (tmp_path / "nowhere" / "x").read_text()
    assert list(tmp_path.iterdir()) == []


@both
def test_a_file_elsewhere_that_cannot_be_read_is_not_taken_for_the_one_that_is_written(way: Way, tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match=r"/elsewhere/texts\.jsonl"), way(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/texts.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_taken_for_a_file_nor_a_file_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunDirectoryError, match=r"is a folder; give the name of a file, such as .*/NAME"), whole(tmp_path):
        pass
    with pytest.raises(RunDirectoryError, match=r"file is no folder; choose another --out"), whole_folder(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_is_filled_at_the_end_and_only_if_the_end_is_a_good_one(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError), whole_folder(tmp_path / "out") as part:
        (part / "a").write_text("half \N{SNOWMAN}", encoding="ascii")
    assert list(tmp_path.iterdir()) == []
    with whole_folder(tmp_path / "out") as part:
        (part / "a").write_text("all")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a").read_text() == "all" and [p.name for p in tmp_path.iterdir()] == ["out"]


# --- several writers, and what killed ones left

WRITE = """
import sys
from pathlib import Path
from safer_instruct.wholefile import whole, whole_folder
way = {"file": whole, "folder": whole_folder}[sys.argv[2]]
with way(Path(sys.argv[1])) as part:
    file = (part / "a" if part.is_dir() else part).open("w")
    for word in sys.stdin:
        print(word, end="", file=file, flush=True)
        print("written", flush=True)
    file.close()
"""


@contextmanager
def writer(path: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    """A process that writes its lines into `path`, which it ends when its input does."""
    with subprocess.Popen([sys.executable, "-c", WRITE, str(path), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


def write(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin and process.stdout
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "written\n"


def end(process: subprocess.Popen[str]) -> int:
    assert process.stdin
    process.stdin.close()
    return process.wait(60)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_of_two_processes_that_write_one_place_each_writes_its_own_and_the_last_one_stands(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "out"
    file = place if kind == "file" else place / "a"
    with writer(place, kind) as first, writer(place, kind) as second:
        for line in ("one", "two"):
            write(first, f"first {line}")
            write(second, f"second {line}")
        assert end(first) == 0 and file.read_text() == "first one\nfirst two\n"
        write(second, "second three")
        assert end(second) == 0 and file.read_text() == "second one\nsecond two\nsecond three\n"
    assert names(tmp_path) == {"out"}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_is_swept_up_by_the_next_and_what_a_living_one_writes_is_not(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "out"
    with writer(place, kind) as living, writer(place, kind) as killed:
        write(living, "mine")
        write(killed, "half")
        killed.kill()
        killed.wait(60)
        assert len(names(tmp_path)) == 2
        with (whole if kind == "file" else whole_folder)(place) as part:
            assert len(names(tmp_path)) == (2 if kind == "folder" else 1), "the killed one's part is gone"
            (part if kind == "file" else part / "a").write_text("new")
        assert len(names(tmp_path)) == 2, "the living one's part is still there"
        assert end(living) == 0
    assert names(tmp_path) == {"out"} and (place if kind == "file" else place / "a").read_text() == "mine\n"


def test_a_part_of_another_machine_is_left_alone_until_it_is_old_unless_nobody_else_can_be_writing(tmp_path: Path) -> None:
    place, away, early = tmp_path / "out.txt", tmp_path / ".out.txt.0123abcd-1-1.part", tmp_path / ".out.txt.part"
    others = [tmp_path / ".out.txt.gz.0123abcd-1-1.part", tmp_path / ".out.txt.draft"]
    week_ago = time.time() - 8 * 86_400
    for file in (away, early, *others):
        file.write_text("of somebody")
    os.utime(others[0], (week_ago, week_ago))
    write_whole(place, "a")
    assert away.exists() and early.exists()
    os.utime(away, (week_ago, week_ago))
    write_whole(place, "b")
    assert not away.exists() and early.exists()
    away.write_text("of somebody")
    with whole(place, sole=True) as part:
        part.write_text("c")
    assert place.read_text() == "c" and names(tmp_path) == {"out.txt", *(file.name for file in others)}


# --- folders that are exchanged


def test_a_kill_leaves_the_old_folder_or_the_new_one_or_none_and_never_some_of_each(tmp_path: Path) -> None:
    out, old, new = tmp_path / "out", {"train": "old", "test": "old", "more/test": "old"}, {"train": "new", "test": "new", "more/test": "new"}
    seen = []

    def prepare() -> None:
        for entry in tmp_path.iterdir():
            shutil.rmtree(entry)
        fill(out, old)

    for _ in killed_after_each(lambda: fill(out, new), prepare):
        found = texts(out)
        seen.append(found)
        assert found in (old, new, {})
        with pytest.raises(ValueError, match="mine"), whole_folder(out):
            raise ValueError("mine")
        assert texts(out) == (found or old), "the next one brings back what was there before"
        assert names(tmp_path) == {"out"}
    assert {} in seen and new in seen and texts(out) == new and names(tmp_path) == {"out"}


def test_a_file_of_somebody_else_keeps_the_folder_as_it_is_also_where_it_comes_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    fill(out, {"a": "old", "b": "old"})
    (out / "notes").symlink_to(tmp_path)
    with pytest.raises(RunDirectoryError, match=r"out holds other files \(notes\); choose another --out, or remove the folder first"):
        fill(out, {"a": "new", "b": "new"})
    (out / "notes").unlink()
    rename = os.rename

    def late(source: Any, target: Any) -> None:
        monkeypatch.setattr(os, "rename", rename)
        (out / "late").write_text("mine")
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(RunDirectoryError, match=r"holds other files \(late\)"):
        fill(out, {"a": "new", "b": "new"})
    assert texts(out) == {"a": "old", "b": "old", "late": "mine"} and names(tmp_path) == {"out"}


def test_a_folder_keeps_its_permissions_its_empty_folders_and_the_link_that_leads_to_it(tmp_path: Path) -> None:
    fill(tmp_path / "disk" / "out", {"a": "old"})
    (tmp_path / "disk" / "out" / "plans").mkdir()
    (tmp_path / "disk" / "out").chmod(0o750)
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "out")
    fill(tmp_path / "out", {"a": "new", "b": "new"})
    assert (tmp_path / "out").is_symlink() and texts(tmp_path / "disk" / "out") == {"a": "new", "b": "new"}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750 and (tmp_path / "out" / "plans").is_dir()
    assert names(tmp_path / "disk") == {"out"}


def test_a_folder_is_not_taken_away_from_whoever_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for out in (Path(), tmp_path, tmp_path.parent):
        with pytest.raises(RunDirectoryError, match="is a folder that you are in, and another one takes its place: give the command from outside"):
            fill(out, {"a": "new"})
    fill(Path("out"), {"a": "new"})
    fill(Path("out"), {"a": "newer"})
    assert texts(tmp_path) == {"out/a": "newer"}


def test_a_folder_that_the_system_will_not_move_is_told_as_such_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "out", {"a": "old"})

    def refuse(source: Any, target: Any) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", str(source))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(RunDirectoryError, match=r"out cannot be replaced by another folder \(Device or resource busy\); choose a folder in it as --out"):
        fill(tmp_path / "out", {"a": "new"})
    assert texts(tmp_path / "out") == {"a": "old"} and names(tmp_path) == {"out"}


def fill(folder: Path, files: dict[str, str]) -> None:
    with whole_folder(folder) as part:
        for name, text in files.items():
            (part / name).parent.mkdir(exist_ok=True)
            (part / name).write_text(text)


def texts(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}
