"""Live figures of a run, for whoever watches it and for the summary at its end."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from safer_instruct.budget import Budget
from safer_instruct.example import Example, Verdict
from safer_instruct.ledger import Meter
from safer_instruct.models.calls import KEEPING_TO_RATE
from safer_instruct.models.protocol import Usage
from safer_instruct.settings.models import ModelConfig
from safer_instruct.tally import SideTally, TwinTally

STAGES = ("collect", "induce", "filter", "respond", "verify")
_STAGE_OF = {
    "text": "collect",
    "prompt": "filter",
    "pair": "verify",
    "likelihood": "filter",
    "consistency": "filter",
    "dedup": "filter",
    "target": "collect",
    "rejected": "verify",
}
_ENOUGH = 100  # rows that are through tell a pace, however many are left
REJECTED, TWINS = "rejected", "twins"  # beside them, where a run makes other rejected responses, or contrast twins


@dataclass(slots=True)
class StageState:
    """Live figures of one stage: rows it has seen, rows dropped by then, answers and refusals, and what its calls took.

    Attributes:
        priced: Whether `meter.usage.cost` is all that its calls cost; otherwise the price of its model is not known.
        total: How many it will see, where that is not the rows of the source.
        since: When the first row was through with it, by the monotonic clock; None where that was not noted.
    """

    done: int = 0
    dropped: int = 0
    answered: int = 0
    refused: int = 0
    meter: Meter = field(default_factory=Meter)
    priced: bool = True
    total: int | None = None
    since: float | None = None

    @property
    def cost(self) -> float | None:
        """US dollars that its calls cost, None where that is not known."""
        return self.meter.cost(priced=self.priced)


@dataclass(slots=True)
class WriterState(StageState):
    """Live figures of one of those who write: the calls of stage `respond` that went to its model, drafts, and those that made a pair.

    Attributes:
        role: As in `models` of the summary.
        model: The model's name.
    """

    role: str = ""
    model: str = ""
    drafts: int = 0
    pairs: int = 0


@dataclass(slots=True)
class RunState:
    """Live figures of a run.

    Attributes:
        total: Rows in the source; None where it is too large to count first.
        renumbered: Rows whose own id an earlier row has too, so that a number stands behind it.
        changed: Files of the source that changed while they were read, and whether each only grew.
        reasons: How many examples each verdict has dropped, by stage and verdict.
        writers: What each of those who write has used of stage `respond`, by role, and drafts and pairs of theirs.
        wanted: How many pairs there are to be; None where every row is gone through.
        target: How the wanted number of pairs stands to those there are, at the end; None where none is wanted.
        room: How many examples are worth having under way at a stage; a target that is near needs few.
        surplus_calls: Calls made for examples beyond the target, whose windows were open when it was reached.
        surplus_cost: What they cost in US dollars.
        licenses: Pairs whose source text has a licence of its own, by licence.
        budget: What may be spent, and is.
        waits: What the models wait for at this moment, in words to show; none while all flows.
        sides: What the pairs' two sides come to.
        twins: The same of contrast twins, which count as no row and as no pair.
        parts: Calls for twins by what they were made for; the stage `twins` holds their sum.
        asked: What each model, by its `id`, was asked at each stage; None where nobody needs it.
        replayed: When the last row was through that took no new call, by the monotonic clock, and how many were through by then; None
            where the first row took one.
    """

    stages: dict[str, StageState] = field(default_factory=lambda: {name: StageState() for name in STAGES})
    total: int | None = None
    rows: int = 0
    set_aside: int = 0
    renumbered: int = 0
    changed: dict[str, bool] = field(default_factory=dict)
    pairs: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)
    writers: dict[str, WriterState] = field(default_factory=dict)
    wanted: int | None = None
    target: dict[str, Any] | None = None
    room: int = 1 << 30
    surplus_calls: int = 0
    surplus_cost: float = 0.0
    budget: Budget = field(default_factory=Budget)
    waits: Callable[[], list[str]] = list
    sides: SideTally = field(default_factory=SideTally)
    twins: TwinTally = field(default_factory=TwinTally)
    parts: dict[str, StageState] = field(default_factory=dict)
    asked: dict[tuple[int, str], Meter] | None = None
    replayed: tuple[float, int] | None = None

    @property
    def usable(self) -> int | None:
        """Rows of the source without those that were set aside so far; None where it is too large to count first."""
        return None if self.total is None else self.total - self.set_aside

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest takes at the pace of rows that took new calls, since the first one came to be answered; rather too many at first.

        Where so many pairs are wanted, the rest is the rows that these take at the yield so far.

        None where nobody can know: before a tenth of such rows is through, or a hundred of them, and while an endpoint does not answer.
        """
        begun = self.stages["filter"].since or self.started
        since, before = self.replayed or (begun, 0)
        rows, through = (self.usable or 0) - before, self.stages["verify"].done - before
        if not 0 < through < rows or through < min(rows / 10, _ENOUGH) or not all(message.endswith(KEEPING_TO_RATE) for message in self.waits()):
            return None
        left: float = rows - through
        if self.wanted is not None and self.pairs:
            left = min(left, max(0, self.wanted - self.pairs) * self.stages["verify"].done / self.pairs)
        return (time.monotonic() - since) * left / through

    @property
    def _answering(self) -> bool:
        """Whether new calls were made for responses, or to judge them."""
        meters = [stage.meter for name, stage in self.stages.items() if name in ("respond", "verify", REJECTED)]
        return any(meter.calls > meter.replayed for meter in meters)

    def count_finished(self, example: Example) -> None:
        """Count an example that has gone through all stages."""
        if example.twin_of:
            self.twins.add(example)
            return
        dropped, accepted = example.dropped_by, example.accepted
        verify = self.stages["verify"]
        verify.done += 1
        if not self._answering:
            self.replayed = time.monotonic(), verify.done
        for draft in example.drafts:
            if writer := self.writers.get(draft.expert):
                writer.drafts += 1
                writer.pairs += dropped is None and draft is accepted
        if dropped is None:
            self.pairs += 1
            if example.license:
                self.licenses[example.license] += 1
            self.sides.add(example)
            return
        self.reasons[(stage_of(dropped), dropped.name)] += 1
        verify.dropped += 1

    def forget_finished(self) -> None:
        """Take back all that `count_finished` has counted."""
        verify = self.stages["verify"]
        verify.done = verify.dropped = self.pairs = 0
        self.reasons.clear()
        self.licenses.clear()
        self.sides = SideTally(form=self.sides.form)
        for writer in self.writers.values():
            writer.drafts = writer.pairs = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """What one row took at one stage.

    Attributes:
        passed: Whether the row got through.
        calls: Model calls made for it.
        prompt_tokens: Tokens read by them.
        completion_tokens: Tokens written by them.
        cost: US dollars; None where a price is unknown, or what its calls took.
        seconds: What its calls took, one after the other.
        unreported: Whether the endpoint reported no usage for calls of this stage, so that tokens and cost are not all of them.
    """

    passed: bool = True
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0.0
    seconds: float = 0.0
    unreported: bool = False


@dataclass(slots=True)
class Dropped:
    """Rows that one verdict has dropped.

    Attributes:
        by: Its name.
        reason: What it said of the first of them.
        rows: How many.
    """

    by: str
    reason: str
    rows: int = 0


Row = Mapping[str, Figures]
"""What one row took, by stage; a stage that it never reached is missing."""


@dataclass(frozen=True, slots=True)
class Paced:
    """A model that keeps to a rate, and what the sample asked of it.

    Attributes:
        asked: Calls, and tokens read and written, by stage.
        requests_per_min: Most requests a minute, at all its endpoints together; infinite without a limit.
        tokens_per_min: Most tokens.
    """

    asked: Mapping[str, tuple[int, int]]
    requests_per_min: float
    tokens_per_min: float

    @classmethod
    def of(cls, which: ModelConfig, asked: Mapping[str, Meter]) -> Paced | None:
        """What a model was asked, by stage; None where it keeps to no rate that the config gives."""
        if which.in_process or which.batch or not (which.requests_per_min or which.tokens_per_min):
            return None
        endpoints = len(which.base_url) if isinstance(which.base_url, tuple) else 1
        rates = (endpoints * rate if rate else math.inf for rate in (which.requests_per_min, which.tokens_per_min))
        tokens = {stage: meter.usage.prompt_tokens + meter.usage.completion_tokens for stage, meter in asked.items()}
        return cls({stage: (meter.calls, tokens[stage]) for stage, meter in asked.items()}, *rates)

    def seconds(self, *stages: str) -> float:
        """Least time that it needs for what it was asked at these stages."""
        calls, tokens = (sum(self.asked[stage][i] for stage in stages if stage in self.asked) for i in (0, 1))
        return 60 * max(calls / self.requests_per_min, tokens / self.tokens_per_min)


def own_s(which: ModelConfig, slots: int, asked: Mapping[str, Meter]) -> float:
    """Seconds that a model in this process took at all its stages, with as many calls side by side as it has slots; none of any other."""
    return sum(meter.usage.seconds for meter in asked.values()) / slots if which.in_process else 0.0


@dataclass(slots=True)
class RowMeter(Meter):
    """A meter that also knows which row its calls were made for."""

    stage: str = ""
    by_row: dict[str, list[Usage]] = field(default_factory=dict)

    def add(self, usage: Usage, *, replayed: bool, repeated: bool = False, unreported: bool = False) -> None:
        """Count one call of the row that `note_calls_of` named."""
        Meter.add(self, usage, replayed=replayed, repeated=repeated, unreported=unreported)
        self.by_row.setdefault(_row_id.get(), []).append(usage)


@dataclass(slots=True)
class Both(Meter):
    """Counts for one model of a stage, and passes on to the stage's own meter."""

    part: Meter = field(default_factory=Meter)
    whole: Meter = field(default_factory=Meter)

    def add(self, usage: Usage, *, replayed: bool, repeated: bool = False, unreported: bool = False) -> None:
        """Count one call twice."""
        self.part.add(usage, replayed=replayed, repeated=repeated, unreported=unreported)
        self.whole.add(usage, replayed=replayed, repeated=repeated, unreported=unreported)


_row_id: ContextVar[str] = ContextVar("row_id", default="")


def note_calls_of(id_: str) -> None:
    """From here on, the calls of this task are made for the example of that id."""
    _row_id.set(id_)


def row_of(example: Example, state: RunState) -> Row:
    """What a finished example took at each stage that it reached, where the meters of `state` know the rows."""
    dropped = example.dropped_by
    reached = STAGES[: STAGES.index(stage_of(dropped)) + 1] if dropped else STAGES
    row = {name: _figures(example, state.stages[name], passed=dropped is None or name != reached[-1]) for name in reached}
    if REJECTED in state.stages and (taken := _figures(example, state.stages[REJECTED], passed=dropped is None)).calls:
        row[REJECTED] = taken
    return row


def row_of_twin(twin: Example, state: RunState) -> Row:
    """What a finished twin took, which belongs to the row of its pair."""
    return {TWINS: _figures(twin, state.stages[TWINS], passed=twin.alive)}


def _figures(example: Example, stage: StageState, *, passed: bool) -> Figures:
    calls = stage.meter.by_row.pop(example.id, []) if isinstance(stage.meter, RowMeter) else []
    return figures_of(calls, stage.meter, priced=stage.priced, passed=passed)


def figures_of(calls: Sequence[Usage], meter: Meter, *, priced: bool, passed: bool) -> Figures:
    """What these calls of a stage took, whose calls in all `meter` has counted."""
    total = sum(calls, Usage())
    cost = None if calls and meter.cost(priced=priced) is None else total.cost
    return Figures(passed, len(calls), total.prompt_tokens, total.completion_tokens, cost, total.seconds, bool(calls and meter.unreported))


def came_to(verdict: Verdict, name: str) -> bool:
    """Whether what a verdict dropped had come as far as stage `name`; to the twins comes nothing but twins."""
    if name == REJECTED:
        return verdict.name.partition(".")[0] in (REJECTED, "pair")
    return name == TWINS or STAGES.index(stage_of(verdict)) >= STAGES.index(name)


def stage_of(verdict: Verdict) -> str:
    """The stage at which a verdict drops an example."""
    family = verdict.name.partition(".")[0]
    if verdict.name in ("dedup.text", "dedup.semantic.text"):
        return "collect"
    if verdict.name == "dedup.twins":
        return "twins"
    if verdict.name in ("select", "dedup.pair", "dedup.semantic", "contradiction"):  # of the pairs that came through verification
        return "verify"
    return _STAGE_OF.get(family, family)
