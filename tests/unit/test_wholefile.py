"""Files that appear whole or not at all, and what is said where they cannot."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from safer_instruct.errors import RunDirectoryError
from safer_instruct.wholefile import whole, whole_folder

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
