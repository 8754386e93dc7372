"""A recorded model where several processes share the calls: what another one made is taken, and nobody is left waiting."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledgers import a_call

from safer_instruct.ledger import Call, Ledger, Meter, Recorded
from safer_instruct.ledger.content import encode_answer
from safer_instruct.ledger.rows import DamagedRowError
from safer_instruct.models.protocol import Completion, Generated, Generation, Sampling, Scored, Scoring, Usage, encode_request

ANSWER = Generated((Completion("Where is my parcel?", -0.25),), Usage(11, 5, 0.125, 0.5))
REQUEST = Generation("Ask.", Sampling(), 3)


class Asked:
    """A model that answers after a moment and counts."""

    name, fingerprint, concurrency, priced, status = "fixed:m", "fixed", 3, True, "waits for its turn"

    def __init__(self) -> None:
        self.asked = 0

    async def generate(self, request: Generation) -> Generated:
        self.asked += 1
        await asyncio.sleep(0)
        return ANSWER

    async def score(self, request: Scoring) -> Scored:
        raise NotImplementedError

    async def close(self) -> None: ...


class Shared(Ledger):
    """A ledger whose calls others make, too: asked for a call, it waits and has the answer of another process, if there is one."""

    made: Call | None = None
    claims = 0

    async def claim(self, key: bytes, stage: str) -> Call | None:
        self.claims += 1
        await asyncio.sleep(0)
        if self.made:
            assert (key, stage) == (self.made.key, self.made.stage)
        return self.made


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Shared]:
    with Shared(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


def test_what_another_process_made_is_not_made_again_and_counts_as_replayed(ledger: Shared) -> None:
    model, meter = Asked(), Meter()
    recorded = Recorded(model, ledger, "induce", meter)
    asked = encode_request("generate", REQUEST)
    ledger.made = Call(recorded._key(asked), "induce", model.name, asked, encode_answer(ANSWER), ANSWER.usage, time.time())

    async def work() -> list[Generated]:
        return await asyncio.wait_for(asyncio.gather(*(recorded.generate(REQUEST) for _ in range(3))), 5)

    assert asyncio.run(work()) == [ANSWER] * 3
    assert model.asked == 0 and (meter.calls, meter.replayed) == (3, 3)
    assert meter.fresh == Usage() and meter.earlier == ANSWER.usage + ANSWER.usage + ANSWER.usage
    assert not ledger.in_flight, "whoever asks next is not to wait"


def test_what_nobody_made_is_made_once_and_its_key_given_free(ledger: Shared) -> None:
    model, meter = Asked(), Meter()
    recorded = Recorded(model, ledger, "induce", meter)

    async def work() -> list[Generated]:
        return await asyncio.wait_for(asyncio.gather(*(recorded.generate(REQUEST) for _ in range(3))), 5)

    assert asyncio.run(work()) == [ANSWER] * 3
    assert model.asked == ledger.claims == 1 and (meter.calls, meter.replayed) == (3, 2)
    assert meter.fresh == ANSWER.usage and not ledger.in_flight


def test_a_claim_that_fails_leaves_the_call_to_the_next(ledger: Shared) -> None:
    model = Asked()
    recorded = Recorded(model, ledger, "induce", Meter())

    async def refused(key: bytes, stage: str) -> Call | None:
        raise ConnectionError("the coordinator is gone")

    async def work() -> Generated:
        claim = ledger.claim
        ledger.claim = refused  # type: ignore[method-assign]
        with pytest.raises(ConnectionError):
            await recorded.generate(REQUEST)
        ledger.claim = claim  # type: ignore[method-assign]
        return await asyncio.wait_for(recorded.generate(REQUEST), 5)

    assert asyncio.run(work()) == ANSWER and model.asked == 1


def test_a_meter_begins_at_nothing_and_the_model_says_what_it_waits_for(ledger: Shared) -> None:
    meter = Meter()
    assert (meter.calls, meter.replayed, meter.usage) == (0, 0, Usage())
    assert Recorded(Asked(), ledger, "induce", meter).status == "waits for its turn"


@pytest.mark.parametrize(
    ("error", "of_one_call"),
    [
        (sqlite3.IntegrityError("a key twice"), True),
        (sqlite3.DataError("too long"), True),
        (sqlite3.ProgrammingError("no such type"), True),
        (ValueError("cannot be encoded"), True),
        (sqlite3.OperationalError("disk I/O error"), False),
        (sqlite3.DatabaseError("malformed"), False),
        (DamagedRowError("the dictionary"), False),
        (OSError("no space"), False),
        (MemoryError(), False),
    ],
)
def test_what_one_call_holds_does_not_take_the_others_of_its_commit_along_and_a_full_disk_does(error: Exception, of_one_call: bool, ledger: Shared) -> None:
    append, tried = ledger._append, list[int]()

    def failing(calls: list[Call]) -> None:
        tried.append(len(calls))
        if a_call(2) in calls:
            raise error
        append(calls)

    ledger._append = failing  # type: ignore[method-assign]
    found = ledger._save([a_call(1), a_call(2), a_call(3)])
    assert tried == ([3, 1, 1, 1] if of_one_call else [3])
    assert [e is None for e in found] == ([True, False, True] if of_one_call else [False] * 3)
    assert ledger._save([a_call(4)]) == [None]


def test_the_thread_that_commits_never_keeps_a_process_from_ending(ledger: Shared) -> None:
    assert ledger._thread.daemon
