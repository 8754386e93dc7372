"""From source to pair: the funnel, what each category gave, and what the calls took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safer_instruct.oneline import many, tenths
from safer_instruct.prices import show_usd
from safer_instruct.report.document import Figure, Section, Table
from safer_instruct.report.gather import RunView
from safer_instruct.state import REJECTED, TWINS

_CATEGORIES_DRAWN = 25


def funnel(views: Sequence[RunView]) -> Section:
    """A Sankey diagram per run: rows flow through the stages, and leave them for a reason."""
    return Section(
        "funnel",
        "Funnel",
        "From source to pair",
        "Each band is a number of texts; those that leave a stage end at the check that dropped them.",
        (*(_flow(number, view) for number, view in enumerate(views)), *(_twins(view, views) for view in views if "twins" in view.summary)),
    )


def categories(views: Sequence[RunView]) -> Section:
    """Texts and pairs of each category."""
    figures: list[Figure | Table] = []
    for view in views:
        order = sorted(view.rows, key=lambda name: (-view.kept[name], -view.rows[name], name))
        rows = tuple((name, view.rows[name], view.kept[name], f"{view.kept[name] / view.rows[name]:.1%}") for name in order)
        drawn = order[:_CATEGORIES_DRAWN]
        series = [
            {"name": "pairs", "values": [view.kept[name] for name in drawn], "color": "chosen"},
            {"name": "dropped", "values": [view.rows[name] - view.kept[name] for name in drawn], "color": "muted"},
        ]
        most = order[0] if order else ""
        says = f"All texts are of the category '{most}'." if len(order) == 1 else f"{len(order)} categories; the most pairs come from '{most}'"
        says += "" if len(order) == 1 else f": {view.kept[most]:,} of its {view.rows[most]:,} texts."
        if len(order) > len(drawn):
            says += f" The chart shows the first {len(drawn)}."
        data = {"labels": drawn, "series": series, "stacked": True, "unit": "texts"}
        title = _titled("Pairs by category", view, views)
        table = Table("", ("category", "texts", "pairs", "kept"), rows)
        figures.append(Figure(f"categories-{len(figures)}", title, says, "bars", data, table, wide=len(views) == 1))
    return Section("categories", "Categories", "Categories", "", tuple(figures))


def cost(views: Sequence[RunView]) -> Section:
    """Calls, tokens, dollars and seconds by stage and model."""
    parts: list[Figure | Table] = []
    for number, view in enumerate(views):
        rows = _stage_rows(view)
        stages = [stage for stage, *_ in rows]
        labels = [f"{stage} · {model}" if stages.count(stage) > 1 else stage for stage, model, *_ in rows]
        seconds = [round(float(row[6]), 2) for row in rows]
        timing = view.summary.get("timing", {})
        known = timing.get("calls_from_ledger", 0)
        replayed, sitting = (f" ({known:,} of them from the ledger)", ", in the last sitting before this report") if known else ("", "")
        says = (
            f"{view.summary['calls']:,} model calls{replayed}, {view.summary['prompt_tokens'] + view.summary['completion_tokens']:,} tokens, "
            f"{show_usd(view.summary['cost'])} US dollars, {timing.get('wall_s', 0):,.0f} seconds by the clock{sitting}."
        )
        held = sum(t.calls for t in view.totals)
        if view.totals and held < view.summary["calls"]:
            says += " The stages are those of the ledger, where requests that were made more than once stand once."
        elif held > view.summary["calls"]:
            says += f" The stages are those of the ledger, which holds {many(held, 'call')}: also of a dry run, of other settings, or beyond a target."
        if view.unread_ledger:
            says += " The ledger cannot be read, so the figures of the stages are those of the summary, which names no models."
        data = {"labels": labels, "series": [{"name": "model seconds", "values": seconds, "color": "prompt"}], "stacked": False, "unit": "s"}
        columns = ("stage", "model", "calls", "tokens in", "tokens out", "US dollars", "model seconds")
        table = Table("", columns, tuple((s, m, c, i, o, d, tenths(t)) for s, m, c, i, o, d, t in rows))
        parts.append(Figure(f"cost-{number}", _titled("Model time by stage", view, views), says, "bars", data, table, wide=len(views) == 1))
    intro = "Model seconds add up over calls that ran at the same time, so they may exceed the clock."
    return Section("cost", "Cost", "Cost and time", intro, tuple(parts))


def _titled(title: str, view: RunView, views: Sequence[RunView]) -> str:
    return f"{title}: {view.name}" if len(views) > 1 else title


def _flow(number: int, view: RunView) -> Figure:
    summary = view.summary
    nodes: list[dict[str, Any]] = [{"name": "source", "label": "source rows", "value": summary["rows"], "role": "stage", "depth": 0}]
    links: list[dict[str, Any]] = []
    rows: list[tuple[str | int, ...]] = []
    here, depth = "source", 0
    if summary["set_aside"]:
        links.append(_drop(nodes, here, "set aside", "set aside", summary["set_aside"], 1))
        rows.append(("read", "set aside", summary["set_aside"]))
    for stage, counts in summary["stages"].items():
        depth += 1
        name = f"stage {stage}"
        nodes.append({"name": name, "label": stage, "value": counts["in"], "role": "stage", "depth": depth})
        links.append({"source": here, "target": name, "value": counts["in"], "role": "on"})
        here = name
        for check, count in sorted(counts["dropped"].items(), key=lambda item: -item[1]):
            links.append(_drop(nodes, here, f"{stage}: {check}", check, count, depth + 1))
            rows.append((stage, check, count))
    nodes.append({"name": "pairs", "label": "pairs", "value": summary["pairs"], "role": "pairs", "depth": depth + 1})
    links.append({"source": here, "target": "pairs", "value": summary["pairs"], "role": "on"})
    rows.append(("", "pairs", summary["pairs"]))
    share = summary["pairs"] / summary["rows"] if summary["rows"] else 0
    says = f"{summary['pairs']:,} of {summary['rows']:,} source rows became pairs ({share:.1%})."
    says += _most_dropped([(stage, check, count) for stage, counts in summary["stages"].items() for check, count in counts["dropped"].items()])
    data = {"nodes": nodes, "links": [link for link in links if link["value"] > 0]}
    return Figure(
        f"funnel-{number}", f"Funnel of {view.name}", says, "sankey", data, Table("", ("stage", "what became of them", "texts"), tuple(rows)), wide=True
    )


def _most_dropped(drops: Sequence[tuple[str, str, int]]) -> str:
    """Which check dropped the most, of (stage, check, texts); all of them where several dropped as many."""
    most = max((count for *_, count in drops), default=0)
    first = [f"{check}, in the stage {stage}" for stage, check, count in drops if count == most]
    if not most:
        return ""
    if len(first) == 1:
        return f" The check that dropped the most is {first[0]}: {most:,}."
    return f" The checks that dropped the most are {'; '.join(first[:-1])}; and {first[-1]}: {most:,} each."


def _twins(view: RunView, views: Sequence[RunView]) -> Table:
    """What became of the contrast twins, which no figure holds: they are no source texts, and their rejected sides are refusals."""
    twins = view.summary["twins"]
    near = twins["similarity"]
    caption = _titled("Contrast twins, counted apart", view, views)
    if near:
        caption += f"; chrF to their instructions {near['mean']:.2f} on the mean, {twins['different_refusals']:,} different refusals"
    dropped = sorted(twins["dropped"].items(), key=lambda item: -item[1])
    return Table(caption, ("what became of them", "twins"), (("begun", twins["in"]), *dropped, ("pairs", twins["out"])), frozenset(twins["dropped"]))


def _drop(nodes: list[dict[str, Any]], source: str, name: str, label: str, count: int, depth: int) -> dict[str, Any]:
    nodes.append({"name": name, "label": label, "value": count, "role": "drop", "depth": depth})
    return {"source": source, "target": name, "value": count, "role": "drop"}


def _stage_rows(view: RunView) -> list[tuple[str, str, int, int, int, str, float]]:
    """From the ledger; where it is gone, from the summary, which knows no models."""
    if view.totals:
        beside = {name: view.summary[name] for name in (REJECTED, TWINS) if name in view.summary}
        priced = {name: stage["cost"] is not None for name, stage in (view.summary["stages"] | beside).items()}
        return [
            (
                t.stage,
                t.model,
                t.calls,
                t.usage.prompt_tokens,
                t.usage.completion_tokens,
                show_usd(t.usage.cost if priced.get(t.stage, not t.untold) else None),
                t.usage.seconds,
            )
            for t in view.totals
        ]
    seconds = view.summary["timing"]["model_s"]
    stages = view.summary["stages"].items()
    return [(n, "", s["calls"], s["prompt_tokens"], s["completion_tokens"], show_usd(s["cost"]), seconds[n]) for n, s in stages if s["calls"]]
