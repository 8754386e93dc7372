"""`BatchedModel`: a model whose calls are gathered, sent as batches, and answered when their batch has come back.

Whoever calls `generate` waits, for minutes or hours; many calls must wait at a time for a batch to fill, which is what
`concurrency` says. An answer is on disk before it is handed out and stays there, so a sitting that is killed at any moment
pays for nothing twice: the next one takes up the batches that are under way, and whoever asks for a call of theirs gets
that answer. Rows that failed are sent again, a few times, with the next batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from safer_instruct.errors import AccessError, ModelError, RequestError, SaferInstructError
from safer_instruct.models.addresses import cleaned
from safer_instruct.models.batch.api import PATIENT, Timing, compact
from safer_instruct.models.batch.calls import BatchState, Call, Gathering, Hold, Spend, by_key, give_back, key_of, most_of, retrieve
from safer_instruct.models.batch.carrier import Carrier, Passage, new_token, read
from safer_instruct.models.batch.jobs import Jobs, Row
from safer_instruct.models.batch.provider import Fate, Provider, Result
from safer_instruct.models.protocol import Generated, Generation, Scored, Scoring, Usage
from safer_instruct.models.remote import USE_EMBEDDED
from safer_instruct.models.spending import Spending, Tokens
from safer_instruct.prices import Price

_AT_A_TIME = 100
_TRIES = 4  # how often a row is sent that fails for no fault of its own


class BatchedModel:
    """A model behind a batch API; itself a `Model`, so stages cannot tell."""

    def __init__(
        self,
        provider: Provider,
        path: Path,
        *,
        max_rows: int = 10_000,
        price: Price | None = None,
        spend: Spend | None = None,
        timing: Timing = PATIENT,
    ) -> None:
        """Nothing is opened before the first call.

        Args:
            provider: The batch API of the model.
            path: The file of batches, in the run directory.
            max_rows: Rows of a full batch; the provider's own limits hold beside it.
            price: What the model costs outside a batch; None when unknown.
            spend: The budget, when there is one.
            timing: How long to wait for what.
        """
        self.name, self.fingerprint, self.priced = provider.name, provider.fingerprint, price is not None
        self.billed = Spending(price).billed
        self.concurrency = min(max_rows, provider.limits.rows)
        self._provider, self._path, self._spend, self._timing = provider, path, spend, timing
        self._spending = Spending(price, batch=True)
        self._max_bytes = provider.limits.bytes * 9 // 10  # the form around the rows takes some
        self._jobs: Jobs | None = None
        self._carrier: Carrier | None = None
        self._calls: dict[bytes, Call] = {}
        self._holds: dict[int, dict[bytes, Hold]] = {}  # batch -> call -> what is set aside for it
        self._gathering: dict[str, Gathering] = {}
        self._passages: dict[int, Passage] = {}
        self._broken: dict[int, SaferInstructError] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> BatchState:
        """Where it stands now."""
        passages, now = list(self._passages.values()), time.monotonic()
        polls = [p.next_poll - now for p in passages if p.next_poll is not None]
        return BatchState(
            len(passages),
            sum(p.batch.size for p in passages),
            sum(p.done for p in passages),
            sum(len(g.calls) for g in self._gathering.values()),
            max(0.0, min(polls)) if polls else None,
            next((p.note for p in passages if p.note), ""),
        )

    @property
    def status(self) -> str:
        """See `Model.status`."""
        state = self.state
        if not state.batches:
            return ""
        when = "" if state.next_poll_s is None else f", next look in {state.next_poll_s:.0f} s"
        return f"{self.name}: {state.done:,} of {state.rows:,} rows done in {state.batches} batches{when}{f' ({state.note})' if state.note else ''}"

    async def generate(self, request: Generation) -> Generated:
        """See `Model.generate`; the answer is on disk when it is returned."""
        jobs = self._jobs or self._open()
        key = key_of(self.fingerprint, request)
        call = self._calls.get(key) or self._begin(jobs, key, request)
        call.askers += 1
        try:
            return await asyncio.shield(call.answer)
        finally:
            call.askers -= 1

    async def score(self, request: Scoring) -> Scored:
        """See `Model.score`; no batch API scores given texts."""
        raise AccessError(f"{self.name} cannot score in batches; {USE_EMBEDDED}")

    async def cancel(self) -> int:
        """Ask the provider to stop what is under way, in a sitting of its own; gives the number of batches.

        What is done by then can still be fetched, by whoever runs next; the other rows go again if they are asked for.
        """
        jobs = Jobs(self._path)
        batches = [batch for batch in jobs.unfinished(self.fingerprint) if batch.state == "open"]
        jobs.close()
        for batch in batches:
            await self._provider.cancel(batch)
        return len(batches)

    async def close(self) -> None:
        """Stop waiting: batches that are under way stay so, and the next sitting takes them up."""
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for call in [c for g in self._gathering.values() for c in g.calls]:
            give_back(call)
        self._gathering.clear()
        self._passages.clear()
        for call in self._calls.values():
            call.answer.cancel()
        self._calls.clear()
        await self._provider.close()
        if self._jobs:
            self._jobs.close()
            self._jobs = None

    def _open(self) -> Jobs:
        """Open the file, and take up what an earlier sitting left under way."""
        self._jobs = jobs = Jobs(self._path)
        self._carrier = Carrier(self._provider, jobs, self._timing)
        for batch in jobs.unfinished(self.fingerprint):
            if self._spend:
                self._holds[batch.id] = {key: self._spend.resume(*most_of(rows)) for key, rows in by_key(jobs.rows(batch)).items()}
            self._launch(Passage(batch), None)
        return jobs

    def _begin(self, jobs: Jobs, key: bytes, request: Generation) -> Call:
        """A call that nobody has asked for in this sitting: its answer may be here, or under way, or it is sent."""
        path = self._provider.path(request)
        under_way = jobs.batch_of(key)
        if under_way in self._broken:
            raise self._broken[under_way]
        parts = list(range(len(self._provider.rows(request))))
        call = Call(key, request, asyncio.get_running_loop().create_future(), parts, batch=under_way)
        call.answer.add_done_callback(retrieve)
        self._calls[key] = call
        if under_way is None and not self._answered(jobs, call):
            self._spawn(self._enter(call, path))
        return call

    async def _enter(self, call: Call, path: str) -> None:
        """Wait for room in the budget, then for a batch."""
        rows = self._provider.rows(call.request)
        call.bodies = [compact(self._provider.body(rows[part])) for part in call.parts]
        if self._spend:
            try:
                call.hold = await self._spend.reserve(*most_of(self._rows(call)), lasting=True)
            except (SaferInstructError, ValueError) as exc:
                self._end(call, exc)
                return
        size = sum(map(len, call.bodies)) + 200 * len(call.bodies)  # and what stands around each
        gathering = self._gathering.setdefault(path, Gathering())
        if gathering.calls and (gathering.rows + len(call.parts) > self.concurrency or gathering.bytes + size > self._max_bytes):
            self._send(path)
            gathering = self._gathering.setdefault(path, Gathering())
        if not gathering.calls:
            gathering.since = gathering.last = time.monotonic()
            self._spawn(self._send_in_time(path, gathering))
        gathering.calls.append(call)
        gathering.rows, gathering.bytes, gathering.last = gathering.rows + len(call.parts), gathering.bytes + size, time.monotonic()
        if gathering.rows >= self.concurrency:
            self._send(path)

    async def _send_in_time(self, path: str, gathering: Gathering) -> None:
        timing, left = self._timing, min(self._timing.gather_s, self._timing.longest_gather_s)
        while left > 0:
            await asyncio.sleep(left)
            left = min(gathering.last + timing.gather_s, gathering.since + timing.longest_gather_s) - time.monotonic()
        if self._gathering.get(path) is gathering:
            self._send(path)

    def _send(self, path: str) -> None:
        """Make a batch of the calls that somebody still waits for."""
        wanted = []
        for call in self._gathering.pop(path).calls:
            if call.askers:
                wanted.append(call)
            else:
                self._calls.pop(call.key, None)
                give_back(call)
        if wanted:
            self._spawn(self._dispatch(path, wanted))

    async def _dispatch(self, path: str, calls: Sequence[Call]) -> None:
        assert self._jobs is not None  # noqa: S101 - a call has opened it
        rows = [row for call in calls for row in self._rows(call)]
        bodies = [body for call in calls for body in call.bodies]
        try:
            batch = await asyncio.to_thread(self._jobs.plan, self.fingerprint, new_token(), path, rows)
        except SaferInstructError as exc:
            for call in calls:
                give_back(call)
                self._end(call, exc)
            return
        self._holds[batch.id] = {call.key: call.hold for call in calls if call.hold}
        for call in calls:
            call.batch, call.hold, call.bodies = batch.id, None, []
        self._launch(Passage(batch), bodies)

    def _launch(self, passage: Passage, bodies: list[bytes] | None) -> None:
        self._passages[passage.batch.id] = passage
        self._spawn(self._follow(passage, bodies))

    async def _follow(self, passage: Passage, bodies: list[bytes] | None) -> None:
        """Carry one batch, and give everybody what came of it."""
        jobs, carrier = self._jobs, self._carrier
        assert jobs is not None  # noqa: S101 - whoever launched it has opened them
        assert carrier is not None  # noqa: S101
        keys = list(by_key(jobs.rows(passage.batch)))
        try:
            results = await carrier.carry(passage, bodies)
        except SaferInstructError as exc:
            self._break_off(jobs, passage, keys, exc)
            return
        finally:
            self._passages.pop(passage.batch.id, None)
        waiting = self._waiting(passage, keys)
        if results is None:  # nothing of it is at the provider
            self._settle(passage, dict.fromkeys(keys, (0.0, 0)))
            for call in waiting:
                self._ask_again(jobs, call)
            return
        results_of: dict[bytes, list[tuple[Row, Result]]] = {}
        for row, result in results:
            results_of.setdefault(row.key, []).append((row, result))
        self._settle(passage, {key: self._taken(parts) for key, parts in results_of.items()})
        for number, call in enumerate(waiting, 1):
            self._resolve(jobs, call, [result for _, result in results_of[call.key]])
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)  # thousands are answered at once, and others want the loop too

    def _waiting(self, passage: Passage, keys: Sequence[bytes]) -> list[Call]:
        """The calls that wait for this batch, which is over."""
        calls = [call for key in keys if (call := self._calls.get(key)) and call.batch == passage.batch.id]
        for call in calls:
            call.batch = None
        return calls

    def _break_off(self, jobs: Jobs, passage: Passage, keys: Sequence[bytes], exc: SaferInstructError) -> None:
        """A batch that cannot be carried on in this sitting; if it was forgotten, nothing of it is at the provider."""
        if any(batch.id == passage.batch.id for batch in jobs.unfinished(self.fingerprint)):
            self._broken[passage.batch.id] = exc
        else:
            self._settle(passage, dict.fromkeys(keys, (0.0, 0)))
        for call in self._waiting(passage, keys):
            self._end(call, exc)

    def _resolve(self, jobs: Jobs, call: Call, results: Sequence[Result]) -> None:
        """Answer a call whose batch has come back, or send what is missing of it again."""
        if len(results) == len(self._provider.rows(call.request)) and all(r.fate is Fate.ANSWERED for r in results):
            self._end(call, self._generated(call.request, results))
            return
        bad = [r for r in results if r.fate is not Fate.ANSWERED]
        for fate, kind in ((Fate.DENIED, AccessError), (Fate.REFUSED, RequestError)):
            if denied := next((r for r in bad if r.fate is fate), None):
                self._end(call, kind(f"{self.name}: {cleaned(denied.reason, ())}"))
                return
        call.tries += 1
        if call.tries >= _TRIES and bad:
            self._end(call, ModelError(f"{self.name} gave no usable answer in {call.tries} batches; the last time: {cleaned(bad[0].reason, ())}"))
        else:
            self._ask_again(jobs, call)

    def _ask_again(self, jobs: Jobs, call: Call) -> None:
        """Send what is missing of a call, if anything is."""
        if not self._answered(jobs, call):
            self._spawn(self._enter(call, self._provider.path(call.request)))

    def _answered(self, jobs: Jobs, call: Call) -> bool:
        """Answer a call from what is on disk, if it is all there; leave in `parts` what is missing."""
        results = {part: read(self._provider, line) for part, line in jobs.answers(call.key).items()}
        call.parts = [part for part in range(len(self._provider.rows(call.request))) if part not in results]
        if not call.parts:
            self._end(call, self._generated(call.request, [results[part] for part in sorted(results)]))
        return call.answer.done()

    def _generated(self, request: Generation, results: Sequence[Result]) -> Generated:
        """The answer that the parts of a call make up, in their order."""
        each = request.sampling.n // len(results)
        usage = sum((self._usage(r.tokens) for r in results), Usage())
        return Generated(tuple(c for r in results for c in r.for_each(each)), usage)

    def _end(self, call: Call, outcome: Generated | BaseException) -> None:
        self._calls.pop(call.key, None)
        if not call.answer.done():
            if isinstance(outcome, BaseException):
                call.answer.set_exception(outcome)
            else:
                call.answer.set_result(outcome)

    def _rows(self, call: Call) -> list[Row]:
        """The missing parts of a call, with the most that each can take."""
        rows = self._provider.rows(call.request)
        return [Row(call.key, part, *self._spending.bound(rows[part])) for part in call.parts]

    def _usage(self, tokens: Tokens | None) -> Usage:
        return self._spending.usage(tokens or Tokens(), 0.0)

    def _taken(self, parts: Sequence[tuple[Row, Result]]) -> tuple[float | None, int]:
        """What rows have taken; where that cannot be told, the most that they can have."""
        cost, tokens = 0.0, 0
        for row, result in parts:
            known = result.tokens is not None
            usage = self._usage(result.tokens)
            cost += usage.cost if known else row.cost or 0.0
            tokens += usage.prompt_tokens + usage.completion_tokens if known else row.tokens
        return (cost if self.priced else None), tokens

    def _settle(self, passage: Passage, taken: dict[bytes, tuple[float | None, int]]) -> None:
        """Give back what was set aside for a batch, but for what its calls have taken."""
        for key, hold in self._holds.pop(passage.batch.id, {}).items():
            hold.settle(*taken[key])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        """Errors are told to the calls they concern; should one escape, then to all: nobody may wait for ever."""
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()):
            for call in list(self._calls.values()):
                self._end(call, exc)
