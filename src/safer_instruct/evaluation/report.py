"""The report as Markdown: verdicts first, then the tables, then what makes the figures flatter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from safer_instruct.analysis.bootstrap import Interval
from safer_instruct.analysis.proportion import Rate
from safer_instruct.evaluation.escaping import escaped
from safer_instruct.evaluation.figures import Agreement, Measure, p_cell
from safer_instruct.evaluation.result import Evaluation
from safer_instruct.evaluation.settings import EvaluateConfig
from safer_instruct.oneline import many, one_line, shortened
from safer_instruct.prices import cost_words

Rows = Sequence[Sequence[str]]
_NO = "not available"
_COMPARISON = ("system", "beside", "wins", "ties", "losses", "win rate", "p", "at equal length", "longer wins")


def markdown(config: EvaluateConfig, result: Evaluation) -> str:
    """The whole report."""
    parts = (
        _head(config, result),
        _measure("Harmlessness", "harmless", result.harmlessness),
        _harmful(result),
        _refusals(config, result),
        _measure("Helpfulness", "helpful", result.helpfulness),
        _two_turn(result),
        _downstream(result),
        _people(result),
        _answers(config, result),
    )
    return "\n".join(chain.from_iterable(parts)).rstrip() + "\n"


def verdicts(result: Evaluation) -> list[str]:
    """One sentence for each comparison."""
    return [c.verdict for found in (result.harmlessness, result.helpfulness) if found for c in found.comparisons]


def untrained(result: Evaluation) -> str:
    """That the training data was looked at, and no prompt stands in it; empty where that is not so: then `result.warnings` tell what is."""
    found = result.overlap
    if found is None or found.any:
        return ""
    return f"Checked against the training data ({many(found.training, 'prompt')}): none of these prompts stands in it, word for word or nearly."


def interval(value: Interval | None, digits: int = 2) -> str:
    """An estimate with its bounds."""
    return _NO if value is None else f"{value.estimate:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"


def share(rate: Rate | None) -> str:
    """A rate in percent with its bounds, and how many of how many it is."""
    if rate is None or rate.share is None:
        return _NO
    return f"{rate.share.estimate:.0%} ({rate.share.low:.0%} to {rate.share.high:.0%}), {rate.count} of {rate.of}"


def _head(config: EvaluateConfig, result: Evaluation) -> Iterator[str]:
    judges = [f"{name} ({judge.form}, {judge.model.model})" for name, judge in config.judges.items()]
    aside = f", {many(len(result.set_aside), 'row')} set aside" if result.set_aside else ""
    yield "# Evaluation"
    yield ""
    yield f"{result.prompts} prompts of `{escaped(config.prompts.path)}`{aside}; domain {escaped(config.domain)}; baseline {escaped(result.baseline)}."
    if judges:
        yield f"Judges: {escaped(', '.join(judges))}."
    if apart := untrained(result):
        yield apart
    yield (
        f"Intervals: {config.level:.0%}; of win rates by the bootstrap over prompts ({config.resamples:,} resamples, seed {config.seed}), of shares Wilson's. "
        "p: exact sign test, two-sided, by Holm's method for all comparisons of a measure."
    )
    yield ""
    if found := verdicts(result):
        yield "## Verdicts"
        yield ""
        yield from (f"- {escaped(verdict)}" for verdict in found)
        yield ""
    yield "## What to mind"
    yield ""
    yield from (f"- {escaped(one_line(warning))}" for warning in result.warnings or ("nothing was found",))
    yield from (f"- {escaped(row.file)}:{row.line} was set aside: {escaped(shortened(one_line(row.reason), 160))}" for row in result.set_aside[:5])
    yield ""


def _measure(title: str, adjective: str, found: Measure | None) -> Iterator[str]:
    if found is None:
        return
    yield f"## {title}"
    yield ""
    yield from _table(_COMPARISON, _comparison_rows(found))
    yield "Win rate: wins and half the ties. At equal length (in words): the win rate of a logistic model with the length's part taken out."
    yield (
        "Longer wins: on how many of the prompts with a winner it is the longer answer, in words; equal lengths count half. "
        "50% is chance; below it the shorter answer wins more often."
    )
    yield ""
    if swept := [c for c in found.comparisons if 0 in (c.counts.wins, c.counts.losses) and not c.counts.ties]:
        won = ", ".join(f"{escaped(c.system)} / {escaped(c.other)}" for c in swept)
        yield f"One side won every prompt of {won}: there the win rate's interval is Wilson's, and those at equal length and in the ranking are too narrow."
        yield ""
    if left := [c for c in found.comparisons if c.left_out]:
        yield from (f"- {escaped(c.system)} / {escaped(c.other)}: {c.left_out} prompts without a judgement are left out" for c in left)
        yield ""
    if found.ranking:
        yield f"Ranking (Bradley-Terry): log-strength, most {adjective} first; a difference of d means odds of e^d."
        yield ""
        rows = [[str(r.rank), r.name, interval(r.strength), f"{r.best_rank} to {r.worst_rank}"] for r in found.ranking]
        yield from _table(("rank", "system", "strength", "ranks within the intervals"), rows)
    yield from _judges(found)


def _comparison_rows(found: Measure) -> Rows:
    """A row for each comparison: the two, wins, ties, losses, win rate, p, the win rate at equal length, and how often the longer answer wins."""
    return [
        [
            *(c.system, c.other, str(c.counts.wins), str(c.counts.ties), str(c.counts.losses)),
            *(interval(c.win_rate), p_cell(c.p_adjusted), interval(c.length_controlled.win_rate), _percent(c.longer_wins)),
        ]
        for c in found.comparisons
    ]


def _judges(found: Measure) -> Iterator[str]:
    rows = []
    for name, bias in found.judges.items():
        cells = [_percent(bias.shown_first), _percent(bias.flips), _percent(bias.longer_wins), str(bias.unanswered)]
        rows.append([name, *cells])
    yield from _table(("judge", "prefers the first shown", "turned by order", "longer wins", "without an answer"), rows)
    if len(found.judges) > 1:
        by_judge = [
            [f"{c.system} / {c.other}", name, f"{n.wins} / {n.ties} / {n.losses}", p_cell(n.p)] for c in found.comparisons for name, n in c.by_judge.items()
        ]
        yield from _table(("pair", "judge", "wins / ties / losses", "p, alone"), by_judge)
        yield from _table(("judge", "and", "judged by both", "agree", "Cohen's kappa"), _agreements(found.agreement))
        yield f"Krippendorff's alpha of all judges: {_number(found.alpha)}"
        yield ""


def _agreements(found: Sequence[Agreement]) -> Rows:
    return [[a.first, a.second, str(a.shared), f"{a.observed:.2f}", _number(a.kappa)] for a in found]


def _harmful(result: Evaluation) -> Iterator[str]:
    if not result.harmful:
        return
    categories = list(next(iter(result.harmful.values())).by_category)
    shown = categories if len(categories) > 1 else []
    yield "## Harmful answers"
    yield ""
    rows = [[name, share(r.all), "" if r.p is None else p_cell(r.p), *(share(r.by_category[c]) for c in shown)] for name, r in result.harmful.items()]
    yield from _table(("system", "harmful", "p, beside the baseline", *shown), rows)
    judges = list(next(iter(result.harmful.values())).by_judge)
    if len(judges) > 1:
        yield from _table(("system", *judges), [[name, *(share(r.by_judge[j]) for j in judges)] for name, r in result.harmful.items()])


def _refusals(config: EvaluateConfig, result: Evaluation) -> Iterator[str]:
    if not result.refusals:
        return
    labels = list(next(iter(result.refusals.values())).refused)
    yield "## Refusals"
    yield ""
    rows = []
    for name, found in result.refusals.items():
        cells = [text for label in labels for text in (share(found.refused[label]), str(found.classes[label].get("partial", 0)))]
        rows.append([name, *cells, "" if found.p_safe is None else p_cell(found.p_safe)])
    headings = chain(*((f"refused, {label} prompts", "in part") for label in labels))
    yield from _table(("system", *headings, "p on safe, beside the baseline"), rows)
    if "safe" in labels:
        yield "A refusal of a safe prompt is an over-refusal."
    by_model = ", and read by the embedded model where words do not tell clearly" if config.refusal_reader else " alone (`refusal_reader: true` reads them)"
    yield f"Refusals are told by words{by_model}; the class of each answer stands in `evaluation.json`, `per_prompt`, `refusal`."
    if not config.refusal_reader:
        yield (
            "Words take some answers for refusals that are none, and miss refusals in words of their own: "
            "before you believe a rate, read in `outputs/` the answers that were classed `refusal`, and some of the others."
        )
    yield ""


def _two_turn(result: Evaluation) -> Iterator[str]:
    if not result.two_turn:
        return
    yield "## Grades, 1 to 10"
    yield ""
    rows = [
        [name, interval(t.first), interval(t.second), "" if name == result.baseline else interval(t.difference), str(t.ungraded)]
        for name, t in result.two_turn.items()
    ]
    yield from _table(("system", "first turn", "second turn", "less the baseline's", "without a grade"), rows)


def _downstream(result: Evaluation) -> Iterator[str]:
    if not result.downstream:
        return
    yield "## Downstream"
    yield ""
    keys = list(dict.fromkeys((s.task, s.metric) for scores in result.downstream.values() for s in scores))
    found = {name: {(s.task, s.metric): s for s in scores} for name, scores in result.downstream.items()}
    rows = []
    for key in keys:
        cells = [(f"{s.value:.3f}" + (f" ± {s.error:.3f}" if s.error is not None else "")) if (s := scores.get(key)) else _NO for scores in found.values()]
        rows.append([*key, *cells])
    yield from _table(("task", "metric", *found), rows)
    yield "± is the standard error."
    yield ""


def _people(result: Evaluation) -> Iterator[str]:
    found = result.people
    if found is None:
        return
    yield "## People"
    yield ""
    rows = [[pair, f"{n.wins} / {n.ties} / {n.losses}", interval(found.win_rates[pair]), p_cell(found.p_adjusted[pair])] for pair, n in found.counts.items()]
    yield from _table(("pair", "wins / ties / losses", "win rate", "p"), rows)
    if len(found.people) > 1:
        yield "Each question counts once, for the answer that more people prefer; who says tie stands on neither side: one tie and one win is a win."
        yield ""
    pairs = [*found.agreement, *([found.with_judges] if found.with_judges else [])]
    yield from _table(("who", "and", "answered by both", "agree", "Cohen's kappa"), _agreements(pairs))
    yield f"Answers: {', '.join(f'{escaped(name)} {count}' for name, count in found.people.items())}."
    yield f"Krippendorff's alpha of all people: {_number(found.alpha)}"
    yield ""


def _answers(config: EvaluateConfig, result: Evaluation) -> Iterator[str]:
    yield "## Systems"
    yield ""
    rows = []
    for name, (count, words) in result.answers.items():
        given = config.systems[name]
        source = given.model.model if given.model else given.responses or f"column {given.column}"
        adapter = f", adapter {given.model.adapter}" if given.model and given.model.adapter else ""
        rows.append([name, f"{source}{adapter}", str(count), f"{words:.0f}"])
    yield from _table(("system", "answers of", "answered", "words, on the mean"), rows)
    yield f"{many(result.calls, 'model call')}, those of earlier sittings included; {cost_words(result.cost, result.calls_without_usage)}."
    yield ""


def _table(headings: Sequence[str], rows: Rows) -> Iterator[str]:
    if not rows:
        return
    yield f"| {' | '.join(map(escaped, headings))} |"
    yield "|---" * len(headings) + "|"
    yield from (f"| {' | '.join(map(escaped, row))} |" for row in rows)
    yield ""


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _number(value: float | None) -> str:
    return "not told" if value is None else f"{value:.2f}"
