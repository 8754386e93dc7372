"""As many pairs as asked for: the sources are gone through until they are there, or a ceiling says stop.

Nothing here depends on timing. The stream comes in input order; an example counts when it is its turn, and the run ends with the one
that fills the target. What was read or even answered beyond it, because windows of work are open at that moment, is no part of the
set: no row, no verdict, no call of it is counted, and the next run finds its calls in the ledger. Later passes go through the texts
whose example was dropped, in the same order, with other seeds.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import ExitStack, aclosing, closing
from dataclasses import replace
from itertools import groupby
from typing import Any

from safer_instruct.barrier import Spool
from safer_instruct.config import RunConfig
from safer_instruct.domain import Domain
from safer_instruct.errors import BudgetError, ConfigError
from safer_instruct.example import Example, Verdict
from safer_instruct.ledger import Meter
from safer_instruct.models.protocol import Usage
from safer_instruct.seeds import derive_seed
from safer_instruct.settings.answers import Target
from safer_instruct.sources import BadRow
from safer_instruct.state import TWINS, RowMeter, RunState, stage_of
from safer_instruct.yamlfile import named_at

Examples = AsyncGenerator[Example, None]
Entry = tuple[int, Example]
"""Number of an example in reading order, and how it ended."""

_COST_DIGITS = 12  # the order of the calls of an example may decide how their sum is rounded
_STOPS = {
    "sources": "the sources hold no text that could still give one: add texts",
    "ceiling.passes": "every text was tried as often as ceiling.passes allows: raise it, or add texts",
    "ceiling.candidates": "ceiling.candidates is reached: raise it",
    "ceiling.cost": "ceiling.cost is reached: raise it",
}
_LEAST_ROOM, _WINDOWS = 8, 3  # the stages that call models have a window each
_FULL = "target.full"
_FOR_GOOD = (".refused", ".content_filter")  # what was refused once is not asked again


class Wanted:
    """How many pairs are still wanted, in all or by category."""

    def __init__(self, target: Target) -> None:
        self.target, self._have = target, Counter[str]()

    def wants(self, category: str) -> bool:
        """Whether another pair of that category is wanted."""
        if isinstance(self.target, int):
            return self._have.total() < self.target
        return self._have[category] < self.target.get(category, 0)

    def take(self, category: str) -> None:
        """Count a pair."""
        self._have[category] += 1

    @property
    def full(self) -> bool:
        """Whether nothing is wanted any more."""
        return self._have.total() >= (self.target if isinstance(self.target, int) else sum(self.target.values()))

    def missing(self) -> dict[str, int]:
        """What is still wanted: by category, or under `all`."""
        if isinstance(self.target, int):
            return {"all": self.target - self._have.total()} if not self.full else {}
        return {name: count - self._have[name] for name, count in self.target.items() if self._have[name] < count}


def check_target(config: RunConfig, domain: Domain, state: RunState) -> None:
    """Find out before the first call whether the target can be pursued.

    Raises:
        ConfigError: It names a category that the domain does not have, or a ceiling in money is set and a price is not known.
    """
    if config.target is None:
        return
    for name in config.target if isinstance(config.target, dict) else ():
        with named_at(("target", name), config.file):
            domain.category(name)
    unpriced = [name for name, stage in state.stages.items() if not stage.priced]
    if config.ceiling.cost is not None and unpriced:
        raise ConfigError(f"ceiling.cost needs the price of every model, and that of stage '{unpriced[0]}' is not known; set its price_per_million")


class Pursuit:
    """One run with a target, pass by pass."""

    def __init__(self, config: RunConfig, state: RunState, set_aside: Callable[[BadRow], None]) -> None:
        """Begin with nothing read.

        Args:
            config: Says the target and the ceilings.
            state: The live figures; from here on its meters know the rows.
            set_aside: Takes the unusable rows that count.
        """
        assert config.target is not None  # noqa: S101 - the caller asked
        self._config, self._state, self._set_aside = config, state, set_aside
        self._wanted, self._books = Wanted(config.target), _Books(state)
        state.wanted = sum(self._wanted.missing().values())
        self._read: deque[BadRow | None] = deque()  # rows in reading order, None for one that became an example, until it is known that they count
        self._held: list[BadRow] = []  # those before the next example that counts
        self._rows = self._aside = self._drawn = 0
        self._cost = 0.0
        self._make_room()

    def bad(self, row: BadRow) -> None:
        """Note an unusable row where it stands among the others."""
        self._read.append(row)

    async def noted(self, examples: Examples) -> Examples:
        """`examples` straight from the source, their places noted."""
        async with aclosing(examples):
            async for example in examples:
                self._read.append(None)
                yield example

    async def until_there(self, examples: Examples, through: Callable[[Examples, int], Examples]) -> Examples:
        """Every example that counts, in input order, once the target is reached or cannot be.

        Args:
            examples: From `noted`, and whatever else is asked of texts.
            through: The rest of the flow, from induction to the finished pair, with a seed for its draws.
        """
        with ExitStack() as stack:
            spools: list[Spool[Entry]] = []
            stopped = "ceiling.passes"
            for number in range(self._config.ceiling.passes):
                spools.append(stack.enter_context(closing(Spool[Entry]())))
                seed = derive_seed(self._config.seed, "pass", number) if number else self._config.seed
                entries = self._later(spools[-2], through, seed, number) if number else self._first(examples, through, seed)
                stopped = await self._pass(entries, spools[-1]) or stopped
                if stopped != "ceiling.passes":
                    break
                if not any(self._again(example) and self._wanted.wants(example.category) for _, example in spools[-1]):
                    stopped = "sources"
                    break
            self._state.budget.go_on()
            self._close(stopped, len(spools))
            for example in _last_words(spools):
                yield example

    async def _pass(self, entries: AsyncGenerator[Entry, None], spool: Spool[Entry]) -> str:
        """Go through one pass; says what ended the run with it, nothing where the pass came to its own end."""
        try:
            async with aclosing(entries):
                async for number, example in entries:
                    if stopped := self._count(number, example, spool):
                        await self._state.budget.finish_under_way()  # paid for, and found by a run that wants more
                        return stopped
        except BudgetError as exc:
            missing = ", ".join(f"{name} {count}" for name, count in self._wanted.missing().items())
            raise BudgetError(f"{exc}; {self._state.pairs} pairs from {self._rows} rows so far, still wanted: {missing}") from exc
        return ""

    def _count(self, number: int, example: Example, spool: Spool[Entry]) -> str:
        spool.append((number, example))
        self._state.count_finished(example)
        self._cost = round(self._cost + self._books.settle(example.id), _COST_DIGITS)
        dropped, ceiling = example.dropped_by, self._config.ceiling
        self._drawn += 0 if dropped and stage_of(dropped) == "collect" else self._config.induce.candidates
        if dropped is None:
            self._wanted.take(example.category)
        self._make_room()
        if self._wanted.full:
            return "target"
        if ceiling.candidates is not None and self._drawn >= ceiling.candidates:
            return "ceiling.candidates"
        return "ceiling.cost" if ceiling.cost is not None and self._cost >= ceiling.cost else ""

    def _make_room(self) -> None:
        """Have no more under way than is likely to be needed: who is near the target pays for few examples beyond it."""
        likely = (self._state.pairs + 1) / (self._rows + 2)
        self._state.room = max(_LEAST_ROOM, math.ceil(sum(self._wanted.missing().values()) / likely / _WINDOWS))

    async def _first(self, examples: Examples, through: Callable[[Examples, int], Examples], seed: int) -> AsyncGenerator[Entry, None]:
        """The sources from their beginning; unusable rows count when an example behind them does, or when there is none any more."""
        number = 0
        async with aclosing(through(self._still_wanted(examples), seed)) as finished:
            async for example in finished:
                while (row := self._read.popleft()) is not None:
                    self._held.append(row)
                if self._wanted.wants(example.category):
                    self._release()
                    self._rows += 1
                    yield number, example
                number += 1
        self._held += [row for row in self._read if row is not None]
        self._release()

    async def _later(self, before: Spool[Entry], through: Callable[[Examples, int], Examples], seed: int, number: int) -> AsyncGenerator[Entry, None]:
        """The texts whose example was dropped in the pass before."""

        async def begun_anew() -> Examples:
            for _, example in before:
                if self._again(example):
                    yield _anew(example, number, keep=self._config.induce.given == "keep")

        olds = (entry for entry in before if self._again(entry[1]))
        async with aclosing(through(self._still_wanted(begun_anew()), seed)) as finished:
            async for example in finished:
                place, old = next(olds)
                if self._wanted.wants(example.category):
                    yield place, _with_earlier(old, example)

    async def _still_wanted(self, examples: Examples) -> Examples:
        """Spare models the examples of a category that is full; when it is their turn, they do not count."""
        async with aclosing(examples):
            async for example in examples:
                spared = example.alive and not self._wanted.wants(example.category)
                yield example.with_verdicts(Verdict(_FULL, False, None, "no more pairs of this category are wanted")) if spared else example

    def _again(self, example: Example) -> bool:
        """Whether another pass may give what this one did not. Depends on the example alone, as both readers of a spool must see the same."""
        dropped = example.dropped_by
        return dropped is not None and stage_of(dropped) != "collect" and not dropped.name.endswith(_FOR_GOOD)

    def _release(self) -> None:
        for row in self._held:
            self._set_aside(row)
        self._rows += len(self._held)
        self._aside += len(self._held)
        self._held.clear()

    def _close(self, stopped: str, passes: int) -> None:
        """Put into the live figures what counts; the examples are counted anew as they are written."""
        state, missing = self._state, self._wanted.missing()
        unread = None if state.total is None else state.total - self._rows
        state.target = {
            "wanted": self._wanted.target,
            "reached": not missing,
            "stopped_by": "" if not missing else stopped,
            "missing": missing,
            "pairs": state.pairs,
            "rows": self._rows,
            "unread": unread,
            "passes": passes,
            "candidates": self._drawn,
            "yield": round(state.pairs / self._rows, 4) if self._rows else 0.0,
        }
        self._books.close()
        state.rows, state.set_aside = self._rows, self._aside
        state.forget_finished()


class _Books:
    """What the examples that count took, apart from what is in flight for others."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        stages = {name: stage for name, stage in state.stages.items() if name != TWINS}  # they are made behind the pursuit
        self._own = len(stages)
        for name, stage in stages.items():
            stage.meter = RowMeter(stage=name)
        for writer in state.writers.values():
            writer.meter = RowMeter(stage="respond")
        self._parts = [*stages.values(), *state.writers.values()]
        self._settled = [Meter() for _ in self._parts]

    def settle(self, id_: str) -> float:
        """Count what the example of that id has taken since it was last settled; gives its cost in US dollars."""
        cost = 0.0
        for number, (part, settled) in enumerate(zip(self._parts, self._settled, strict=True)):
            calls = part.meter.by_row.pop(id_, []) if isinstance(part.meter, RowMeter) else []
            for usage in calls:
                settled.add(usage, replayed=False)
            cost += sum(calls, Usage()).cost if number < self._own else 0.0  # a writer's calls are those of a stage as well
        return cost

    def close(self) -> None:
        """Leave in the meters what counts; how much of it came from the ledger is not told apart by row."""
        surplus = [0, 0.0]
        for number, (part, settled) in enumerate(zip(self._parts, self._settled, strict=True)):
            if number < self._own:
                surplus = [surplus[0] + part.meter.calls - settled.calls, surplus[1] + part.meter.usage.cost - settled.usage.cost]
            settled.replayed = min(part.meter.replayed, settled.calls)
            settled.repeated = min(part.meter.repeated, settled.replayed)
            part.meter = settled
        self._state.surplus_calls, self._state.surplus_cost = int(surplus[0]), surplus[1]


def _anew(example: Example, number: int, *, keep: bool) -> Example:
    """A text at its beginning once more, with a word on how the pass before ended for it; where the source gives its prompt, to `keep` it."""
    ended = example.dropped_by
    said = Verdict(f"target.pass_{number + 1}", True, None, f"the pass before ended with {ended.name}: {ended.reason}" if ended else "")
    kept = tuple(v for v in example.verdicts if stage_of(v) == "collect")
    given = tuple(replace(c, verdicts=()) for c in example.candidates[-1:]) if keep else ()
    return replace(example, candidates=given, prompt="", chosen="", rejected="", margin=None, drafts=(), verdicts=(*kept, said))


def _with_earlier(old: Example, new: Example) -> Example:
    """What this pass gave, behind the candidates and drafts of those before; rounds are counted on."""
    rounds = max((draft.attempt + 1 for draft in old.drafts), default=0)
    drafts = (*old.drafts, *(replace(draft, attempt=draft.attempt + rounds) for draft in new.drafts))
    return replace(new, candidates=(*old.candidates, *new.candidates), drafts=drafts)


def _last_words(spools: list[Spool[Entry]]) -> Iterator[Example]:
    """Each example once, in reading order, as the last pass that it was part of left it."""
    for _, entries in groupby(heapq.merge(*spools, key=lambda entry: entry[0]), key=lambda entry: entry[0]):
        *_, (_, example) = entries
        yield example


def described(target: Mapping[str, Any]) -> str:
    """How the pursuit ended, in a sentence for people; `target` as in the summary."""
    said = f"{target['pairs']:,} pairs from {target['rows']:,} rows (yield {target['yield']:.1%}), {target['candidates']:,} instructions drawn"
    said += f" in {target['passes']} passes" if target["passes"] > 1 else ""
    if target["reached"]:
        unread = f"; {target['unread']:,} rows were not needed" if target["unread"] else ""
        return f"the target is reached: {said}{unread}"
    missing = ", ".join(f"{count:,} ({name})" for name, count in target["missing"].items())
    return f"the target is not reached, missing {missing}: {said}; {_STOPS[target['stopped_by']]}"
