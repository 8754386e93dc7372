"""Live figures of a part of the work, brought to those of the whole run.

Workers count for each chunk apart, and what they counted travels with it. So what a lost worker had counted is counted
once, by the worker that does its chunk again, and the bill of a run does not depend on what happened to its workers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from safer_instruct.ledger import Meter
from safer_instruct.models.protocol import Usage
from safer_instruct.state import RunState, StageState, WriterState

_NUMBERS = ("done", "dropped", "answered", "refused")


@dataclass(slots=True)
class Counts:
    """What one part of the work on one chunk comes to.

    Attributes:
        rows: Rows of the source.
        set_aside: Those of them that became no example.
        renumbered: Those of them whose id an earlier one has too.
        changed: Files of the source that changed while they were read, and whether each only grew.
        stages: Figures by stage, of those that have any.
        writers: What each of those who write has used.
    """

    rows: int = 0
    set_aside: int = 0
    renumbered: int = 0
    changed: dict[str, bool] = field(default_factory=dict)
    stages: dict[str, StageState] = field(default_factory=dict)
    writers: dict[str, Meter] = field(default_factory=dict)


class Slate:
    """Live figures that are wiped after each chunk.

    Attributes:
        state: What the parts of the flow count in; its meters stay the same objects.
    """

    def __init__(self, like: RunState) -> None:
        """Make figures with the same stages and writers as those of the run."""
        self.state = RunState(stages={name: StageState() for name in like.stages})
        self.state.writers = {name: WriterState(role=writer.role, model=writer.model) for name, writer in like.writers.items()}
        self._before: dict[str, tuple[int, int]] = {}

    def begin(self, answered: dict[str, tuple[int, int]]) -> None:
        """Start a chunk; at each stage so many were answered and refused before, which is what a stage of refusals alone is known by."""
        self._before = dict(answered)  # of other chunks more come in meanwhile
        for name, (given, refused) in answered.items():
            stage = self.state.stages[name]
            stage.answered, stage.refused = given, refused

    def take(self) -> Counts:
        """What has been counted since `begin`, which is forgotten here."""
        for name, (given, refused) in self._before.items():
            stage = self.state.stages[name]
            stage.answered, stage.refused = stage.answered - given, stage.refused - refused
        counts = Counts(self.state.rows, self.state.set_aside, self.state.renumbered, dict(self.state.changed))
        counts.stages = {name: taken for name, stage in self.state.stages.items() if (taken := _taken(stage))}
        counts.writers = {name: meter for name, writer in self.state.writers.items() if (meter := _taken_meter(writer.meter)).calls}
        self.state.rows = self.state.set_aside = self.state.renumbered = 0
        self.state.changed.clear()
        return counts


def add(counts: Counts, state: RunState) -> None:
    """Add what was counted elsewhere to the figures of the run."""
    state.rows += counts.rows
    state.set_aside += counts.set_aside
    state.renumbered += counts.renumbered
    state.changed |= counts.changed
    for name, part in counts.stages.items():
        stage = state.stages[name]
        for number in _NUMBERS:
            setattr(stage, number, getattr(stage, number) + getattr(part, number))
        _add_meter(stage.meter, part.meter)
    for name, meter in counts.writers.items():
        _add_meter(state.writers[name].meter, meter)


def _taken(stage: StageState) -> StageState | None:
    taken = StageState(stage.done, stage.dropped, stage.answered, stage.refused, _taken_meter(stage.meter))
    stage.done = stage.dropped = stage.answered = stage.refused = 0
    return taken if taken.meter.calls or any(getattr(taken, number) for number in _NUMBERS) else None


def _taken_meter(meter: Meter) -> Meter:
    taken = Meter(meter.calls, meter.replayed, meter.fresh, meter.earlier, meter.unreported, meter.repeated)
    meter.calls = meter.replayed = meter.unreported = meter.repeated = 0
    meter.fresh = meter.earlier = Usage()
    return taken


def _add_meter(meter: Meter, part: Meter) -> None:
    meter.calls += part.calls
    meter.replayed += part.replayed
    meter.fresh += part.fresh
    meter.earlier += part.earlier
    meter.unreported += part.unreported
    meter.repeated += part.repeated
