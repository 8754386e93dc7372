"""The ledger of a cluster: what each worker writes by itself, and what becomes of it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from ledgers import a_call, fill, some_calls

from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger import Call, Shard, merge_shards, read_calls, read_totals
from safer_instruct.ledger.places import Place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shards"


def write(folder: Path, name: str, calls: list[Call], *, group: int = 7) -> Path:
    async def work() -> None:
        shard = Shard(folder, name, folder.parent / "ledger.sqlite")
        left = list(calls)
        while left:
            await asyncio.gather(*(shard.put(call) for call in left[:group]))
            del left[:group]
        shard.close()

    asyncio.run(work())
    return folder / f"{name}.calls"


def test_what_several_workers_wrote_becomes_one_ledger_and_their_files_go(folder: Path) -> None:
    calls = some_calls(100)
    write(folder, "a", calls[:60])
    write(folder, "b", calls[50:])  # ten of them twice
    ledger = folder.parent / "ledger.sqlite"
    assert merge_shards(folder, ledger) == 100
    assert {call.key: call for call in read_calls(ledger)} == {call.key: call for call in calls}
    assert sum(total.calls for total in read_totals(ledger)) == 100
    assert not folder.exists() and merge_shards(folder, ledger) == 0


def test_a_merge_that_was_killed_is_done_again_and_nothing_is_there_twice(folder: Path) -> None:
    calls = some_calls(40)
    kept = write(folder, "a", calls).read_bytes()
    ledger = folder.parent / "ledger.sqlite"
    merge_shards(folder, ledger)
    folder.mkdir(exist_ok=True)
    (folder / "a.calls").write_bytes(kept)  # killed after its commit, before it removed the file
    assert merge_shards(folder, ledger) == 0
    assert sum(total.calls for total in read_totals(ledger)) == len(list(read_calls(ledger))) == 40


def test_of_a_commit_that_a_kill_cut_off_nothing_is_taken_and_of_those_before_it_all(folder: Path) -> None:
    path = write(folder, "a", some_calls(21), group=7)
    whole = path.read_bytes()
    ends = [at for at in range(len(whole)) if at in _ends(whole)]
    for cut in (1, 5, ends[0] - 1, ends[0], ends[0] + 3, ends[1] + 9, len(whole) - 1):
        folder.mkdir(exist_ok=True)
        path.write_bytes(whole[:cut])
        ledger = folder.parent / f"cut-{cut}.sqlite"
        assert merge_shards(folder, ledger) == 7 * sum(end <= cut for end in ends)


def _ends(data: bytes) -> set[int]:
    at, ends = 0, set()
    while at < len(data):
        at += 12 + int.from_bytes(data[at + 4 : at + 8], "little")
        ends.add(at)
    return ends


def test_a_byte_that_the_disk_changed_is_noticed(folder: Path) -> None:
    path = write(folder, "a", some_calls(21), group=7)
    data = bytearray(path.read_bytes())
    data[20] ^= 1  # of the first commit
    path.write_bytes(data)
    with pytest.raises(RunDirectoryError, match=r"a\.calls: the checksum of a block is wrong"):
        merge_shards(folder, folder.parent / "ledger.sqlite")
    assert path.read_bytes() == data, "what is intact behind it stays"


def test_a_worker_finds_what_it_wrote_what_was_there_before_and_what_it_is_told_to_look_into(folder: Path) -> None:
    fill(folder.parent / "ledger.sqlite", some_calls(10))
    other = write(folder, "other", some_calls(10, first=10))
    later = write(folder, "later", some_calls(5, first=40)).read_bytes()

    async def work() -> None:
        shard = Shard(folder, "mine", folder.parent / "ledger.sqlite")
        await shard.put(a_call(30))
        assert shard.get(a_call(30).key) == a_call(30)
        assert shard.get(a_call(3).key) == a_call(3)
        assert shard.get(a_call(12).key) is None
        shard.look_into(other.name)
        assert shard.get(a_call(12).key) == a_call(12)
        with other.open("ab") as file:
            file.write(later)
        shard.look_into(other.name)
        assert shard.get(a_call(44).key) == a_call(44) and shard.get(a_call(12).key) == a_call(12)
        shard.close()

    asyncio.run(work())


def test_nobody_sees_an_answer_before_it_is_synced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    plain = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (synced.append(os.fstat(descriptor).st_size), plain(descriptor)))

    async def work() -> None:
        shard = Shard(folder, "mine", folder.parent / "ledger.sqlite")
        await shard.put(a_call(1))
        assert synced == [shard.path.stat().st_size] and synced[0] > 0
        shard.close()

    asyncio.run(work())


def test_what_a_shard_was_given_is_waited_for(folder: Path) -> None:
    async def work() -> None:
        shard = Shard(folder, "a", folder.parent / "ledger.sqlite")
        await shard.saved()
        calls = some_calls(20)
        for call in calls:
            shard.put(call)
        await shard.saved()
        assert [shard.get(call.key) for call in calls] == calls
        shard.close()

    asyncio.run(work())


def test_a_commit_that_fails_is_an_error_for_who_waits_and_leaves_the_file_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        shard = Shard(folder, "mine", folder.parent / "ledger.sqlite")
        await shard.put(a_call(1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", _no_room)
            with pytest.raises(RunDirectoryError, match=r"mine\.calls"):
                await shard.put(a_call(2))
        with pytest.raises(RunDirectoryError):  # while nothing can be saved no call is made
            shard.get(a_call(2).key)
        await shard.put(a_call(3))
        assert shard.get(a_call(2).key) is None
        shard.close()

    asyncio.run(work())
    ledger = folder.parent / "ledger.sqlite"
    assert merge_shards(folder, ledger) == 2
    assert {call.key for call in read_calls(ledger)} == {a_call(1).key, a_call(3).key}


def _no_room(_: int) -> None:
    raise OSError(28, "No space left on device")


class Desk:
    """Claims of two workers, in one event loop."""

    def __init__(self) -> None:
        self.there: dict[bytes, Place] = {}
        self.given: list[bytes] = []

    async def claim(self, key: bytes) -> Place | None:
        return self.there.get(key)

    def finished(self, key: bytes, place: Place) -> None:
        self.there[key] = place

    def given_up(self, key: bytes) -> None:
        self.given.append(key)


def test_a_call_that_another_worker_has_made_is_read_from_its_shard_and_one_that_failed_is_given_up(folder: Path) -> None:
    async def work() -> None:
        desk = Desk()
        one, two = (Shard(folder, name, folder.parent / "none", claims=desk, claimed=("verify",)) for name in ("one", "two"))
        call = a_call(1, "verify")
        assert await one.claim(call.key, "verify") is None
        one.in_flight[call.key] = None
        await one.put(call)
        found = await two.claim(call.key, "verify")
        assert found == call and not found.earlier, "the run itself has made it"
        assert await two.claim(a_call(2).key, "induce") is None and a_call(2).key not in desk.there
        failed = a_call(3, "verify").key
        await two.claim(failed, "verify")
        two.release(failed)
        assert desk.given == [failed] and set(desk.there) == {call.key}
        one.close()
        two.close()

    asyncio.run(work())


def test_a_ledger_with_a_lost_dictionary_is_reported_as_damaged_and_the_shards_stay(folder: Path) -> None:
    ledger = folder.parent / "ledger.sqlite"
    write(folder, "a", some_calls(10))
    merge_shards(folder, ledger)
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("UPDATE origins SET dictionary = 7")
        connection.commit()
    kept = write(folder, "b", some_calls(10))
    with pytest.raises(RunDirectoryError, match=r"is damaged: dictionary 7 is lost.*--recover"):
        merge_shards(folder, ledger)
    assert kept.exists()
