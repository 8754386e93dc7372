"""The call ledger: an answer is on disk before anyone sees it, and no finished call is made twice."""

from __future__ import annotations

import asyncio
import json
import math
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ledgers import a_call

from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger import Call, Ledger, Meter, Recorded, read_calls, read_totals, schema
from safer_instruct.ledger.content import decode_generated
from safer_instruct.ledger.known import KnownKeys
from safer_instruct.models.protocol import Completion, Generated, Generation, Sampling, Schema, Scored, Scoring, Turn, Usage, encode_request

pytestmark = pytest.mark.filterwarnings("error")
T = TypeVar("T")

ANSWER = Generated((Completion("Where is my parcel?", -0.25), Completion("Hello?", None, finished=False)), Usage(11, 5, 0.125, 0.5))
SCORE = Scored((-1.0, -2.5), Usage(7, 0, 0.25, 0.0625))
REQUEST = Generation("Ask.", Sampling(n=2), 3)
SCORING = Scoring("Ask.", "Answer.")


@dataclass
class Fixed:
    """A model that gives one answer, and counts how often it was asked."""

    generated: Generated = ANSWER
    scored: Scored = SCORE
    name: str = "fixed:m"
    fingerprint: str = "fixed"
    concurrency: int = 4
    priced: bool = True
    status: str = ""
    asked: int = 0
    failures: list[Exception] = field(default_factory=list)
    gate: Callable[[], Coroutine[Any, Any, object]] | None = None

    async def generate(self, request: Generation) -> Generated:
        await self._count()
        return self.generated

    async def score(self, request: Scoring) -> Scored:
        await self._count()
        return self.scored

    async def close(self) -> None: ...

    async def _count(self) -> None:
        self.asked += 1
        if self.gate:
            await self.gate()
        if self.failures:
            raise self.failures.pop(0)


def with_ledger(path: Path, work: Callable[[Ledger], Coroutine[Any, Any, T]]) -> T:
    async def main() -> T:
        with Ledger(path) as ledger:
            return await work(ledger)

    return asyncio.run(main())


def call(path: Path, model: Fixed, *requests: Generation | Scoring, meter: Meter | None = None, stage: str = "induce") -> list[Any]:
    """The answers to `requests`, asked one after the other in one opening of the ledger."""

    async def work(ledger: Ledger) -> list[Any]:
        recorded = Recorded(model, ledger, stage, meter or Meter())
        return [await (recorded.generate(r) if isinstance(r, Generation) else recorded.score(r)) for r in requests]

    return with_ledger(path, work)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


# --- replay


def test_a_finished_call_comes_back_from_a_ledger_opened_anew(path: Path) -> None:
    model = Fixed()
    first = call(path, model, REQUEST, SCORING)
    assert first == [ANSWER, SCORE] and model.asked == 2
    meter = Meter()
    assert call(path, model, REQUEST, SCORING, REQUEST, meter=meter) == [*first, ANSWER] and model.asked == 2
    assert (meter.calls, meter.replayed, meter.repeated) == (3, 3, 0), "all of it was there before this opening"


def test_the_meter_counts_all_usage_and_apart_what_was_paid_for_now(path: Path) -> None:
    meter = Meter()
    call(path, Fixed(), REQUEST, REQUEST, SCORING, meter=meter)
    assert (meter.calls, meter.replayed, meter.repeated) == (3, 1, 1)
    assert meter.usage == ANSWER.usage + ANSWER.usage + SCORE.usage and meter.fresh == ANSWER.usage + SCORE.usage


def test_a_recorded_model_cannot_be_told_from_the_model_itself(path: Path) -> None:
    model = Fixed()

    async def work(ledger: Ledger) -> None:
        recorded = Recorded(model, ledger, "induce", Meter())
        assert (recorded.name, recorded.fingerprint, recorded.concurrency) == (model.name, model.fingerprint, model.concurrency)
        await recorded.close()

    with_ledger(path, work)


FINITE = st.floats(allow_nan=False)
COUNT = st.integers(0, 2**53)
USAGE = st.builds(Usage, COUNT, COUNT, FINITE, FINITE, COUNT)
ODD = st.text() | st.text(st.characters(categories=["Cs", "Cc", "Cf", "Co", "Zl", "Zp", "Lo"]))  # lone surrogates too
GENERATED = st.builds(
    Generated,
    st.lists(st.builds(Completion, ODD, st.none() | FINITE, st.booleans(), st.none() | COUNT, st.sampled_from(["", "filter", "refusal"])), max_size=3).map(
        tuple
    ),
    USAGE,
)
SCORED = st.builds(Scored, st.lists(FINITE, max_size=5).map(tuple), USAGE)


@settings(max_examples=15)
@given(GENERATED, SCORED, ODD)
@example(Generated((Completion("half a pair \ud83d \0 \u2028"),)), Scored((float("-inf"),)), "\udfff \u202e")
@example(Generated((), Usage(cost=-math.inf)), Scored((), Usage(cost=math.inf)), "a total that is no number")
def test_any_answer_to_any_request_survives_the_ledger_unchanged(generated: Generated, scored: Scored, text: str) -> None:
    model = Fixed(generated, scored)
    requests = (Generation((Turn("user", text),), Sampling()), Generation(text, Sampling()), Scoring(text, text))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        fresh, replayed = call(path, model, *requests), call(path, model, *requests)
    assert fresh == replayed == [generated, generated, scored] and model.asked == 3


@settings(max_examples=15)
@given(st.lists(st.tuples(ODD, ODD, st.booleans()), max_size=6))
def test_two_calls_share_an_answer_exactly_when_their_requests_are_equal(drawn: list[tuple[str, str, bool]]) -> None:
    requests: list[Generation | Scoring] = [Scoring(a, b) if scoring else Generation((Turn(a, b),), Sampling()) for a, b, scoring in drawn]
    model = Fixed()
    with TemporaryDirectory() as folder:
        call(Path(folder) / "ledger.sqlite", model, *requests)
    assert model.asked == len(set(requests))


# --- the key


def other(value: Any) -> Any:
    """A value of the same kind that is not equal to it."""
    if value is None:
        return Schema.of("other", {})
    if isinstance(value, tuple):
        return (*value, Turn("user", "More."))
    return value + "x" if isinstance(value, str) else value + 1


def variants() -> Iterator[tuple[str, Generation | Scoring]]:
    for name in (f.name for f in fields(Generation) if f.name != "sampling"):
        yield f"generation.{name}", replace(REQUEST, **{name: other(getattr(REQUEST, name))})
    for name in (f.name for f in fields(Sampling)):
        yield f"sampling.{name}", replace(REQUEST, sampling=replace(REQUEST.sampling, **{name: other(getattr(REQUEST.sampling, name))}))
    for name in (f.name for f in fields(Scoring)):
        yield f"scoring.{name}", replace(SCORING, **{name: other(getattr(SCORING, name))})
    chat = Generation((Turn("user", "Ask."),), REQUEST.sampling, REQUEST.seed)
    yield "chat", chat
    held = replace(REQUEST, schema=Schema.of("s", {"a": 1, "b": 2}))
    yield "schema", held
    for name, changed in {"name": Schema.of("t", {"a": 1, "b": 2}), "json": Schema.of("s", {"b": 2, "a": 1})}.items():
        yield f"schema.{name}", replace(held, schema=changed)
    for name in (f.name for f in fields(Turn)):
        yield f"turn.{name}", replace(chat, prompt=(replace(chat.prompt[0], **{name: other(getattr(chat.prompt[0], name))}),))  # type: ignore[type-var]
    yield "two turns", replace(chat, prompt=(Turn("user", "Ask."), Turn("user", "")))
    yield "one turn more", replace(chat, prompt=other(chat.prompt))


def test_the_key_depends_on_every_field_of_the_request(path: Path) -> None:
    cases = dict(variants())
    assert len(cases) == len(fields(Generation)) - 1 + len(fields(Sampling)) + len(fields(Scoring)) + 4 + len(fields(Schema)) + len(fields(Turn))
    model = Fixed()
    call(path, model, REQUEST, SCORING)
    for number, (name, request) in enumerate(cases.items(), 3):
        call(path, model, request)
        assert model.asked == number, f"{name} does not change the key"


KEYS = {  # as the first ledgers had them: another key is a call paid again
    Generation("Ask.", Sampling(n=2), 3): "d5193459211cb29f2008ac9bf7be14c6",
    Generation((Turn("user", "\u00e9\ud83d"),), Sampling()): "ca527549affa1d80618c286c05234f5b",
    Scoring("Ask.", "Answer."): "1336d1f691052148a01b835e05c26d44",
}


@pytest.mark.parametrize("request_", KEYS)
def test_the_key_of_a_request_is_the_same_in_every_version(path: Path, request_: Generation | Scoring) -> None:
    call(path, Fixed(), request_)
    with closing(sqlite3.connect(path)) as connection:
        assert bytes(connection.execute("SELECT key FROM calls").fetchone()[0]).hex()[:32] == KEYS[request_]


def test_the_key_depends_on_the_fingerprint_and_not_on_the_name_or_the_stage(path: Path) -> None:
    call(path, Fixed(), REQUEST)
    changed, renamed, elsewhere = Fixed(fingerprint="fixed+adapter"), Fixed(name="fixed:other"), Fixed()
    call(path, changed, REQUEST)
    call(path, renamed, REQUEST)
    call(path, elsewhere, REQUEST, stage="respond")
    assert (changed.asked, renamed.asked, elsewhere.asked) == (1, 0, 0)


def test_a_generation_and_a_scoring_of_the_same_text_are_two_calls(path: Path) -> None:
    model = Fixed()
    assert call(path, model, Generation("x", Sampling()), Scoring("x", "")) == [ANSWER, SCORE] and model.asked == 2


def test_answers_that_know_fewer_fields_are_read() -> None:
    completions = (Completion("Where?", -0.25, True, 2), Completion("", None, False, None))
    usage = Usage(11, 5, 0.125, 0.5)
    assert decode_generated(b'[["Where?", -0.25, true, 2], ["", null, false, null]]', usage) == Generated(completions, usage)


# --- in flight


def gather(path: Path, model: Fixed, work: Callable[[Recorded], Coroutine[Any, Any, T]], meter: Meter | None = None) -> T:
    async def main(ledger: Ledger) -> T:
        return await work(Recorded(model, ledger, "induce", meter or Meter()))

    return with_ledger(path, main)


def test_equal_requests_in_flight_are_sent_once(path: Path) -> None:
    meter, model = Meter(), Fixed(gate=lambda: asyncio.sleep(0.01))

    async def work(recorded: Recorded) -> list[Generated]:
        return await asyncio.gather(*(recorded.generate(REQUEST) for _ in range(5)))

    assert gather(path, model, work, meter) == [ANSWER] * 5
    assert model.asked == 1 and (meter.calls, meter.replayed) == (5, 4)


def test_different_requests_in_flight_do_not_wait_for_each_other(path: Path) -> None:
    async def work(recorded: Recorded) -> int:
        ready = asyncio.Barrier(3)
        model.gate = ready.wait
        async with asyncio.timeout(10):
            await asyncio.gather(*(recorded.generate(replace(REQUEST, seed=i)) for i in range(3)))
        return model.asked

    model = Fixed()
    assert gather(path, model, work) == 3


def test_equal_requests_of_two_stages_in_flight_are_sent_once(path: Path) -> None:
    model = Fixed(gate=lambda: asyncio.sleep(0.01))

    async def work(ledger: Ledger) -> list[Scored]:
        stages = [Recorded(model, ledger, stage, Meter()) for stage in ("filter", "verify")]
        return await asyncio.gather(*(recorded.score(SCORING) for recorded in stages))

    assert with_ledger(path, work) == [SCORE] * 2 and model.asked == 1


# --- failures


def test_a_failed_call_is_not_stored_and_may_be_made_again(path: Path) -> None:
    model, meter = Fixed(failures=[ValueError("down")]), Meter()
    with pytest.raises(ValueError, match="down"):
        call(path, model, REQUEST, meter=meter)
    assert read_totals(path) == [] and meter.calls == 0
    assert call(path, model, REQUEST) == [ANSWER] and model.asked == 2


def test_when_the_first_of_equal_requests_fails_the_next_one_is_sent(path: Path) -> None:
    model = Fixed(failures=[ValueError("down")], gate=lambda: asyncio.sleep(0.01))

    async def work(recorded: Recorded) -> list[Any]:
        return await asyncio.gather(*(recorded.generate(REQUEST) for _ in range(3)), return_exceptions=True)

    first, *rest = gather(path, model, work)
    assert isinstance(first, ValueError) and rest == [ANSWER, ANSWER] and model.asked == 2


def test_when_the_first_of_equal_requests_is_cancelled_the_next_one_is_sent(path: Path) -> None:
    model = Fixed(gate=lambda: asyncio.sleep(0.05))

    async def work(recorded: Recorded) -> Generated:
        first = asyncio.create_task(recorded.generate(REQUEST))
        second = asyncio.create_task(recorded.generate(REQUEST))
        await asyncio.sleep(0.01)
        first.cancel()
        answer = await second
        assert first.cancelled()
        return answer

    assert gather(path, model, work) == ANSWER and model.asked == 2


def test_a_waiting_request_can_be_cancelled_without_harm_to_the_others(path: Path) -> None:
    model = Fixed(gate=lambda: asyncio.sleep(0.05))

    async def work(recorded: Recorded) -> list[Any]:
        tasks = [asyncio.create_task(recorded.generate(REQUEST)) for _ in range(3)]
        await asyncio.sleep(0.01)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, third = gather(path, model, work)
    assert first == third == ANSWER and isinstance(second, asyncio.CancelledError) and model.asked == 1


def test_an_answer_that_cannot_be_saved_is_an_error_and_not_an_answer(path: Path) -> None:
    async def lose_the_table() -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE calls")

    with pytest.raises(RunDirectoryError, match=r"ledger\.sqlite: 1 finished calls could not be saved: .*calls"):
        call(path, Fixed(gate=lose_the_table), REQUEST)


def test_an_answer_that_makes_no_row_is_the_only_one_that_is_lost(path: Path) -> None:
    async def work(ledger: Ledger) -> list[Any]:
        sound, odd = Fixed(), Fixed(replace(ANSWER, usage=Usage(2**63)))
        with write_lock(path):  # so that all go into one transaction
            calls = [Recorded(odd if i == 3 else sound, ledger, "induce", Meter()).generate(replace(REQUEST, seed=i)) for i in range(8)]
            tasks = [asyncio.create_task(call) for call in calls]
            await asyncio.sleep(0.05)
        return [*await asyncio.gather(*tasks, return_exceptions=True), await Recorded(sound, ledger, "induce", Meter()).generate(replace(REQUEST, seed=99))]

    answers = with_ledger(path, work)
    assert isinstance(answers[3], RunDirectoryError) and "1 finished calls could not be saved" in str(answers[3])
    assert [a for i, a in enumerate(answers) if i != 3] == [ANSWER] * 8 and [t.calls for t in read_totals(path)] == [8]


def test_while_nothing_can_be_saved_no_call_is_made(path: Path) -> None:
    model = Fixed()

    async def work(ledger: Ledger) -> None:
        recorded = Recorded(model, ledger, "induce", Meter())
        await recorded.generate(REQUEST)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("ALTER TABLE origins RENAME TO gone")
            first, second = (recorded.generate(replace(REQUEST, seed=99)) for _ in range(2))
            failed = await asyncio.gather(first, second, return_exceptions=True)
            assert [str(exc)[-40:] for exc in failed] == [str(failed[0])[-40:]] * 2 and isinstance(failed[1], RunDirectoryError)
            assert model.asked == 2, "the second of two equal requests is not sent when the first could not be saved"
            connection.execute("ALTER TABLE gone RENAME TO origins")
        assert await recorded.generate(REQUEST) == ANSWER, "what is saved can be had"
        with pytest.raises(RunDirectoryError, match="could not be saved"):
            await recorded.generate(replace(REQUEST, seed=5))
        assert model.asked == 2
        await ledger.put(a_call(0))  # it was in flight: with this one saved, calls go on
        assert await recorded.generate(replace(REQUEST, seed=5)) == ANSWER

    with_ledger(path, work)


@pytest.mark.parametrize(
    ("room", "said"), [(0, "3 finished calls could not be saved"), (2, "1 finished calls could not be saved"), (3, "could be saved only just")]
)
def test_what_found_no_room_is_tried_once_more_at_the_end_and_what_is_lost_is_counted(
    path: Path, room: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [-1]  # calls that there is room for; below 0 as many as come
    append = Ledger._append

    def within_room(ledger: Ledger, calls: list[Call]) -> None:
        if left[0] == 0:
            full = sqlite3.OperationalError("database or disk is full")
            full.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise full
        left[0] -= 1
        append(ledger, calls)

    monkeypatch.setattr(Ledger, "_append", within_room)

    async def work() -> Ledger:
        with Ledger(path) as ledger:
            await ledger.put(a_call(0))
            assert ledger.lost() is None
            ledger.check()
            left[0] = 0
            ends = await asyncio.gather(*(ledger.put(a_call(number)) for number in (1, 2, 3)), return_exceptions=True)
            assert all(isinstance(end, RunDirectoryError) for end in ends)
            with pytest.raises(RunDirectoryError, match="could not be saved: the disk is full"):
                ledger.check()
            left[0] = room
        return ledger

    lost = asyncio.run(work()).lost()
    assert lost is not None and said in str(lost) and str(lost).count("the disk is full; what was saved before is safe") == 1
    assert sum(total.calls for total in read_totals(path)) == 1 + room


def test_a_call_that_finishes_after_the_ledger_was_closed_is_an_error_and_does_not_hang(path: Path) -> None:
    async def work() -> None:
        with Ledger(path) as ledger:
            model = Fixed(gate=lambda: asyncio.sleep(0.05))
            task = asyncio.create_task(Recorded(model, ledger, "induce", Meter()).generate(REQUEST))
            await asyncio.sleep(0.01)
        with pytest.raises(RunDirectoryError, match="after the ledger was closed"):
            await task
        assert not ledger.in_flight

    asyncio.run(work())


# --- durability

CHILD = """
import asyncio, os, sys
from pathlib import Path
from safer_instruct.ledger import Ledger, Meter, Recorded
from safer_instruct.models.protocol import Generation, Sampling
from safer_instruct.models.scripted import ScriptedModel

async def main():
    recorded = Recorded(ScriptedModel(), Ledger(Path(sys.argv[1])), "induce", Meter())
    async def one(i):
        answer = await recorded.generate(Generation(f"request {i}", Sampling()))
        print(i, answer.completions[0].text, flush=True)
    await asyncio.gather(*(one(i) for i in range(2000)))

asyncio.run(main())
"""


def test_whatever_was_seen_before_a_kill_is_on_disk_after_it(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(40)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    assert child.returncode == -signal.SIGKILL
    seen = dict(line.rstrip("\n").split(" ", 1) for line in lines if line.endswith("\n"))
    assert len(seen) >= 40
    stored = {json.loads(c.request)[1]["prompt"]: json.loads(c.answer)[0][0] for c in read_calls(path)}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert {f"request {i}": text for i, text in seen.items()}.items() <= stored.items()


def totals_seen_by_another_process(path: Path) -> str:
    reader = "import sys; from pathlib import Path; from safer_instruct.ledger import read_totals; print(*read_totals(Path(sys.argv[1])))"
    return subprocess.run([sys.executable, "-c", reader, str(path)], capture_output=True, text=True, check=True).stdout


def test_another_process_can_read_a_ledger_in_use(path: Path) -> None:
    async def work(ledger: Ledger) -> str:
        await Recorded(Fixed(), ledger, "induce", Meter()).generate(REQUEST)
        return totals_seen_by_another_process(path)

    said = with_ledger(path, work)
    assert "stage='induce'" in said and "calls=1" in said and "completion_tokens=5" in said


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Holds the database's write lock: until it is given back, nothing can be committed."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def commits(path: Path) -> int:
    """Transactions in the write-ahead log: frames that carry a database size (SQLite file format, section 4.1)."""
    raw = path.with_name(path.name + "-wal").read_bytes()
    if not raw:
        return 0
    (page,) = struct.unpack(">I", raw[8:12])
    return sum(1 for at in range(32, len(raw), 24 + page) if struct.unpack(">I", raw[at + 4 : at + 8])[0])


def test_nobody_sees_an_answer_before_it_is_committed_and_what_waits_is_committed_together(path: Path) -> None:
    async def work(recorded: Recorded) -> int:
        with write_lock(path):
            tasks = [asyncio.create_task(recorded.generate(replace(REQUEST, seed=i))) for i in range(50)]
            await asyncio.sleep(0.1)
            assert model.asked == 50 and not any(task.done() for task in tasks)
            before = commits(path)
        assert await asyncio.gather(*tasks) == [ANSWER] * 50
        return commits(path) - before

    model = Fixed()
    assert gather(path, model, work) <= 2, "one for what came while the log was free, one for the rest"
    assert [t.calls for t in read_totals(path)] == [50]


def test_every_commit_is_synced_to_disk(path: Path) -> None:
    with Ledger(path), closing(schema.connect(path, cache_mb=1)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,), "FULL: in WAL mode, NORMAL does not sync a commit"


def test_closing_waits_until_what_is_queued_is_committed_and_ends_the_thread(path: Path) -> None:
    async def work() -> Generated:
        ledger = Ledger(path)
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other_:
            other_.execute("BEGIN IMMEDIATE")
            task = asyncio.create_task(Recorded(Fixed(), ledger, "induce", Meter()).generate(REQUEST))
            await asyncio.sleep(0)  # runs until its answer is queued
            release = threading.Timer(0.2, other_.execute, ["ROLLBACK"])
            release.start()
            ledger.close()
            release.join()
        assert [t.calls for t in read_totals(path)] == [1]
        return await task

    assert asyncio.run(work()) == ANSWER
    assert not [t for t in threading.enumerate() if t.name == "ledger"]


def test_what_waits_for_one_commit_wakes_the_event_loop_once(path: Path) -> None:
    async def work(recorded: Recorded) -> int:
        loop, woken = asyncio.get_running_loop(), []
        plain = loop.call_soon_threadsafe
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "call_soon_threadsafe", lambda *args: (woken.append(args), plain(*args)))
            with write_lock(path):
                tasks = [asyncio.create_task(recorded.generate(replace(REQUEST, seed=i))) for i in range(200)]
                await asyncio.sleep(0.1)
            await asyncio.gather(*tasks)
        return len(woken)

    assert gather(path, Fixed(), work) <= 2


def sleeps_of_the_writer(path: Path, patch: pytest.MonkeyPatch, work: Callable[[Recorded], Coroutine[Any, Any, T]], model: Fixed) -> list[float]:
    from safer_instruct.ledger import commits as writing

    slept: list[float] = []
    plain = time.sleep

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        plain(seconds)

    patch.setattr(writing.time, "sleep", sleep)
    gather(path, model, work)
    return slept


def test_a_commit_that_nobody_could_join_is_made_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def one_after_the_other(recorded: Recorded) -> None:
        for i in range(30):
            await recorded.generate(replace(REQUEST, seed=i))

    assert sleeps_of_the_writer(path, monkeypatch, one_after_the_other, Fixed()) == []
    assert [t.calls for t in read_totals(path)] == [30]


def test_while_calls_are_in_flight_a_commit_waits_a_moment_for_those_that_can_join_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def all_together(recorded: Recorded) -> None:
        await asyncio.gather(*(recorded.generate(replace(REQUEST, seed=i)) for i in range(60)))
        seen.append(commits(path))

    rng, seen = random.Random(0), []
    model = Fixed(gate=lambda: asyncio.sleep(rng.random() * 0.2))
    slept = sleeps_of_the_writer(path, monkeypatch, all_together, model)
    assert slept and all(0 < seconds <= 0.02 for seconds in slept) and seen[0] < 45, "one commit for each call, or nearly so"


def test_a_call_that_nobody_waits_for_any_more_is_saved_and_not_made_again(path: Path) -> None:
    meter, model = Meter(), Fixed()

    async def work(recorded: Recorded) -> Generated:
        with write_lock(path):
            first = asyncio.create_task(recorded.generate(REQUEST))
            await asyncio.sleep(0.05)
            first.cancel()
            second = asyncio.create_task(recorded.generate(REQUEST))
            await asyncio.sleep(0.05)
            assert first.cancelled() and not second.done(), "what is not committed is not seen"
        return await second

    assert gather(path, model, work, meter) == ANSWER
    assert (model.asked, meter.calls, meter.replayed) == (1, 1, 1) and [t.calls for t in read_totals(path)] == [1]


def test_an_event_loop_that_was_closed_early_does_not_end_the_writer(path: Path) -> None:
    async def walk_away(ledger: Ledger) -> None:
        asyncio.get_running_loop().call_later(0.05, asyncio.get_running_loop().stop)
        await Recorded(Fixed(), ledger, "induce", Meter()).generate(REQUEST)

    with Ledger(path) as ledger:
        with write_lock(path):
            loop = asyncio.new_event_loop()
            task = loop.create_task(walk_away(ledger))
            loop.run_forever()
            task.get_coro().close()
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            loop.close()
        model = Fixed()
        assert asyncio.run(Recorded(model, ledger, "induce", Meter()).generate(replace(REQUEST, seed=99))) == ANSWER and model.asked == 1
        assert asyncio.run(Recorded(model, ledger, "induce", Meter()).generate(REQUEST)) == ANSWER and model.asked == 1
    assert [t.calls for t in read_totals(path)] == [2]


def test_a_reader_that_takes_its_time_does_not_hold_up_the_write_ahead_log(path: Path) -> None:
    call(path, Fixed(), *(replace(REQUEST, seed=i) for i in range(5)))

    async def work(ledger: Ledger) -> tuple[int, int, int]:
        reading = read_calls(path)
        next(reading)
        await Recorded(Fixed(), ledger, "induce", Meter()).generate(replace(REQUEST, seed=99))
        with closing(sqlite3.connect(path)) as connection:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return busy, path.with_name("ledger.sqlite-wal").stat().st_size, len(list(reading))

    assert with_ledger(path, work) == (0, 0, 5)


# --- damage, and other versions


def test_a_file_that_is_no_database_is_refused_by_name_and_left_as_it_is(path: Path) -> None:
    path.write_bytes(b"not a database" * 500)
    with pytest.raises(RunDirectoryError, match=r"ledger\.sqlite is damaged: its header is broken; .*--recover"):
        Ledger(path)
    assert path.read_bytes() == b"not a database" * 500
    with pytest.raises(RunDirectoryError, match="is damaged"):
        read_totals(path)


def test_a_truncated_database_is_refused(path: Path) -> None:
    call(path, Fixed(), *(replace(REQUEST, seed=i) for i in range(50)))
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(RunDirectoryError, match=r"ledger\.sqlite"):
        read_totals(path)


@pytest.mark.parametrize("damage", ["pages", "answer"])
def test_damage_inside_the_ledger_is_told_as_such(path: Path, damage: str) -> None:
    call(path, Fixed(), REQUEST)
    if damage == "pages":
        raw = path.read_bytes()
        path.write_bytes(raw[:4096] + b"\xff" * (len(raw) - 4096))
    else:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE calls SET content = x'00'")
    with pytest.raises(RunDirectoryError, match=r"ledger\.sqlite.* damaged.*--recover"):
        call(path, Fixed(), REQUEST)


def test_a_ledger_of_a_newer_version_is_refused_and_keeps_its_version(path: Path) -> None:
    call(path, Fixed(), REQUEST)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(RunDirectoryError, match=r"newer version of safer-instruct \(ledger schema 99\)"):
        Ledger(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)


def test_a_place_that_cannot_hold_a_ledger_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing" / "ledger.sqlite"):
        with pytest.raises(RunDirectoryError, match="the ledger cannot be opened"):
            Ledger(place)


# --- totals


def test_totals_add_up_per_stage_and_model_in_order_of_first_use(path: Path) -> None:
    call(path, Fixed(), REQUEST, replace(REQUEST, seed=9), stage="induce")
    call(path, Fixed(), SCORING, stage="filter")
    call(path, Fixed(name="fixed:b", fingerprint="b"), REQUEST, stage="induce")
    totals = [(t.stage, t.model, t.calls, t.usage) for t in read_totals(path)]
    assert totals == [("induce", "fixed:m", 2, ANSWER.usage + ANSWER.usage), ("filter", "fixed:m", 1, SCORE.usage), ("induce", "fixed:b", 1, ANSWER.usage)]


def test_totals_of_a_missing_ledger_are_an_error_and_make_no_file(path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"ledger\.sqlite: the ledger cannot be read"):
        read_totals(path)
    assert not path.exists()


@pytest.mark.parametrize("name", ["50%20 off", "what?", "a#b", "\N{SNOWMAN} x"])
def test_totals_are_read_whatever_the_folder_is_called(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    call(tmp_path / name / "ledger.sqlite", Fixed(), REQUEST)
    assert [t.calls for t in read_totals(tmp_path / name / "ledger.sqlite")] == [1]
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_stored_call_tells_what_was_asked_and_when(path: Path) -> None:
    call(path, Fixed(), REQUEST, SCORING)
    generated, scored = read_calls(path)
    kind, request = json.loads(generated.request)
    assert kind == "generate" and request["prompt"] == "Ask." and request["sampling"]["n"] == 2 and json.loads(scored.request)[0] == "score"
    assert (generated.stage, generated.model, generated.usage, scored.usage) == ("induce", "fixed:m", ANSWER.usage, SCORE.usage)
    assert math.isclose(generated.finished_at, path.stat().st_mtime, abs_tol=60) and len(generated.key) == 16


@settings(max_examples=100)
@given(st.lists(st.tuples(ODD, ODD), max_size=4), st.integers(), st.builds(Sampling, COUNT, FINITE, COUNT, FINITE, COUNT))
def test_the_quick_way_of_writing_a_request_changes_no_byte(turns: list[tuple[str, str]], seed: int, sampling: Sampling) -> None:
    request = Generation(tuple(Turn(role, content) for role, content in turns), sampling, seed)
    fields = {"prompt": [{"role": role, "content": content} for role, content in turns], "sampling": asdict(sampling), "seed": seed}
    plain = json.dumps(["generate", fields], ensure_ascii=False, sort_keys=True)
    assert encode_request("generate", request) == plain.encode("utf-8", "surrogatepass")


def test_a_key_that_was_given_is_always_known_and_another_hardly_ever() -> None:
    rng = random.Random(3)
    keys = [rng.randbytes(16) for _ in range(20_000)]
    known = KnownKeys(keys[:10_000])
    assert all(key in known for key in keys[:10_000]) and sum(key in known for key in keys[10_000:]) < 10


def test_numbers_that_are_equal_and_written_differently_make_keys_of_their_own_in_any_order() -> None:
    whole, real = (Generation((Turn("user", "x"),), Sampling(temperature=t)) for t in (1, 1.0))
    written = [encode_request("generate", request) for request in (whole, real, whole)]
    assert b'"temperature": 1,' not in written[1] and written[0] == written[2] != written[1]
