"""What a provider's batch API is to the rest: build a row, submit, ask how it stands, read a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol

from safer_instruct.errors import AccessError
from safer_instruct.models.batch.jobs import Batch
from safer_instruct.models.protocol import Completion, Generation, Turn
from safer_instruct.models.spending import Tokens


class Fate(Enum):
    """What became of a row: only an answer is final; a refusal holds for what is in the row, a denial for every row."""

    ANSWERED = "answered"
    REFUSED = "refused"
    DENIED = "denied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """One line of a batch's results, read.

    Attributes:
        custom_id: The row that it belongs to; empty when the line says nothing of use.
        fate: What became of it.
        completions: Those of an answer; where a content filter stopped the prompt, one that was withheld.
        tokens: What it took; none for what the provider does not charge, None when that cannot be told.
        reason: Why there is no answer.
    """

    custom_id: str
    fate: Fate
    completions: tuple[Completion, ...] = ()
    tokens: Tokens | None = None
    reason: str = ""

    def for_each(self, n: int) -> tuple[Completion, ...]:
        """The completions of a row that asked for `n`: where a content filter stopped the prompt, it withheld all of them."""
        stopped = len(self.completions) == 1 and self.completions[0].withheld
        return self.completions * n if stopped else self.completions


@dataclass(frozen=True, slots=True)
class Progress:
    """How a batch stands at the provider.

    Attributes:
        ended: Nothing more will come; what came lies at `outputs`.
        outputs: The provider's names of the result files.
        done: Rows that are done so far, where the provider tells.
        failed: Why the batch as a whole was not run.
        queue_full: It was not run because too much is waiting already: it may go again later.
    """

    ended: bool
    outputs: tuple[str, ...] = ()
    done: int = 0
    failed: str = ""
    queue_full: bool = False


@dataclass(frozen=True, slots=True)
class Sought:
    """What a search for a batch by its token has shown: its id at the provider, or nothing, or nothing as yet."""

    remote: str = ""
    undecided: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that the provider takes in one batch."""

    rows: int
    bytes: int


class Provider(Protocol):
    """The batch API of one model."""

    name: str
    fingerprint: str
    limits: Limits

    def path(self, request: Generation) -> str:
        """Where the request would go by itself; requests of different paths cannot share a batch.

        Raises:
            AccessError: There is no such place at this provider.
        """

    def rows(self, request: Generation) -> tuple[Generation, ...]:
        """A request as the rows that it takes: one, or one for each of its completions."""

    def body(self, row: Generation) -> dict[str, Any]:
        """What would be sent for a row by itself."""

    def line(self, custom_id: str, body: bytes, path: str) -> bytes:
        """The row of a body that is JSON already."""

    async def upload(self, batch: Batch, lines: Sequence[bytes]) -> str:
        """Send the rows ahead, where the provider wants that; costs nothing and may be repeated."""

    async def create(self, batch: Batch, lines: Sequence[bytes]) -> str:
        """Create the batch at the provider and return its id there; from here on it costs money.

        Raises:
            NotNowError: It did not work out; `certain` says whether nothing was created.
            ModelError: The provider refuses it.
        """

    async def find(self, batch: Batch, others: set[str]) -> Sought:
        """Look for a batch that may have been created; `others` are batches that are known to be others."""

    async def poll(self, batch: Batch) -> Progress:
        """Ask how a batch stands."""

    async def results(self, batch: Batch, progress: Progress) -> list[bytes]:
        """The result lines of a batch that has ended, in any order."""

    def read(self, line: bytes) -> Result:
        """Read a result line, whatever it holds."""

    async def cancel(self, batch: Batch) -> None:
        """Ask the provider to stop; what is done by then is charged and can be fetched."""

    async def close(self) -> None:
        """Close the connections."""


def custom_id(batch: Batch, row: int) -> str:
    """The id of a row at the provider: at most 64 letters, digits, '-' and '_', as all four want it."""
    return f"{batch.token}-{row}"


def row_of(batch: Batch, custom_id: str) -> int | None:
    """The row that an id names, or None when it is none of this batch."""
    token, _, number = custom_id.rpartition("-")
    return int(number) if token == batch.token and number.isdecimal() and int(number) < batch.size else None


def each_completion(request: Generation) -> tuple[Generation, ...]:
    """A request as one row for each of its completions, with a seed of its own."""
    return tuple(replace(request, seed=request.seed + i, sampling=replace(request.sampling, n=1)) for i in range(request.sampling.n))


def turns_of(request: Generation, name: str) -> tuple[Turn, ...]:
    """The messages of a request to a provider that takes no other.

    Raises:
        AccessError: It is a raw prompt.
    """
    if isinstance(request.prompt, str):
        raise AccessError(f"{name} takes chats only, no raw prompts; set induce.form to 'chat'")
    return request.prompt
