"""The whole evaluation in order: open the models, write and score, compute, write the report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path

from safer_instruct.analysis.bootstrap import Bootstrap
from safer_instruct.embed import Embedder, load_embedder
from safer_instruct.errors import MissingExtraError
from safer_instruct.evaluation.inducer.calls import Induced, Ranks, RoundTrip, induce_all, rank_all
from safer_instruct.evaluation.inducer.figures import Difference, Evaluation, SystemFigures, difference, figures, reference
from safer_instruct.evaluation.inducer.plan import Plan
from safer_instruct.evaluation.inducer.report import markdown, put_into_card
from safer_instruct.evaluation.sitting import Counter, OpenModels, Progress, check_folder, held_ledger
from safer_instruct.filters.registry import open_filters
from safer_instruct.running import run_to_end
from safer_instruct.templates import load_template
from safer_instruct.wholefile import write_whole

REPORT, RESULT = "evaluation.md", "evaluation.json"
TRUE = "true instruction"


def evaluate_inducers(plan: Plan, out: Path, report: Callable[[Progress], None] = lambda _: None) -> Evaluation:
    """Evaluate the systems of `plan`; a stopped evaluation goes on where it was when it is given again.

    Args:
        plan: From `load_plan`.
        out: A directory for the report and the ledger. The ledger of another evaluation in it is used as far as calls are the same.
        report: Called after every call.

    Raises:
        SaferInstructError: Whatever went wrong, with what to do about it.
    """
    check_folder(out, REPORT)
    out.mkdir(parents=True, exist_ok=True)
    return run_to_end(_evaluate(plan, out, report))


async def _evaluate(plan: Plan, out: Path, report: Callable[[Progress], None]) -> Evaluation:
    started = time.monotonic()
    config, pairs, embedder = plan.config, plan.pairs, _embedder(plan.config.embedder)
    trip = RoundTrip.of(pairs, plan.prepared.held_out, config)
    counted = Counter(2 * len(plan.systems) * len(pairs) + (len(plan.systems) + 1) * trip.calls, report)
    written: dict[str, Sequence[Induced]] = {}
    ranked: dict[str, Sequence[Ranks]] = {}
    async with AsyncExitStack() as stack:
        ledger = stack.enter_context(held_ledger(out))
        asked_for = [*(system.model for system in plan.systems), config.forward]
        models = OpenModels(out, ledger, stack, models=asked_for, base=plan.base, budget=config.budget, prices=config.prices)
        for system in plan.systems:
            model = models.open(system.model, "induce")
            written[system.name] = await induce_all(system, model, pairs, config, counted.during(f"{system.name}: writing"))
        forward, template = models.open(config.forward, "round trip"), load_template("forward")
        asked = {name: [item.text for item in items] for name, items in written.items()} | {TRUE: [pair.prompt for pair in pairs]}
        for name, texts in asked.items():
            ranked[name] = await rank_all(texts, trip, forward, template, counted.during(f"{name}: round trip"))
    systems, differences = _compute(plan, written, ranked, embedder)
    induced = {name: tuple(item.text for item in items) for name, items in written.items()}
    used = models.used()
    seconds = time.monotonic() - started
    result = Evaluation(out, systems, differences, induced, used.calls, used.from_ledger, used.repeated, models.cost, seconds, used.unreported)
    _write(plan, result)
    return result


def _compute(
    plan: Plan, written: dict[str, Sequence[Induced]], ranked: dict[str, Sequence[Ranks]], embedder: Embedder | None
) -> tuple[dict[str, SystemFigures], dict[str, Difference]]:
    config = plan.config
    bootstrap = Bootstrap(len(plan.pairs), resamples=config.resamples, level=config.level, seed=config.seed)
    checks = open_filters(config.filter, plan.base).prompt
    systems = {name: figures(plan.pairs, items, ranked[name], checks, bootstrap, embedder) for name, items in written.items()}
    first = next(iter(written))
    against = (written[first], ranked[first])
    differences = {name: difference((items, ranked[name]), against, bootstrap) for name, items in written.items() if name != first}
    return systems | {TRUE: reference(ranked[TRUE], bootstrap)}, differences


def _embedder(name: str | None) -> Embedder | None:
    """Opened before the first call is made, so that one which is missing costs none."""
    if name is None:
        return None
    try:
        return load_embedder("static" if name == "auto" else name)
    except MissingExtraError:
        if name == "auto":
            return None
        raise


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
    write_whole(result.path / RESULT, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    write_whole(result.path / REPORT, text)
    if plan.adapter:
        put_into_card(plan.adapter / "README.md", text)
