"""Rows, dictionaries and schemas: small, decodable whatever happens, and brought up to date in one step."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from ledgers import a_call, fill, some_calls, write_version_1

from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger import Call, Ledger, Meter, Recorded, read_calls, read_totals, schema
from safer_instruct.models.protocol import Completion, Generated, Generation, Sampling, Scored, Turn, Usage
from safer_instruct.models.scripted import ScriptedModel

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def ask(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(sql).fetchall()


def content_bytes(path: Path, where: str) -> float:
    return float(ask(path, f"SELECT avg(length(content)) FROM calls WHERE {where}")[0][0])  # type: ignore[arg-type]


# --- dictionaries


def test_the_first_calls_of_a_stage_train_a_dictionary_that_makes_later_ones_small(path: Path) -> None:
    calls = some_calls(900)
    fill(path, calls)
    assert list(read_calls(path)) == calls
    assert ask(path, "SELECT dictionary, count(*) FROM calls GROUP BY 1") == [(0, 500), (1, 400)]
    assert content_bytes(path, "dictionary = 1") < 0.7 * content_bytes(path, "dictionary = 0")


def test_each_stage_and_model_has_a_dictionary_of_its_own(path: Path) -> None:
    calls = [c for n in range(600) for c in (a_call(n, "induce"), a_call(n, "verify", "scripted:judge"))]
    fill(path, calls)
    assert list(read_calls(path)) == calls
    assert ask(path, "SELECT stage, model, dictionary FROM origins") == [("induce", "scripted:m", 1), ("verify", "scripted:judge", 2)]


def test_a_ledger_opened_anew_goes_on_with_its_dictionary(path: Path) -> None:
    fill(path, some_calls(500))
    fill(path, some_calls(10, first=500))
    assert ask(path, "SELECT dictionary, count(*) FROM calls GROUP BY 1") == [(0, 500), (1, 10)]
    assert list(read_calls(path)) == some_calls(510)


def test_a_reader_that_was_open_before_the_dictionary_learns_of_it(path: Path) -> None:
    calls = some_calls(1200)

    async def work() -> list[Call | None]:
        with Ledger(path) as ledger:
            reading = read_calls(path)
            await ledger.put(calls[0])
            assert next(reading) == calls[0]
            for begin in range(1, 1200, 100):
                await asyncio.gather(*(ledger.put(call) for call in calls[begin : begin + 100]))
            assert list(reading) == calls[1:]
            return [ledger.get(call.key) for call in calls]

    assert asyncio.run(work()) == calls


def test_a_dictionary_outlives_damage_to_one_of_its_copies(path: Path) -> None:
    fill(path, some_calls(600))
    ask(path, "UPDATE dictionaries SET data = substr(data, 2) WHERE number = 1")
    assert list(read_calls(path)) == some_calls(600)
    ask(path, "UPDATE dictionaries SET data = zeroblob(9) WHERE number = 2")
    with pytest.raises(RunDirectoryError, match=r"ledger\.sqlite is damaged: dictionary 1 is lost; .* safer-instruct ledger .* --recover"):
        list(read_calls(path))
    with pytest.raises(RunDirectoryError, match="dictionary 1 is lost"):
        Ledger(path)


def test_calls_that_no_dictionary_can_be_trained_on_are_stored_without_one(path: Path) -> None:
    calls = [Call(n.to_bytes(16, "big"), "s", "m", b'["score", {}]', random.Random(n).randbytes(3 << 20), Usage(), 0.0) for n in range(3)]
    fill(path, calls, group=1)  # one sample, and no more are kept
    assert list(read_calls(path)) == calls and ask(path, "SELECT count(*) FROM dictionaries") == [(0,)]


def test_long_texts_train_a_dictionary_before_they_fill_memory(path: Path) -> None:
    calls = some_calls(150, words=4000)
    fill(path, calls, group=10)
    (number,) = ask(path, "SELECT min(number) FROM calls WHERE dictionary = 1")[0]
    assert isinstance(number, int) and 30 < number < 120 and list(read_calls(path)) == calls


# --- rows


@pytest.mark.parametrize("column", ["key", "dictionary", "prompt_tokens", "completion_tokens", "cost", "seconds", "finished_at", "content", "checksum"])
def test_a_change_to_any_column_of_a_row_is_noticed(path: Path, column: str) -> None:
    fill(path, some_calls(3))
    ask(
        path,
        f"UPDATE calls SET {column} = {'randomblob(16)' if column == 'key' else 'zeroblob(30)' if column == 'content' else f'{column} + 1'} WHERE number = 2",
    )
    with pytest.raises(RunDirectoryError, match=r"is damaged: .*--recover"):
        list(read_calls(path))


def test_a_change_of_any_byte_of_the_content_is_noticed_by_a_lookup(path: Path) -> None:
    call = a_call(1)
    fill(path, [call])
    (content,) = ask(path, "SELECT content FROM calls")[0]
    assert isinstance(content, bytes)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection, Ledger(path) as ledger:
        for at in range(len(content)):
            connection.execute("UPDATE calls SET content = ?", (content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :],))
            with pytest.raises(RunDirectoryError, match="is damaged"):
                ledger.get(call.key)


def test_numbers_that_sqlite_changes_are_still_read_back_equal(path: Path) -> None:
    calls = [dataclasses.replace(a_call(n), usage=usage) for n, usage in enumerate((Usage(0, 1, -0.0, 3.0), Usage(2**60, 0, float("inf"), 1e-300)))]
    fill(path, calls)
    assert list(read_calls(path)) == calls


def test_a_row_has_a_place_for_everything_that_an_answer_holds() -> None:
    stored_with_the_answer = ["cached_tokens"]
    columns = ["prompt_tokens", "completion_tokens", "cost", "seconds"]
    assert [f.name for f in dataclasses.fields(Usage)] == columns + stored_with_the_answer, "give new fields a column, and a schema"
    assert [f.name for f in dataclasses.fields(Generated)] == ["completions", "usage"] and [f.name for f in dataclasses.fields(Scored)] == ["logprobs", "usage"]
    assert [f.name for f in dataclasses.fields(Completion)][:4] == ["text", "logprob", "finished", "tokens"], "stored answers are lists in this order"


def test_a_lookup_reads_by_key_and_never_scans(path: Path) -> None:
    from safer_instruct.ledger import store

    fill(path, some_calls(1))
    with closing(sqlite3.connect(path)) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {store._SELECT}", (b"",)).fetchall()
    assert [detail for *_, detail in plan] == ["SEARCH calls USING INDEX calls_key (key=?)"]


WRITER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from ledgers import a_call
from safer_instruct.ledger import Ledger

async def main():
    with Ledger(Path(sys.argv[1])) as ledger:
        for begin in range(int(sys.argv[3]), 10**9, 50):
            await asyncio.gather(*(ledger.put(a_call(n, f"stage{n // 520}")) for n in range(begin, begin + 50)))
            print(begin + 50, flush=True)

asyncio.run(main())
"""


def test_a_kill_at_any_moment_leaves_only_rows_that_decode(path: Path) -> None:
    """Every 520 calls a new stage begins, so dictionaries are trained all the time."""
    rng, done = random.Random(5), 0
    for _ in range(12):
        with subprocess.Popen([sys.executable, "-c", WRITER, path, Path(__file__).parents[1], str(done)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            printed = [child.stdout.readline() for _ in range(rng.randrange(1, 25))]
            time.sleep(rng.random() * 0.005)
            child.send_signal(signal.SIGKILL)
            printed += child.stdout.readlines()
        assert child.returncode == -signal.SIGKILL
        seen = max(int(line) for line in printed if line.endswith("\n"))
        stored = list(read_calls(path))
        assert len(stored) >= seen and {c.key for c in stored} == {a_call(n, f"stage{n // 520}").key for n in range(len(stored))}
        assert stored == sorted(stored, key=lambda c: c.finished_at) == [a_call(n, f"stage{n // 520}") for n in range(len(stored))]
        assert sum(t.calls for t in read_totals(path)) == len(stored)
        done = len(stored)
    assert len(ask(path, "SELECT DISTINCT dictionary FROM calls WHERE dictionary > 0")) >= 2, "no dictionary was in use"


# --- migration


def recorded(path: Path, stage: str, requests: list[Generation]) -> tuple[list[Generated], Meter]:
    """Answers of the default scripted model to `requests`, by way of the ledger."""
    meter = Meter()

    async def work() -> list[Generated]:
        with Ledger(path) as ledger:
            model = Recorded(ScriptedModel(), ledger, stage, meter)
            return [await model.generate(request) for request in requests]

    return asyncio.run(work()), meter


def test_a_ledger_of_version_1_becomes_one_of_version_2_with_the_same_calls(path: Path) -> None:
    calls = [c for n in range(700) for c in (a_call(n, "induce"), a_call(n + 1000, "filter"))]
    write_version_1(path, calls)
    before = path.stat().st_size
    with Ledger(path) as ledger:
        assert [ledger.get(call.key) for call in calls] == calls
    assert list(read_calls(path)) == calls and path.stat().st_size < 0.7 * before
    assert [(t.stage, t.calls, t.usage.prompt_tokens) for t in read_totals(path)] == [
        (stage, 700, sum(c.usage.prompt_tokens for c in calls if c.stage == stage)) for stage in ("induce", "filter")
    ]
    assert ask(path, "PRAGMA user_version") == [(2,)] and ask(path, "PRAGMA integrity_check") == [("ok",)]
    assert {name for (name,) in ask(path, "SELECT name FROM sqlite_master WHERE type = 'table'")} == {"calls", "origins", "dictionaries"}


def test_no_call_of_a_version_1_ledger_is_made_again(path: Path) -> None:
    requests = [Generation((Turn("user", f"Ask {n}. é \u2028"),), Sampling(), n) for n in range(20)]
    answers, _ = recorded(path, "induce", requests)
    calls = [dataclasses.replace(call, model=ScriptedModel().fingerprint) for call in read_calls(path)]  # its name is what the key is made with there
    path.unlink()
    write_version_1(path, calls)
    again, meter = recorded(path, "induce", requests)
    assert again == answers and meter.replayed == meter.calls == 20


def test_readers_do_not_change_an_older_ledger_and_say_what_does(path: Path) -> None:
    write_version_1(path, some_calls(5))
    for read in (read_totals, lambda p: list(read_calls(p))):
        with pytest.raises(RunDirectoryError, match=r"older version of safer-instruct \(ledger schema 1\); the next run"):
            read(path)
    assert ask(path, "PRAGMA user_version") == [(1,)]


def test_a_version_1_ledger_with_a_damaged_row_is_left_as_it_is(path: Path) -> None:
    write_version_1(path, some_calls(30))
    ask(path, "UPDATE calls SET answer = substr(answer, 1, 9) WHERE rowid = 20")
    with pytest.raises(RunDirectoryError, match=r"is damaged: .*--recover"):
        Ledger(path)
    assert ask(path, "PRAGMA user_version") == [(1,)] and ask(path, "SELECT count(*), count(DISTINCT key) FROM calls") == [(30, 30)]


def test_a_database_that_is_no_ledger_is_refused_and_left_as_it_is(path: Path) -> None:
    ask(path, "CREATE TABLE mine (x)")
    with pytest.raises(RunDirectoryError, match="is no ledger of safer-instruct"):
        Ledger(path)
    assert ask(path, "SELECT name FROM sqlite_master") == [("mine",)]


MIGRATE = "import sys; from pathlib import Path; from safer_instruct.ledger import Ledger; print(flush=True); Ledger(Path(sys.argv[1])).close()"


def test_a_kill_during_migration_leaves_the_old_ledger_or_the_new_one(path: Path) -> None:
    calls = [a_call(n, f"stage{n % 3}") for n in range(6000)]
    write_version_1(path, calls)
    with closing(schema.open_file_to_read(path)) as connection:
        old = connection.execute("SELECT count(*) FROM calls").fetchone()
    rng, versions = random.Random(3), []
    for attempt in range(12):
        with subprocess.Popen([sys.executable, "-c", MIGRATE, path], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(rng.random() * 0.06 * (attempt + 1))
            child.kill()
        (version,) = ask(path, "PRAGMA user_version")[0]
        versions.append(version)
        assert ask(path, "SELECT count(*) FROM calls") == [old] and ask(path, "PRAGMA integrity_check") == [("ok",)]
        assert version == 1 or list(read_calls(path)) == calls
    assert versions[0] == 1, "no kill came in time"
    Ledger(path).close()
    assert list(read_calls(path)) == calls
