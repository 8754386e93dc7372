"""What a run looks like on a terminal: live stages, the funnel, sample pairs."""

from __future__ import annotations

import math
import threading
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from safer_instruct import rundir, tables
from safer_instruct.bars import Told, watched
from safer_instruct.card import repeats_said
from safer_instruct.ledger import Total, cost_of
from safer_instruct.models.arithmetic import arithmetic
from safer_instruct.models.batch.jobs import UnderWay
from safer_instruct.models.calls import span
from safer_instruct.notes import no_pair
from safer_instruct.oneline import calls_words, many, tenths
from safer_instruct.prices import cost_words, show_usd
from safer_instruct.remote.arguments import is_elsewhere, shown
from safer_instruct.state import TWINS, RunState, StageState
from safer_instruct.tuning.progress import Progress
from safer_instruct.tuning.rehearse import Rehearsal
from safer_instruct.tuning.tune import TuneResult

_PLAIN_EVERY_S = 10.0
_OPENS_S = 2.0  # elsewhere than on a terminal nothing is said of models that open sooner
_OPENING = "opening the models (the first time a model is used, it is converted)"


def safe(text: str, limit: int | None = None) -> Text:
    """Text from a corpus or a model, for a terminal: no markup is read in it and no control code is sent."""
    clean = "".join(c if c.isprintable() or c == "\n" else " " if c == "\t" or unicodedata.category(c) == "Zs" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return Text(clean if limit is None or len(clean) <= limit else clean[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}")


@contextmanager
def watch_run(console: Console) -> Iterator[Any]:
    """Yields the `watch` function for `pipeline.run`: a live table on a terminal, a line now and then elsewhere."""
    if console.is_terminal:
        states: list[RunState] = []
        opening = Text(_OPENING, style="dim")
        with Live(console=console, refresh_per_second=4, transient=True, get_renderable=lambda: _stages(states[0]) if states else opening):
            yield states.append
        return
    stop = threading.Event()
    thread: list[threading.Thread] = []
    opening_takes_long = threading.Timer(_OPENS_S, _print_if_it_can, (console, _OPENING))
    opening_takes_long.daemon = True
    opening_takes_long.start()

    def watch(state: RunState) -> None:
        opening_takes_long.cancel()
        thread.append(threading.Thread(target=_print_now_and_then, args=(console, state, stop), daemon=True))
        thread[0].start()

    try:
        yield watch
    finally:
        opening_takes_long.cancel()
        stop.set()
        for t in (opening_takes_long, *thread):
            t.join()


def show_summary(console: Console, path: Path, summary: dict[str, Any], *, samples: int = 3) -> None:
    """The funnel, some sample pairs, and where everything was written."""
    console.print(_funnel(summary))
    if len(summary.get("writers", ())) > 1:
        console.print(_writers(summary["writers"]))
    for pair in _some_pairs(path, tables.pairs_and_twins(summary), samples):
        console.print(_pair_panel(pair, min(100, console.width)))
    timing = summary["timing"]
    calls = calls_words(summary["calls"], timing["calls_from_ledger"], timing.get("calls_repeated", 0))
    tokens = f"{summary['prompt_tokens']:,} + {summary['completion_tokens']:,} tokens"
    cost = cost_words(summary["cost"], summary.get("calls_without_usage", 0))
    console.print(f"{many(summary['pairs'], 'pair')} from {many(summary['rows'], 'row')} in {timing['wall_s']:.0f} s; {calls}, {tokens}, {cost}")
    if said := repeats_said(summary):
        console.print(safe(said))
    show_budget(console, timing["budget"])
    for note in summary.get("notes", []):
        console.print(safe(f"note: {note}"))
    if not summary["pairs"] and summary["rows"]:
        console.print(safe(shown(no_pair(path, summary))), soft_wrap=True)
    for name, what in _WRITTEN.items():
        if is_elsewhere(path) or (path / name).exists():  # a copy lacks what its command did not ask for
            console.print(Text(f"  {shown(path / name)}").append(f"  {what}", style="dim"), soft_wrap=True)


def show_totals(
    console: Console, path: Path, totals: list[Total], said: dict[str, Any] | None = None, holder: str | None = None, under_way: Sequence[UnderWay] = ()
) -> None:
    """How far a run is that has not finished.

    Args:
        console: Where to show it.
        path: The run directory.
        totals: From its ledger.
        said: From `read_progress`.
        holder: The process that is at work in it, if any.
        under_way: From its file of batches.
    """
    where = safe(f"{shown(path)}: {'in progress' if holder else 'not finished'}; finished calls so far")
    table = Table(title=where, title_justify="left")
    for heading in ("stage", "model", "calls", "tokens", "USD", "model seconds"):
        table.add_column(heading, justify="left" if heading in ("stage", "model") else "right", overflow="fold")
    for t in totals:
        tokens = t.usage.prompt_tokens + t.usage.completion_tokens
        table.add_row(safe(t.stage), safe(t.model), f"{t.calls:,}", f"{tokens:,}", show_usd(t.cost), tenths(t.usage.seconds))
    console.print(table)
    if said:
        console.print(how_far(said if holder else said | {"left_s": None}), highlight=False, soft_wrap=True)
    show_batches(console, under_way)
    console.print(_what_next(path, holder, waits=bool(under_way)), markup=False, highlight=False, soft_wrap=True)


def show_batches(console: Console, under_way: Sequence[UnderWay]) -> None:
    """What a run has under way in batches and since when, by model."""
    for each in under_way:
        batches = f"{each.batches:,} batch{'' if each.batches == 1 else 'es'}"
        unsure = f" (of {each.creating:,} it is not known whether it came there)" if each.creating else ""
        since = f"since {datetime.fromtimestamp(each.since, UTC):%Y-%m-%d %H:%M} UTC ({span(max(0.0, time.time() - each.since))})"
        said = f"at the provider of {each.model}, as far as the run has heard: {many(each.size, 'request')} in {batches}{unsure}, {since}"
        console.print(safe(said), soft_wrap=True)


def in_ledger(totals: list[Total], path: Path) -> str:
    """What of an estimate is there already."""
    calls, tokens = sum(t.calls for t in totals), sum(t.usage.prompt_tokens + t.usage.completion_tokens for t in totals)
    cost = show_usd(cost_of(totals))
    return f"{shown(path / rundir.LEDGER)} holds {many(calls, 'call')} ({tokens:,} tokens, {cost} USD): what of them still applies is not made again"


def _what_next(path: Path, holder: str | None, *, waits: bool) -> str:
    if holder is None and waits:
        return f"to go on: safer-instruct run CONFIG --out {shown(safe(str(path)))}; it waits for what is at the provider, and makes no call twice"
    if holder is None:
        return "give the 'run' command again to go on: these calls will not be made twice"
    watch = ", on the machine where it was begun" if is_elsewhere(path) else f"; to watch it: safer-instruct status {safe(str(path))} --follow"
    return f"in progress by process {safe(holder)}{watch}"


def how_far(said: dict[str, Any]) -> str:
    """Rows that a run is through with, and what came of them, by what it last said."""
    dropped, aside = sum(reason["count"] for reason in said["reasons"]), said["set_aside"]
    through = said["pairs"] + dropped + aside
    rows = f"{through:,} of {many(said['total'], 'row')}" if said["total"] is not None else many(through, "row")
    came = f"{many(said['pairs'], 'pair')}, {dropped:,} dropped{f', {aside:,} set aside' if aside else ''}"
    return f"{rows} done: {came} (after {said['elapsed_s']:.0f} s){time_left(said.get('left_s'))}"


@contextmanager
def watch_tuning(console: Console) -> Iterator[Any]:
    """Yields the `report` function for `tune`: a progress bar with loss, tokens/s and time left."""
    with watched(console, "opening the model, then the held-out loss before training") as told:

        def report(progress: Progress) -> None:
            tell_training(console, told, progress, "tuning", training_news(progress))
            if progress.held_out:
                parts = ", ".join(f"{source} {loss:.3f}" for source, loss in progress.held_out.by_source.items())
                console.print(f"step {progress.step}: held-out loss {progress.held_out.loss:.3f} ({parts})", highlight=False)

        yield report


def tell_training(console: Console, told: Told, progress: Progress, doing: str, news: str) -> None:
    """The last step; or that the held-out evaluation after it is what goes on now; and where a training that was stopped goes on."""
    if progress.resumed:
        console.print(f"goes on from its checkpoint of step {progress.step} of {progress.steps}", highlight=False)
    if progress.evaluating:
        told.tell(0, None, doing=f"held-out evaluation after step {progress.step} of {progress.steps}")  # the news are of training
    else:
        told.tell(progress.step, progress.steps, doing=doing, news=news)


def training_news(progress: Progress) -> str:
    """Loss and speed of the last step, as far as there has been one."""
    loss = "" if math.isnan(progress.loss) else f"loss {progress.loss:.3f}"
    return "  ".join(filter(None, (loss, f"{progress.tokens_per_s:.0f} tokens/s" if progress.tokens_per_s else "")))


def show_tuned(console: Console, result: TuneResult) -> None:
    """What tuning gave."""
    if result.already:
        console.print("finished already, so nothing was tuned (--fresh moves it aside and tunes anew)", highlight=False, soft_wrap=True)
    took = "" if result.already else f", {result.seconds:.0f} s"
    console.print(f"held-out loss {result.before:.3f} before, {result.after:.3f} after (nats per completion token){took}", highlight=False)
    if result.embedded is not None:
        console.print(f"in the embedded engine (merged, {arithmetic()}) {result.embedded:.3f}", highlight=False)
    console.print(
        f"{many(result.train_pairs, 'pair')} trained on, {result.held_out_pairs} held out; adapter: {result.adapter}", highlight=False, soft_wrap=True
    )


def show_rehearsal(console: Console, found: Rehearsal, epochs: int, on_top: str = "set-up comes") -> None:
    """What tuning will take, and what comes on top of that time."""
    tokens = found.prompt_tokens + found.completion_tokens
    measured = f"measured on {found.measured} steps, after one to warm up"
    lines = (
        f"{tokens:,} tokens an epoch, {found.completion_tokens:,} of them learned; {many(epochs, 'epoch')}, {many(found.steps, 'step')}",
        f"peak memory {found.memory_gb:.1f} GB with {found.micro_batch} sequences at a time (measured on the longest pairs; {found.device})",
        f"steps and evaluations: about {span(found.seconds)} at {found.tokens_per_s:,.0f} tokens/s ({measured}), less if it stops early; {on_top} on top",
    )
    for line in lines:
        console.print(line, highlight=False)


_WRITTEN = {
    rundir.PAIRS_JSONL: "the pairs; TRL loads them as they are",
    rundir.PAIRS: "the same, as Parquet",
    rundir.EXAMPLES: "every example with its candidates, drafts and verdicts, dropped ones too",
    rundir.BAD_ROWS: "rows that could not be read, with the reason",
    rundir.SUMMARY: "counts, calls, tokens, cost, seconds",
    rundir.CARD: "the dataset card",
    rundir.RUN: "the config this was made with",
    rundir.LEDGER: "every model call: keep it, and running again is free",
}


def _stages(state: RunState) -> RenderableType:
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "done", "dropped by then", "calls", "tokens/s", "USD"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    elapsed = max(1e-9, time.monotonic() - state.started)
    for name, stage in state.stages.items():
        table.add_row(name, *_stage_cells(stage, None if name == TWINS else state.usable, elapsed))
    aside = f", {state.set_aside} set aside" if state.set_aside else ""
    pairs = many(state.pairs, "pair") if state.wanted is None else f"{state.pairs:,} of {many(state.wanted, 'pair')}"
    below = [Text(f"{pairs}{aside}, {span(elapsed)}{_spent(state)}{time_left(state.left_s)}", style="dim")]
    below += [safe(f"waiting: {message}") for message in state.waits()]
    return Group(table, *below)


def _stage_cells(stage: StageState, total: int | None, elapsed: float) -> list[str]:
    meter = stage.meter
    tokens = meter.fresh.prompt_tokens + meter.fresh.completion_tokens
    total = stage.total or total
    done = f"{stage.done}/{total}" if total else f"{stage.done}"
    return [done, str(stage.dropped), str(meter.calls), f"{tokens / elapsed:.0f}" if tokens else "", show_usd(stage.cost) if meter.calls else ""]


def time_left(seconds: float | None) -> str:
    """For the end of a line; empty where nobody knows."""
    return "" if seconds is None else f", about {span(seconds)} left"


def _spent(state: RunState) -> str:
    """What is spent of the budget, where that says something."""
    budget = state.budget
    return f", spent {budget}" if budget.spent.tokens or budget.max_cost is not None or budget.max_tokens is not None else ""


_NOT_KNOWN = {  # parts of what is spent, as a summary's budget names them
    "unanswered": "calls without an answer, which may have been billed nonetheless: at most {}",
    "cut_off": "calls of earlier sittings of which the ledger knows no usage, and which may have been billed: at most {}",
    "unreported": "calls whose usage was not reported, which were answered: at most {}, set aside and counted against the budget",
}


def show_budget(console: Console, budget: dict[str, Any]) -> None:
    """What was spent for calls that brought nothing, or set aside for answers that do not tell; the rest stands in the funnel."""
    for what, said in _NOT_KNOWN.items():
        if tokens := budget.get(f"{what}_tokens"):
            console.print(said.format(f"{tokens:,} tokens, {show_usd(budget[f'{what}_cost'])} USD"))


def _print_now_and_then(console: Console, state: RunState, stop: threading.Event) -> None:
    while not stop.wait(_PLAIN_EVERY_S):
        parts = [f"{name} {_stage_cells(s, None if name == TWINS else state.usable, 1.0)[0]}" for name, s in state.stages.items()]
        pairs = f"pairs {state.pairs}" if state.wanted is None else f"pairs {state.pairs}/{state.wanted}"
        said = f"[{time.monotonic() - state.started:.0f} s] {'  '.join(parts)}  {pairs}{_spent(state)}{time_left(state.left_s)}"
        _print_if_it_can(console, "\n".join([said, *(f"waiting: {safe(message)}" for message in state.waits())]))


def _print_if_it_can(console: Console, said: str) -> None:
    """A line of a run that goes on: one that cannot be shown is no reason to end it, and the summary will tell of it."""
    with suppress(OSError):
        console.print(said, markup=False, highlight=False, soft_wrap=True)


def _funnel(summary: dict[str, Any]) -> Table:
    table = Table(title="Funnel", title_justify="left")
    cached = ["cached"] if "cached_tokens" in summary else []
    for heading in ("stage", "in", "dropped", "out", "calls", "tokens", *cached, "USD", "model s"):
        table.add_column(heading, justify="left" if heading in ("stage", "dropped") else "right", overflow="fold")
    aside = f"set aside: {summary['set_aside']}" if summary["set_aside"] else ""
    table.add_row("read", str(summary["rows"]), aside, str(summary["rows"] - summary["set_aside"]), *[""] * (4 + len(cached)))
    titles = {"rejected": "rejected (part of verify)", "twins": "twins (counted apart)"}
    beside = {title: (name, summary[name]) for name, title in titles.items() if name in summary}
    for title, (name, stage) in ({name: (name, stage) for name, stage in summary["stages"].items()} | beside).items():
        dropped = safe("\n".join(f"{reason}: {n}" for reason, n in stage["dropped"].items()))
        tokens = stage["prompt_tokens"] + stage["completion_tokens"]
        seconds = summary["timing"]["model_s"][name]
        hits = [f"{stage['cache_hit_rate']:.0%}" if "cache_hit_rate" in stage else ""] if cached else []
        cells = [f"{stage['calls']:,}", f"{tokens:,}", *hits, show_usd(stage["cost"]), tenths(seconds)] if stage["calls"] else [""] * (4 + len(cached))
        table.add_row(safe(title), str(stage["in"]), dropped, str(stage["out"]), *cells)
    return table


def _writers(writers: dict[str, Any]) -> Table:
    table = Table(title="Who wrote", title_justify="left")
    for heading in ("expert", "model", "drafts", "pairs", "calls", "tokens", "USD"):
        table.add_column(heading, justify="left" if heading in ("expert", "model") else "right", overflow="fold")
    for name, took in writers.items():
        tokens = took["prompt_tokens"] + took["completion_tokens"]
        numbers = (f"{took['drafts']:,}", f"{took['pairs']:,}", f"{took['calls']:,}", f"{tokens:,}", show_usd(took["cost"]))
        table.add_row(safe(name), safe(took["model"]), *numbers)
    return table


def _some_pairs(path: Path, total: int, count: int) -> list[dict[str, Any]]:
    """Pairs spread evenly over the `total` there are."""
    wanted = {total * i // count for i in range(count)}
    return [pair for number, pair in enumerate(tables.read_pairs(path)) if number in wanted]


def _pair_panel(pair: dict[str, Any], width: int) -> Panel:
    lines = Text()
    for turn in pair.get("history", ()):
        lines.append(f"{turn['role']}: ", style="dim").append(safe(turn["content"], 300)).append("\n")
    for name, style in (("prompt", "bold"), ("chosen", "green"), ("rejected", "red")):
        lines.append(f"{name}: ", style=style).append(safe(pair[name], 600)).append("\n")
    lines.rstrip()
    return Panel(lines, title=safe(pair["id"]), title_align="left", width=width)
