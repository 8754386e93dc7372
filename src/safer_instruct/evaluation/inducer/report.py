"""The table, as Markdown and for the terminal, and the section of an adapter's card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from safer_instruct.analysis.bootstrap import Interval
from safer_instruct.evaluation.escaping import escaped
from safer_instruct.evaluation.inducer.figures import Evaluation, SystemFigures
from safer_instruct.evaluation.inducer.plan import Plan
from safer_instruct.oneline import one_line, shortened
from safer_instruct.wholefile import write_whole

_BEGIN, _END = "<!-- inducer-evaluation:begin -->", "<!-- inducer-evaluation:end -->"
_NO = "not available"
_ROWS = (
    ("nll", "instruction NLL, nats/token", "lower", 3),
    ("perplexity", "perplexity", "lower", 1),
    ("nats", "NLL of a whole instruction, nats", "lower", 1),
    ("rank", "round trip: mean rank", "lower", 2),
    ("mrr", "round trip: MRR", "higher", 3),
    ("top1", "round trip: top-1", "higher", 3),
    ("gain_rank", "round trip by gain: mean rank", "lower", 2),
    ("gain_mrr", "round trip by gain: MRR", "higher", 3),
    ("gain_top1", "round trip by gain: top-1", "higher", 3),
    ("chrf", "chrF to the true instruction", "higher", 1),
    ("rouge_l", "ROUGE-L to the true instruction", "higher", 3),
    ("cosine", "embedding cosine to the true instruction", "higher", 3),
    ("copied", "copied from the response", "", 3),
    ("length_ratio", "length, of the true one's", "", 2),
    ("distinct_1", "distinct-1", "higher", 3),
    ("distinct_2", "distinct-2", "higher", 3),
    ("invalid", "invalid", "lower", 3),
)


def table(systems: dict[str, SystemFigures]) -> Iterator[list[str]]:
    """Rows of text cells: the figure, which way is better, then a cell per system."""
    for name, shown, better, digits in _ROWS:
        yield [shown, better, *(_cell(getattr(figures, name), digits) for figures in systems.values())]


def markdown(plan: Plan, result: Evaluation) -> str:
    """The report: what was asked, the table, the differences, and samples side by side."""
    names = list(result.systems)
    lines = [
        "# How good is the inducer?",
        "",
        *_setting(plan),
        "",
        f"| | better | {' | '.join(names)} |",
        "|---|---|" + "---|" * len(names),
        *(f"| {' | '.join(row)} |" for row in table(result.systems)),
        "",
        *_notes(plan, result),
        "",
        *_samples(plan, result),
    ]
    return "\n".join(lines).rstrip() + "\n"


def put_into_card(card: Path, report: str) -> None:
    """Put the report into an adapter's card, in the place of an earlier one."""
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    section = "\n".join(f"#{line}" if line.startswith("#") else line for line in report.splitlines())
    write_whole(card, f"{before.rstrip()}\n\n{_BEGIN}\n{section}\n{_END}\n{after.lstrip()}".lstrip())


def _setting(plan: Plan) -> list[str]:
    config, funnel = plan.config, plan.prepared.funnel
    asked = [
        f"- {s.name}: `{s.model.model}`{f', adapter `{Path(s.model.adapter).name}`' if s.model.adapter else ''}, template `{Path(s.template.name).name}`"
        f" ({s.template.form}, digest `{s.template.digest}`)"
        for s in plan.systems
    ]
    most = min(config.distractors, funnel.held_out - 1)
    return [
        f"{len(plan.pairs)} of {funnel.held_out} held-out pairs ({funnel.train} on the training side; data SHA-256 `{plan.prepared.sha256}`).",
        f"Intervals: {config.level:.0%}, percentile bootstrap over pairs, {config.resamples:,} resamples, seed {config.seed}.",
        f"Round trip: the true response among {most} other held-out ones under `{config.forward.model}`; "
        f"the first {config.max_response_chars} characters of each.",
        "By gain: what the instruction adds to the response's own log-probability. The last column is the true instruction's round trip.",
        "What a system wrote below a heading (`###`) is cut off, for all alike.",
        "",
        *asked,
    ]


def _notes(plan: Plan, result: Evaluation) -> Iterator[str]:
    first = plan.systems[0].name
    for name, given in result.differences.items():
        mine, other = result.systems[name], result.systems[first]
        if given.nll and mine.nll and other.nll:
            change = mine.nll.estimate / other.nll.estimate - 1
            yield f"- {name} less {first}: NLL {_signed(given.nll, 3)} ({change:+.1%})"
        apart = "overlap" if mine.rank.overlaps(other.rank) else "do not overlap"
        yield f"- {name} less {first}: mean rank {_signed(given.rank, 2)}, by gain {_signed(given.gain_rank, 2)}; the intervals of the rank {apart}"
    for name, figures in result.systems.items():
        if figures.invalid_by:
            yield f"- {name}, invalid: {', '.join(f'{reason} {count}' for reason, count in figures.invalid_by.items())}"
    for system in plan.systems:
        if system.note:
            yield f"- note: {escaped(system.note)}"


def _samples(plan: Plan, result: Evaluation) -> Iterator[str]:
    count, total = min(plan.config.samples, len(plan.pairs)), len(plan.pairs)
    if count:
        yield f"## {count} samples"
    for at in (total * i // count for i in range(count)):
        pair = plan.pairs[at]
        yield ""
        yield f"- response: {escaped(shortened(one_line(pair.response), 300))}"
        yield f"    - true: {escaped(shortened(one_line(pair.prompt), 300))}"
        for name, texts in result.induced.items():
            yield f"    - {name}: {escaped(shortened(one_line(texts[at]), 300)) or '(nothing)'}"


def _cell(value: Interval | float | None, digits: int) -> str:
    if value is None:
        return _NO
    if isinstance(value, Interval):
        return f"{value.estimate:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"
    return f"{value:.{digits}f}"


def _signed(value: Interval, digits: int) -> str:
    return f"{value.estimate:+.{digits}f} ({value.low:+.{digits}f} to {value.high:+.{digits}f})"
