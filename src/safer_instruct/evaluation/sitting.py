"""One sitting of an evaluation: its models, each opened once, its budget, its ledger, and how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from safer_instruct import rundir
from safer_instruct.accounts import remote_spent, took
from safer_instruct.budget import PATIENCE_S, Budget
from safer_instruct.config import BudgetConfig, ModelConfig
from safer_instruct.errors import ModelError, RunDirectoryError
from safer_instruct.holding import hold, of_others
from safer_instruct.ledger import Ledger, Meter, Recorded
from safer_instruct.models import open_model
from safer_instruct.models.protocol import Model, Usage
from safer_instruct.models.said import said
from safer_instruct.prices import load_prices
from safer_instruct.spent import earlier_spent, write_spent
from safer_instruct.state import Paced, RowMeter, own_s
from safer_instruct.stopping import before_a_stop
from safer_instruct.tuning.finished import of_training

T = TypeVar("T")
R = TypeVar("R")
Tick = Callable[[], None]
"""Called when one more piece of work is done."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an evaluation is: pieces of work done and in all, and what is being done."""

    done: int
    total: int
    doing: str


class Counter:
    """Counts work for the progress display."""

    def __init__(self, total: int, report: Callable[[Progress], None]) -> None:
        self._done, self._total, self._report = 0, total, report

    def during(self, doing: str) -> Tick:
        """What to call when one more piece of `doing` is done."""

        def tick() -> None:
            self._done += 1
            self._report(Progress(self._done, self._total, f"{doing}; in all"))

        return tick


@dataclass(slots=True)
class Stage:
    """What the calls of one kind took.

    Attributes:
        meter: Of all of them.
        slots: Calls that are made side by side.
        priced: Whether the price of the model is known.
    """

    meter: RowMeter
    slots: int
    priced: bool

    @property
    def cost(self) -> float | None:
        """US dollars that its calls cost, None where that is not known, be it the price or what they took."""
        return self.meter.cost(priced=self.priced)


class OpenModels:
    """The models of an evaluation, each opened once, within one budget; all their calls go through the ledger."""

    def __init__(
        self, out: Path, ledger: Ledger, stack: AsyncExitStack, *, models: Iterable[ModelConfig], base: Path, budget: BudgetConfig, prices: str | None
    ) -> None:
        """Open no model yet; `stack` closes them and the budget, what paths are relative to is `base`, and `models` are all that may be opened."""
        self._base, self._out, self._ledger, self._stack = base, out, ledger, stack
        self._prices = load_prices(base / prices if prices else None)
        self._opened: dict[ModelConfig, Model] = {}
        self._asked: dict[ModelConfig, dict[str, Meter]] = {}
        self.stages: dict[str, Stage] = {}
        self.budget = Budget(budget.max_cost, budget.max_tokens)
        spent, models = out / rundir.SPENT, tuple(models)
        answered = remote_spent(out / rundir.LEDGER, models)
        self.budget.begin(earlier_spent(spent, answered), lambda total: write_spent(spent, total), check=ledger.check, answered=answered)
        stack.callback(self.budget.close)
        before_a_stop(self.budget.stop)

    def open(self, which: ModelConfig, stage: str) -> Model:
        """The model, with its calls recorded as those of `stage`.

        Raises:
            SaferInstructError: It cannot be opened.
        """
        if which not in self._opened:
            self._opened[which] = open_model(which, self._base, prices=self._prices, budget=self.budget, batches=self._out / rundir.BATCHES)
            self._stack.push_async_callback(self._opened[which].close)
        model = self._opened[which]
        noted = self.stages.setdefault(stage, Stage(RowMeter(stage=stage), model.concurrency, model.priced))
        self._asked.setdefault(which, {})[stage] = noted.meter
        return Recorded(model, self._ledger, stage, noted.meter, read=said)

    def paced(self) -> tuple[Paced, ...]:
        """The models that keep to a rate, and what they were asked."""
        return tuple(found for which, asked in self._asked.items() if (found := Paced.of(which, asked)))

    def in_process_s(self) -> float:
        """What the models that work in this process took, each with as many calls side by side as it makes."""
        return sum(own_s(which, self._opened[which].concurrency, asked) for which, asked in self._asked.items())

    def used(self) -> Meter:
        """What all calls add up to."""
        meters = [stage.meter for stage in self.stages.values()]
        usage = sum((meter.usage for meter in meters), Usage())
        counted = ("calls", "replayed", "unreported", "repeated")
        return Meter(earlier=usage, **{name: sum(getattr(meter, name) for meter in meters) for name in counted})

    @property
    def cost(self) -> float | None:
        """US dollars that all calls cost, None where that is not known of some."""
        cost: float | None = took(self.stages.values())["cost"]
        return cost


def check_folder(out: Path, written: str) -> None:
    """That a ledger of its own, and `written`, may go into a folder, which need not be there.

    Raises:
        RunDirectoryError: It is no folder, or a run, a training or such a file of something else stands in it.
    """
    if out.exists() and not out.is_dir():
        raise RunDirectoryError(f"{out} is no folder; choose another --out")
    if (out / rundir.RUN).is_file():
        raise RunDirectoryError(f"{out} holds a run, which keeps a ledger of its own; choose another --out")
    if there := of_training(out):
        raise RunDirectoryError(f"{out} holds {', '.join(there[:4])} of a model or of its training; choose another --out")
    if of_others(out, (written,), (rundir.LEDGER,)):
        raise RunDirectoryError(f"{out} holds {written} of something else; choose another --out")


@contextmanager
def held_ledger(out: Path) -> Iterator[Ledger]:
    """The ledger of an evaluation's directory, which this process alone may write."""
    with hold(out), Ledger(out / rundir.LEDGER) as ledger:
        yield ledger


async def gathered(ask: Callable[[T], Awaitable[R]], items: Sequence[T], at_a_time: int) -> list[R]:
    """The answers in the order of `items`; the first failure ends the others.

    Those that are under way then are waited for, but not for long: where a key is refused they are, too, and then cost nothing.
    """
    free, over = asyncio.Semaphore(2 * at_a_time), asyncio.Event()

    async def one(item: T) -> R:
        async with free:
            if over.is_set():
                raise asyncio.CancelledError
            try:
                return await ask(item)
            except ModelError:
                over.set()  # here, before the next one is let in
                raise

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    except ModelError:
        await asyncio.wait(tasks, timeout=PATIENCE_S)
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
