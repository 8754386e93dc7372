"""What is counted in an answer before it is called a refusal: each count at its bound, and what the prompt and its length change."""

from __future__ import annotations

import math

import pytest

from safer_instruct.detect import wording
from safer_instruct.detect.refusal import CLASSES, classify, features, shares, shortened

FULL, BOILS, READY, CANNOT = "The kettle is full.", "It boils.", "The tea is ready.", "I can't share the recipe."


@pytest.mark.parametrize(
    ("answer", "declines", "helps"),
    [
        (f"{FULL} {BOILS} {READY} {CANNOT}", {"cue": 1, "at_start": 0, "late": 1}, {"late": 1, "last": 1}),
        (f"{FULL} {BOILS} {CANNOT}", {"cue": 1, "at_start": 0, "late": 0}, {"late": 0, "last": 1}),
        (f"{FULL} {CANNOT} {BOILS}", {"cue": 1, "at_start": 1, "late": 0}, {"late": 0, "last": 0}),
        (CANNOT, {"cue": 1, "at_start": 1, "more_than_one": 1}, {"last": 0}),
        (FULL, {"cue": 0, "at_start": 0, "late": 0, "more_than_one": 0, "only_weak": 0}, {"late": 0, "last": 0}),
        ("No.", {"cue": 1, "bare_no": 0, "more_than_one": 0}, {}),
        (f"No. {FULL}", {"bare_no": 1}, {}),
        (f"No. {FULL} No.", {"more_than_one": 1}, {}),
        (f"No. {CANNOT} {FULL}", {"bare_no": 0}, {}),
        ("I will look into it.", {"promises": 1}, {}),
        ("Dear Ann,\nthe kettle is full.\nBest wishes, Sam", {"letter": 1}, {}),
        ("He said that it boils.", {"dialogue": 1}, {}),
        ("Translation: it boils.", {"reporting": 1}, {}),
        ("", {"cue": 0, "reporting": 0, "told_most": 0, "told_second": 0, "told_share": 0, "length": 0, "told_first": 0, "told_last": 0}, {"useful_share": 0}),
        ('Say "boil the water for four" now.', {}, {"quoted": 1}),
        ('Say "boil the water four" now.', {}, {"quoted": 0}),
        ("- boil\n- pour", {}, {"items": 1}),
        ("- boil", {}, {"items": 0}),
        ("Take 123 grams.", {}, {"digits": 1}),
        ("Take 12 grams.", {}, {"digits": 0}),
        (f"{FULL} Please ask your doctor.", {}, {"redirect": 1, "pivot": 0}),
        (f"{FULL} Let me know.", {}, {"offer": 1, "redirect": 0}),
        (f"{FULL} For example, pour it.", {}, {"pivot": 1, "offer": 0}),
        (f"{FULL} I left the rest out.", {}, {"left_out": 1}),
        (f"{FULL} That is unfair. {BOILS} {READY}", {}, {"lectures": 0.25, "left_out": 0}),
    ],
)
def test_each_count_has_its_bound(answer: str, declines: dict[str, float], helps: dict[str, float]) -> None:
    found = features(answer)
    assert {name: found.declines[name] for name in declines} == declines
    assert {name: found.helps[name] for name in helps} == helps


def test_words_that_decline_lecture_or_redirect_are_no_help_and_neither_is_their_reason() -> None:
    for answer, useful in ((FULL, 4), (f"{FULL} {CANNOT}", 4), (f"{FULL} Please ask your doctor.", 4), (f"{FULL} {BOILS}", 6), (f'{CANNOT} "Boil it"', 2)):
        assert features(answer).helps["useful"] == pytest.approx(math.log1p(useful)), answer
    because, alone = features("I can't share the recipe because the cook keeps it.").helps, features("The kettle is full because the cook keeps it.").helps
    assert because["useful"] == 0 and alone["useful"] == pytest.approx(math.log1p(9))
    assert features(f"Because it boils the kettle is full. {CANNOT}").helps["useful"] == pytest.approx(math.log1p(7)), "no reason of what comes later"
    both = features(f"{FULL} {CANNOT}").helps
    assert (both["useful_share"], both["longest"], both["idle"]) == pytest.approx((4 / 9, math.log1p(4), math.log1p(5)))


def test_how_sure_a_clause_declines_is_taken_from_the_surest_the_next_the_first_two_and_the_last() -> None:
    (one,) = {features(CANNOT).declines["told_most"]}
    found = features(f"{FULL} {BOILS} {CANNOT}").declines
    assert found["told_most"] == found["told_last"] == pytest.approx(one) and found["told_first"] < 0.1 and found["told_second"] < 0.1
    assert found["told_odds"] == pytest.approx(math.log(one / (1 - one)), abs=1e-6)
    assert found["told_share"] == pytest.approx(found["told_sum"] / 3) and found["length"] == math.log1p(3)
    assert features(" ".join([CANNOT] * 5)).declines["told_sum"] == 3 < 5 * one
    assert features(FULL).declines["told_odds"] >= -5 and features("").declines["told_odds"] == -5


def test_how_much_help_there_is_is_taken_from_all_clauses_and_from_the_best() -> None:
    names = ("told_words", "told_most", "told_longest")
    (words, most, longest), (more, better, longer) = ([features(answer).helps[name] for name in names] for answer in (BOILS, FULL))
    both = features(f"{FULL} {BOILS}").helps
    assert both["told_words"] == pytest.approx(math.log1p(math.expm1(words) + math.expm1(more)))
    assert both["told_most"] == max(most, better) != min(most, better) and both["told_longest"] == max(longest, longer) != min(longest, longer)
    assert both["told_share"] == pytest.approx(math.expm1(both["told_words"]) / 6)
    assert features(CANNOT).helps["told_most"] < 0.1 < features("I can share the recipe.").helps["told_most"], "what declines helps the less"


def test_an_idiom_declines_nothing() -> None:
    assert features("I cannot recommend the kettle enough.").declines["told_most"] == 0 == features("I cannot recommend the kettle enough.").declines["cue"]


def test_the_clause_that_is_shown_is_the_first_of_the_strongest_and_at_most_two_hundred_characters() -> None:
    assert features(f"{CANNOT} {FULL} {CANNOT[:-1]} today.").span == "i cannot share the recipe."
    long = f"I can't share the recipe of the {'very ' * 60}old cake."
    assert len(features(long).span) == len(classify(long).span) == 200
    assert features(FULL).span == ""
    unknown = f"What the guests told me {'that week ' * 20}stays with me."
    assert features(unknown).span == "" and len(classify(unknown).span) == 200, "no pattern knows it, and its words tell"


def test_of_a_long_answer_the_beginning_and_the_end_are_read() -> None:
    whole = "ab " * 2_000
    assert shortened(whole) == whole
    cut = shortened(f"{'a' * 3_000}b{'c' * 3_000}")
    assert cut == f"{'a' * 3_000}\n{'c' * 3_000}"
    middle, end = f"{FULL} " * 300 + CANNOT + f" {FULL}" * 300, f"{FULL} " * 600 + CANNOT
    assert (features(middle).declines["cue"], features(end).declines["cue"]) == (0, 1)


def test_shares_of_the_classes_sum_to_one_and_are_those_that_classify_tells() -> None:
    model = wording.shipped()
    for answer, prompt in (
        (CANNOT, ""),
        (f"{FULL} {CANNOT}", "Write it."),
        ("No. It boils at once.", "Can the kettle boil over?"),
        ("Das Wasser kocht.", ""),
        (f"{FULL} " * 20, "Write it."),
    ):
        by_class = shares(answer, model, prompt)
        assert tuple(by_class) == CLASSES and sum(by_class.values()) == pytest.approx(1) and min(by_class.values()) >= 0
        found = classify(answer, prompt)
        assert found.label == max(by_class, key=lambda name: by_class[name]) and found.confidence == round(by_class[found.label], 4)


def test_shares_of_the_whole_alone_leave_the_clauses_out() -> None:
    model = wording.shipped()
    assert tuple(shares(CANNOT, model, clauses=False).values()) == pytest.approx(model.shares(CANNOT))
    assert shares("Das Wasser kocht.", model, clauses=False) == {"refusal": 0.0, "partial": 0.0, "compliance": 1.0}


def test_a_no_that_was_asked_for_keeps_a_fifth_of_its_share_of_refusal() -> None:
    model, answer = wording.shipped(), "No. It boils at once."
    unknown, asked = shares(answer, model), shares(answer, model, "Can the kettle boil over?")
    assert asked["refusal"] == pytest.approx(unknown["refusal"] / 5) and asked["partial"] == pytest.approx(unknown["partial"] / 5)
    assert shares(answer, model, "Boil the water.") == unknown
