"""What a ledger looks like on a terminal: totals, calls found, one call whole."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from safer_instruct.ledger import Call, Recovery, Total, as_record, cost_of, size_and_log
from safer_instruct.oneline import many, tenths
from safer_instruct.remote.arguments import shown
from safer_instruct.terminal import safe

_AROUND = 60  # characters before and after what was found


def show_ledger(console: Console, path: Path, totals: list[Total]) -> None:
    """Calls, tokens, cost and time by stage and model, and the file's size."""
    size, log = size_and_log(path)
    table = Table(title=safe(shown(path)), title_justify="left", show_footer=True)
    calls = sum(t.calls for t in totals)
    columns: list[tuple[str, list[str], str]] = [
        ("calls", [f"{t.calls:,}" for t in totals], f"{calls:,}"),
        ("tokens in", [f"{t.usage.prompt_tokens:,}" for t in totals], f"{sum(t.usage.prompt_tokens for t in totals):,}"),
        ("tokens out", [f"{t.usage.completion_tokens:,}" for t in totals], f"{sum(t.usage.completion_tokens for t in totals):,}"),
        ("cost", [_usd(t.cost) for t in totals], _usd(cost_of(totals))),
        ("model seconds", [tenths(t.usage.seconds) for t in totals], tenths(sum(t.usage.seconds for t in totals))),
    ]
    table.add_column("stage", footer="all")
    table.add_column("model", overflow="fold")  # models that differ in their adapter alone differ at the end
    for heading, _, total in columns:
        table.add_column(heading, footer=total, justify="right")
    for i, t in enumerate(totals):
        table.add_row(safe(t.stage), safe(t.model), *(cells[i] for _, cells, _ in columns))
    console.print(table)
    per_call = f", {size / calls:.0f} bytes per call" if calls else ""
    details = f", {log / 1e6:,.1f} MB of it a log that the next run folds in" if log else per_call
    console.print(f"{(size + log) / 1e6:,.1f} MB{details}", highlight=False)
    if untold := [t for t in totals if t.untold]:
        stages = ", ".join(dict.fromkeys(t.stage for t in untold))
        told = f"; the other calls cost {_usd(sum(t.usage.cost for t in totals))} USD" if len(untold) < len(totals) else ""
        note = (
            f"note: the endpoint reported no usage for {many(sum(t.calls for t in untold), 'call')} (stage {stages}), which count as no tokens here: "
            f"what they cost is unknown, unless their price is 0{told}"
        )
        console.print(safe(note), highlight=False, soft_wrap=True)


def show_matches(console: Console, matches: Iterator[tuple[Call, str, int]], limit: int) -> None:
    """Each call on a line with what surrounds the text found; no more of them than `limit`."""
    shown = 0
    for call, text, at in islice(matches, limit):
        shown += 1
        begin = max(0, at - _AROUND)
        around = " ".join(text[begin : at + 2 * _AROUND].split())
        line = Text(call.key.hex()[:12], style="bold").append(f"  {safe(call.stage)}  {safe(call.model)}  ", style="dim")
        console.print(line.append(safe(f"{'...' if begin else ''}{around}")), soft_wrap=True)
    if shown < limit:
        console.print(f"{shown} found" if shown else "nothing found", highlight=False)
    else:
        console.print(f"the first {shown}; --limit for more, --show KEY for a whole call", highlight=False)


def show_call(console: Console, call: Call) -> None:
    """The whole request and answer."""
    record: dict[str, Any] = as_record(call)
    request, answer = record.pop("request"), record.pop("answer")
    prompt = request.pop("prompt")
    turns = [("prompt", prompt)] if isinstance(prompt, str) else [(turn["role"], turn["content"]) for turn in prompt]
    if "continuation" in request:
        turns.append(("continuation", request.pop("continuation")))
    for name, value in (record | request).items():
        console.print(Text(f"{name}: ", style="dim").append(safe(str(value))), soft_wrap=True)
    for name, text in turns:
        _show_text(console, safe(name).plain, text)
    for i, completion in enumerate(answer.get("completions", ()), 1):
        details = ", ".join(f"{name} {value}" for name, value in completion.items() if name != "text" and value not in (None, ""))
        _show_text(console, f"completion {i} ({details})", completion["text"])
    if "logprobs" in answer:
        _show_text(console, "log-probabilities", " ".join("-inf" if value is None else f"{value:.3f}" for value in answer["logprobs"]))


def describe(recovery: Recovery, told: int = 0) -> str:
    """What came of a recovery, in a line.

    Args:
        recovery: What the ledger itself shows.
        told: Calls that the run made by its own account; 0 where it gives none.
    """
    if recovery.moved_to is None:
        return f"nothing is damaged: all {recovery.saved:,} calls are intact"
    return f"{recovery.saved:,} calls saved, {_lost(recovery, told)}; the damaged file is kept as {recovery.moved_to}"


def _lost(recovery: Recovery, told: int) -> str:
    again = "the next run makes, and pays for,"
    if told > recovery.saved + recovery.lost:
        return f"of {told:,} that the run speaks of: the others could not be read, and {again} the {told - recovery.saved:,} that are lost again"
    if recovery.lost:
        return f"{recovery.lost:,} could not be read, and {again} them again"
    return "none is known to be lost" if recovery.saved else f"for nothing in the file can be read: {again} whatever it held again"


def _usd(cost: float | None) -> str:
    return "unknown" if cost is None else f"{cost:.4f}"


def _show_text(console: Console, heading: str, text: str) -> None:
    console.print(Text(f"--- {heading} ---", style="bold"), soft_wrap=True)
    console.print(safe(text), soft_wrap=True)
