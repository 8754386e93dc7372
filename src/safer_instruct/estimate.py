"""What a whole run will take, told from the rows of a sample: `run --dry-run`.

The dry run is the run itself on some of its rows (`pipeline.sample`): the same run directory, the real ledger, the same
budget. So nothing that it pays for is lost: the run that follows finds those calls in the ledger.

The figures of the sampled rows are known and stand as they are; the rows that are left are taken to be like them. The range
is a percentile bootstrap over the sample's rows (Efron 1979, Annals of Statistics 7(1); Efron and Tibshirani 1993, chapter
13): the mean is taken anew on rows drawn with replacement, and to each such mean comes the spread that as many rows as are
left have themselves. Rows are drawn whole, so that what belongs together (a dropped row calls nothing afterwards) stays so.

A model with a rate of its own (`requests_per_min`, `tokens_per_min`) takes at least as long as that rate leaves it, at all stages
that it works at together. Models that work in this process share its processor: whichever stages they work at, what they take adds up.

What no range can tell: near-duplicates grow more frequent in a larger corpus, so that fewer rows get through; and a handful of rows shows
too little of its own spread, so that the range is too narrow below some thirty. Of one row there is none.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import stdev

from rich.console import Console
from rich.table import Table

from safer_instruct.oneline import one_line, shortened
from safer_instruct.prices import show_usd
from safer_instruct.state import Dropped, Figures, Paced, Row
from safer_instruct.terminal import safe

_FEW_ROWS = 30
_REASONS, _REASON_CHARS = 3, 100  # of what dropped rows: so many are told, and so much of each
_Pace = Callable[[Figures], float]


@dataclass(frozen=True, slots=True)
class Range:
    """An expected value between two that it will probably lie between; `high` is infinite where nothing tells it."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """What one stage will take, or all of them together.

    Attributes:
        name: The stage, or "all".
        reached: How many rows of the sample it saw; of 0, nothing can be told.
        rows_in: Rows that it will see.
        rows_out: Rows that it will let through.
        calls: Model calls.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
        cost: US dollars, of the calls whose price is known.
        priced: Whether that is all of them.
        seconds: With the calls side by side as the model allows; for all stages, when none of them overlaps another.
        unreported: Whether the endpoint reported no usage for some, so that tokens and cost are not all of them.
    """

    name: str
    reached: int
    rows_in: Range
    rows_out: Range
    calls: Range
    prompt_tokens: Range
    completion_tokens: Range
    cost: Range
    priced: bool
    seconds: Range
    unreported: bool = False

    @property
    def tokens(self) -> float:
        """Tokens read and written, as expected."""
        return self.prompt_tokens.expected + self.completion_tokens.expected


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a whole run will take.

    Attributes:
        sample_rows: Rows in the sample.
        total_rows: Rows in all.
        level: How probable it is that a value lies within its range, as far as the sample can tell.
        stages: Each stage.
        all: The stages together.
        slowest_s: Seconds of the slowest stage, of the model whose rate leaves it longest, or of all models in this process, whichever is most:
            what the run takes when all else overlaps it entirely.
        in_process_s: Seconds of the models that work in this process, at all stages together.
    """

    sample_rows: int
    total_rows: int
    level: float
    stages: tuple[StageEstimate, ...]
    all: StageEstimate
    slowest_s: float
    in_process_s: float = 0.0


def estimate(
    sample: Sequence[Row],
    total_rows: int,
    stages: Sequence[str],
    *,
    slots: Mapping[str, int] | None = None,
    paced: Sequence[Paced] = (),
    in_process_s: float = 0.0,
    level: float = 0.9,
    resamples: int = 400,
    seed: int = 0,
) -> Estimate:
    """Extrapolate from a sample of rows to all of them; the same sample gives the same estimate.

    Args:
        sample: What each of the sampled rows took.
        total_rows: Rows in all, the sampled ones included.
        stages: The stages in order.
        slots: Calls that a stage makes side by side; 1 where it is not told.
        paced: The models that keep to a rate.
        in_process_s: What the models that work in this process took of the sample, each with as many calls side by side as it makes.
        level: Share of the bootstrap's values within a range.
        resamples: How many times rows are drawn anew.
        seed: Of the draws.

    Raises:
        ValueError: The sample is empty, or larger than the whole.
    """
    if not sample or total_rows < len(sample):
        raise ValueError(f"a sample of {len(sample)} rows cannot stand for {total_rows}")
    predict = _Predictor(len(sample), total_rows - len(sample), level, resamples, seed)
    paces = {name: _pace([row[name] for row in sample if name in row], (slots or {}).get(name, 1), [each.seconds(name) for each in paced]) for name in stages}
    told = tuple(_stage(name, [row.get(name) for row in sample], paces[name], predict) for name in stages)
    everything = _all(told, sample, stages, paces, predict)
    least = [each.seconds(*each.asked) for each in paced]
    *by_rate, here = (seconds * total_rows / len(sample) for seconds in (*least, in_process_s))
    return Estimate(len(sample), total_rows, level, told, everything, max(*(s.seconds.expected for s in told), *by_rate, here, 0.0), here)


def show_estimate(console: Console, found: Estimate, *, max_cost: float | None = None, max_tokens: int | None = None, in_turn: bool = False) -> None:
    """The estimate as a table, and how it stands to the caps; `in_turn` where no stage begins before the last one has ended."""
    title = f"Estimate for {found.total_rows:,} rows, from {found.sample_rows:,} of them; below each value its range at {found.level:.0%}"
    table = Table(title=title, title_justify="left", show_lines=True)
    for heading in ("stage", "rows in", "rows out", "calls", "tokens read", "tokens written", "USD", "time"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in found.stages:
        table.add_row(safe(stage.name), *(_cells(stage) if stage.reached else ["none in sample", *[""] * 6]))
    table.add_row("all", *_cells(found.all), style="bold")
    console.print(table)
    for note in [f"time: {_in_turn(found) if in_turn else _how_long(found)}", *_notes(found, max_cost, max_tokens)]:
        console.print(safe(note))


class _Predictor:
    """Sums over all rows from one column of figures; every column is seen through the same draws of rows."""

    def __init__(self, rows: int, left: int, level: float, resamples: int, seed: int) -> None:
        draw = random.Random(seed)
        self._left, self._level = left, level
        self._draws = [(draw.choices(range(rows), k=rows), draw.gauss(0, 1)) for _ in range(resamples)] if rows > 1 and left else []

    def __call__(self, values: Sequence[float], most: float = math.inf) -> Range:
        """The sum over all rows, of which none gives more than `most`."""
        known, rows = sum(values), len(values)
        expected = known + self._left * known / rows
        if not self._left:
            return Range(known, known, known)
        if rows < 2:
            return Range(expected, known, math.inf)
        own_spread = math.sqrt(self._left) * stdev(values)
        widen = math.sqrt(rows / (rows - 1))  # means of redrawn rows vary less than means of rows do, by this much
        seen = sorted(self._left * (known + widen * (sum(map(values.__getitem__, rows_)) - known)) / rows + noise * own_spread for rows_, noise in self._draws)
        tail = round((1 - self._level) / 2 * (len(seen) - 1))
        low, high = (known + max(0.0, seen[i]) for i in (tail, -1 - tail))
        return Range(expected, min(low, expected), min(max(high, expected), known + self._left * most))


def _pace(rows: Sequence[Figures], slots: int, least_s: Sequence[float]) -> _Pace:
    """The seconds that a row takes of a stage's time, where so many calls go side by side and rates leave the sample at least so many seconds."""
    calls, least = sum(row.calls for row in rows), max(least_s, default=0.0)
    if not calls or least <= sum(row.seconds for row in rows) / slots:
        return lambda row: row.seconds / slots
    return lambda row: row.calls * least / calls


def _stage(name: str, rows: Sequence[Figures | None], pace: _Pace, predict: _Predictor) -> StageEstimate:
    absent = Figures(passed=False)
    seen = [row or absent for row in rows]
    return StageEstimate(
        name,
        sum(row is not None for row in rows),
        rows_in=predict([float(row is not None) for row in rows], 1.0),
        rows_out=predict([float(row.passed) for row in seen], 1.0),
        calls=predict([row.calls for row in seen]),
        prompt_tokens=predict([row.prompt_tokens for row in seen]),
        completion_tokens=predict([row.completion_tokens for row in seen]),
        cost=predict([row.cost or 0.0 for row in seen]),
        priced=all(row.cost is not None for row in seen),
        seconds=predict([pace(row) for row in seen]),
        unreported=any(row.unreported for row in seen),
    )


def _all(told: Sequence[StageEstimate], sample: Sequence[Row], stages: Sequence[str], paces: Mapping[str, _Pace], predict: _Predictor) -> StageEstimate:
    """The stages of each row added up, and then seen as one: adding up the stages' ranges would make them too wide."""

    absent = Figures(passed=False)

    def summed(row: Row) -> Figures:
        parts = [(row[name], paces[name]) for name in stages if name in row]
        return Figures(
            passed=bool(stages) and row.get(stages[-1], absent).passed,
            calls=sum(part.calls for part, _ in parts),
            prompt_tokens=sum(part.prompt_tokens for part, _ in parts),
            completion_tokens=sum(part.completion_tokens for part, _ in parts),
            cost=sum(part.cost or 0.0 for part, _ in parts),
            seconds=sum(pace(part) for part, pace in parts),
            unreported=any(part.unreported for part, _ in parts),
        )

    whole = _stage("all", [summed(row) for row in sample], lambda row: row.seconds, predict)
    return replace(whole, priced=all(stage.priced for stage in told))


def _cells(stage: StageEstimate) -> list[str]:
    rows = [_cell(count, _count) for count in (stage.rows_in, stage.rows_out)]
    if not stage.calls.expected:
        return [*rows, *[""] * 5]
    calls = [_cell(count, _count) for count in (stage.calls, stage.prompt_tokens, stage.completion_tokens)]
    cost = _cell(stage.cost, _usd) if stage.priced else f"unknown\nat least {_usd(stage.cost.low)}" if stage.cost.low else "unknown"
    return [*rows, *calls, cost, _cell(stage.seconds, _time)]


def _cell(value: Range, show: Callable[[float], str]) -> str:
    expected, low, high = show(value.expected), show(value.low), show(value.high) if math.isfinite(value.high) else ""
    if low == high:
        return expected
    return f"{expected}\n{low} to {high}" if high else f"{expected}\nat least {low}"


def note_on_sample(rows: int, pairs: int, dropped: Sequence[Dropped]) -> str:
    """How many of the sampled rows became pairs, and what dropped the others, the commonest reasons first."""
    became = f"of the {rows:,} sampled rows {pairs:,} became pairs" if pairs else f"none of the {rows:,} sampled rows became a pair"
    told = [
        f"{each.by}: {each.rows:,} ({shortened(one_line(each.reason), _REASON_CHARS)})" if each.reason else f"{each.by}: {each.rows:,}"
        for each in dropped[:_REASONS]
    ]
    rest = sum(each.rows for each in dropped[_REASONS:])
    return f"{became}; dropped by {', '.join([*told, *([f'others: {rest:,}'] if rest else [])])}" if told else became


def note_on_target(found: Estimate, target: int | Mapping[str, int]) -> str:
    """How far one pass through the sources goes towards a number of pairs."""
    wanted = target if isinstance(target, int) else sum(target.values())
    pairs = next((stage.rows_out.expected for stage in reversed(found.stages)), 0.0)
    if pairs < wanted:
        return f"one pass gives about {pairs:,.0f} pairs, fewer than the target of {wanted:,}: further passes over dropped texts come on top of these figures"
    share = wanted / pairs
    return f"the target of {wanted:,} pairs is likely reached after {share * found.total_rows:,.0f} rows, so the run takes about {share:.0%} of these figures"


def _notes(found: Estimate, max_cost: float | None, max_tokens: int | None) -> list[str]:
    notes = []
    if found.sample_rows < min(_FEW_ROWS, found.total_rows):
        notes.append(f"the ranges are too narrow: {found.sample_rows} rows show too little of their own spread; {_FEW_ROWS} or more tell more")
    if unseen := [stage.name for stage in found.stages if not stage.reached]:
        notes.append(f"nothing is counted for {', '.join(unseen)}: no row of the sample got there, but others may")
    if unreported := [stage.name for stage in found.stages if stage.unreported]:
        counted = ", so no cap is judged by them" if max_cost is not None or max_tokens is not None else ""
        notes.append(f"the endpoint reported no usage for calls of {', '.join(unreported)}: they take more tokens, and cost more, than the table says{counted}")
    if any(not stage.priced and not stage.unreported for stage in found.stages):
        notes.append("the price of a model is unknown: its calls cost more than the table says")
    if max_cost is not None and found.all.priced:
        notes.append(_against(found.all.cost, max_cost, f"the cap of {show_usd(max_cost)} USD"))
    if max_tokens is not None and not unreported:
        read, written = found.all.prompt_tokens, found.all.completion_tokens
        both = Range(found.all.tokens, read.low + written.low, read.high + written.high)
        notes.append(_against(both, max_tokens, f"the cap of {max_tokens:,} tokens"))
    return notes


def _in_turn(found: Estimate) -> str:
    return f"{_time(max(found.all.seconds.expected, found.slowest_s))}: the stages run one after the other"


def _how_long(found: Estimate) -> str:
    side_by_side, one_by_one = _time(found.slowest_s), _time(max(found.all.seconds.expected, found.slowest_s))
    slowest_stage = max((stage.seconds.expected for stage in found.stages), default=0.0)
    shared = found.slowest_s == found.in_process_s > slowest_stage and not math.isclose(found.in_process_s, slowest_stage)
    if side_by_side != one_by_one:
        why = " (their models in this process share the processor)" if shared else ""
        return f"{side_by_side} when the stages run side by side{why}, {one_by_one} when they run one after the other"
    if shared:
        return f"{one_by_one}: models in this process share the processor, so stages side by side take as long as one after the other"
    return f"{side_by_side} when the stages run side by side, and as long when they run one after the other"


def _against(value: Range, cap: float, named: str) -> str:
    if value.high <= cap:
        return f"{named} leaves room"
    if value.expected <= cap:
        return f"{named} may be reached; the run would stop there and could go on with a higher one"
    return f"{named} will probably be reached: the run stops there and can go on with a higher one"


def _count(value: float) -> str:
    """Exact while that means something, then three digits."""
    if value < 10_000:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(value))
    rounded = round(value, digits)
    if rounded < 1e6:
        return f"{rounded:,.0f}"
    return f"{rounded / 1e6:,.3g}M" if rounded < 1e9 else f"{rounded / 1e9:,.2f}B"


def _usd(value: float) -> str:
    return show_usd(value) if value < 100 else _count(value)


def _time(seconds: float) -> str:
    if seconds < 1:
        return "0 s" if seconds <= 0 else "under 1 s"
    for below, unit, name in ((99.5, 1, "s"), (99.5 * 60, 60, "min"), (47.5 * 3600, 3600, "h")):
        if seconds < below:
            return f"{seconds / unit:.0f} {name}" if seconds / unit >= 9.95 else f"{seconds / unit:.2g} {name}"
    return f"{seconds / 86400:,.1f} days"
