"""The books of a run: its summary, and the check that every row that went in has come out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from safer_instruct import rundir
from safer_instruct.budget import Budget
from safer_instruct.errors import AccountingError
from safer_instruct.ledger import Meter, read_totals
from safer_instruct.models.protocol import Model, Usage
from safer_instruct.settings.models import ALWAYS_IN_PROCESS, ModelConfig
from safer_instruct.spent import Spent
from safer_instruct.state import REJECTED, STAGES, TWINS, RunState, StageState
from safer_instruct.tables import lines_of

_COST_DIGITS = 12  # what prices of a millionth per million tokens can change; with fewer, the order of the calls may decide how a half is rounded


class Counted(Protocol):
    """Calls that were counted, and what they cost: None where that is not known."""

    @property
    def meter(self) -> Meter: ...

    @property
    def cost(self) -> float | None: ...


def summarize(state: RunState, models: Mapping[str, Model], stage_models: Mapping[str, Model], thresholds: str) -> dict[str, Any]:
    """What becomes `summary.json`.

    Args:
        state: The figures at the end.
        models: Role -> model.
        stage_models: Stage, or part of the twins, -> the model that its calls went to.
        thresholds: Where the bounds of the filters come from.
    """
    left = state.rows - state.set_aside
    funnel: dict[str, Any] = {}
    for name in STAGES:
        stage = state.stages[name]
        reasons = {verdict: n for (at, verdict), n in sorted(state.reasons.items()) if at == name}
        funnel[name] = {"in": left, "dropped": reasons, "out": left - sum(reasons.values()), **took([stage])}
        left = funnel[name]["out"]
    stages = [stage for name, stage in state.stages.items() if name != TWINS] + list(state.parts.values())
    used: dict[str, list[StageState]] = {}
    for name, model in stage_models.items():
        for at, part in _parts(name, model, state):
            used.setdefault(at, []).append(part)
    return {
        "rows": state.rows,
        "set_aside": state.set_aside,
        "dropped": sum(state.reasons.values()),
        "pairs": state.pairs,
        "stages": funnel,
        **_sides(state),
        **took(stages),
        "models": {role: model.name for role, model in models.items()},
        "by_model": {name: took(parts) for name, parts in used.items()},
        "writers": {name: {"model": w.model, "drafts": w.drafts, "pairs": w.pairs, **took([w])} for name, w in state.writers.items()},
        **({"target": state.target} if state.target else {}),
        "thresholds": thresholds,
        **({"source_licenses": dict(state.licenses.most_common())} if state.licenses else {}),
        "timing": {
            "wall_s": round(time.monotonic() - state.started, 3),
            "calls_from_ledger": sum(s.meter.from_ledger for s in stages),
            "calls_repeated": sum(s.meter.repeated for s in stages),
            "model_s": {name: round(s.meter.usage.seconds, 3) for name, s in state.stages.items()},
            "budget": budget_record(state.budget),
            **({"surplus": {"calls": state.surplus_calls, "cost": round(state.surplus_cost, _COST_DIGITS)}} if state.target else {}),
        },
    }


def _sides(state: RunState) -> dict[str, Any]:
    """What stands beside the funnel: the two sides' lengths, other rejected responses, and the contrast twins."""
    sides = state.sides
    found: dict[str, Any] = {"length_gap": {"source": sides.before.record(), "pairs": sides.after.record()}}
    if REJECTED in state.stages:
        line = state.stages[REJECTED]
        kept = {"replaced": sides.replaced, "fallback": sides.fallback, "fitting": state.pairs - sides.replaced - sides.fallback}
        found["rejected"] = {"form": sides.form, "in": line.done, "dropped": {}, "out": line.done - line.dropped, **kept, **took([line])}
    if TWINS in state.stages:
        found["twins"] = {**state.twins.record(), **took(state.parts.values())}
    return found


def check_accounts(out: Path, state: RunState) -> None:
    """Count what is on disk: rows in = pairs + dropped + set aside, to the row, and twins begun = twins that are pairs + dropped.

    Raises:
        AccountingError: They do not add up.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(out / rundir.EXAMPLES) as file:
        examples, twins = _ends(file)
    dropped, dropped_twins = examples.total() - examples[None], twins.total() - twins[None]
    pairs = pq.read_metadata(out / rundir.PAIRS).num_rows - twins[None]
    lines = lines_of(out / rundir.PAIRS_JSONL) - twins[None]
    aside = lines_of(out / rundir.BAD_ROWS)
    reasons, twin_reasons = ({by: n for by, n in counts.items() if by is not None} for counts in (examples, twins))
    counted: Counter[str] = Counter()
    for (_, name), n in state.reasons.items():
        counted[name] += n
    closed = state.rows == pairs + dropped + aside and pairs == lines and dict(counted) == reasons
    if not closed or (state.twins.begun, state.twins.pairs, dict(state.twins.reasons)) != (twins.total(), twins[None], twin_reasons):
        apart = f"; {state.twins.begun} twins were begun, {twins[None]} twins + {dropped_twins} dropped came out" if state.twins.begun else ""
        raise AccountingError(
            f"{out}: {state.rows} rows went in, {pairs} pairs + {dropped} dropped + {aside} set aside came out "
            f"({lines} lines in {rundir.PAIRS_JSONL}){apart}; this is a bug in safer-instruct: please report it with {rundir.RUN}"
        )


def _ends(file: Any) -> tuple[Counter[str | None], Counter[str | None]]:
    """How many examples, and how many twins, each verdict dropped, None for those that came through; a batch of them in memory at a time."""
    examples, twins = Counter[str | None](), Counter[str | None]()
    for batch in file.iter_batches(columns=["dropped_by", "twin_of"]):
        for by, twin_of in zip(batch["dropped_by"].to_pylist(), batch["twin_of"].to_pylist(), strict=True):
            (twins if twin_of else examples)[by] += 1
    return examples, twins


def _parts(stage: str, model: Model, state: RunState) -> Iterable[tuple[str, StageState]]:
    """Model name and figures of each model that works at a stage, as far as they are told apart."""
    if stage == "respond" and state.writers:
        return [(writer.model, writer) for writer in state.writers.values()]
    return [(model.name, state.parts.get(stage) or state.stages[stage])]


def took(stages: Iterable[Counted]) -> dict[str, Any]:
    """Calls, tokens and cost of these stages together; the cost is None when that of a part is not known, be it the price or what the calls took."""
    parts = list(stages)
    usage = sum((s.meter.usage for s in parts), Usage())
    return {
        "calls": sum(s.meter.calls for s in parts),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost": None if any(s.cost is None for s in parts) else round(usage.cost, _COST_DIGITS),
        **_cache(usage),
        **({"calls_without_usage": unreported} if (unreported := sum(s.meter.unreported for s in parts)) else {}),
    }


def _cache(usage: Usage) -> dict[str, Any]:
    """How much of the prompts a server's prefix cache held; nothing where no server tells."""
    if not usage.cached_tokens:
        return {}
    return {"cached_tokens": usage.cached_tokens, "cache_hit_rate": round(usage.cached_tokens / usage.prompt_tokens, 4)}


def budget_record(budget: Budget) -> dict[str, Any]:
    """What all sittings have spent, calls without an answer and answers without usage included."""
    unreported = budget.unreported
    return {
        "max_cost": budget.max_cost,
        "max_tokens": budget.max_tokens,
        "spent_cost": round(budget.spent.cost, 6),
        "spent_tokens": budget.spent.tokens,
        "unanswered_cost": round(budget.forfeited.cost, 6),
        "unanswered_tokens": budget.forfeited.tokens,
        **({"cut_off_cost": round(budget.cut_off.cost, 6), "cut_off_tokens": budget.cut_off.tokens} if budget.cut_off.tokens else {}),
        **({"unreported_cost": round(unreported.cost, 6), "unreported_tokens": unreported.tokens} if unreported.tokens else {}),
    }


def remote_spent(ledger: Path, models: Iterable[ModelConfig]) -> Spent:
    """What the finished calls to models outside of this process add up to, and so draw on a budget.

    Args:
        ledger: Of a run or an evaluation.
        models: Those that its config names: they tell which `reward:` model works in this process.
    """
    here = {which.model for which in models if which.in_process}
    totals = [t.usage for t in read_totals(ledger) if not (t.model in here or t.model.partition(":")[0] in ALWAYS_IN_PROCESS)]
    return Spent(sum(t.cost for t in totals), sum(t.prompt_tokens + t.completion_tokens for t in totals))
