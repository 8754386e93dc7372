"""Leakage of the response into the instruction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safer_instruct.detect.leakage import _longest_by_sets, leakage_rates, longest_shared_run, measure_leakage, quoted_block, without_said

TEXT = "the parcel was on your doorstep all along and you would have found it"
SIDE = st.lists(st.sampled_from(["a", "b", "c", "ab"]), max_size=40)


def slowly(left: list[str], right: list[str]) -> int:
    """By the definition, in cubic time."""
    runs = {tuple(right[i:j]) for i in range(len(right)) for j in range(i + 1, len(right) + 1)}
    return max((j - i for i in range(len(left)) for j in range(i + 1, len(left) + 1) if tuple(left[i:j]) in runs), default=0)


@given(SIDE, SIDE)
def test_both_ways_to_the_longest_run_agree_with_its_definition(left: list[str], right: list[str]) -> None:
    assert longest_shared_run(left, right) == _longest_by_sets(left, right) == slowly(left, right)


def test_long_sides_of_the_same_word_take_the_way_for_long_ones() -> None:
    assert longest_shared_run(["a"] * 3_000, ["a"] * 2_000 + ["b"] * 1_000) == 2_000


def test_a_run_of_eight_words_is_a_shared_gram() -> None:
    eight, seven = " ".join(TEXT.split()[:8]), " ".join(TEXT.split()[:7])
    assert measure_leakage(f"Why, {eight}?", TEXT).shares_gram
    assert not measure_leakage(f"Why, {seven}?", TEXT).shares_gram


def test_whole_and_identical() -> None:
    inside, same = measure_leakage(f"Is it true that {TEXT}?", TEXT), measure_leakage(TEXT.upper(), f"{TEXT}.")
    assert (inside.whole, inside.identical) == (True, False)
    assert (same.whole, same.identical) == (True, True)
    assert not measure_leakage(TEXT.replace("along", "alone"), TEXT).whole


def test_an_answer_of_four_words_can_be_given_away_whole() -> None:
    assert measure_leakage("Did she say to meet me at noon?", "Meet me at noon.").whole
    assert not measure_leakage("Did she say to meet me there?", "Meet me there.").whole


def test_a_short_answer_may_stand_in_its_question() -> None:
    assert not measure_leakage("Is it A or B? Answer with option B if you are not sure", "Option B").whole


def test_contained_and_covered_are_shares_of_the_response() -> None:
    found = measure_leakage("parcel doorstep", "The parcel was on your doorstep, broken.")
    assert found.covered == pytest.approx(2 / 3)  # of parcel, doorstep, broken
    assert found.contained == 0
    assert measure_leakage("one two three nine", "one two three four five").contained == pytest.approx(1 / 3)
    assert measure_leakage("one two three", "one two three four one two three").contained == pytest.approx(1 / 4), "a trigram counts once"
    assert measure_leakage("six seven eight and one oh three", "six seven eight one two three").contained == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    "prompt",
    [
        f'Translate into French: "{TEXT}"',
        f"Rewrite this more politely:\n\n{TEXT}",
        f"What is the tone of this message?\n{TEXT}",
        f"Summarise the following text: {TEXT}",
        f"Fix the spelling.\n```\n{TEXT}\n```",
        f"\N{LEFT DOUBLE QUOTATION MARK}{TEXT}\N{RIGHT DOUBLE QUOTATION MARK} Please rewrite it.",
        f'Translate "{TEXT}" in the way that I did "good evening to you".',
        f'Translate, as in "good evening to you", the words "{TEXT}".',
        f'Translate into `nl`, > \N{LEFT DOUBLE QUOTATION MARK}\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}:\n"{TEXT}"',
    ],
)
def test_a_task_may_quote_what_it_works_on(prompt: str) -> None:
    found = measure_leakage(prompt, TEXT)
    assert found.quoting and found.longest < 4
    assert found.whole  # said all the same: an instruction that holds its whole response teaches copying
    assert measure_leakage(prompt, TEXT, allow_quotes=False).longest == len(TEXT.split())


def test_four_words_in_a_row_are_a_quotation_and_less_is_none() -> None:
    four, three = (measure_leakage(f'Translate this for me: "{quoted}"', TEXT) for quoted in ("the parcel was on", "a parcel was on a step"))
    assert (four.quoting, four.longest) == (True, 0)
    assert (three.quoting, three.longest) == (False, 3)


@pytest.mark.parametrize("prompt", [f'Who told you "{TEXT}"', f"Translate what I say, {TEXT}", f"{TEXT} but where"])
def test_a_quotation_without_a_task_or_a_task_without_one_is_leakage(prompt: str) -> None:
    assert quoted_block(prompt) is None
    assert measure_leakage(prompt, TEXT).longest == len(TEXT.split())


def test_rates_are_shares_of_all_instructions() -> None:
    rates = leakage_rates([(TEXT, TEXT), (f"Did you say {TEXT}?", TEXT), ("Where is my parcel?", TEXT), ("Where?", TEXT)])
    assert (rates.instructions, rates.identical, rates.whole, rates.shared_gram) == (4, 0.25, 0.5, 0.5)
    assert leakage_rates([(TEXT, TEXT)]).identical == 1


def test_quotations_count_in_rates_unless_they_may_stand_there() -> None:
    pairs = [(f'Translate into French: "{TEXT}"', TEXT), ("Where is my parcel?", TEXT)]
    strict, fair = leakage_rates(pairs), leakage_rates(pairs, allow_quotes=True)
    assert (strict.shared_gram, strict.quoting) == (0.5, 0)
    assert (fair.shared_gram, fair.quoting) == (0, 0.5)


def test_what_was_said_before_is_taken_out_from_three_words_on() -> None:
    before = ["So the parcel was late?", "It rained."]
    assert without_said("Yes, the parcel was late again.", before) == "yes '' '' '' '' again"
    assert without_said("The parcel is not late, it rained.", before) == "the parcel is not late it rained"
    assert without_said("It rained.", []) == "it rained"


def test_rates_of_nothing_are_zero() -> None:
    assert leakage_rates([]).whole == 0


def test_empty_sides_leak_nothing() -> None:
    for prompt, text in (("", TEXT), (TEXT, ""), ("", ""), ("?!", "...")):
        found = measure_leakage(prompt, text)
        assert (found.identical, found.whole, found.longest, found.contained, found.covered) == (False, False, 0, 0.0, 0.0)
