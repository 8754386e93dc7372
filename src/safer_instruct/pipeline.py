"""The whole flow: collect, induce, filter, respond, verify, write.

Examples stream through in input order. Each step works on a bounded window of them at a time, so order never depends on
timing and memory does not grow; what duplicate detection remembers lies on disk. Every model call goes through the ledger:
to resume is to run again.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Container, Mapping
from contextlib import aclosing, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safer_instruct import derived, rundir, tables
from safer_instruct.accounts import check_accounts, remote_spent, summarize
from safer_instruct.barrier import at_once
from safer_instruct.budget import Budget
from safer_instruct.card import Release, dataset_card, describe
from safer_instruct.choosing import Pair, choose_pairs
from safer_instruct.collect import entering, first_usable
from safer_instruct.config import RunConfig
from safer_instruct.distinct import distinct
from safer_instruct.equipment import Equipment, Opened, count_rows, equip, new_state
from safer_instruct.errors import RunDirectoryError, SourceError
from safer_instruct.example import Example
from safer_instruct.filters.checks import check_all
from safer_instruct.filters.dedup import Deduplicators
from safer_instruct.ledger import Ledger, Meter, Recorded, merge_shards, read_mark
from safer_instruct.margins import Margins
from safer_instruct.models.protocol import Model
from safer_instruct.models.said import said
from safer_instruct.notes import changed_notes, side_notes, unread_note
from safer_instruct.oneline import many
from safer_instruct.ordered import Examples, Refusals, Step, applied, in_order
from safer_instruct.progress import published
from safer_instruct.remote import working_directory
from safer_instruct.roles import EXPERTS
from safer_instruct.running import run_to_end
from safer_instruct.settings.answers import BoilerplateConfig
from safer_instruct.sources import BadRow, read_source
from safer_instruct.spent import earlier_spent, write_spent
from safer_instruct.stages.direction import facing
from safer_instruct.stages.experts import choice_note, one_writes
from safer_instruct.stages.filter import choose
from safer_instruct.stages.finish import Finisher
from safer_instruct.stages.induce import induce
from safer_instruct.stages.rejected import RejectedSide, rejected_template
from safer_instruct.stages.respond import expert_template
from safer_instruct.stages.verify import Verifier
from safer_instruct.state import REJECTED, STAGES, TWINS, Both, Dropped, Figures, Paced, Row, RowMeter, RunState, own_s, row_of, row_of_twin
from safer_instruct.stopping import before_a_stop
from safer_instruct.target import Pursuit, described
from safer_instruct.templates import load_template
from safer_instruct.twins.opening import open_twins
from safer_instruct.twins.stream import Twins
from safer_instruct.variety import Unique, Variety
from safer_instruct.wholefile import sha256_of, write_whole


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to.

    Attributes:
        path: The run directory.
        summary: What stands in its `summary.json`: counts by stage and reason, calls, tokens, US dollars, seconds.
        removed: Files of the run before that were made of its pairs, such as `report.html`, and do not speak of these.
        stale: Exports in the directory that were made of other pairs than these, such as `export.jsonl`, and are still there.
    """

    path: Path
    summary: dict[str, Any]
    removed: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """What some rows of a source took.

    Attributes:
        rows: What each of them took.
        total_rows: Rows in the source.
        slots: Calls that each stage makes side by side.
        paced: The models that keep to a rate, and what they were asked.
        in_process_s: What the models that work in this process took, each with as many calls side by side as it makes.
        stages: Their names, in order; what stands beside the flow comes before its end.
        set_aside: Those of them that cannot be used.
        pairs: How many of them became pairs.
        dropped: What dropped the others, most rows first.
    """

    rows: tuple[Row, ...]
    total_rows: int
    slots: dict[str, int]
    paced: tuple[Paced, ...] = ()
    in_process_s: float = 0.0
    stages: tuple[str, ...] = STAGES
    set_aside: tuple[BadRow, ...] = ()
    pairs: int = 0
    dropped: tuple[Dropped, ...] = ()


def run(
    config: RunConfig, out: Path | str, *, mode: rundir.Mode = "auto", watch: Callable[[RunState], None] | None = None, work: Path | str | None = None
) -> RunResult:
    """Build a preference dataset as `config` says.

    Args:
        config: From `load_config`.
        out: The run directory, or an address such as `s3://bucket/run`. A run that was stopped goes on where it was; nothing is
            paid for twice.
        mode: What to do when the directory holds a run of another config: `auto` refuses, `continue` goes on in it and pays again only
            for calls that changed, `fresh` moves what it holds into `previous-N/` first.
        watch: Called once with the live state, which changes as the run goes on.
        work: For an address: where the run works; by default in a folder that belongs to it (docs/storage.md).

    Raises:
        SaferInstructError: Whatever went wrong, with what to do about it.
    """
    with working_directory(out, work, mode) as path:
        return run_to_end(_run(config, path, mode, watch))


def sample(
    config: RunConfig,
    out: Path | str,
    rows: int,
    *,
    mode: rundir.Mode = "auto",
    watch: Callable[[RunState], None] | None = None,
    work: Path | str | None = None,
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


@asynccontextmanager
async def _open(config: RunConfig, out: Path, mode: rundir.Mode, state: RunState) -> AsyncIterator[Opened]:
    """Models, run directory, ledger and budget, all closed again when the block ends."""
    budget = Budget(config.budget.max_cost, config.budget.max_tokens)
    async with equip(config, out, budget, state) as equipment:
        with rundir.open_run_directory(out, equipment.resolved(), mode):
            merge_shards(out / rundir.SHARDS, out / rundir.LEDGER)
            with Ledger(out / rundir.LEDGER) as ledger:
                spent, models = out / rundir.SPENT, config.models.by_role.values()
                answered = remote_spent(out / rundir.LEDGER, models)
                budget.begin(earlier_spent(spent, answered), lambda total: write_spent(spent, total), check=ledger.check, answered=answered)
                before_a_stop(budget.stop)
                try:
                    yield equipment.recording(ledger)
                except BaseException as exc:
                    with suppress(RunDirectoryError):  # a full disk again
                        budget.close()
                    ledger.close()
                    if isinstance(exc, RunDirectoryError) and (lost := ledger.lost()):
                        raise lost from exc
                    raise
                budget.close()


async def _run(config: RunConfig, out: Path, mode: rundir.Mode, watch: Callable[[RunState], None] | None) -> RunResult:
    state = new_state(config, count_rows(config.source, config.base))
    async with _open(config, out, mode, state) as opened:
        if watch:
            watch(state)
        return await write_out(opened, out, lambda add_bad: _twinned(finished(_flow(opened, add_bad), opened), opened))


async def write_out(equipment: Equipment, out: Path, flow: Callable[[Callable[[BadRow], None]], Examples]) -> RunResult:
    """Write what `flow` yields, which is told who takes the rows that are set aside, and then what it all came to.

    Results of an earlier run stay as they are where the source has no usable row any more.

    Raises:
        SaferInstructError: Whatever went wrong, in `flow` or here.
    """
    config, state = equipment.config, equipment.state
    if (out / rundir.SUMMARY).is_file():
        await _check_source(equipment, out)
    made, refusals = derived.forget_results(out), Refusals()
    conversations, twins = config.source.messages is not None, config.twins is not None
    with published(out, state), tables.outputs(out, conversations=conversations, twins=twins) as files, closing(Unique()) as unique:
        async with aclosing(flow(files.add_bad)) as examples:
            async for example in examples:
                try:
                    files.add(example)
                except RunDirectoryError as exc:  # a full disk: what is under way is paid for, and may still be saved
                    await state.budget.wind_up(exc)
                    raise
                state.count_finished(example)
                unique.add(example)
                refusals.note(example)
        refusals.check(state)
    if state.rows == state.set_aside:
        raise SourceError(_no_usable_row(config, out, state))
    called = equipment.roles.by_stage() | equipment.roles.by_part()
    summary = summarize(state, equipment.roles.by_role(), called, config.thresholds) | describe(config, equipment.domain)
    summary |= {"unique_chosen": unique.record(), "margin": equipment.margins.record()}
    lost = ""
    if files.unread.files:
        summary["unread"] = files.unread.record()
        lost = unread_note(summary["unread"])
    twice = f"{many(state.renumbered, 'row')} with an id that an earlier row has too: a number stands behind it, as in ID-2" if state.renumbered else ""
    capped = config.budget.max_cost is not None or config.budget.max_tokens is not None
    idle = "the budget caps calls to remote models, and this run has none" if capped and all(m.in_process for m in config.models.by_role.values()) else ""
    told = (
        lost,
        *changed_notes(state.changed),
        twice,
        idle,
        equipment.asked.note if equipment.asked else "",
        described(state.target) if state.target else "",
        choice_note(config),
        *side_notes(summary),
    )
    if notes := [note for note in told if note]:
        summary["notes"] = notes
    check_accounts(out, state)
    summary["timing"]["ledger"] = read_mark(out / rundir.LEDGER)
    write_whole(out / rundir.SUMMARY, json.dumps(summary, indent=1) + "\n")
    release = Release({"train": rundir.PAIRS}, {"train": tables.pairs_and_twins(summary)}, digests={"train": sha256_of(out / rundir.PAIRS)})
    write_whole(out / rundir.CARD, dataset_card(summary, release))
    return RunResult(out, summary, derived.bring_back(out, made), derived.stale_exports(out))


async def _sample(config: RunConfig, out: Path, rows: int, mode: rundir.Mode, watch: Callable[[RunState], None] | None) -> Sample:
    total = sum(1 for _ in read_source(config.source, config.base))
    chosen = frozenset(number * total // rows for number in range(rows)) if rows < total else None
    state = new_state(config, len(chosen) if chosen else total)
    asked: dict[tuple[int, str], Meter] = {}
    state.asked = asked
    for name, stage in state.stages.items():
        stage.meter = RowMeter(stage=name)
    taken: list[Row] = []
    bad: list[BadRow] = []
    refusals = Refusals()
    dropped: dict[str, Dropped] = {}
    aside: Row = {"collect": Figures(passed=False)}

    def put_aside(row: BadRow) -> None:
        bad.append(row)
        taken.append(aside)

    async with _open(config, out, mode, state) as opened:
        if watch:
            watch(state)
        places: dict[str, int] = {}
        async with aclosing(_twinned(_flow(opened, put_aside, chosen), opened)) as examples:
            async for example in examples:
                if example.twin_of:
                    at = places[example.twin_of]
                    taken[at] = {**taken[at], **row_of_twin(example, state)}
                else:
                    places[example.id] = len(taken)
                    taken.append(row_of(example, state))
                    if verdict := example.dropped_by:
                        dropped.setdefault(verdict.name, Dropped(verdict.name, verdict.reason)).rows += 1
                state.count_finished(example)
                refusals.note(example)
        refusals.check(state)
        slots = {stage: model.concurrency for stage, model in opened.roles.by_stage().items()}
        models = opened.roles.opened.items()
    if not taken:
        raise SourceError(_no_row(config))
    if len(bad) == len(taken):
        raise SourceError(bad[0].of_all(len(taken), f"sampled rows of {config.source.path}"))
    beside = [name for name in state.stages if name not in STAGES]
    by_model = [(which, model.concurrency, {stage: meter for (by, stage), meter in asked.items() if by == id(model)}) for (which, _), model in models]
    paced = tuple(found for which, _, stages in by_model if (found := Paced.of(which, stages)))
    in_process_s = sum(own_s(*each) for each in by_model)
    commonest = sorted(dropped.values(), key=lambda reason: -reason.rows)
    return Sample(tuple(taken), total, slots, paced, in_process_s, (*STAGES[:-1], *beside, STAGES[-1]), tuple(bad), state.pairs, tuple(commonest))


def _flow(opened: Opened, set_aside: Callable[[BadRow], None], rows: Container[int] | None = None) -> Examples:
    """The method, read from top to bottom; yields every example that entered, in input order."""
    config, state = opened.config, opened.state
    pursuit = Pursuit(config, state, set_aside) if config.target is not None and rows is None else None
    work = Work(opened)
    examples = entering(opened, pursuit.bad if pursuit else set_aside, rows, pursuit.noted if pursuit else None)
    return pursuit.until_there(examples, work.through) if pursuit else work.through(examples, config.seed)


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

        examples = in_order(examples, ask, "induce", roles.inducer or roles.expert, state)
        return in_order(examples, pick, "filter", roles.scorer or roles.inducer or roles.expert, state)

    def distinct(self, examples: Examples) -> Examples:
        """Drop those whose instruction another has; they must all come by here, in order."""
        return distinct(examples, "prompt", self._config.filter, self._opened.seen, self._opened.state.stages["filter"])

    def answered(self, examples: Examples, seed: int) -> Examples:
        """Have a response written to each, and judged."""
        return in_order(examples, self._finisher(seed).finish, "respond", self._opened.roles.expert, self._opened.state)

    def varied(self, examples: Examples, seed: int) -> Examples:
        """Have responses that repeat accepted ones written anew, where that is on; they must all come by here, in order."""
        return _varied(examples, self._finisher(seed), self._config.respond.boilerplate, self._opened.seen)

    def replaced(self, examples: Examples) -> Examples:
        """Put another response in the place of the source text, where the config asks for one."""
        if self._replace is None:
            return examples
        return in_order(examples, self._replace, REJECTED, self._opened.roles.by_stage()[REJECTED], self._opened.state)

    def _finisher(self, seed: int) -> Finisher:
        checks = () if self._replace else self._opened.filters.pair
        return Finisher(self._experts, self._reviser, self._verifier, checks, self._config, self._opened.domain.direction, seed)

    def _recorded(self, model: Model, stage: str, writer: str = "") -> Model:
        state = self._opened.state
        whole = _asked(state, model, stage)
        meter = Both(part=state.writers[writer.removeprefix(EXPERTS)].meter, whole=whole) if writer else whole
        return Recorded(model, self._opened.ledger, stage, meter, read=said)


def _asked(state: RunState, model: Model, stage: str) -> Meter:
    """What counts a stage's calls; where `state` asks for it, those of each model apart too."""
    whole = state.stages[stage].meter
    return whole if state.asked is None else Both(part=state.asked.setdefault((id(model), stage), Meter()), whole=whole)


def _rejected_side(opened: Opened, verifier: Verifier, recorded: Callable[[Model, str], Model]) -> Step | None:
    """What puts another response in the place of the source text, where the config asks for one."""
    config = opened.config
    if config.rejected.writer is None:
        return None
    named, matched = rejected_template(config), config.rejected.form == "matched"
    template = load_template(named, config.base, use="matched") if matched else expert_template(named, config.base)
    model = opened.roles.by_stage()[REJECTED]
    bounds = config.rejected, config.verify, config.respond
    side = RejectedSide(recorded(model, REJECTED), template, opened.domain, verifier, *bounds, config.seed, one_writes(config))

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
        return Recorded(model, opened.ledger, part, Both(part=parts[part].meter, whole=_asked(state, model, TWINS)), read=said)

    maker = open_twins(config, opened.domain, opened.filters, opened.roles, recorded, twins.look_up)

    def make(begun: Examples) -> Examples:
        state.stages[TWINS].total = twins.wanted
        return _weighed(in_order(begun, maker.make, TWINS, maker.writer.model, state), opened.margins)

    return twins.following(examples, make)


def _varied(examples: Examples, finisher: Finisher, config: BoilerplateConfig | None, seen: Mapping[str, Deduplicators]) -> Examples:
    """Have responses that repeat accepted ones written anew, where that is on."""
    if config is None:
        return examples

    async def again(example: Example, warmer: float) -> Example:
        return await applied(example, lambda e: finisher.again(e, warmer), "respond")

    return Variety(config, seen["response"], again, finisher.with_draft).through(examples)


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


async def _check_source(equipment: Equipment, out: Path) -> None:
    """Look for a usable row before anything in `out` gives way.

    Raises:
        SourceError: There is none.
    """
    config, state = equipment.config, RunState()
    bad: list[BadRow] = []
    if await first_usable(equipment, state, lambda row: None if bad else bad.append(row)):
        return
    kept = f"; the results that {out} holds stay as they are"
    if not bad:
        raise SourceError(f"{_no_row(config)}{kept}")
    raise SourceError(f"{bad[0].of_all(state.rows, f'rows of {config.source.path}')}{kept}")


def _no_usable_row(config: RunConfig, out: Path, state: RunState) -> str:
    if not state.rows:
        return _no_row(config)
    reasons = out / rundir.BAD_ROWS
    return f"{_first(reasons).of_all(state.rows, f'rows of {config.source.path}')}; all reasons stand in {reasons}"


def _no_row(config: RunConfig) -> str:
    return f"{config.source.path} holds no row; give a source with texts (source.path)"


def _first(path: Path) -> BadRow:
    with path.open(encoding="utf-8") as file:
        return BadRow(**json.loads(next(file)))
