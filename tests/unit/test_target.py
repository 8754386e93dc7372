"""A target: which examples count does not depend on how far the stream has read ahead, and every row is accounted for."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from safer_instruct.config import RunConfig, load_config
from safer_instruct.domain import load_domain
from safer_instruct.errors import BudgetError, ConfigError
from safer_instruct.example import Candidate, Draft, Example, Verdict
from safer_instruct.models.protocol import Usage
from safer_instruct.settings.answers import Target
from safer_instruct.sources import BadRow
from safer_instruct.state import RunState, note_calls_of
from safer_instruct.target import Pursuit, check_target, described

PRICE = 0.5


def config(target: Target | None, **ceiling: Any) -> RunConfig:
    return RunConfig.model_validate(
        {"domain": "civility", "source": {"path": "x"}, "models": {"inducer": "scripted:", "expert": "scripted:"}, "induce": {"candidates": 2}}
        | {"target": target, "ceiling": ceiling}
    )


@dataclass
class Outcome:
    """What a pursuit gave."""

    examples: list[Example]
    aside: list[BadRow]
    state: RunState

    @property
    def pairs(self) -> list[str]:
        return [e.id for e in self.examples if e.alive]

    @property
    def target(self) -> dict[str, Any]:
        assert self.state.target
        return self.state.target


def pursue(wanted: RunConfig, rows: list[Example | BadRow], *, ahead: int = 0, good: int = 3, breaks_at: int | None = None) -> Outcome:
    """Of the texts one in `good` becomes a pair in each pass; the flow reads so many examples `ahead`, and each costs one call."""
    state, aside, finished = RunState(total=len(rows)), list[BadRow](), 0
    pursuit = Pursuit(wanted, state, aside.append)

    async def source() -> AsyncGenerator[Example, None]:
        for row in rows:
            if isinstance(row, BadRow):
                pursuit.bad(row)
            else:
                yield row

    async def through(examples: AsyncGenerator[Example, None], seed: int) -> AsyncGenerator[Example, None]:
        waiting = deque[Example]()
        async for example in examples:
            waiting.append(worked_on(example, seed))
            if len(waiting) > ahead:
                yield waiting.popleft()
        for example in waiting:
            yield example

    def worked_on(example: Example, seed: int) -> Example:
        nonlocal finished
        finished += 1
        if finished == breaks_at:
            raise BudgetError("the budget is spent")
        if not example.alive:
            return example
        note_calls_of(example.id)
        state.stages["induce"].meter.add(Usage(10, 5, PRICE), replayed=False)
        example = replace(example, candidates=(Candidate(f"asked {seed}"),), prompt=f"asked {seed}", drafts=(Draft(f"said {seed}", 0),))
        if hashlib.sha256(f"{example.id} {seed}".encode()).digest()[0] % good:
            return example.with_verdicts(Verdict("consistency", False, 0.0, "too little"))
        return replace(example, chosen=f"said {seed}")

    async def collected() -> list[Example]:
        return [example async for example in pursuit.until_there(pursuit.noted(source()), through)]

    examples = asyncio.run(collected())
    for example in examples:
        state.count_finished(example)
    return Outcome(examples, aside, state)


def texts(count: int, bad_every: int = 7) -> list[Example | BadRow]:
    """Rows of two categories, some of them unusable, some dropped for what they say."""
    rows: list[Example | BadRow] = []
    for i in range(count):
        if i % bad_every == bad_every - 1:
            rows.append(BadRow("t.jsonl", i, "broken", ""))
            continue
        dropped = (Verdict("dedup.text", False, 1.0, "seen"),) if i % 11 == 5 else ()
        rows.append(Example(f"r{i}", f"text {i}", "a" if i % 3 else "b", "t.jsonl", i, verdicts=dropped))
    return rows


def check_books(found: Outcome) -> None:
    """Rows in = pairs + dropped + set aside, each example once and in reading order."""
    lines = [e.line for e in found.examples]
    assert lines == sorted(set(lines))
    assert found.state.rows == len(found.examples) + len(found.aside) and found.state.set_aside == len(found.aside)
    assert found.state.pairs == len(found.pairs) == found.target["pairs"]


@pytest.mark.parametrize("ahead", [1, 5, 40, 1000])
@pytest.mark.parametrize("target", [10, 40, {"a": 6, "b": 9}, {"a": 12}, 1000])
def test_what_counts_does_not_depend_on_how_far_was_read_ahead(target: Target, ahead: int) -> None:
    plain, hasty = (pursue(config(target), texts(120), ahead=n) for n in (0, ahead))
    assert (hasty.examples, hasty.aside, hasty.target) == (plain.examples, plain.aside, plain.target)
    assert hasty.state.stages["induce"].meter.usage == plain.state.stages["induce"].meter.usage
    check_books(plain)


def test_it_ends_with_exactly_that_many_and_what_was_not_needed_does_not_count() -> None:
    found = pursue(config(10), texts(120), ahead=30)
    assert len(found.pairs) == 10 and found.examples[-1].alive
    assert found.target["reached"] and found.target["passes"] == 1 and found.target["unread"] == 120 - found.state.rows > 0
    assert all(row.line < found.examples[-1].line for row in found.aside)
    assert found.state.stages["induce"].meter.calls == sum(e.candidates != () for e in found.examples)
    assert found.state.surplus_calls > 0 and found.state.surplus_cost == found.state.surplus_calls * PRICE
    assert described(found.target).startswith("the target is reached: 10 pairs from ")


def test_categories_have_targets_of_their_own() -> None:
    found = pursue(config({"a": 6, "b": 3}), texts(120), ahead=10)
    assert Counter(e.category for e in found.examples if e.alive) == {"a": 6, "b": 3}


def test_further_passes_take_only_what_was_dropped_with_other_seeds_and_keep_what_was_tried() -> None:
    once = pursue(config(1000, passes=1), texts(120))
    thrice = pursue(config(1000, passes=3), texts(120))
    assert set(once.pairs) < set(thrice.pairs)
    assert [e for e in thrice.examples if e.id in once.pairs] == [e for e in once.examples if e.alive]
    tried = next(e for e in thrice.examples if not e.alive and len(e.candidates) == 3)
    assert len({c.text for c in tried.candidates}) == 3 and [d.attempt for d in tried.drafts] == [0, 1, 2]
    assert [v.name for v in tried.verdicts] == ["target.pass_2", "target.pass_3", "consistency"]
    assert tried.verdicts[0].reason == "the pass before ended with consistency: too little"
    check_books(thrice)


def test_a_text_dropped_for_what_it_says_or_refused_by_an_endpoint_is_not_tried_again() -> None:
    found = pursue(config(1000), [Example("r0", "t", "a", "f", 0, verdicts=(Verdict("text.secrets", False, 1.0, "holds a key"),))])
    assert (found.target["passes"], found.target["stopped_by"]) == (1, "sources")
    refused = Example("r0", "t", "a", "f", 0, verdicts=(Verdict("induce.refused", False, None, "HTTP 400"),))
    assert pursue(config(1000), [refused]).target["stopped_by"] == "sources"


@pytest.mark.parametrize(
    ("ceiling", "stopped", "said"),
    [
        ({"passes": 2}, "ceiling.passes", "raise it, or add texts"),
        ({"candidates": 40}, "ceiling.candidates", "ceiling.candidates is reached"),
        ({"cost": 10 * PRICE}, "ceiling.cost", "ceiling.cost is reached"),
    ],
)
def test_a_ceiling_ends_it_and_is_named_with_the_yield(ceiling: dict[str, Any], stopped: str, said: str) -> None:
    found = pursue(config(1000, **ceiling), texts(60), ahead=3)
    target = found.target
    assert (target["reached"], target["stopped_by"]) == (False, stopped)
    assert target["missing"] == {"all": 1000 - len(found.pairs)} and target["yield"] == round(len(found.pairs) / found.state.rows, 4)
    assert said in described(target) and f"yield {target['yield']:.1%}" in described(target)
    if stopped == "ceiling.candidates":
        assert target["candidates"] == 40
    if stopped == "ceiling.cost":
        assert found.state.stages["induce"].meter.usage.cost == 10 * PRICE
    check_books(found)


def test_an_empty_budget_is_told_with_what_there_is_so_far() -> None:
    with pytest.raises(BudgetError, match=r"the budget is spent; \d+ pairs from \d+ rows so far, still wanted: all 9\d\d"):
        pursue(config(1000), texts(60), breaks_at=30)


def test_near_its_end_it_asks_for_few_examples_under_way() -> None:
    state = RunState(total=None)
    Pursuit(config(3000), state, lambda row: None)
    assert state.room == 2000
    assert pursue(config(30), texts(120)).state.room == 8


def test_a_category_that_the_domain_lacks_is_told_with_file_line_and_key(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("domain: civility\nsource: {path: x}\nmodels: {inducer: 'scripted:', expert: 'scripted:'}\ntarget:\n  support: 2\n  vegs: 4\n")
    with pytest.raises(ConfigError) as caught:
        check_target(load_config(file), load_domain("civility"), RunState())
    assert str(caught.value) == f"{file}:6: 'target.vegs': domain 'civility' has no category 'vegs'; it has: support"


def test_a_category_that_the_domain_lacks_and_a_ceiling_without_a_price_are_config_errors() -> None:
    state = RunState()
    with pytest.raises(ConfigError, match="domain 'civility' has no category 'hate'; it has: support"):
        check_target(config({"hate": 5}), load_domain("civility"), state)
    state.stages["respond"].priced = False
    with pytest.raises(ConfigError, match=r"ceiling\.cost needs the price of every model, and that of stage 'respond' is not known"):
        check_target(config(5, cost=1.0), load_domain("civility"), state)
    check_target(config(None, cost=1.0), load_domain("civility"), state)
