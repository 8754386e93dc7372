"""The record that moves between rooms: frozen, and dropped by its first failed verdict."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from safer_instruct.example import Candidate, Draft, Example, Verdict

pytestmark = pytest.mark.filterwarnings("error")
EXAMPLE = Example("a", "Some rude text.", "support", "texts.jsonl", 3)
GOOD, BAD, WORSE = Verdict("prompt.length", True, 7), Verdict("prompt.language", False, None, "is in 'de'"), Verdict("consistency", False, -1.0, "less likely")


def test_a_new_example_is_alive_and_empty() -> None:
    assert EXAMPLE.alive and EXAMPLE.dropped_by is None
    assert (EXAMPLE.candidates, EXAMPLE.prompt, EXAMPLE.chosen, EXAMPLE.margin, EXAMPLE.drafts, EXAMPLE.verdicts) == ((), "", "", None, (), ())


def test_passed_verdicts_leave_it_alive() -> None:
    assert EXAMPLE.with_verdicts(GOOD, GOOD).alive


def test_the_first_failed_verdict_is_the_one_that_dropped_it() -> None:
    dropped = EXAMPLE.with_verdicts(GOOD, BAD).with_verdicts(WORSE)
    assert not dropped.alive and dropped.dropped_by == BAD
    assert dropped.verdicts == (GOOD, BAD, WORSE)


def test_adding_verdicts_makes_a_copy_and_keeps_everything_else() -> None:
    full = replace(EXAMPLE, prompt="p", chosen="c", margin=0.5, candidates=(Candidate("p"),), drafts=(Draft("c", 0),))
    copy = full.with_verdicts(BAD)
    assert full.verdicts == () and replace(copy, verdicts=()) == full


@pytest.mark.parametrize("record", [EXAMPLE, GOOD, Candidate("x"), Draft("x", 0)])
def test_no_record_can_be_changed(record: object) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(record, fields(record)[0].name, "other")  # type: ignore[arg-type]


def drafts(**margins: float) -> tuple[Draft, ...]:
    return tuple(Draft(text, 0, margin=margin, verdicts=(GOOD,), expert=f"by {text}") for text, margin in margins.items())


def test_the_accepted_draft_is_the_chosen_one_whatever_the_margin_of_what_replaced_the_source_text() -> None:
    pair = replace(EXAMPLE, chosen="kind", rejected="rude", drafts=drafts(kind=0.5, rude=0.9))
    assert pair.accepted is pair.drafts[0] and not pair.source_is_chosen
    assert replace(pair, rejected="").accepted is pair.drafts[0]
    assert replace(pair, drafts=(*drafts(kind=0.1), *pair.drafts)).accepted is pair.drafts[0]
    assert replace(pair, chosen="").accepted is None


def test_where_the_source_text_is_chosen_the_accepted_draft_is_the_rejected_one() -> None:
    pair = replace(EXAMPLE, chosen=EXAMPLE.text, rejected="dull", drafts=drafts(dull=0.5, other=0.9))
    assert pair.source_is_chosen and pair.accepted is pair.drafts[0]
    twin = replace(pair, text="kind", chosen="kind", rejected="no", twin_of="b", drafts=drafts(no=0.9, kind=0.5))
    assert not twin.source_is_chosen and twin.accepted is twin.drafts[1]


def test_equal_records_are_equal_and_hash_alike() -> None:
    assert len({EXAMPLE, replace(EXAMPLE), replace(EXAMPLE, line=4)}) == 2
