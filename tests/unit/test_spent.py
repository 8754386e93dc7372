"""What was spent is read as it was kept, or told to be damaged."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from safer_instruct import spent
from safer_instruct.errors import RunDirectoryError
from safer_instruct.spent import Spent, earlier_spent, read_spent, write_spent

pytestmark = pytest.mark.filterwarnings("error")


def test_the_larger_of_file_and_ledger_counts(tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    assert earlier_spent(path, Spent(0.5, 5)) == Spent(0.5, 5)
    write_spent(path, Spent(0.75, 3))
    assert earlier_spent(path, Spent(0.5, 5)) == Spent(0.75, 5)


def test_tokens_that_cost_nothing_are_kept(tmp_path: Path) -> None:
    write_spent(tmp_path / "budget.json", Spent(0.0, 7))
    assert read_spent(tmp_path / "budget.json") == Spent(0.0, 7)


def test_the_name_is_made_durable_and_the_home_of_the_run_keeps_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[object, ...]] = []

    class Home:
        def keep(self, name: str, data: bytes) -> None:
            done.append(("kept", name, json.loads(data)))

    monkeypatch.setattr(spent, "sync_folder", lambda folder: done.append(("synced", folder)))
    monkeypatch.setattr(spent, "home_of", lambda folder: Home() if folder == tmp_path else None)
    write_spent(tmp_path / "spent.json", Spent(0.5, 7))
    assert done == [("synced", tmp_path), ("kept", "spent.json", {"cost_usd": 0.5, "tokens": 7})]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"cost_usd": 1}', '{"cost_usd": "x", "tokens": 1}', '{"cost_usd": -1, "tokens": 1}', '{"cost_usd": NaN, "tokens": 1}']
)
def test_a_damaged_file_is_not_taken_for_nothing_spent(text: str, tmp_path: Path) -> None:
    (tmp_path / "budget.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunDirectoryError, match=r"budget\.json is damaged"):
        read_spent(tmp_path / "budget.json")


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="so no further one is sent"):
        write_spent(tmp_path / "nowhere" / "budget.json", Spent())


def test_on_a_full_disk_a_sum_that_is_lower_takes_the_place_of_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "spent.json"
    write_spent(path, Spent(0.0921875, 52_000))
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    for more in (Spent(0.1, 5), Spent(0.05, 60_000)):
        with pytest.raises(
            RunDirectoryError, match=r"^what calls may cost cannot be recorded, so no further one is sent: [^:]*/spent\.json cannot be written: the disk"
        ):
            write_spent(path, more)
        assert read_spent(path) == Spent(0.0921875, 52_000)
    for less in (Spent(0.007200001, 52_000), Spent(0.000000001, 7), Spent()):
        write_spent(path, less)
        assert read_spent(path) == less
    path.write_text('{"cost_usd": 1, "tokens": 1}')  # as an older version wrote it
    with pytest.raises(RunDirectoryError, match="the disk is full"):
        write_spent(path, Spent())
