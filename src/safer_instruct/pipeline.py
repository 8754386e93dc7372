"""The whole flow in one file: collect, induce, filter, respond, verify, write.

Examples stream through in input order. Each step works on a bounded window of them at a time, so order never depends on
timing and memory does not grow; what duplicate detection remembers lies on disk. Every model call goes through the ledger:
to resume is to run again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Container, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from safer_instruct import conversation, rundir
from safer_instruct.accounts import check_accounts, remote_spent, summarize
from safer_instruct.barrier import at_once
from safer_instruct.budget import Budget, earlier_spent, write_spent
from safer_instruct.card import Release, dataset_card, describe
from safer_instruct.choosing import Pair, choose_pairs, distinct_texts
from safer_instruct.config import FilterConfig, RunConfig, SourceConfig
from safer_instruct.conversation import told_apart
from safer_instruct.domain import Domain, load_domain
from safer_instruct.embed import load_embedder
from safer_instruct.errors import ConfigError, ModelError, RequestError, SourceError
from safer_instruct.example import Candidate, Example, Verdict
from safer_instruct.filters.checks import Check, check_all, sifted
from safer_instruct.filters.dedup import Deduplicators
from safer_instruct.filters.registry import Filters, open_filters
from safer_instruct.ledger import Commits, Ledger, Recorded, merge_shards
from safer_instruct.margins import Margins, margins_of
from safer_instruct.models.protocol import Model
from safer_instruct.progress import published
from safer_instruct.remote import working_directory
from safer_instruct.reverse import Reversal, Shot, domain_shots, reversal
from safer_instruct.roles import EXPERTS, Roles
from safer_instruct.routing import Router, open_router, route_record
from safer_instruct.running import run_to_end
from safer_instruct.settings.answers import BoilerplateConfig
from safer_instruct.settings.pairs import PairSource
from safer_instruct.sources import BadRow, SourceText, excerpt, read_source
from safer_instruct.stages.direction import facing
from safer_instruct.stages.filter import choose
from safer_instruct.stages.finish import Finisher
from safer_instruct.stages.induce import induce
from safer_instruct.stages.programs import record
from safer_instruct.stages.rejected import RejectedSide, rejected_template
from safer_instruct.stages.verify import Verifier
from safer_instruct.state import (
    REJECTED,
    STAGES,
    TWINS,
    Both,
    Figures,
    Row,
    RowMeter,
    RunState,
    StageState,
    WriterState,
    came_to,
    note_calls_of,
    row_of,
    row_of_twin,
)
from safer_instruct.tally import side_notes
from safer_instruct.target import Pursuit, check_target, described
from safer_instruct.templates import Template, load_template
from safer_instruct.tuning.pairs import whole_pairs
from safer_instruct.twins.opening import open_twins, twin_templates
from safer_instruct.twins.stream import Twins
from safer_instruct.uniqueids import UniqueIds
from safer_instruct.variety import Unique, Variety

_REFUSALS_BEFORE_STOP = 10  # a setting that the endpoint does not take is refused every time
_COUNT_BELOW_BYTES = 256 << 20  # larger sources are not read twice just to know how many rows they hold
Step = Callable[[Example], Awaitable[Example]]
Examples = AsyncGenerator[Example, None]


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where a run stands on disk, and its `summary.json`."""

    path: Path
    summary: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """What some rows of a source took.

    Attributes:
        rows: What each of them took.
        total_rows: Rows in the source.
        slots: Calls that each stage makes side by side.
        stages: Their names, in order; what stands beside the flow comes before its end.
    """

    rows: tuple[Row, ...]
    total_rows: int
    slots: dict[str, int]
    stages: tuple[str, ...] = STAGES


def run(
    config: RunConfig, out: Path | str, *, mode: rundir.Mode = "auto", watch: Callable[[RunState], None] | None = None, work: Path | None = None
) -> RunResult:
    """Build a preference dataset as `config` says.

    Args:
        config: From `load_config`.
        out: The run directory, or an address such as `s3://bucket/run`. A run that was stopped goes on where it was; nothing is
            paid for twice.
        mode: What to do when the directory holds a run of another config; see `rundir.open_run_directory`.
        watch: Called once with the live state, which changes as the run goes on.
        work: For an address: where the run works; by default in a folder that belongs to it (docs/storage.md).

    Raises:
        SaferInstructError: Whatever went wrong, with what to do about it.
    """
    with working_directory(out, work, mode) as path:
        return run_to_end(_run(config, path, mode, watch))


def sample(
    config: RunConfig, out: Path | str, rows: int, *, mode: rundir.Mode = "auto", watch: Callable[[RunState], None] | None = None, work: Path | None = None
) -> Sample:
    """Run on some rows, spread evenly over the source, to see what they take; writes nothing but the ledger.

    What it pays for is not lost: `run` with the same config and directory finds those calls in the ledger.

    Args:
        config: From `load_config`.
        out: The run directory.
        rows: How many.
        mode: As for `run`.
        watch: As for `run`.
        work: As for `run`.

    Raises:
        SaferInstructError: Whatever went wrong, with what to do about it.
    """
    with working_directory(out, work, mode) as path:
        return run_to_end(_sample(config, path, rows, mode, watch))


@dataclass(frozen=True, slots=True)
class Equipment:
    """What examples are worked on with."""

    config: RunConfig
    domain: Domain
    filters: Filters
    roles: Roles
    asked: Reversal | None
    state: RunState
    seen: dict[str, Deduplicators]
    margins: Margins
    router: Callable[[], Router | None]  # opened when it is first asked for

    def resolved(self) -> dict[str, Any]:
        """What goes into `run.yaml`."""
        return _resolve(self.config, self.domain, self.filters, self.roles, self.asked, self.router()) | self.margins.identity()

    def recording(self, ledger: Commits, state: RunState | None = None) -> Opened:
        """The same with a ledger, and with other live figures where there are `state`s for parts of the work."""
        return Opened(self.config, self.domain, self.filters, self.roles, self.asked, state or self.state, self.seen, self.margins, self.router, ledger)


@dataclass(frozen=True, slots=True)
class Opened(Equipment):
    """What a run works with, from its opening to its end."""

    ledger: Commits


@asynccontextmanager
async def _open(config: RunConfig, out: Path, mode: rundir.Mode, state: RunState) -> AsyncIterator[Opened]:
    """Models, run directory, ledger and budget, all closed again when the block ends."""
    budget = Budget(config.budget.max_cost, config.budget.max_tokens)
    async with equip(config, out, budget, state) as equipment:
        with rundir.open_run_directory(out, equipment.resolved(), mode):
            merge_shards(out / rundir.SHARDS, out / rundir.LEDGER)
            with Ledger(out / rundir.LEDGER) as ledger:
                spent = out / rundir.SPENT
                budget.begin(earlier_spent(spent, lambda: remote_spent(out / rundir.LEDGER)), lambda total: write_spent(spent, total))
                try:
                    yield equipment.recording(ledger)
                finally:
                    budget.close()


@asynccontextmanager
async def equip(config: RunConfig, out: Path, budget: Budget, state: RunState) -> AsyncIterator[Equipment]:
    """Domain, filters and models, whose calls draw on `budget`; closed again when the block ends.

    Raises:
        SaferInstructError: Something does not fit, or is missing.
    """
    domain = load_domain(config.domain, config.base)
    _check_categories(config.source, domain)
    if config.filter.semantic:
        load_embedder(config.filter.semantic.embedder)  # a missing one is known before anything is paid for
    filters = open_filters(config.filter.in_languages(domain.languages), config.base, config.file)
    inducer = config.models.inducer if config.induce.given == "replace" else None
    asked = reversal(config.induce, inducer, config.base, _shots(config, domain)) if inducer else None
    async with AsyncExitStack() as stack:
        state.budget = budget
        roles = Roles(config, budget, out / rundir.BATCHES, stack, domain.direction)
        state.waits = roles.waits
        for stage in state.stages:
            state.stages[stage].priced = roles.priced(stage)
        for part, model in roles.by_part().items():
            state.parts[part] = StageState(priced=model.priced)
            state.stages[TWINS].priced &= model.priced
        state.writers = {role.removeprefix(EXPERTS): WriterState(priced=m.priced, role=role, model=m.name) for role, m in roles.writers.items()}
        check_target(config, domain, state)
        seen = {name: stack.enter_context(closing(memory)) for name, memory in memories(config).items()}
        fingerprints = {role: model.fingerprint for role, model in roles.by_role().items()}
        margins = margins_of(config.verify.form, config.verify.answers, config.calibrated, fingerprints)
        router = cache(partial(open_router, config.source, domain, config.base))
        yield Equipment(config, domain, filters, roles, asked, state, seen, margins, router)


async def _run(config: RunConfig, out: Path, mode: rundir.Mode, watch: Callable[[RunState], None] | None) -> RunResult:
    state = new_state(config, count_rows(config.source, config.base))
    async with _open(config, out, mode, state) as opened:
        if watch:
            watch(state)
        return await write_out(opened, out, lambda add_bad: _twinned(finished(_flow(opened, add_bad), opened), opened))


async def write_out(equipment: Equipment, out: Path, flow: Callable[[Callable[[BadRow], None]], Examples]) -> RunResult:
    """Write what `flow` yields, which is told who takes the rows that are set aside, and then what it all came to.

    Raises:
        SaferInstructError: Whatever went wrong, in `flow` or here.
    """
    config, state = equipment.config, equipment.state
    rundir.forget_results(out)
    conversations, twins = config.source.messages is not None, config.twins is not None
    with published(out, state), rundir.outputs(out, conversations=conversations, twins=twins) as files, closing(Unique()) as unique:
        async with aclosing(flow(files.add_bad)) as examples:
            async for example in examples:
                files.add(example)
                state.count_finished(example)
                unique.add(example)
    if state.rows == state.set_aside:
        raise SourceError(_no_usable_row(config, out, state))
    called = equipment.roles.by_stage() | equipment.roles.by_part()
    summary = summarize(state, equipment.roles.by_role(), called, config.thresholds) | describe(config, equipment.domain)
    summary |= {"unique_chosen": unique.record(), "margin": equipment.margins.record()}
    told = (equipment.asked.note if equipment.asked else "", described(state.target) if state.target else "", *side_notes(summary))
    if notes := [note for note in told if note]:
        summary["notes"] = notes
    check_accounts(out, state)
    rundir.write_whole(out / rundir.SUMMARY, json.dumps(summary, indent=1) + "\n")
    rundir.write_whole(out / rundir.CARD, dataset_card(summary, Release({"train": rundir.PAIRS}, {"train": rundir.pairs_and_twins(summary)})))
    return RunResult(out, summary)


async def _sample(config: RunConfig, out: Path, rows: int, mode: rundir.Mode, watch: Callable[[RunState], None] | None) -> Sample:
    total = sum(1 for _ in read_source(config.source, config.base))
    chosen = frozenset(number * total // rows for number in range(rows)) if rows < total else None
    state = new_state(config, len(chosen) if chosen else total)
    for name, stage in state.stages.items():
        stage.meter = RowMeter(stage=name)
    taken: list[Row] = []
    aside: Row = {"collect": Figures(passed=False)}
    async with _open(config, out, mode, state) as opened:
        if watch:
            watch(state)
        places: dict[str, int] = {}
        async with aclosing(_twinned(_flow(opened, lambda _: taken.append(aside), chosen), opened)) as examples:
            async for example in examples:
                if example.twin_of:
                    at = places[example.twin_of]
                    taken[at] = {**taken[at], **row_of_twin(example, state)}
                else:
                    places[example.id] = len(taken)
                    taken.append(row_of(example, state))
                state.count_finished(example)
        slots = {stage: model.concurrency for stage, model in opened.roles.by_stage().items()}
    if not taken:
        raise SourceError(_no_usable_row(config, out, state))
    beside = [name for name in state.stages if name not in STAGES]
    return Sample(tuple(taken), total, slots, (*STAGES[:-1], *beside, STAGES[-1]))


def _flow(opened: Opened, set_aside: Callable[[BadRow], None], rows: Container[int] | None = None) -> Examples:
    """The method, read from top to bottom; yields every example that entered, in input order."""
    config, state = opened.config, opened.state
    pursuit = Pursuit(config, state, set_aside) if config.target is not None and rows is None else None
    work = Work(opened)
    examples = entering(opened, pursuit.bad if pursuit else set_aside, rows, pursuit.noted if pursuit else None)
    return pursuit.until_there(examples, work.through) if pursuit else work.through(examples, config.seed)


def entering(
    equipment: Equipment, set_aside: Callable[[BadRow], None], rows: Container[int] | None = None, noted: Callable[[Examples], Examples] | None = None
) -> Examples:
    """What comes out of the source, or of `rows` of it only: examples, mended, the same text once."""
    config, collect = equipment.config, equipment.state.stages["collect"]
    examples = _collect(config, equipment.domain, equipment.router(), equipment.state, set_aside, rows)
    examples = _sifted(noted(examples) if noted else examples, equipment.filters.text, collect)
    return distinct(examples, "text", config.filter, equipment.seen, collect)


class Work:
    """What is done to examples, part by part; `prompted`, `answered` and `replaced` look at each of them by itself."""

    def __init__(self, opened: Opened) -> None:
        """Give everybody their models.

        Raises:
            ConfigError: Somebody lacks what they need.
        """
        config, domain, roles = opened.config, opened.domain, opened.roles
        self._config, self._opened = config, opened
        self._inducer = self._recorded(roles.inducer, "induce") if roles.inducer else None
        self._scorer = self._recorded(roles.scorer, "filter") if roles.scorer else None
        self._experts, self._forward = roles.experts(config, domain, self._recorded), load_template("forward")
        self._reviser = roles.reviser(config, domain, self._experts, self._recorded)
        unturned = roles.verifier_of(config, domain, self._recorded)
        self._verifier = facing(unturned, domain.direction)
        self._replace = _rejected_side(opened, unturned, self._recorded)

    def through(self, examples: Examples, seed: int) -> Examples:
        """From source texts to pairs, every draw by `seed`."""
        examples = self.distinct(self.prompted(examples, seed))
        return self.replaced(self.varied(self.answered(examples, seed), seed))

    def prompted(self, examples: Examples, seed: int) -> Examples:
        """Give each its instruction, and drop those that have none worth having."""
        config, roles, filters, state = self._config, self._opened.roles, self._opened.filters, self._opened.state

        async def ask(example: Example) -> Example:
            asked = self._opened.asked
            return await induce(example, self._inducer, asked.template, config.induce, seed=seed) if self._inducer and asked else example

        async def pick(example: Example) -> Example:
            return await choose(example, filters.prompt, self._scorer, self._forward, config.filter)

        examples = _ordered(examples, ask, "induce", roles.inducer or roles.expert, state)
        return _ordered(examples, pick, "filter", roles.scorer or roles.inducer or roles.expert, state)

    def distinct(self, examples: Examples) -> Examples:
        """Drop those whose instruction another has; they must all come by here, in order."""
        return distinct(examples, "prompt", self._config.filter, self._opened.seen, self._opened.state.stages["filter"])

    def answered(self, examples: Examples, seed: int) -> Examples:
        """Have a response written to each, and judged."""
        return _ordered(examples, self._finisher(seed).finish, "respond", self._opened.roles.expert, self._opened.state)

    def varied(self, examples: Examples, seed: int) -> Examples:
        """Have responses that repeat accepted ones written anew, where that is on; they must all come by here, in order."""
        return _varied(examples, self._finisher(seed), self._config.respond.boilerplate, self._opened.seen)

    def replaced(self, examples: Examples) -> Examples:
        """Put another response in the place of the source text, where the config asks for one."""
        if self._replace is None:
            return examples
        return _ordered(examples, self._replace, REJECTED, self._opened.roles.by_stage()[REJECTED], self._opened.state)

    def _finisher(self, seed: int) -> Finisher:
        checks = () if self._replace else self._opened.filters.pair
        return Finisher(self._experts, self._reviser, self._verifier, checks, self._config, self._opened.domain.direction, seed)

    def _recorded(self, model: Model, stage: str, writer: str = "") -> Model:
        state = self._opened.state
        whole = state.stages[stage].meter
        meter = Both(part=state.writers[writer.removeprefix(EXPERTS)].meter, whole=whole) if writer else whole
        return Recorded(model, self._opened.ledger, stage, meter)


def _rejected_side(opened: Opened, verifier: Verifier, recorded: Callable[[Model, str], Model]) -> Step | None:
    """What puts another response in the place of the source text, where the config asks for one."""
    config = opened.config
    if config.rejected.writer is None:
        return None
    model, template = opened.roles.by_stage()[REJECTED], _template(rejected_template(config), config)
    side = RejectedSide(recorded(model, REJECTED), template, opened.domain, verifier, config.rejected, config.verify, config.respond, config.seed)

    async def replaced(example: Example) -> Example:
        done = await side.replaced(example)
        return done.with_verdicts(*check_all(opened.filters.pair, done)) if done.alive else done

    return replaced


def _twinned(examples: Examples, opened: Opened) -> Examples:
    """The examples, and behind them the contrast twins of those that are pairs, where the config asks for some."""
    config, state, parts = opened.config, opened.state, opened.state.parts
    if config.twins is None:
        return examples
    twins = Twins(config.twins.share, config.seed, config.filter.near_duplicate)

    def recorded(model: Model, part: str) -> Model:
        return Recorded(model, opened.ledger, part, Both(part=parts[part].meter, whole=state.stages[TWINS].meter))

    maker = open_twins(config, opened.domain, opened.filters, opened.roles, recorded, twins.look_up)

    def make(begun: Examples) -> Examples:
        state.stages[TWINS].total = twins.wanted
        return _weighed(_ordered(begun, maker.make, TWINS, maker.writer.model, state), opened.margins)

    return twins.following(examples, make)


async def _collect(
    config: RunConfig, domain: Domain, router: Router | None, state: RunState, set_aside: Callable[[BadRow], None], rows: Container[int] | None
) -> Examples:
    """Examples from the source, or from `rows` of it only; rows that cannot become one are set aside."""
    only = next(iter(domain.categories)) if len(domain.categories) == 1 else None
    with closing(UniqueIds()) as ids:
        for number, row in enumerate(read_source(config.source, config.base)):
            if rows is not None and number not in rows:
                continue
            state.rows += 1
            routed: tuple[Verdict, ...] = ()
            if router and isinstance(row, SourceText):
                category, verdict = router.route(row.text)
                row, routed = replace(row, category=category), (verdict,)
            if isinstance(row, SourceText) and (row.category or only) not in domain.categories:
                row = BadRow(row.file, row.line, f"category {row.category!r} is not one of {', '.join(domain.categories)}", excerpt(row.text))
            if isinstance(row, BadRow):
                state.set_aside += 1
                set_aside(row)
                continue
            given = (Candidate(row.asked),) if config.induce.given == "keep" else ()
            id_, category = ids.of(row.id or row.digest), row.category or only or ""
            yield Example(id_, row.text, category, row.file, row.line, given, verdicts=routed, history=row.history, license=row.license, place=row.place)


async def _sifted(examples: Examples, checks: Sequence[Check], stage: StageState) -> Examples:
    """Mend the source texts, and drop what a filter on them stands in the way of."""
    async with aclosing(examples):
        async for example in examples:
            left = sifted(checks, example)
            stage.dropped += not left.alive
            yield left


def memories(config: RunConfig) -> dict[str, Deduplicators]:
    """What duplicates are found by. With a target by category, which examples reach a model is known within each category only."""
    near, boilerplate = config.filter.near_duplicate, config.respond.boilerplate
    apart = isinstance(config.target, dict)
    return {
        "text": Deduplicators("text", near, by_category=False),
        "prompt": Deduplicators("prompt", near, by_category=apart),
        "response": Deduplicators("response", boilerplate.near if boilerplate else None, by_category=apart),
    }


def _varied(examples: Examples, finisher: Finisher, config: BoilerplateConfig | None, seen: Mapping[str, Deduplicators]) -> Examples:
    """Have responses that repeat accepted ones written anew, where that is on."""
    if config is None:
        return examples

    async def again(example: Example, warmer: float) -> Example:
        return await _step(example, lambda e: finisher.again(e, warmer), "respond")

    return Variety(config, seen["response"], again, finisher.with_draft).through(examples)


async def distinct(examples: Examples, field_: str, config: FilterConfig, seen: Mapping[str, Deduplicators], stage: StageState) -> Examples:
    """Drop duplicates: all but the first as they come, or all but the best once all are there."""
    checked = _keep_first(examples, field_, seen[field_]) if config.keep == "first" else _keep_best(examples, field_, config)
    async with aclosing(checked):
        async for example in checked:
            dropped = example.dropped_by
            stage.dropped += dropped is not None and dropped.name in (f"dedup.{field_}", f"dedup.semantic.{field_}")
            stage.done += field_ == "text"
            yield example


async def _keep_first(examples: Examples, field_: str, seen: Deduplicators) -> Examples:
    async with aclosing(examples):
        async for example in examples:
            yield example.with_verdicts(seen.check(_compared(example, field_), example.id, example.category)) if example.alive else example


def _keep_best(examples: Examples, field_: str, config: FilterConfig) -> Examples:
    def score(example: Example) -> float:
        if field_ == "text":
            return len(example.text.split())
        taken = next((c.logprob for c in example.candidates if c.text == example.prompt), None)
        return float("-inf") if taken is None else taken

    def judge(rows: list[tuple[str, str, float]]) -> list[list[Verdict]]:
        return distinct_texts(field_, rows, config.near_duplicate or 1.0, config.semantic)

    return at_once(examples, lambda e: (e.id, _compared(e, field_), score(e)), judge)


def _compared(example: Example, field_: str) -> str:
    """What a duplicate is known by: the text, whatever it answers; or the instruction, which is another one after another history."""
    return example.text if field_ == "text" else told_apart(example.history, example.prompt)


def finished(examples: Examples, equipment: Equipment) -> Examples:
    """The examples with their margins, those dropped that are not chosen for the set."""
    examples, chosen = _weighed(examples, equipment.margins), equipment.config.select
    if chosen is None:
        return examples
    return at_once(examples, Pair.of, lambda pairs: choose_pairs(pairs, chosen).verdicts)


async def _weighed(examples: Examples, margins: Margins) -> Examples:
    async with aclosing(examples):
        async for example in examples:
            yield margins.of(example)


async def _ordered(examples: Examples, step: Step, name: str, model: Model, state: RunState) -> Examples:
    """Apply `step` to the living, a window of examples at a time, and yield all in input order."""
    stage, widest = state.stages[name], max(16, 4 * model.concurrency)
    pending: deque[asyncio.Task[Example]] = deque()
    failed: asyncio.Future[asyncio.Task[Example]] = asyncio.get_running_loop().create_future()

    def note(task: asyncio.Task[Example]) -> None:
        if not task.cancelled() and task.exception() and not failed.done():
            failed.set_result(task)

    try:
        async with aclosing(examples):
            async for example in examples:
                pending.append(asyncio.create_task(_step(example, step, name)))
                pending[-1].add_done_callback(note)
                while len(pending) >= min(widest, state.room) or (pending and pending[0].done()):
                    yield _counted(await _oldest(pending, failed), name, stage)
            while pending:
                yield _counted(await _oldest(pending, failed), name, stage)
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def _oldest(pending: deque[asyncio.Task[Example]], failed: asyncio.Future[asyncio.Task[Example]]) -> Example:
    """What the first task comes to; a failure of any is told at once, for what stops one stops the run.

    Who stops waiting for the first task does not cancel it alone: the slot that it gave free would send another call.
    """
    if not pending[0].done():
        either: list[asyncio.Future[Any]] = [pending[0], failed]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    return failed.result().result() if failed.done() else pending.popleft().result()


async def _step(example: Example, step: Step, name: str) -> Example:
    """One step on one example; a request that the endpoint refuses for what is in it drops the example."""
    if not example.alive:
        return example
    note_calls_of(example.id)
    try:
        return await step(example)
    except RequestError as exc:
        return example.with_verdicts(Verdict(f"{name}.refused", False, None, str(exc)))


def _counted(example: Example, name: str, stage: StageState) -> Example:
    """Count an example on its way out, in input order; stop when nothing but refusals has come so far.

    A content filter speaks of the text and not of the settings: it stops nothing, and does not show that they are right.
    """
    dropped = example.dropped_by
    stage.done += 1
    stage.dropped += dropped is not None
    silent = dropped is not None and dropped.name in (f"{name}.refused", f"{name}.content_filter")
    stage.answered += dropped is None or (not silent and came_to(dropped, name))
    stage.refused += dropped is not None and dropped.name == f"{name}.refused"
    if dropped and stage.refused >= _REFUSALS_BEFORE_STOP and not stage.answered:
        raise ModelError(f"the first {stage.refused} requests of stage '{name}' were all refused, the last one so: {dropped.reason}")
    return example


def _template(name: str, config: RunConfig) -> Template:
    return load_template(name, config.base)


def new_state(config: RunConfig, total: int | None) -> RunState:
    """Live figures, with lines for what the run makes beside the flow."""
    state = RunState(total=total)
    state.sides.form = config.rejected.form
    beside = [*([REJECTED] if config.rejected.writer else []), *([TWINS] if config.twins else [])]
    state.stages |= {name: StageState() for name in beside}
    return state


def _check_categories(source: SourceConfig, domain: Domain) -> None:
    if source.category:
        domain.category(source.category)
    elif not (source.category_column or source.route) and len(domain.categories) > 1:
        raise ConfigError(
            f"domain '{domain.name}' has several categories ({', '.join(domain.categories)}); set source.category, source.category_column or source.route"
        )


def _shots(config: RunConfig, domain: Domain) -> dict[str, tuple[Shot, ...]]:
    """The examples that an inducer which was not tuned may be shown."""
    if config.induce.examples == "domain":
        return domain_shots(domain, config.induce.shots)
    pairs = whole_pairs((PairSource(path=config.induce.examples),), config.base)
    return {"": tuple(Shot(pair.prompt, pair.response) for pair in pairs[: config.induce.shots])}


def _resolve(config: RunConfig, domain: Domain, filters: Filters, roles: Roles, asked: Reversal | None, router: Router | None) -> dict[str, Any]:
    """The config with everything that the result depends on; a change of any of it makes another run, but for `how`."""
    names = {"respond": config.respond.template}
    several = config.models.experts if domain.direction == "rejected" else None
    names |= {f"respond.{name}": which.template for name, which in (several or {}).items() if which.template}
    names |= {"revise": config.respond.revision} if config.respond.revise else {}
    names |= {"critique": "critique"} if config.respond.critique else {}
    names |= {name: name for name in ("forward", "contrast", "question", "pairwise", "weighted", "prefer")}
    names |= {name: name for name in conversation.TEMPLATES if config.source.messages}
    induced = {"induce": asked.template.digest} if asked else {}
    names |= {REJECTED: rejected_template(config)} if config.rejected.writer else {}
    names |= twin_templates(config.twins) if config.twins else {}
    what, how = config.parted()
    what["filter"] |= filters.record()
    return {
        "config": what,
        "domain_sha256": hashlib.sha256(domain.model_dump_json().encode()).hexdigest(),
        **route_record(router),
        **({"programs": programs} if (programs := record(domain)) else {}),
        "templates": induced | {use: _template(name, config).digest for use, name in names.items()},
        "models": {role: model.fingerprint for role, model in roles.by_role().items()},
        rundir.HOW: how,
    }


def count_rows(source: SourceConfig, base: Path) -> int | None:
    """How many rows the source holds, where reading it twice is cheap; taking pages apart is not."""
    path = base / source.path
    if not path.is_file() or path.stat().st_size > _COUNT_BELOW_BYTES or {".warc", ".wet"} & {*path.suffixes}:
        return None
    return sum(1 for _ in read_source(source, base))


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
