"""The operators, as classes that Ray Data calls with tables of one row: a chunk of examples, as bytes.

Each has an event loop of its own in a thread, as the calls' transport wants it. Operators that must see all examples in
input order live on the driver's node: when they are lost the run is, so that a result never depends on what they forgot.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager, suppress
from typing import Any, TypeVar
from uuid import uuid4

from safer_instruct import rundir
from safer_instruct.budget import Budget
from safer_instruct.collect import entering
from safer_instruct.distinct import distinct, memories
from safer_instruct.equipment import equip, new_state
from safer_instruct.errors import RunnerError, SaferInstructError
from safer_instruct.example import Example
from safer_instruct.filters.dedup import Deduplicators
from safer_instruct.ledger import Shard
from safer_instruct.models.transport import event_loop
from safer_instruct.pipeline import Work
from safer_instruct.runners.chunks import MULTIPLE, Chunk, decode, encode
from safer_instruct.runners.counts import Slate
from safer_instruct.runners.ray.allowance import Allowance
from safer_instruct.runners.ray.link import Link, flows_of
from safer_instruct.runners.ray.plan import AHEAD, BEHIND, LAST, VARIED, Plan
from safer_instruct.running import seldom_collected
from safer_instruct.sources import BadRow

COLUMN = "chunk"
_CHARACTERS = 256 << 10  # of the texts of a chunk: with many more, few chunks would fill what may be under way (`run.py`), and workers stand idle
_SHARED_STAGES = ("verify", "rejected")  # may ask the same of two examples; before them every request holds a text or a prompt that no other has
T = TypeVar("T")


class Source:
    """Reads the source, from its beginning to its end, and cuts it into chunks."""

    def __init__(self, plan: Plan, coordinator: Any) -> None:
        self._plan, self._coordinator = plan, coordinator

    def __call__(self, _: Any) -> Iterator[Any]:
        """All chunks, as they are asked for."""
        with _reporting(self._coordinator), seldom_collected(), asyncio.Runner(loop_factory=event_loop) as runner:
            chunks = self._chunks()
            try:
                while chunk := runner.run(_next(chunks)):
                    yield _table(chunk)
            finally:
                runner.run(chunks.aclose())

    async def _chunks(self) -> AsyncGenerator[Chunk, None]:
        plan, config = self._plan, self._plan.config
        slate = Slate(new_state(config, None))
        budget = Budget(config.budget.max_cost, config.budget.max_tokens)  # nothing is called from here
        bad: list[BadRow] = []
        chunk, characters = Chunk(0), 0
        async with equip(config, plan.out, budget, slate.state) as equipment, aclosing(entering(equipment, bad.append)) as examples:
            async for example in examples:
                chunk.examples.append(example)
                characters += len(example.text)
                if len(chunk.examples) == plan.chunk or (characters >= _CHARACTERS and not len(chunk.examples) % MULTIPLE):
                    chunk.bad, bad[:] = bad[:], []
                    chunk.counts.append(slate.take())
                    yield chunk
                    chunk, characters = Chunk(chunk.number + 1), 0
        chunk.bad = bad
        chunk.counts.append(slate.take())
        yield chunk


class Distinct:
    """Drops examples whose instruction another has; sees all of them, in order."""

    def __init__(self, plan: Plan, coordinator: Any) -> None:
        self._config, self._coordinator, self._order = plan.config, coordinator, _Order()
        self._seen: dict[str, Deduplicators] = memories(plan.config)
        self._slate = Slate(new_state(plan.config, None))

    def __call__(self, table: Any) -> Any:
        """One chunk, with its verdicts."""
        chunk = decode(_bytes(table))
        with _reporting(self._coordinator):
            self._order.check(chunk)
            chunk.examples = asyncio.run(self._checked(chunk.examples))
        chunk.counts.append(self._slate.take())
        return _table(chunk)

    async def _checked(self, examples: list[Example]) -> list[Example]:
        stage = self._slate.state.stages["filter"]
        return [example async for example in distinct(_stream(examples), "prompt", self._config.filter, self._seen, stage)]


class Worker:
    """Does one part of the work on one chunk after the other, several of them side by side."""

    def __init__(self, plan: Plan, part: str, coordinator: Any) -> None:
        """Open the models.

        Raises:
            SaferInstructError: One cannot be opened; the coordinator is told, too.
        """
        self._plan, self._part, self._coordinator = plan, part, coordinator
        self._order = _Order() if part == VARIED else None
        self._in_hand: set[asyncio.Task[Any]] = set()
        self._over = False
        self._answered: dict[str, tuple[int, int]] = {}
        self._benches: queue.SimpleQueue[tuple[Slate, Work]] = queue.SimpleQueue()
        self._stack = AsyncExitStack()
        self._loop = event_loop()
        threading.Thread(target=self._loop.run_forever, name="worker", daemon=True).start()
        self._seldom = seldom_collected()
        self._seldom.__enter__()
        with _reporting(coordinator):
            self._done(self._open())

    def __call__(self, table: Any) -> Any:
        """One chunk, with what was done to its examples."""
        chunk = decode(_bytes(table))
        slate, work = self._benches.get()
        try:
            with _reporting(self._coordinator):
                if self._order:
                    self._order.check(chunk)
                self._done(self._work(chunk, slate, work))
        finally:
            self._benches.put((slate, work))
        return _table(chunk)

    def _done(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self) -> None:
        import ray

        plan, context = self._plan, ray.get_runtime_context()
        name = f"{plan.sitting}-{self._part}-{uuid4().hex[:12]}"
        self._link = Link(self._coordinator, name)
        self._allowance = Allowance(plan.config.budget.max_cost, plan.config.budget.max_tokens, self._link)
        state = new_state(plan.config, None)
        equipment = await self._stack.enter_async_context(equip(plan.config, plan.out, self._allowance, state))
        self._shard = Shard(plan.out / rundir.SHARDS, name, plan.out / rundir.LEDGER, claims=self._link, claimed=_SHARED_STAGES)
        lost = await self._coordinator.join.remote(name, context.get_actor_id(), context.get_node_id(), self._shard.path.name)
        for shard in lost:
            self._look_into(shard)
        for _ in range(1 if self._order else plan.side_by_side):
            slate = Slate(state)
            self._benches.put((slate, Work(equipment.recording(self._shard, slate.state))))
        self._beat = asyncio.create_task(self._link.beat(self._allowance, equipment.roles.waits))
        self._heeding = asyncio.create_task(self._link.heed_stop(self._allowance, self._shard.saved))
        self._ending = asyncio.create_task(self._end_with_run())
        self._sharing = asyncio.create_task(self._link.share(flows_of(equipment.roles.by_role().values())))

    async def _work(self, chunk: Chunk, slate: Slate, work: Work) -> None:
        for shard in await self._link.begin(self._part, chunk.number):
            self._look_into(shard)
        if self._over or not (task := asyncio.current_task()):
            raise asyncio.CancelledError
        self._in_hand.add(task)
        slate.begin(self._answered)
        try:
            chunk.examples = [example async for example in self._through(work, _stream(chunk.examples))]
        finally:
            self._in_hand.discard(task)
            counts = slate.take()
        for name, stage in counts.stages.items():
            given, refused = self._answered.get(name, (0, 0))
            self._answered[name] = given + stage.answered, refused + stage.refused
        chunk.counts.append(counts)
        await self._link.flushed()
        if not self._in_hand:  # the last one, as far as is known here
            self._allowance.end_piece()
            await self._link.settle(self._allowance)

    async def _end_with_run(self) -> None:
        """Nobody wants any more what is in hand when the run has ended, and some of it may wait for ever: for room in a budget that lets nothing in."""
        await self._link.over()
        self._over = True
        for task in self._in_hand:
            task.cancel()

    def _through(self, work: Work, examples: AsyncGenerator[Example, None]) -> AsyncGenerator[Example, None]:
        seed = self._plan.config.seed
        if self._part == AHEAD:
            return work.prompted(examples, seed)
        if self._part == BEHIND:
            answered = work.answered(examples, seed)
            return answered if self._plan.config.respond.boilerplate else work.replaced(answered)
        if self._part == LAST:
            return work.replaced(examples)
        return work.varied(examples, seed)

    def _look_into(self, shard: str) -> None:
        with suppress(FileNotFoundError):  # it was lost before its worker wrote anything
            self._shard.look_into(shard)


class _Order:
    """Sees to it that chunks come one after the other, from the first on."""

    def __init__(self) -> None:
        self._next = 0

    def check(self, chunk: Chunk) -> None:
        """A chunk that comes again, because what came of it was lost, is welcome: it gets the same verdicts.

        Raises:
            RunnerError: One is missing: this operator was started anew, and has forgotten what it had seen.
        """
        if chunk.number > self._next:
            raise RunnerError(
                f"chunk {chunk.number} came where {self._next} was due: an operator that must see all examples was lost; "
                "nothing is lost that was paid for: give the same command again"
            )
        self._next = max(self._next, chunk.number + 1)


def _bytes(table: Any) -> bytes:
    data: bytes = table[COLUMN][0].as_py()
    return data


def _table(chunk: Chunk) -> Any:
    import pyarrow as pa

    return pa.table({COLUMN: pa.array([encode(chunk)], pa.large_binary())})


async def _stream(examples: list[Example]) -> AsyncGenerator[Example, None]:
    for example in examples:
        yield example


async def _next(chunks: AsyncGenerator[Chunk, None]) -> Chunk | None:
    return await anext(chunks, None)


@contextmanager
def _reporting(coordinator: Any) -> Iterator[None]:
    """Tell what ends the run before Ray does, in its own words and of one operator after the other."""
    import ray

    try:
        yield
    except SaferInstructError as exc:
        ray.get(coordinator.fail.remote((type(exc).__name__, str(exc))))
        raise
