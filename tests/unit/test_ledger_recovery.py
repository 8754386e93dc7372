"""Damage to a ledger is noticed and told, what is intact is saved, and nothing that is wrong comes back."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from ledgers import a_call, fill, some_calls, write_version_1

from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger import Ledger, Recovery, read_calls, read_totals, recover, recovery
from safer_instruct.ledger.pages import Pages

pytestmark = pytest.mark.filterwarnings("error")
PAGE = 4096
CALLS = [a_call(n, f"stage{n % 2}", words=60 if n % 50 else 4000) for n in range(1500)]  # a long one spills onto overflow pages


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "ledger.sqlite"
    fill(path, CALLS)
    return path


@pytest.fixture
def path(tmp_path: Path, sound: Path) -> Path:
    """A copy to damage."""
    shutil.copy(sound, tmp_path / "ledger.sqlite")
    return tmp_path / "ledger.sqlite"


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def check_sound(path: Path, done: Recovery) -> set[bytes]:
    """The ledger is whole again and holds nothing but what was written; gives the keys it holds."""
    calls = list(read_calls(path))
    originals = {call.key: call for call in CALLS}
    known = {stage for call in CALLS for stage in (call.stage,)} | {"unknown"}
    assert all(call.stage in known for call in calls)
    assert all((c.request, c.answer, c.usage, c.finished_at) == ((o := originals[c.key]).request, o.answer, o.usage, o.finished_at) for c in calls)
    assert done.saved == len(calls) == len({c.key for c in calls}) == sum(t.calls for t in read_totals(path))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not [f.name for f in path.parent.iterdir() if f.name.endswith(".part") or ".recovered" in f.name]
    return {c.key for c in calls}


# --- recovery


def test_a_sound_ledger_is_left_as_it_is(path: Path) -> None:
    before = path.read_bytes()
    assert recover(path) == Recovery(len(CALLS), 0, None)
    assert path.read_bytes() == before and {f.name for f in path.parent.iterdir()} - {"ledger.sqlite-wal", "ledger.sqlite-shm"} == {"ledger.sqlite"}


@pytest.mark.parametrize("share", [0.0, 0.03, 0.2, 0.5, 0.9, 0.999])
def test_of_a_truncated_ledger_what_is_left_is_saved(path: Path, share: float) -> None:
    raw = path.read_bytes()
    size = int(len(raw) * share)
    path.write_bytes(raw[:size])
    done = recover(path)
    saved = check_sound(path, done)
    assert done.moved_to == path.with_name("ledger.damaged-1.sqlite") and done.moved_to.read_bytes() == raw[:size]
    assert len(saved) >= len(CALLS) * share * 0.8 - 100 and (share > 0.01) == bool(saved)
    if share > 0.01:  # the totals stand near the beginning
        assert done.lost == len(CALLS) - len(saved)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("damage", ["zeros", "noise", "another page"])
def test_damaged_pages_cost_only_what_stood_on_them(path: Path, damage: str, seed: int) -> None:
    rng = random.Random(seed)
    raw = path.read_bytes()
    broken = rng.sample(range(2, len(raw) // PAGE), 5)
    for number in broken:
        other = rng.randrange(len(raw) // PAGE) * PAGE
        overwrite(path, number * PAGE, {"zeros": bytes(PAGE), "noise": rng.randbytes(PAGE), "another page": raw[other : other + PAGE]}[damage])
    done = recover(path)
    saved = check_sound(path, done)
    assert len(saved) >= len(CALLS) - 5 * 40, "a page holds fewer rows than that"
    assert done.lost <= len(CALLS) - len(saved)


def test_no_page_but_its_own_is_needed_for_a_row(path: Path) -> None:
    """Without the header, the schema, and every upper level of every tree, all rows are still there."""
    raw = path.read_bytes()
    upper = [at for at in range(0, len(raw), PAGE) if raw[at] in (2, 5)]  # interior pages of indices and tables
    assert upper
    for at in [0, *upper]:
        overwrite(path, at, bytes(PAGE))
    done = recover(path)
    assert check_sound(path, done) == {c.key for c in CALLS} and done.lost == 0


def test_a_row_outlives_the_names_of_its_stage_and_model(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM origins WHERE id = 2")
    done = recover(path)
    assert len(check_sound(path, done)) == len(CALLS)
    assert {(t.stage, t.calls) for t in read_totals(path)} == {("stage0", 750), ("unknown", 750)}


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bits_never_make_another_answer(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    raw = bytearray(path.read_bytes())
    for _ in range(60):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)
    done = recover(path)
    assert len(check_sound(path, done)) >= len(CALLS) - 60 * 14


def unfinished(folder: Path) -> Path:
    """A ledger as a kill leaves it, with 300 calls in its write-ahead log alone; gives the log."""

    async def work() -> None:
        with Ledger(folder / "live.sqlite") as ledger:
            for begin in range(0, 300, 50):
                await asyncio.gather(*(ledger.put(call) for call in CALLS[begin : begin + 50]))
            for suffix in ("", "-wal"):
                shutil.copy(folder / f"live.sqlite{suffix}", folder / f"ledger.sqlite{suffix}")

    asyncio.run(work())
    return folder / "ledger.sqlite-wal"


def test_calls_that_stand_in_the_write_ahead_log_alone_are_saved_too(tmp_path: Path) -> None:
    path, log = tmp_path / "ledger.sqlite", unfinished(tmp_path)
    assert path.stat().st_size < 20 * PAGE < log.stat().st_size
    overwrite(log, 32 + 24 + 100, bytes(50))  # in the first frame, so that SQLite would take the whole log for an unfinished commit
    before = log.read_bytes()
    for use in (Ledger, read_totals):
        with pytest.raises(RunDirectoryError, match=r"is damaged: its write-ahead log is broken; .*--recover$"):
            use(path)
    assert log.read_bytes() == before
    done = recover(path)
    assert check_sound(path, done) == {c.key for c in CALLS[:300]} and done.lost == 0
    assert (tmp_path / "ledger.damaged-1.sqlite-wal").read_bytes() == before and (not log.exists() or not log.stat().st_size)


@pytest.mark.parametrize("at", [0, 8, 16, 30])
def test_a_log_whose_header_is_broken_is_no_empty_log(tmp_path: Path, at: int) -> None:
    log = unfinished(tmp_path)
    overwrite(log, at, b"\xaa\x55")
    before = log.read_bytes()
    for use in (Ledger, read_totals):
        with pytest.raises(RunDirectoryError, match=r"is damaged: the header of its write-ahead log is broken; .*--recover$"):
            use(tmp_path / "ledger.sqlite")
    assert log.read_bytes() == before
    done = recover(tmp_path / "ledger.sqlite")
    assert check_sound(tmp_path / "ledger.sqlite", done) == {c.key for c in CALLS[:300]}


@pytest.mark.parametrize("in_frame", [0, 9, 20, 2000])
def test_a_log_damaged_further_on_is_noticed_by_the_run_that_would_drop_the_rest(tmp_path: Path, in_frame: int) -> None:
    log = unfinished(tmp_path)
    frames = (log.stat().st_size - 32) // (24 + PAGE)
    overwrite(log, 32 + frames // 2 * (24 + PAGE) + in_frame, b"\xaa\x55")
    with pytest.raises(RunDirectoryError, match=r"is damaged: its write-ahead log is broken"):
        Ledger(tmp_path / "ledger.sqlite")
    done = recover(tmp_path / "ledger.sqlite")
    assert 250 < len(check_sound(tmp_path / "ledger.sqlite", done)) <= 300


def test_a_last_commit_that_was_not_synced_before_a_power_cut_is_no_damage(tmp_path: Path) -> None:
    log = unfinished(tmp_path)
    overwrite(log, log.stat().st_size - 60, bytes(60))
    Ledger(tmp_path / "ledger.sqlite").close()
    assert 200 <= len(list(read_calls(tmp_path / "ledger.sqlite"))) < 300


def test_a_damaged_ledger_of_version_1_is_recovered_into_one_of_this_version(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    write_version_1(path, CALLS)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    sound = path.read_bytes()
    assert recover(path) == Recovery(len(CALLS), 0, None) and path.read_bytes() == sound
    for number in range(20, 24):
        overwrite(path, number * PAGE, b"\xff" * PAGE)
    done = recover(path)
    assert len(CALLS) - 40 <= len(check_sound(path, done)) < len(CALLS) and done.lost == len(CALLS) - done.saved


def test_damaged_files_are_numbered_and_never_replaced(path: Path) -> None:
    for number in (1, 2, 3):
        overwrite(path, 5 * PAGE, random.Random(number).randbytes(PAGE))
        damaged = path.read_bytes()
        done = recover(path)
        assert done.moved_to == path.with_name(f"ledger.damaged-{number}.sqlite") and done.moved_to.read_bytes() == damaged
        if recover(path) != Recovery(done.saved, 0, None):
            pytest.fail("what was recovered is damaged")


def test_what_was_lost_is_counted(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE calls SET checksum = checksum + 1 WHERE number IN (3, 700, 1500)")
    done = recover(path)
    assert (done.saved, done.lost) == (len(CALLS) - 3, 3) and {c.key for c in CALLS} - check_sound(path, done) == {CALLS[i].key for i in (2, 699, 1499)}


def test_there_must_be_a_ledger_and_of_no_newer_version(path: Path, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="there is none"):
        recover(tmp_path / "missing" / "ledger.sqlite")
    overwrite(path, 60, struct.pack(">I", 3))
    before = path.read_bytes()
    with pytest.raises(RunDirectoryError, match=r"newer version of safer-instruct \(ledger schema 3\)"):
        recover(path)
    assert path.read_bytes() == before


# --- kills


RECOVER = "import sys; from pathlib import Path; from safer_instruct.ledger import recover; print(flush=True); recover(Path(sys.argv[1]))"


def test_a_kill_during_recovery_loses_nothing(path: Path) -> None:
    overwrite(path, 0, bytes(PAGE))
    rng = random.Random(4)
    for attempt in range(10):
        with subprocess.Popen([sys.executable, "-c", RECOVER, path], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(rng.random() * 0.04 * (attempt + 1))
            child.kill()
    done = recover(path)
    assert check_sound(path, done) == {c.key for c in CALLS}


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_recovery_that_was_killed_as_it_changed_the_files_is_finished_by_whoever_comes_next(path: Path, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after so many of its renames; the damaged ledger has a write-ahead log that would spoil the fresh one."""
    overwrite(path, 0, bytes(PAGE))
    path.with_name("ledger.sqlite-wal").write_bytes(random.Random(1).randbytes(9000))
    left, really = iter(range(steps + 1)), os.replace  # the first puts the recovered file, still beside the damaged one, under its name

    class Killed(BaseException): ...

    def replace(source: Path, target: Path) -> None:
        if next(left, None) is None:
            raise Killed
        really(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(recovery.os, "replace", replace)
        with pytest.raises(Killed):
            recover(path)
    if steps == 0:
        with pytest.raises(RunDirectoryError, match="is damaged"):
            Ledger(path)
        recover(path)
    Ledger(path).close()
    assert {c.key for c in read_calls(path)} == {c.key for c in CALLS}
    assert path.with_name("ledger.damaged-1.sqlite-wal").stat().st_size == 9000
    assert sorted(f.name for f in path.parent.glob("ledger.*.sqlite")) == ["ledger.damaged-1.sqlite"]


# --- detection


def check_lookups(path: Path) -> None:
    with Ledger(path) as ledger:
        assert all(ledger.get(call.key) == call for call in CALLS), "a call is missing, or another"


@pytest.mark.parametrize("seed", range(25))
def test_a_truncated_ledger_gives_right_answers_or_an_error_that_names_the_command(path: Path, seed: int) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: random.Random(seed).randrange(len(raw))])
    with pytest.raises(RunDirectoryError, match=r"ledger\.sqlite is damaged: .*; save what is intact with: safer-instruct ledger .* --recover$"):
        check_lookups(path)
    for read in (read_totals, lambda p: list(read_calls(p))):
        with pytest.raises(RunDirectoryError, match=r"--recover$"):
            read(path)


def test_an_empty_file_is_a_damaged_ledger(path: Path) -> None:
    path.write_bytes(b"")
    for use in (Ledger, read_totals):
        with pytest.raises(RunDirectoryError, match=r"is damaged: .*--recover$"):
            use(path)
    assert path.read_bytes() == b""


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_page_gives_right_answers_or_an_error(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    overwrite(path, rng.randrange(path.stat().st_size // PAGE) * PAGE, rng.randbytes(PAGE))
    try:
        check_lookups(path)
    except RunDirectoryError as exc:
        assert "is damaged" in str(exc) and str(exc).endswith("--recover") and "\n" not in str(exc)  # noqa: PT017 - either way is right


@pytest.mark.parametrize("value", [b"\xff", b"\x00", b"\x01", b"\x20"])
def test_no_byte_of_the_header_can_make_another_answer_or_be_in_the_way_of_recovery(tmp_path: Path, value: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    fill(path, CALLS[:60])
    raw = path.read_bytes()
    for at in range(100):
        overwrite(path, at, value)
        try:
            with Ledger(path) as ledger:
                assert all(ledger.get(call.key) == call for call in CALLS[:60]), at
        except RunDirectoryError as exc:
            newer = at == 63 and value == b"\x20"  # schema 32: it may well be
            assert "newer version" in str(exc) if newer else str(exc).endswith("--recover"), (at, str(exc))  # noqa: PT017 - either way is right
            if not newer:
                done = recover(path)
                assert done.saved == 60 and done.moved_to, at
                done.moved_to.unlink()
        for file in path.parent.glob("ledger.sqlite-*"):
            file.unlink()
        path.write_bytes(raw)


# --- pages


def test_pages_and_sqlite_agree_on_every_row(tmp_path: Path) -> None:
    path = tmp_path / "some.sqlite"
    rng = random.Random(0)
    values = [None, 0, 1, -1, 127, 128, -129, 2**15, 2**23, -(2**31), 2**40, 2**47, 2**62, -(2**63), 1.5, -0.25, 1e300, "", "é" * 40, b"", b"\0" * 300]
    rows = [(n * n * n - 900, *rng.choices(values, k=5), rng.randbytes(rng.choice([0, 5, 500, 4050, 4061, 4062, 5000, 9000, 40000]))) for n in range(400)]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (a, b, c, d, e, f)")
        connection.executemany("INSERT INTO t (rowid, a, b, c, d, e, f) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    with Pages(path) as pages:
        read = [(row.id, *row.values) for leaf in pages.leaves() for row in leaf if len(row.values) == 6]
    assert sorted(read) == sorted(rows, key=lambda row: row[0]) and len(read) == 400


def test_a_log_whose_ledger_is_gone_is_not_taken_for_that_of_the_next_one(tmp_path: Path) -> None:
    path, log = tmp_path / "ledger.sqlite", tmp_path / "ledger.sqlite-wal"
    fill(path, some_calls(3))
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("SELECT count(*) FROM calls").fetchone()
        fill(path, some_calls(200, first=3))
        left = log.read_bytes()
    for number in (1, 2):
        path.unlink(missing_ok=True)
        log.write_bytes(left)
        fill(path, some_calls(5, first=500))
        assert sum(total.calls for total in read_totals(path)) == 5 and (tmp_path / f"ledger.damaged-{number}.sqlite-wal").read_bytes() == left
