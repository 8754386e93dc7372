"""The whole evaluation in order: open the models, write and score, compute, write the report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from safer_instruct import rundir
from safer_instruct.analysis.bootstrap import Bootstrap
from safer_instruct.budget import Budget, Spent, earlier_spent, write_spent
from safer_instruct.config import ModelConfig
from safer_instruct.evaluation.inducer.calls import Induced, Ranks, RoundTrip, Tick, induce_all, rank_all
from safer_instruct.evaluation.inducer.figures import Difference, Evaluation, SystemFigures, difference, figures, reference
from safer_instruct.evaluation.inducer.plan import Plan
from safer_instruct.evaluation.inducer.report import markdown, put_into_card
from safer_instruct.filters.registry import open_filters
from safer_instruct.ledger import Ledger, Meter, Recorded, read_totals
from safer_instruct.models import open_model
from safer_instruct.models.protocol import Model, Usage
from safer_instruct.prices import load_prices
from safer_instruct.running import run_to_end
from safer_instruct.templates import load_template

REPORT, RESULT = "evaluation.md", "evaluation.json"
TRUE = "true instruction"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an evaluation is: calls done and in all, and what is being done."""

    done: int
    total: int
    doing: str


def evaluate_inducers(plan: Plan, out: Path, report: Callable[[Progress], None] = lambda _: None) -> Evaluation:
    """Evaluate the systems of `plan`; a stopped evaluation goes on where it was when it is given again.

    Args:
        plan: From `load_plan`.
        out: A directory for the report and the ledger. The ledger of another evaluation in it is used as far as calls are the same.
        report: Called after every call.

    Raises:
        SaferInstructError: Whatever went wrong, with what to do about it.
    """
    out.mkdir(parents=True, exist_ok=True)
    return run_to_end(_evaluate(plan, out, report))


async def _evaluate(plan: Plan, out: Path, report: Callable[[Progress], None]) -> Evaluation:
    started = time.monotonic()
    config, pairs = plan.config, plan.pairs
    trip = RoundTrip.of(pairs, plan.prepared.held_out, config)
    counted = _Counter(2 * len(plan.systems) * len(pairs) + (len(plan.systems) + 1) * trip.calls, report)
    written: dict[str, Sequence[Induced]] = {}
    ranked: dict[str, Sequence[Ranks]] = {}
    async with AsyncExitStack() as stack:
        stack.enter_context(rundir.hold(out))
        ledger = stack.enter_context(Ledger(out / rundir.LEDGER))
        models = _Models(plan, out, ledger, stack)
        for system in plan.systems:
            model = models.open(system.model, "induce")
            written[system.name] = await induce_all(system, model, pairs, config, counted.during(f"{system.name}: writing"))
        forward, template = models.open(config.forward, "round trip"), load_template("forward")
        asked = {name: [item.text for item in items] for name, items in written.items()} | {TRUE: [pair.prompt for pair in pairs]}
        for name, texts in asked.items():
            ranked[name] = await rank_all(texts, trip, forward, template, counted.during(f"{name}: round trip"))
        models.budget.close()
    systems, differences = _compute(plan, written, ranked)
    induced = {name: tuple(item.text for item in items) for name, items in written.items()}
    used = models.used()
    result = Evaluation(out, systems, differences, induced, used.calls, used.replayed, used.usage.cost, time.monotonic() - started)
    _write(plan, result)
    return result


def _compute(plan: Plan, written: dict[str, Sequence[Induced]], ranked: dict[str, Sequence[Ranks]]) -> tuple[dict[str, SystemFigures], dict[str, Difference]]:
    config = plan.config
    bootstrap = Bootstrap(len(plan.pairs), resamples=config.resamples, level=config.level, seed=config.seed)
    checks = open_filters(config.filter, plan.base).prompt
    systems = {name: figures(plan.pairs, items, ranked[name], checks, bootstrap) for name, items in written.items()}
    first = next(iter(written))
    against = (written[first], ranked[first])
    differences = {name: difference((items, ranked[name]), against, bootstrap) for name, items in written.items() if name != first}
    return systems | {TRUE: reference(ranked[TRUE], bootstrap)}, differences


def _write(plan: Plan, result: Evaluation) -> None:
    text = markdown(plan, result)
    record = {
        "systems": {name: asdict(given) for name, given in result.systems.items()},
        "differences": {name: asdict(given) for name, given in result.differences.items()},
        "asked": {s.name: {"model": s.model.model, "adapter": s.model.adapter, **s.template.record(), "note": s.note} for s in plan.systems},
        "config": plan.config.model_dump(mode="json"),
        "data_sha256": plan.prepared.sha256,
        "pairs": [
            {"prompt": p.prompt, "response": p.response, "induced": {name: texts[at] for name, texts in result.induced.items()}}
            for at, p in enumerate(plan.pairs)
        ],
    }
    rundir.write_whole(result.path / RESULT, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    rundir.write_whole(result.path / REPORT, text)
    if plan.adapter:
        put_into_card(plan.adapter / "README.md", text)


class _Counter:
    """Counts calls for the progress display."""

    def __init__(self, total: int, report: Callable[[Progress], None]) -> None:
        self._done, self._total, self._report = 0, total, report

    def during(self, doing: str) -> Tick:
        def tick() -> None:
            self._done += 1
            self._report(Progress(self._done, self._total, doing))

        return tick


class _Models:
    """The models of an evaluation, each opened once, within one budget; all their calls go through the ledger."""

    def __init__(self, plan: Plan, out: Path, ledger: Ledger, stack: AsyncExitStack) -> None:
        config = plan.config
        self._base, self._out, self._ledger, self._stack = plan.base, out, ledger, stack
        self._prices = load_prices(plan.base / config.prices if config.prices else None)
        self._opened: dict[ModelConfig, Model] = {}
        self._meters: list[Meter] = []
        self.budget = Budget(config.budget.max_cost, config.budget.max_tokens)
        spent = out / rundir.SPENT
        self.budget.begin(earlier_spent(spent, lambda: remote_spent(out / rundir.LEDGER)), lambda total: write_spent(spent, total))

    def open(self, which: ModelConfig, stage: str) -> Model:
        if which not in self._opened:
            self._opened[which] = open_model(which, self._base, prices=self._prices, budget=self.budget, batches=self._out / rundir.BATCHES)
            self._stack.push_async_callback(self._opened[which].close)
        self._meters.append(Meter())
        return Recorded(self._opened[which], self._ledger, stage, self._meters[-1])

    def used(self) -> Meter:
        """What all calls add up to."""
        usage = sum((m.usage for m in self._meters), Usage())
        return Meter(sum(m.calls for m in self._meters), sum(m.replayed for m in self._meters), usage)


def remote_spent(ledger: Path) -> Spent:
    """What the calls of a ledger to remote models add up to."""
    totals = [t.usage for t in read_totals(ledger) if not t.model.startswith(("embedded:", "scripted:"))]
    return Spent(sum(t.cost for t in totals), sum(t.prompt_tokens + t.completion_tokens for t in totals))
