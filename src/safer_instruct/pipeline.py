"""The whole flow in one file: collect, induce, filter, respond, verify, write.

Examples stream through in input order. Each step works on a bounded window of them at a time, so order never depends on
timing and memory does not grow; what duplicate detection remembers lies on disk. Every model call goes through the ledger:
to resume is to run again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, aclosing, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safer_instruct import rundir
from safer_instruct.card import dataset_card
from safer_instruct.config import FilterConfig, ModelConfig, RunConfig, SourceConfig
from safer_instruct.domain import Domain, load_domain
from safer_instruct.errors import AccountingError, ConfigError, ModelError, RequestError, SourceError
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.filters.dedup import Deduplicator
from safer_instruct.ledger import Ledger, Meter, Recorded
from safer_instruct.models import adapter_path, open_model
from safer_instruct.models.protocol import Model
from safer_instruct.models.transport import event_loop
from safer_instruct.sources import BadRow, SourceText, excerpt, read_source
from safer_instruct.stages.filter import choose
from safer_instruct.stages.induce import induce
from safer_instruct.stages.respond import respond
from safer_instruct.stages.verify import ContrastVerifier, QuestionVerifier, Verifier, answer
from safer_instruct.templates import Template, load_template

STAGES = ("collect", "induce", "filter", "respond", "verify")
_REFUSALS_BEFORE_STOP = 10  # a setting that the endpoint does not take is refused every time
_COUNT_BELOW_BYTES = 256 << 20  # larger sources are not read twice just to know how many rows they hold
Step = Callable[[Example], Awaitable[Example]]
Examples = AsyncGenerator[Example, None]


@dataclass(slots=True)
class StageState:
    """Live figures of one stage: rows it has seen, rows dropped by then, answers and refusals, and what its calls took."""

    done: int = 0
    dropped: int = 0
    answered: int = 0
    refused: int = 0
    meter: Meter = field(default_factory=Meter)


@dataclass(slots=True)
class RunState:
    """Live figures of a run, for whoever watches it; `total` is None where the source is too large to count first."""

    stages: dict[str, StageState] = field(default_factory=lambda: {name: StageState() for name in STAGES})
    total: int | None = None
    rows: int = 0
    set_aside: int = 0
    pairs: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where a run stands on disk, and its `summary.json`."""

    path: Path
    summary: dict[str, Any]


def run(config: RunConfig, out: Path | str, *, mode: rundir.Mode = "auto", watch: Callable[[RunState], None] | None = None) -> RunResult:
    """Build a preference dataset as `config` says.

    Args:
        config: From `load_config`.
        out: The run directory. A run that was stopped goes on where it was; nothing is paid for twice.
        mode: What to do when the directory holds a run of another config; see `rundir.open_run_directory`.
        watch: Called once with the live state, which changes as the run goes on.

    Raises:
        SaferInstructError: Whatever went wrong, with what to do about it.
    """
    flow = _run(config, Path(out), mode, watch)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run_in_new_loop(flow)
    return _run_apart(flow)  # a notebook has a loop running already


def _run_in_new_loop(flow: Coroutine[Any, Any, RunResult]) -> RunResult:
    with asyncio.Runner(loop_factory=event_loop) as runner:
        return runner.run(flow)


def _run_apart(flow: Coroutine[Any, Any, RunResult]) -> RunResult:
    """Run `flow` in a thread with a loop of its own; an interrupt here cancels it there, and waits until it has closed its files."""
    result: Future[RunResult] = Future()
    begun: list[Callable[[], object]] = []

    async def cancellable() -> RunResult:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        begun.append(lambda: loop.call_soon_threadsafe(task.cancel) if task else None)
        return await flow

    def work() -> None:
        try:
            result.set_result(_run_in_new_loop(cancellable()))
        except BaseException as exc:  # noqa: BLE001 - not swallowed: `result` raises it
            result.set_exception(exc)

    thread = threading.Thread(target=work, name="run")
    thread.start()
    try:
        return result.result()
    finally:
        for cancel in begun if not result.done() else ():
            with suppress(RuntimeError):  # its loop has closed just now
                cancel()
        thread.join()


async def _run(config: RunConfig, out: Path, mode: rundir.Mode, watch: Callable[[RunState], None] | None) -> RunResult:
    domain = load_domain(config.domain, config.base)
    _check_categories(config.source, domain)
    state = RunState(total=_count(config.source, config.base))
    async with AsyncExitStack() as stack:
        models = _Models(config, stack)
        resolved = _resolve(config, domain, models)
        with rundir.open_run_directory(out, resolved, mode), Ledger(out / rundir.LEDGER) as ledger:
            if watch:
                watch(state)
            rundir.forget_results(out)
            with rundir.outputs(out) as files:
                async with aclosing(_flow(config, domain, models, ledger, state, files.add_bad)) as examples:
                    async for example in examples:
                        files.add(example)
                        _count_finished(example, state)
            if state.rows == state.set_aside:
                raise SourceError(_no_usable_row(config, out, state))
            summary = _summary(config, models, state)
            _check_accounts(out, state)
            rundir.write_whole(out / rundir.SUMMARY, json.dumps(summary, indent=1) + "\n")
            rundir.write_whole(out / rundir.CARD, dataset_card(config, domain, summary, rundir.PAIRS))
    return RunResult(out, summary)


def _flow(config: RunConfig, domain: Domain, models: _Models, ledger: Ledger, state: RunState, set_aside: Callable[[BadRow], None]) -> Examples:
    """The method, read from top to bottom; yields every example that entered, in input order."""

    def recorded(model: Model, stage: str) -> Model:
        return Recorded(model, ledger, stage, state.stages[stage].meter)

    inducer, expert = recorded(models.inducer, "induce"), recorded(models.expert, "respond")
    scorer = recorded(models.scorer, "filter") if models.scorer else None
    verifier = _verifier(config, domain, models, recorded)
    system, forward = _template(config.respond.template, config), load_template("forward")
    reverse = _template(config.induce.template, config)

    async def write(example: Example, attempt: int) -> list[Draft]:
        return await respond(example, expert, system, domain, config.respond, seed=config.seed, attempt=attempt)

    examples = _collect(config, domain, state, set_aside)
    examples = _in_order(examples, "text", config.filter, state.stages["collect"])
    examples = _ordered(examples, lambda e: induce(e, inducer, reverse, config.induce, seed=config.seed), "induce", inducer, state)
    examples = _ordered(examples, lambda e: choose(e, scorer, forward, config.filter), "filter", scorer or inducer, state)
    examples = _in_order(examples, "prompt", config.filter, state.stages["filter"])
    return _ordered(examples, lambda e: answer(e, write, verifier, config.verify), "respond", expert, state)


async def _collect(config: RunConfig, domain: Domain, state: RunState, set_aside: Callable[[BadRow], None]) -> Examples:
    """Examples from the source; rows that cannot become one are set aside."""
    seen: Counter[str] = Counter()
    only = next(iter(domain.categories)) if len(domain.categories) == 1 else None
    for row in read_source(config.source, config.base):
        state.rows += 1
        if isinstance(row, SourceText) and (row.category or only) not in domain.categories:
            row = BadRow(row.file, row.line, f"category {row.category!r} is not one of {', '.join(domain.categories)}", excerpt(row.text))
        if isinstance(row, BadRow):
            state.set_aside += 1
            set_aside(row)
            continue
        id_ = row.id or hashlib.sha256(row.text.encode()).hexdigest()[:16]
        yield Example(_unique(id_, seen), row.text, row.category or only or "", row.file, row.line)


def _unique(id_: str, seen: Counter[str]) -> str:
    """`id_`, with a number behind it where it is taken."""
    unique = id_
    while seen[unique]:
        seen[id_] += 1
        unique = f"{id_}-{seen[id_]}"
    seen[unique] = 1
    return unique


async def _in_order(examples: Examples, field_: str, config: FilterConfig, stage: StageState) -> Examples:
    """Drop duplicates; what decides is the input order."""
    with closing(Deduplicator(field_, config.near_duplicate)) as seen:
        async with aclosing(examples):
            async for example in examples:
                if example.alive:
                    example = example.with_verdicts(seen.check(getattr(example, field_), example.id))
                    stage.dropped += not example.alive
                if field_ == "text":
                    stage.done += 1
                yield example


async def _ordered(examples: Examples, step: Step, name: str, model: Model, state: RunState) -> Examples:
    """Apply `step` to the living, a window of examples at a time, and yield all in input order."""
    stage, window = state.stages[name], max(16, 4 * model.concurrency)
    pending: deque[asyncio.Task[Example]] = deque()
    try:
        async with aclosing(examples):
            async for example in examples:
                pending.append(asyncio.create_task(_step(example, step, name)))
                while len(pending) >= window or (pending and pending[0].done()):
                    yield _counted(await pending.popleft(), name, stage)
            while pending:
                yield _counted(await pending.popleft(), name, stage)
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def _step(example: Example, step: Step, name: str) -> Example:
    """One step on one example; a request that the endpoint refuses for what is in it drops the example."""
    if not example.alive:
        return example
    try:
        return await step(example)
    except RequestError as exc:
        return example.with_verdicts(Verdict(f"{name}.refused", False, None, str(exc)))


def _counted(example: Example, name: str, stage: StageState) -> Example:
    """Count an example on its way out, in input order; stop when nothing but refusals has come so far."""
    dropped = example.dropped_by
    stage.done += 1
    stage.dropped += dropped is not None
    stage.answered += dropped is None or (dropped.name != f"{name}.refused" and STAGES.index(stage_of(dropped)) >= STAGES.index(name))
    stage.refused += dropped is not None and dropped.name == f"{name}.refused"
    if dropped and stage.refused >= _REFUSALS_BEFORE_STOP and not stage.answered:
        raise ModelError(f"the first {stage.refused} requests of stage '{name}' were all refused, the last one so: {dropped.reason}")
    return example


class _Models:
    """The models of a run, each opened once however many roles it has."""

    def __init__(self, config: RunConfig, stack: AsyncExitStack) -> None:
        opened: dict[tuple[ModelConfig, bool], Model] = {}

        def open_once(which: ModelConfig, *, want_logprobs: bool = False) -> Model:
            key = (which, want_logprobs)
            if key not in opened:
                opened[key] = open_model(which, config.base, want_logprobs=want_logprobs)
                stack.push_async_callback(opened[key].close)
            return opened[key]

        roles = config.models
        _check_adapter_template(roles.inducer, config)
        self.inducer = open_once(roles.inducer, want_logprobs=True)
        self.expert = open_once(roles.expert)
        scored, asked = bool(config.filter.consistency) or config.verify.form == "contrast", config.verify.form == "question"
        self.scorer = open_once(roles.scorer) if scored else None
        self.judge = open_once(roles.judge) if roles.judge and asked else None

    def by_role(self) -> dict[str, Model]:
        """Role -> model, of the roles that this run has a use for."""
        return {role: model for role, model in vars(self).items() if model is not None}


def _verifier(config: RunConfig, domain: Domain, models: _Models, recorded: Callable[[Model, str], Model]) -> Verifier:
    if models.scorer and config.verify.form == "contrast":
        return ContrastVerifier(recorded(models.scorer, "verify"), load_template("contrast"), domain, config.verify)
    if models.judge is None:
        raise ConfigError("verify.form 'question' needs models.judge")
    return QuestionVerifier(recorded(models.judge, "verify"), load_template("question"), load_template("pairwise"), domain)


def _template(name: str, config: RunConfig) -> Template:
    return load_template(name, config.base)


def _check_adapter_template(inducer: ModelConfig, config: RunConfig) -> None:
    """An inducer that was tuned with one template and is asked with another is silently worse: refuse."""
    if not inducer.adapter:
        return
    record = adapter_path(inducer.adapter, config.base) / "tuning.json"
    if not record.is_file():
        return
    tuned = json.loads(record.read_text(encoding="utf-8"))
    if tuned.get("task") != "induce":
        raise ConfigError(f"adapter '{inducer.adapter}' was tuned for '{tuned.get('task')}', not to induce instructions")
    template = _template(config.induce.template, config)
    if tuned.get("template_digest") != template.digest:
        raise ConfigError(
            f"adapter '{inducer.adapter}' was tuned with template {tuned.get('template')} (digest {tuned.get('template_digest')}); "
            f"induce.template {template.name} has digest {template.digest}"
        )


def _check_categories(source: SourceConfig, domain: Domain) -> None:
    if source.category:
        domain.category(source.category)
    elif not source.category_column and len(domain.categories) > 1:
        raise ConfigError(f"domain '{domain.name}' has several categories ({', '.join(domain.categories)}); set source.category or source.category_column")


def _resolve(config: RunConfig, domain: Domain, models: _Models) -> dict[str, Any]:
    """The config with everything that the result depends on; a change of any of it makes another run."""
    names = {"induce": config.induce.template, "respond": config.respond.template}
    names |= {name: name for name in ("forward", "contrast", "question", "pairwise")}
    return {
        "config": config.model_dump(mode="json"),
        "domain_sha256": hashlib.sha256(domain.model_dump_json().encode()).hexdigest(),
        "templates": {use: _template(name, config).digest for use, name in names.items()},
        "models": {role: model.fingerprint for role, model in models.by_role().items()},
    }


def _count(source: SourceConfig, base: Path) -> int | None:
    """How many rows the source holds, where reading it twice is cheap."""
    path = base / source.path
    if not path.is_file() or path.stat().st_size > _COUNT_BELOW_BYTES:
        return None
    return sum(1 for _ in read_source(source, base))


def _count_finished(example: Example, state: RunState) -> None:
    dropped = example.dropped_by
    verify = state.stages["verify"]
    verify.done += 1
    if dropped is None:
        state.pairs += 1
        return
    state.reasons[(stage_of(dropped), dropped.name)] += 1
    verify.dropped += 1


def stage_of(verdict: Verdict) -> str:
    """The stage at which a verdict drops an example."""
    family = verdict.name.partition(".")[0]
    if verdict.name == "dedup.text":
        return "collect"
    return {"rules": "filter", "likelihood": "filter", "consistency": "filter", "dedup": "filter"}.get(family, family)


def _summary(config: RunConfig, models: _Models, state: RunState) -> dict[str, Any]:
    left = state.rows - state.set_aside
    funnel: dict[str, Any] = {}
    for name in STAGES:
        reasons = {verdict: n for (stage, verdict), n in sorted(state.reasons.items()) if stage == name}
        meter = state.stages[name].meter
        funnel[name] = {"in": left, "dropped": reasons, "out": left - sum(reasons.values())}
        left = funnel[name]["out"]
        funnel[name] |= {
            "calls": meter.calls,
            "prompt_tokens": meter.usage.prompt_tokens,
            "completion_tokens": meter.usage.completion_tokens,
            "cost": round(meter.usage.cost, 6),
        }
    meters = [s.meter for s in state.stages.values()]
    return {
        "rows": state.rows,
        "set_aside": state.set_aside,
        "dropped": sum(state.reasons.values()),
        "pairs": state.pairs,
        "stages": funnel,
        "calls": sum(m.calls for m in meters),
        "prompt_tokens": sum(m.usage.prompt_tokens for m in meters),
        "completion_tokens": sum(m.usage.completion_tokens for m in meters),
        "cost": round(sum(m.usage.cost for m in meters), 6),
        "models": {role: model.name for role, model in models.by_role().items()},
        "thresholds": "defaults, not calibrated" if config.filter.consistency else "no consistency gate",
        "timing": {
            "wall_s": round(time.monotonic() - state.started, 3),
            "calls_from_ledger": sum(m.replayed for m in meters),
            "model_s": {name: round(s.meter.usage.seconds, 3) for name, s in state.stages.items()},
        },
    }


def _check_accounts(out: Path, state: RunState) -> None:
    """Count what is on disk: rows in = pairs + dropped + set aside, to the row.

    Raises:
        AccountingError: They do not add up.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    examples = pq.read_table(out / rundir.EXAMPLES, columns=["dropped_by"])["dropped_by"]
    dropped = examples.length() - examples.null_count
    pairs = pq.read_metadata(out / rundir.PAIRS).num_rows
    lines = _lines(out / rundir.PAIRS_JSONL)
    aside = _lines(out / rundir.BAD_ROWS)
    reasons = {row["values"]: row["counts"] for row in pc.value_counts(examples.drop_null()).to_pylist()}
    counted: Counter[str] = Counter()
    for (_, name), n in state.reasons.items():
        counted[name] += n
    if state.rows != pairs + dropped + aside or pairs != lines or dict(counted) != reasons:
        raise AccountingError(
            f"{out}: {state.rows} rows went in, {pairs} pairs + {dropped} dropped + {aside} set aside came out "
            f"({lines} lines in {rundir.PAIRS_JSONL}); this is a bug in safer-instruct: please report it with {rundir.RUN}"
        )


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _no_usable_row(config: RunConfig, out: Path, state: RunState) -> str:
    if not state.rows:
        return f"{config.source.path} holds no row; give a source with texts (source.path)"
    first = _first(out / rundir.BAD_ROWS)
    return f"none of the {state.rows} rows of {config.source.path} is usable; the first: {first}; all reasons stand in {out / rundir.BAD_ROWS}"


def _first(path: Path) -> str:
    def rows() -> Iterator[dict[str, Any]]:
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)

    row = next(rows())
    return f"{row['file']}:{row['line']}: {row['reason']}"
