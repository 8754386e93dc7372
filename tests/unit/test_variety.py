"""Responses that repeat accepted ones are written anew; what comes out depends on the order of the examples alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import closing
from dataclasses import replace

import pytest

from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.filters.dedup import Deduplicators
from safer_instruct.settings.answers import BoilerplateConfig
from safer_instruct.variety import Unique, Variety

SAME = "thank you for writing to us about this and we will look into it today"
OWN = "your {} has left the depot on the {} van and a driver named {} brings it"
GOOD = Verdict("verify.better", True, 1.0)
WRONG = Verdict("verify.better", False, -1.0, "is no better")


def own(id_: str, number: int = 0) -> str:
    return OWN.format(f"parcel{id_}", f"colour{id_}{number}", f"name{id_}{number}")


def pair(id_: str, *texts: str, category: str = "a") -> Example:
    """An example whose first text was accepted; the others passed as well."""
    drafts = tuple(Draft(text, 0, margin=float(-i), verdicts=(GOOD,)) for i, text in enumerate(texts))
    return Example(id_, "t", category, "f", 1, prompt="p", chosen=texts[0], margin=0.0, drafts=drafts, verdicts=(Verdict("dedup.text", True), GOOD))


def with_draft(example: Example, draft: Draft) -> Example:
    return replace(example, chosen=draft.text, margin=draft.margin).with_verdicts(*draft.verdicts)


class Writer:
    """Gives each example its texts, one a round, after a moment; None stands for one that is not accepted."""

    def __init__(self, rounds: dict[str, list[str | None]], rng: random.Random | None = None) -> None:
        self._rounds, self._rng, self.warmer = rounds, rng, dict[str, list[float]]()

    async def again(self, example: Example, warmer: float) -> Example:
        if self._rng:
            await asyncio.sleep(self._rng.random() / 200)
        asked = self.warmer.setdefault(example.id, [])
        asked.append(warmer)
        text = self._rounds[example.id][len(asked) - 1]
        assert example.alive and not example.chosen
        draft = Draft(text or "no good", len(asked), margin=0.0, verdicts=(GOOD if text else WRONG,))
        example = replace(example, drafts=(*example.drafts, draft))
        return with_draft(example, draft) if text else example.with_verdicts(WRONG)


def settle(examples: list[Example], writer: Writer, *, by_category: bool = False, config: BoilerplateConfig | None = None) -> list[Example]:
    async def stream() -> AsyncGenerator[Example, None]:
        for example in examples:
            yield example

    async def collected(variety: Variety) -> list[Example]:
        return [example async for example in variety.through(stream())]

    config = config or BoilerplateConfig()
    with closing(Deduplicators("response", config.near, by_category=by_category)) as seen:
        return asyncio.run(collected(Variety(config, seen, writer.again, with_draft)))


def test_a_repeat_is_written_anew_each_time_warmer_and_the_draft_taken_back_says_whom_it_repeats() -> None:
    writer = Writer({"2": [SAME + " again", own("2")]})
    first, second = settle([pair("1", SAME), pair("2", SAME)], writer)
    assert first.alive and second.alive and second.chosen == own("2")
    assert writer.warmer == {"2": [0.2, 0.4]}
    assert [v.name for v in second.verdicts] == ["dedup.text", "verify.better", "pair.boilerplate"]
    assert [[v.reason for v in d.verdicts if not v.passed] for d in second.drafts] == [["has the same words as 1"], ["is a near-duplicate of 1"], []]
    assert second.accepted is second.drafts[-1]


def test_another_draft_that_passed_is_taken_before_anything_is_written() -> None:
    writer = Writer({})
    settled = settle([pair("1", SAME), pair("2", SAME, own("2"))], writer)
    assert (settled[1].chosen, settled[1].margin, writer.warmer) == (own("2"), -1.0, {})


def test_after_the_last_round_it_is_dropped_and_the_verdict_names_the_earlier_example() -> None:
    settled = settle([pair("1", SAME), pair("2", SAME)], Writer({"2": [None, SAME]}))
    dropped = settled[1].dropped_by
    assert dropped and dropped.name == "pair.boilerplate" and dropped.reason == "has the same words as 1; 2 further rounds gave nothing else"
    assert not settled[1].chosen and len(settled[1].drafts) == 3


def test_a_round_that_is_not_accepted_is_followed_by_another() -> None:
    settled = settle([pair("1", SAME), pair("2", SAME)], Writer({"2": [None, own("2")]}))
    assert settled[1].alive and settled[1].chosen == own("2")


def test_without_further_rounds_repeats_are_dropped_and_dropped_examples_are_left_alone() -> None:
    dead = pair("0", SAME).with_verdicts(Verdict("pair.pii", False, 1.0, "holds 1 email"))
    settled = settle([dead, pair("1", SAME), pair("2", SAME)], Writer({}), config=BoilerplateConfig(regenerate=0))
    assert settled[0] is dead and settled[1].alive
    assert settled[2].dropped_by == Verdict("pair.boilerplate", False, None, "has the same words as 1")


def test_categories_may_be_kept_apart() -> None:
    pairs = [pair("1", SAME), pair("2", SAME, category="b")]
    assert [e.chosen for e in settle(pairs, Writer({}), by_category=True)] == [SAME, SAME]


@pytest.mark.parametrize("seed", range(3))
def test_timing_changes_nothing(seed: int) -> None:
    """Some hundred examples, most of them boilerplate: in whatever order the new responses come, the outcome is the same."""
    rng = random.Random(7)
    examples, rounds = [], dict[str, list[str | None]]()
    for i in range(150):
        choices = [SAME, own(str(rng.randrange(40))), own(str(i))]
        examples.append(pair(str(i), rng.choice(choices)))
        rounds[str(i)] = [rng.choice([*choices, None]), rng.choice([*choices, None])]
    still = settle(examples, Writer(rounds))
    assert settle(examples, Writer(rounds, random.Random(seed))) == still
    assert 40 < sum(e.alive for e in still) < 150
    chosen = [e.chosen for e in still if e.alive]
    assert len(set(chosen)) == len(chosen)


def test_the_share_of_unique_responses_tells_exact_repeats_from_near_ones() -> None:
    with closing(Unique()) as unique:
        for example in (pair("1", SAME), pair("2", SAME.upper()), pair("3", SAME + " again"), pair("4", own("4"))):
            unique.add(example)
        unique.add(pair("5", SAME).with_verdicts(WRONG))
        unique.add(replace(pair("4~twin", own("4")), twin_of="4"))
        assert unique.record() == {"share": 0.5, "exact_repeats": 1, "near_repeats": 1, "near": 0.7}
    with closing(Unique()) as none:
        assert none.record()["share"] is None
