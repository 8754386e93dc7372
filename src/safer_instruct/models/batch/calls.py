"""What waits for a batch: calls, what is set aside for them, and the gathering that becomes a batch."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from safer_instruct.models.batch.jobs import Row
from safer_instruct.models.protocol import Generated, Generation, encode_request


class Hold(Protocol):
    """Room in a budget (`budget.Reservation`)."""

    def settle(self, cost: float | None, tokens: int) -> None:
        """Count what was taken, and give the rest back."""


class Spend(Protocol):
    """Who is asked before anything is sent (`budget.Budget`)."""

    async def reserve(self, cost: float | None, tokens: int, *, lasting: bool = False) -> Hold:
        """Set aside what may be taken at most, by something that outlives the run where it is `lasting`."""

    def resume(self, cost: float | None, tokens: int) -> Hold:
        """Take up what an earlier sitting set aside."""


@dataclass(frozen=True, slots=True)
class BatchState:
    """Where a batched model stands, for display.

    Attributes:
        batches: Batches under way.
        rows: Rows in them.
        done: How many of those are done, as far as the provider tells.
        gathered: Calls that wait for their batch to fill.
        next_poll_s: Seconds until a batch is asked for, None when none will be.
        note: Why a batch could not be submitted so far.
    """

    batches: int = 0
    rows: int = 0
    done: int = 0
    gathered: int = 0
    next_poll_s: float | None = None
    note: str = ""


@dataclass(slots=True)
class Call:
    """One request that somebody waits for: the parts of it that have no answer yet, and the batch that they are in."""

    key: bytes
    request: Generation
    answer: asyncio.Future[Generated]
    parts: list[int]
    bodies: list[bytes] = field(default_factory=list)
    batch: int | None = None
    hold: Hold | None = None
    askers: int = 0
    tries: int = 0


@dataclass(slots=True)
class Gathering:
    """Calls of one path that wait for their batch to fill."""

    calls: list[Call] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    since: float = 0.0
    last: float = 0.0


def key_of(fingerprint: str, request: Generation) -> bytes:
    """What a request is known by, in any sitting."""
    return hashlib.sha256(f"{fingerprint}\n".encode("utf-8", "surrogatepass") + encode_request("generate", request)).digest()


def by_key(rows: Sequence[Row]) -> dict[bytes, list[Row]]:
    """The rows of each call."""
    found: dict[bytes, list[Row]] = {}
    for row in rows:
        found.setdefault(row.key, []).append(row)
    return found


def most_of(rows: Sequence[Row]) -> tuple[float | None, int]:
    """The most that rows can cost together, None when that is unknown, and the most tokens that they can take."""
    costs = [row.cost for row in rows if row.cost is not None]
    return (sum(costs) if len(costs) == len(rows) else None), sum(row.tokens for row in rows)


def give_back(call: Call) -> None:
    """Nothing of a call was sent: what was set aside for it is free again."""
    hold, call.hold = call.hold, None
    if hold:
        hold.settle(0.0, 0)


def retrieve(answer: asyncio.Future[Generated]) -> None:
    """An error that nobody waits for any more is no news."""
    if not answer.cancelled():
        answer.exception()
