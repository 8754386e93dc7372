"""Ledgers that are not what they should be: of another version, damaged, half built, and parts of one that cannot be written."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from ledgers import a_call, fill, some_calls, write_version_1

from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger import Ledger, Shard, merge_shards, read_calls, read_totals, schema
from safer_instruct.ledger.places import Place
from safer_instruct.ledger.rows import Unpacker
from safer_instruct.ledger.segments import merge_into


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "ledger.sqlite"
    path.parent.mkdir()
    fill(path, some_calls(8))
    return path


def set_version(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")


@pytest.mark.parametrize(("version", "said"), [(3, "newer version"), (100, "newer version"), (101, "is damaged"), (-1, "is damaged"), (1, "older version")])
def test_a_ledger_of_another_version_is_not_read(version: int, said: str, path: Path) -> None:
    set_version(path, version)
    with pytest.raises(RunDirectoryError, match=said):
        read_totals(path)


def test_what_calls_itself_version_1_and_is_not_is_left_as_it_is(path: Path) -> None:
    set_version(path, 1)
    with pytest.raises(RunDirectoryError, match="its header says schema 1"):
        Ledger(path)
    set_version(path, 2)
    assert list(read_calls(path)) == some_calls(8)


def test_what_is_no_ledger_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")
    with pytest.raises(RunDirectoryError, match="is no ledger of safer-instruct"):
        Ledger(path)


@pytest.mark.parametrize("at", [18, 44, 58])
def test_damage_that_sqlite_passes_over_is_told_by_who_reads_and_by_who_merges(at: int, path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    with closing(schema.open_file_to_read(path)) as connection:
        assert connection.execute("SELECT count(*) FROM calls").fetchone() == (8,)
    with pytest.raises(RunDirectoryError, match=r"is damaged: its header is broken; .*--recover"):
        read_totals(path)
    with pytest.raises(RunDirectoryError, match="is damaged"):
        merge_into(path, [a_call(50)])
    assert path.read_bytes() == data, "nothing is written into a damaged file"


def test_a_ledger_that_a_kill_left_half_built_is_built_again_and_its_parts_go(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f".ledger.sqlite.part{suffix}").write_bytes(b"half of a page")
    with schema.building(path):
        assert not path.exists(), "it appears when it is whole"
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.sqlite"] and read_totals(path) == []


def test_a_ledger_whose_building_fails_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(KeyError), schema.building(tmp_path / "ledger.sqlite"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_bringing_an_old_ledger_up_to_date_gives_its_room_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    write_version_1(path, some_calls(600))
    before = path.stat().st_size
    schema.migrate(path)
    assert path.stat().st_size < before and not path.with_name("ledger.sqlite-wal").exists()
    assert len(list(read_calls(path))) == 600


def test_a_reader_knows_a_row_only_with_its_origin_and_its_dictionary() -> None:
    unpacker = Unpacker({1: ("induce", "m")}, dict.fromkeys([7]))  # type: ignore[arg-type]
    row = (b"key", 1, 7, 8, 9, 0.0, 0.0, 0.0, b"", 0)
    assert unpacker.knows(row) and unpacker.knows((b"key", 1, 0, 8, 9))
    assert not unpacker.knows((b"key", 1, 8, 7, 7)) and not unpacker.knows((b"key", 2, 7, 8, 9)) and not unpacker.knows((b"key", 7, 0, 1, 1))


class Told:
    """Who is asked for claims, and what it is told."""

    def __init__(self, place: Place | None = None) -> None:
        self.place, self.asked, self.done, self.left = place, list[bytes](), list[tuple[bytes, Place]](), list[bytes]()

    async def claim(self, key: bytes) -> Place | None:
        self.asked.append(key)
        return self.place

    def finished(self, key: bytes, place: Place) -> None:
        self.done.append((key, place))

    def given_up(self, key: bytes) -> None:
        self.left.append(key)


def test_other_workers_are_told_of_what_was_claimed_and_of_nothing_else(tmp_path: Path) -> None:
    claims = Told()

    async def work() -> None:
        shard = Shard(tmp_path / "shards", "mine", tmp_path / "ledger.sqlite", claims=claims, claimed=("induce",))
        one, two, other, replayed = (a_call(n, stage) for n, stage in enumerate(("induce", "induce", "verify", "induce")))
        assert await shard.claim(one.key, "induce") is None and await shard.claim(two.key, "induce") is None
        assert await shard.claim(other.key, "verify") is None
        await shard.put(one)
        await shard.put(other)
        shard.release(two.key)
        shard.release(two.key)
        shard.release(replayed.key)
        assert claims.asked == [one.key, two.key] and claims.left == [two.key]
        assert claims.done == [(one.key, Place("mine.calls", 0))] and shard.read(*claims.done[0]) == one
        shard.close()
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            shard._places.get(one.key)

    asyncio.run(work())


def test_who_waits_for_a_call_of_the_same_worker_is_woken_when_it_is_given_free(tmp_path: Path) -> None:
    async def work() -> None:
        shard = Shard(tmp_path / "shards", "mine", tmp_path / "ledger.sqlite")
        key = a_call(1).key
        shard.in_flight[key] = None
        waiting = asyncio.create_task(shard.end_of(key))
        await asyncio.sleep(0)
        shard.release(key)
        await asyncio.wait_for(waiting, 5)
        assert not shard.in_flight
        shard.close()

    asyncio.run(work())


def test_what_another_worker_finished_is_read_where_it_stands(tmp_path: Path) -> None:
    async def work() -> None:
        folder = tmp_path / "shards"
        other = Shard(folder, "other", tmp_path / "ledger.sqlite")
        await other.put(a_call(1))
        await other.put(a_call(2))
        at = other._places.get(a_call(2).key)
        claims = Told(at)
        mine = Shard(folder, "mine", tmp_path / "ledger.sqlite", claims=claims, claimed=("induce",))
        assert await mine.claim(a_call(2).key, "induce") == a_call(2)
        mine.release(a_call(2).key)
        assert claims.done == claims.left == [], "it was never this worker's"
        with pytest.raises(RunDirectoryError, match="not where it was written"):
            mine.read(a_call(1).key, Place("other.calls", at.at if at else 0))
        mine.close()
        other.close()

    asyncio.run(work())


def test_a_commit_that_cannot_be_taken_back_is_the_last_of_its_worker(tmp_path: Path) -> None:
    class Full:
        """A disk that takes half of a block and gives nothing back."""

        def tell(self) -> int:
            return 0

        def write(self, data: bytes) -> int:
            return len(data) // 2

        def truncate(self, at: int) -> None:
            raise OSError(5, "input/output error")

        def close(self) -> None: ...

    async def work() -> None:
        shard = Shard(tmp_path / "shards", "mine", tmp_path / "ledger.sqlite")
        file, shard._file = shard._file, Full()  # type: ignore[assignment]
        with pytest.raises(RunDirectoryError, match="input/output error"):
            await shard.put(a_call(1))
        shard._file = file
        with pytest.raises(RunDirectoryError, match="could not be taken back"):
            await shard.put(a_call(2))
        shard.close()

    asyncio.run(work())
    assert merge_shards(tmp_path / "shards", tmp_path / "ledger.sqlite") == 0


def test_half_a_commit_is_taken_back_and_the_next_one_stands_behind_the_last_whole_one(tmp_path: Path) -> None:
    async def work() -> None:
        shard = Shard(tmp_path / "shards", "mine", tmp_path / "ledger.sqlite")
        await shard.put(a_call(1))
        whole, write = shard.path.stat().st_size, shard._file

        class Half:
            """Room for ten bytes more."""

            def __getattr__(self, name: str) -> object:
                return getattr(write, name)

            def write(self, data: bytes) -> int:
                return write.write(data[:10])

        shard._file = Half()  # type: ignore[assignment]
        with pytest.raises(RunDirectoryError, match=schema.FULL):
            await shard.put(a_call(2))
        assert shard.path.stat().st_size == whole and shard.get(a_call(1).key) == a_call(1)
        shard._file = write
        await shard.put(a_call(3))
        assert shard.get(a_call(3).key) == a_call(3)
        shard.close()

    asyncio.run(work())
    assert merge_shards(tmp_path / "shards", tmp_path / "ledger.sqlite") == 2
