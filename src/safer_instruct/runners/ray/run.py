"""The driver: connects to the cluster, holds the run directory, writes what comes out in the order in which it came in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from safer_instruct import rundir
from safer_instruct.accounts import remote_spent
from safer_instruct.budget import Budget
from safer_instruct.config import RunConfig
from safer_instruct.equipment import count_rows, equip, new_state
from safer_instruct.errors import ConfigError, RunnerError, StorageError
from safer_instruct.example import Example
from safer_instruct.extras import require
from safer_instruct.ledger import Ledger, merge_shards
from safer_instruct.pipeline import RunResult, finished, write_out
from safer_instruct.remote import working_directory
from safer_instruct.runners.chunks import Chunk, decode
from safer_instruct.runners.counts import add
from safer_instruct.runners.ray.coordinator import Coordinator, Failure
from safer_instruct.runners.ray.link import as_error
from safer_instruct.runners.ray.plan import DISTINCT, VARIED, Cluster, Plan, check, chunk_size, parts, serves, share_out
from safer_instruct.runners.ray.workers import COLUMN, Distinct, Source, Worker
from safer_instruct.running import run_to_end
from safer_instruct.sources import BadRow
from safer_instruct.spent import Spent, earlier_spent
from safer_instruct.state import RunState
from safer_instruct.stopping import STOP_S, Tell, before_a_stop, waiting_for
from safer_instruct.storage.address import is_remote

_CPUS = 0.2  # of a worker, for placing it: it waits most of the time, and what a lost node held must find room elsewhere
_CPUS_IN_ORDER = 0.01
_LOOK_EVERY_S = 1.0
_ENDS_WITHIN_S = 5.0  # what Ray Data does, once workers do no more
_UNDER_WAY_MB = 32  # of chunks, and as much again for each worker, or the source runs ahead by the whole of itself; much less, and Ray Data lets it again


def run_on_ray(
    config: RunConfig,
    out: Path | str,
    cluster: Cluster | None = None,
    *,
    mode: rundir.Mode = "auto",
    watch: Callable[[RunState], None] | None = None,
    work: Path | None = None,
) -> RunResult:
    """Build a preference dataset as `pipeline.run` does, with the same result, on a cluster.

    Args:
        config: From `load_config`.
        out: The run directory, on a file system that all nodes share, under the same path; or an address in object storage.
        cluster: Where to run; by default a cluster that is started on this machine for the time of the run.
        mode: As for `pipeline.run`.
        watch: As for `pipeline.run`.
        work: For an address: the folder that all nodes share. Finished calls are safe there; the address has them at the end.

    Raises:
        SaferInstructError: Whatever went wrong, with what to do about it.
    """
    cluster = cluster or Cluster()
    if cluster.address and work is None and is_remote(out):
        raise StorageError(f"--out {out}: nodes of a cluster work in one folder; name it with --work, and what is finished there is published at the address")
    with working_directory(out, work, mode) as path:
        return run_to_end(_run(config, path.absolute(), cluster, mode, watch))


async def _run(config: RunConfig, out: Path, cluster: Cluster, mode: rundir.Mode, watch: Callable[[RunState], None] | None) -> RunResult:
    ray = require("ray", extra="ray", purpose="the runner 'ray'")
    check(config, cluster)
    state = new_state(config, count_rows(config.source, config.base))
    budget = _Seen(config.budget.max_cost, config.budget.max_tokens)
    async with equip(config, out, budget, state) as equipment:
        with rundir.open_run_directory(out, equipment.resolved(), mode), _connected(ray, cluster):
            merge_shards(out / rundir.SHARDS, out / rundir.LEDGER)
            Ledger(out / rundir.LEDGER).close()  # it is there, sound and up to date before anybody reads it
            flow = _Flow(ray, _plan(config, out, cluster, state, ray), cluster, state, budget)
            before_a_stop(flow.stop)
            if watch:
                watch(state)
            return await write_out(equipment, out, lambda add_bad: finished(flow.through(add_bad), equipment))


class _Flow:
    """The operators, and what comes out of them."""

    def __init__(self, ray: Any, plan: Plan, cluster: Cluster, state: RunState, budget: _Seen) -> None:
        self._ray, self._plan, self._cluster, self._state, self._budget = ray, plan, cluster, state, budget
        self._reader, self._rows = ThreadPoolExecutor(1), None
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._node = ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(self._node, soft=False)
        spent, caps = plan.out / rundir.SPENT, plan.config.budget
        earlier = earlier_spent(spent, remote_spent(plan.out / rundir.LEDGER, plan.config.models.by_role.values()))
        actor = ray.remote(Coordinator).options(num_cpus=0, scheduling_strategy=here, max_restarts=0, max_concurrency=10_000)
        self._coordinator = actor.remote(caps.max_cost, caps.max_tokens, spent, earlier)

    async def through(self, set_aside: Callable[[BadRow], None]) -> AsyncGenerator[Example, None]:
        """Every example that entered, in input order; the figures of the run grow with them."""
        watching = asyncio.create_task(self._watch())
        try:
            async with aclosing(self._chunks()) as chunks:
                async for chunk in chunks:
                    for row in chunk.bad:
                        set_aside(row)
                    for counts in chunk.counts:
                        add(counts, self._state)
                    for example in chunk.examples:
                        yield example
        finally:
            watching.cancel()
            await self._close()
        await asyncio.to_thread(merge_shards, self._plan.out / rundir.SHARDS, self._plan.out / rundir.LEDGER)

    async def stop(self, tell: Tell) -> None:
        """Have workers let nothing more in, for somebody stops the run, and wait as `Budget.stop` does until what is under way is saved."""
        with contextlib.suppress(self._ray.exceptions.RayError, TimeoutError):
            async with asyncio.timeout(STOP_S):
                if calls := await self._coordinator.stop.remote():
                    tell(waiting_for(calls, STOP_S))
                    await self._coordinator.stopped.remote()

    async def _chunks(self) -> AsyncGenerator[Chunk, None]:
        ray, expected = self._ray, 0
        rows = self._rows = iter(self._dataset().iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=1))
        try:
            while (table := await asyncio.get_running_loop().run_in_executor(self._reader, next, rows, None)) is not None:
                chunk = decode(table[COLUMN][0].as_py())
                if chunk.number != expected:
                    raise RunnerError(f"chunk {chunk.number} came where {expected} was due; this is a bug in safer-instruct: please report it")
                expected += 1
                yield chunk
        except ray.exceptions.RayError as exc:
            raise await self._explained(exc) from exc

    def _dataset(self) -> Any:
        """One operator after the other, over rows that are chunks of examples."""
        import pyarrow as pa
        import ray.data
        from ray.data import ActorPoolStrategy, DataContext, ExecutionResources

        least, most = _workers(self._cluster, ray)
        context = DataContext.get_current().copy()
        context.execution_options.preserve_order = True
        under_way = ExecutionResources.for_limits(object_store_memory=_UNDER_WAY_MB * (1 + most) << 20)
        context.execution_options.resource_limits = context.execution_options.resource_limits.min(under_way)
        context.target_max_block_size = 1  # a chunk is a block
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # what it says of its operators is nothing to whoever runs this
        plan = self._plan
        pool = ActorPoolStrategy(
            min_size=least,
            max_size=most,
            max_concurrent_calls_per_actor=plan.side_by_side,
            max_tasks_in_flight_per_actor=plan.side_by_side + 1,
            enable_true_multi_threading=True,
        )
        spread: dict[str, Any] = {"compute": pool, "num_cpus": _CPUS}
        in_order: dict[str, Any] = {
            "compute": ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=1),
            "num_cpus": _CPUS_IN_ORDER,
            "label_selector": {"ray.io/node-id": self._node},
        }
        with DataContext.current(context):
            dataset = ray.data.from_arrow(pa.table({COLUMN: [b""]}))
            dataset = dataset.map_batches(Source, fn_constructor_args=(plan, self._coordinator), batch_size=1, **in_order)
            for part in parts(plan.config):
                operator, told = (Distinct, (plan, self._coordinator)) if part == DISTINCT else (Worker, (plan, part, self._coordinator))
                where = in_order if part in (DISTINCT, VARIED) else spread
                if self._cluster.gpus and part != DISTINCT and serves(plan.config, part):
                    where = where | {"num_gpus": self._cluster.gpus}
                dataset = dataset.map_batches(operator, fn_constructor_args=told, batch_size=1, batch_format="pyarrow", udf_modifying_row_count=False, **where)
        return dataset

    async def _close(self) -> None:
        """Have the exact sum recorded, as far as workers have told it; what they have not counts as spent. Ray Data ends before Ray does."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            await self._coordinator.close.remote()
            await self._look()
        if self._rows:
            logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # why the run has ended is told by us
            await asyncio.wait([asyncio.get_running_loop().run_in_executor(self._reader, self._rows.close)], timeout=_ENDS_WITHIN_S)
            logging.getLogger("ray.data").setLevel(logging.ERROR)
        self._reader.shutdown(wait=False)

    async def _watch(self) -> None:
        """Show what is spent, and what workers wait for."""
        while True:
            await self._look()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _look(self) -> Failure | None:
        figures = await self._coordinator.figures.remote()
        self._budget.show(figures["spent"], figures["reserved"], figures["forfeited"])
        self._state.waits = lambda: figures["waits"]
        failure: Failure | None = figures["failure"]
        return failure

    async def _explained(self, exc: Exception) -> Exception:
        """Why the run ended: what a worker has met, or else what Ray says."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            if failure := await self._look():
                return as_error(*failure)
        said = str(exc).strip().splitlines()
        return RunnerError(f"Ray gave up: {said[-1] if said else type(exc).__name__}; finished calls are saved: give the same command again to go on")


class _Seen(Budget):
    """The budget that the coordinator keeps, as last seen from here."""

    def __init__(self, max_cost: float | None, max_tokens: int | None) -> None:
        super().__init__(max_cost, max_tokens)
        self._figures = (Spent(), Spent(), Spent())

    def show(self, spent: Spent, reserved: Spent, forfeited: Spent) -> None:
        """From now on it stands so."""
        self._figures = spent, reserved, forfeited

    @property
    def spent(self) -> Spent:
        """See `Budget.spent`."""
        return self._figures[0]

    @property
    def reserved(self) -> Spent:
        """See `Budget.reserved`."""
        return self._figures[1]

    @property
    def forfeited(self) -> Spent:
        """See `Budget.forfeited`."""
        return self._figures[2]


def _plan(config: RunConfig, out: Path, cluster: Cluster, state: RunState, ray: Any) -> Plan:
    if not cluster.gpus and any(model.model.startswith("served:") for model in config.models.by_role.values()):
        _refuse_vllm_without_gpus(config)
    _, most = _workers(cluster, ray)
    shared = share_out(config, {part: 1 if part == VARIED else most for part in parts(config) if part != DISTINCT})
    return Plan(shared, out, uuid4().hex[:8], chunk_size(state.total, most))


def _refuse_vllm_without_gpus(config: RunConfig) -> None:
    """A worker that Ray gives no GPU sees none.

    Raises:
        ConfigError: A model is served by vLLM.
    """
    for role, model in config.models.by_role.items():
        if model.model.startswith("served:") and not model.model.endswith(".gguf"):
            raise ConfigError(f"models.{role} is served by vLLM in the workers; say with --gpus how many GPUs each of them gets")


def _workers(cluster: Cluster, ray: Any) -> tuple[int, int]:
    if cluster.workers:
        return cluster.workers
    count = max(1, int(ray.cluster_resources().get("CPU", 1)))
    return count, count


@contextmanager
def _connected(ray: Any, cluster: Cluster) -> Iterator[None]:
    """A connection to the cluster, which is given up, or stopped with what was started for it, when the block ends.

    Raises:
        RunnerError: There is no cluster at the address.
    """
    if ray.is_initialized():  # whoever has connected before goes on with it afterwards
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    given: dict[str, Any] = {"address": cluster.address} if cluster.address else {"address": "local", "num_cpus": cluster.cpus, "include_dashboard": False}
    try:
        with _signals_kept():
            ray.init(**given, log_to_driver=False, logging_level="ERROR")
    except Exception as exc:
        if cluster.address:
            raise RunnerError(f"no Ray cluster can be reached at '{cluster.address}': {exc}; start one with: ray start --head") from exc
        raise RunnerError(f"Ray could not be started on this machine: {exc}") from exc
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray, which starts within the block, takes SIGTERM for itself, and what it starts would end with the terminal: then a stop could wait for nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    on_sigterm = signal.getsignal(signal.SIGTERM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # which processes inherit; one that comes meanwhile is heard afterwards
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if callable(on_sigterm):
            signal.signal(signal.SIGTERM, on_sigterm)
