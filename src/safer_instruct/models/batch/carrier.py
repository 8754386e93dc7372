"""Brings one batch through: submit it, wait for it, fetch what came back. At every step a kill loses nothing that was paid."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from safer_instruct.errors import AccessError, ModelError
from safer_instruct.models.batch.api import NotNowError, Timing
from safer_instruct.models.batch.jobs import Batch, Jobs, Row
from safer_instruct.models.batch.provider import Fate, Progress, Provider, Result, custom_id, row_of

_LONGEST_BATCH_S = 72 * 3600.0  # all four end a batch after 24 or 48 hours, whatever has come of it
_NO_RESULT = Result("", Fate.FAILED, reason="the provider gave no result for it")


@dataclass(slots=True)
class Passage:
    """A batch on its way, for whoever watches: rows done as far as the provider tells, and when it is asked again (`time.monotonic`)."""

    batch: Batch
    done: int = 0
    next_poll: float | None = None
    note: str = ""


def new_token() -> str:
    """A name for a batch that nobody else has."""
    return f"si-{uuid.uuid4().hex[:24]}"


class Carrier:
    """Carries the batches of one model."""

    def __init__(self, provider: Provider, jobs: Jobs, timing: Timing) -> None:
        self._provider, self._jobs, self._timing = provider, jobs, timing
        self._full_since: float | None = None

    async def carry(self, passage: Passage, bodies: list[bytes] | None) -> list[tuple[Row, Result]] | None:
        """Bring a batch from wherever it stands to its end.

        Args:
            passage: The batch, planned or found on disk.
            bodies: What its rows ask, as JSON, emptied when it has been submitted; None when an earlier sitting planned it.

        Returns:
            What became of each row; None when nothing of the batch is at the provider and its rows have to be planned anew.

        Raises:
            AccessError: The provider refuses the batch as a whole.
            ModelError: The provider gives no good reply any more; the batch stays on disk.
            RunDirectoryError: The file of batches could not be written.
        """
        if not await self._submitted(passage, bodies):
            return None
        progress = await self._ended(passage)
        if progress.queue_full:
            await self._wait_for_room(passage, progress)
            return None
        self._full_since = None
        if progress.failed:
            await asyncio.to_thread(self._jobs.discard, passage.batch)
            raise AccessError(f"{self._provider.name}: batch {passage.batch.remote} was not run, the provider found it not valid: {progress.failed}")
        lines = await self._provider.results(passage.batch, progress)
        return await asyncio.to_thread(self._store, passage.batch, lines)

    async def _submitted(self, passage: Passage, bodies: list[bytes] | None) -> bool:
        """Make sure that the batch is at the provider, once; False when it is not and cannot be."""
        batch = passage.batch
        if batch.state == "open":
            return True
        remote = await self._search(batch) if batch.state == "creating" else ""
        if remote:
            passage.batch = await asyncio.to_thread(self._jobs.advance, batch, "open", remote=remote)
        elif bodies is None:
            await asyncio.to_thread(self._jobs.discard, batch)
            return False
        else:
            await self._submit(passage, bodies)
            bodies.clear()  # they are large, and the batch is away for hours
        return True

    async def _submit(self, passage: Passage, bodies: Sequence[bytes]) -> None:
        batch = passage.batch
        lines = [self._provider.line(custom_id(batch, i), body, batch.path) for i, body in enumerate(bodies)]
        upload = await self._provider.upload(batch, lines)
        passage.batch = batch = await asyncio.to_thread(self._jobs.advance, batch, "creating", upload=upload)
        tries, since = 0, time.monotonic()
        while True:
            try:
                remote = await self._provider.create(batch, lines)
                break
            except AccessError:
                await asyncio.to_thread(self._jobs.discard, batch)
                raise
            except NotNowError as exc:
                passage.note = str(exc)
                remote = "" if exc.certain else await self._search(batch)
                if remote:
                    break
                if time.monotonic() - since > (_LONGEST_BATCH_S if exc.certain else self._timing.give_up_s):
                    await asyncio.to_thread(self._jobs.discard, batch)
                    raise ModelError(f"{self._provider.name}: no batch could be created for {time.monotonic() - since:.0f} s, the last reply: {exc}") from exc
                await asyncio.sleep(self._timing.wait_s(tries))
            tries += 1
        passage.note = ""
        passage.batch = await asyncio.to_thread(self._jobs.advance, batch, "open", remote=remote)

    async def _search(self, batch: Batch) -> str:
        """The id of a batch that may have been created; empty once it is sure that it was not."""
        tries, since, others = 0, time.monotonic(), self._jobs.remotes()
        while True:
            sought = await self._provider.find(batch, others)
            if sought.remote:
                return sought.remote
            waited = time.monotonic() - since
            if not sought.undecided and waited >= self._timing.settle_s:
                return ""
            if waited > _LONGEST_BATCH_S:
                raise ModelError(f"{self._provider.name}: whether a batch of {batch.size} rows was created could not be told; see {self._jobs.path}")
            await asyncio.sleep(self._timing.wait_s(tries))
            tries += 1

    async def _ended(self, passage: Passage) -> Progress:
        """Ask how the batch stands, ever more seldom, until it has ended."""
        tries = 0
        while True:
            try:
                progress = await self._provider.poll(passage.batch)
            except AccessError as exc:
                hint = f"if another key made it, use that one; to give its rows up and pay for them again, delete {self._jobs.path}"
                raise AccessError(f"{exc}; this is about batch {passage.batch.remote}: {hint}") from exc
            passage.done = progress.done
            if progress.ended:
                passage.next_poll = None
                return progress
            if time.time() - passage.batch.changed_at > _LONGEST_BATCH_S:
                raise ModelError(f"{self._provider.name}: batch {passage.batch.remote} has not ended for {_LONGEST_BATCH_S / 3600:.0f} hours")
            wait_s = self._timing.wait_s(tries)
            passage.next_poll = time.monotonic() + wait_s
            await asyncio.sleep(wait_s)
            tries += 1

    async def _wait_for_room(self, passage: Passage, progress: Progress) -> None:
        """The provider has too much waiting and did not run the batch: forget it, in a while its rows go again."""
        passage.note = progress.failed
        await asyncio.to_thread(self._jobs.discard, passage.batch)
        self._full_since = self._full_since or time.monotonic()
        if time.monotonic() - self._full_since > _LONGEST_BATCH_S:
            raise ModelError(f"{self._provider.name}: the provider has had no room for a batch for {_LONGEST_BATCH_S / 3600:.0f} hours: {progress.failed}")
        await asyncio.sleep(self._timing.longest_poll_s)

    def _store(self, batch: Batch, lines: Sequence[bytes]) -> list[tuple[Row, Result]]:
        """Read the results, keep what was paid for, and end the batch."""
        rows = self._jobs.rows(batch)
        found: dict[int, tuple[Result, bytes]] = {}
        for line in lines:
            result = read(self._provider, line)
            row = row_of(batch, result.custom_id)
            if row is not None and (row not in found or (result.fate is Fate.ANSWERED and found[row][0].fate is not Fate.ANSWERED)):
                found[row] = result, line
        self._jobs.finish(batch, [(rows[i], line) for i, (result, line) in found.items() if is_final(result)])
        return [(row, found[i][0] if i in found else _NO_RESULT) for i, row in enumerate(rows)]


def read(provider: Provider, line: bytes) -> Result:
    """Read a result line that may hold anything."""
    try:
        return provider.read(line)
    except (TypeError, ValueError, AttributeError, KeyError) as exc:
        return Result("", Fate.FAILED, reason=f"a result line that cannot be read ({type(exc).__name__})")


def is_final(result: Result) -> bool:
    """Whether a row need never be sent again: it was answered, be it with what a filter left of the answer."""
    return result.fate is Fate.ANSWERED
