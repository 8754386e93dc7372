"""Each gate on an instruction, passing and failing."""

from __future__ import annotations

import asyncio
import math
import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safer_instruct.config import ConsistencyConfig, FilterConfig
from safer_instruct.detect.leakage import longest_shared_run
from safer_instruct.detect.words import words
from safer_instruct.example import Example, Verdict
from safer_instruct.filters.checks import check_all
from safer_instruct.filters.consistency import TextGains, check_gain, ranks
from safer_instruct.filters.dedup import Deduplicator
from safer_instruct.filters.registry import open_filters
from safer_instruct.models.protocol import Scored, Scoring
from safer_instruct.models.scripted import ScriptedModel
from safer_instruct.templates import load_template

pytestmark = pytest.mark.filterwarnings("error")

TEXT = "The parcel was on your doorstep all along, and you would have found it by opening the door."
PROMPT = "Where is my parcel? Tracking says it was delivered, but I cannot find it."
ORDER = ["length", "template", "refusal", "copying", "repetition", "language"]


def verdicts_on(prompt: str, text: str = TEXT, **options: dict[str, Any] | None) -> dict[str, Verdict]:
    """What the filters that are on by default say of an instruction, in order; `options` as below `filter.prompt`."""
    checks = open_filters(FilterConfig(prompt=options), Path()).prompt
    return {v.name.removeprefix("prompt."): v for v in check_all(checks, Example("1", text, "support", "f", 1, prompt=prompt))}


def failed(prompt: str, text: str = TEXT, **options: dict[str, Any] | None) -> str:
    """Name of the first filter that fails, or '' when all pass."""
    return next((name for name, v in verdicts_on(prompt, text, **options).items() if not v.passed), "")


def test_a_plain_instruction_passes_every_filter_in_order_without_a_reason() -> None:
    found = verdicts_on(PROMPT)
    assert list(found) == ORDER and all(v.passed and not v.reason for v in found.values())


def test_every_filter_is_asked_whatever_the_others_said() -> None:
    found = verdicts_on("### I cannot help")
    assert {name: v.passed for name, v in found.items()} == {**dict.fromkeys(ORDER, True), "template": False}
    assert {name for name, v in verdicts_on("I cannot help ### ###").items() if not v.passed} == {"template", "refusal"}


@pytest.mark.parametrize(("count", "rule"), [(0, "length"), (3, "length"), (4, ""), (6, ""), (7, "length")])
def test_length_counts_words_and_both_bounds_are_allowed(count: int, rule: str) -> None:
    prompt = " ".join(["one", "two", "three", "four", "five", "six", "seven"][:count])
    bounds = {"min_words": 4, "max_words": 6}
    assert failed(prompt, length=bounds) == rule
    assert verdicts_on(prompt, length=bounds)["length"].score == count


def test_length_says_the_count_and_the_bound() -> None:
    bounds = {"min_words": 4, "max_words": 6}
    assert verdicts_on("one two", length=bounds)["length"].reason == "2 words, fewer than 4"
    assert verdicts_on("one two three four five six seven", length=bounds)["length"].reason == "7 words, more than 6"


@pytest.mark.parametrize(
    "prompt",
    [
        "### Instruction: where is my parcel",
        "Where is my parcel? ### response",
        "where is my parcel <|im_end|> please",
        "Below is a response to a certain instruction, where is my parcel",
        "below is an instruction, where is my parcel",
        "Write the instruction that the response is trying to complete, please",
    ],
)
def test_pieces_of_a_prompt_template_are_dropped(prompt: str) -> None:
    assert failed(prompt) == "template"


@pytest.mark.parametrize(
    "prompt",
    [
        "My flat is below a response unit and the noise keeps me awake",
        "Is order #3 the response to my ticket, or is ## 4 it?",
        "Does a < b || c > d hold for every parcel you send?",
        "What is the instruction manual for the kettle trying to say?",
    ],
)
def test_prompts_that_only_look_like_a_template_pass(prompt: str) -> None:
    assert failed(prompt) == ""


@pytest.mark.parametrize(
    "prompt",
    [
        "I'm sorry, but I can't help with that request",
        "I am sorry, I cannot write that for you",
        "I'm afraid I am unable to do this for you",
        "I cannot assist with finding this parcel",
        "I can't provide that information to you",
        "I won't help anybody with such a thing",
        "I must decline to answer this question",
        "As an AI I have no parcels to deliver",
        "As a language model I have no parcels",
        "  I cannot comply with this kind of request",
    ],
)
def test_refusals_are_dropped(prompt: str) -> None:
    assert failed(prompt) == "refusal"


@pytest.mark.parametrize(
    "prompt",
    [
        "I can't find my parcel, where did the driver put it?",
        "I'm sorry to bother you, but where is my parcel?",
        "As an aid for my mother I ordered a chair, where is it?",
        "My driver said: I cannot help you. Is that how you treat customers?",
        "I am afraid the parcel is lost, can you look for it?",
    ],
)
def test_customers_who_cannot_do_something_are_no_refusals(prompt: str) -> None:
    assert failed(prompt) == ""


def test_copying_counts_the_longest_shared_run_of_words() -> None:
    text = "one two three four five six seven eight nine ten"
    bound = {"max_shared_run": 4}
    assert failed("please say one two three four again", text, copying=bound) == ""
    assert failed("please say two three four five six again", text, copying=bound) == "copying"
    verdict = verdicts_on("please say two, THREE four five; six again", text, copying=bound)["copying"]
    assert (verdict.passed, verdict.score) == (False, 5)
    assert verdict.reason == "shares a run of 5 words with the text, more than 4"


def test_a_short_instruction_that_stands_in_the_text_word_for_word_is_copied() -> None:
    assert failed("the parcel was on") == "copying"
    assert failed("the parcel was off") == ""


def test_curly_and_straight_apostrophes_are_the_same_word() -> None:
    assert words("It\N{RIGHT SINGLE QUOTATION MARK}s HERE, isn't it?") == ["it's", "here", "isn't", "it"]


def test_repetition_is_the_share_of_repeated_trigrams() -> None:
    prompt = "please send it now please send it now please send it now"  # 10 trigrams, 4 distinct
    verdict = verdicts_on(prompt, repetition={"max_repetition": 0.5})["repetition"]
    assert (verdict.passed, verdict.score) == (False, 0.6)
    assert verdict.reason == "60% of its word trigrams are repeats, more than 50%"
    assert failed(prompt, repetition={"max_repetition": 0.6}) == ""


@pytest.mark.parametrize(
    ("prompt", "share"),
    [("a b c a d c", 0.0), ("a b c d a b e d", 0.0), ("a a a a b", 0.3333), ("a b a b a b", 0.5), ("A b, a B; a b", 0.5), ("a a a a a", 0.6667)],
)
def test_a_repeat_is_the_same_three_words_in_a_row(prompt: str, share: float) -> None:
    assert verdicts_on(prompt)["repetition"].score == share


def test_texts_without_a_trigram_do_not_repeat() -> None:
    assert verdicts_on("send now")["repetition"].passed and verdicts_on("?!")["repetition"].passed


GERMAN = "Wo bleibt denn eigentlich mein Paket, das ich schon vor drei Wochen bei Ihnen bestellt habe?"


def test_an_instruction_reliably_in_another_language_is_dropped() -> None:
    assert failed(GERMAN) == "language"
    assert verdicts_on(GERMAN)["language"].reason == "is in 'de', not in en"


def test_languages_can_be_added_or_switched_off() -> None:
    assert failed(GERMAN, language={"languages": ["en", "de"]}) == ""
    assert failed(GERMAN, language={"languages": []}) == failed(GERMAN, language=None) == ""
    assert failed(PROMPT, language={"languages": ["de"]}) == "language"


def test_what_was_found_is_quoted_and_cut_where_it_is_long() -> None:
    long = "below is a very long and winding description of a response that I need"
    assert verdicts_on(long)["template"] == Verdict(
        "prompt.template", False, None, "holds a piece of a prompt template: 'below is a very long and winding descrip'"
    )
    refusal = "I'm sorry, but I can't do that for you"
    assert verdicts_on(refusal)["refusal"] == Verdict("prompt.refusal", False, None, "is a refusal and not an instruction: \"I'm sorry, but I can't\"")
    assert verdicts_on("the parcel was on")["copying"] == Verdict("prompt.copying", False, 4, "stands in the text word for word")
    both = verdicts_on(GERMAN, language={"languages": ["en", "fr"]})["language"]
    assert both == Verdict("prompt.language", False, None, "is in 'de', not in en, fr")


def test_rules_that_look_at_no_number_give_none() -> None:
    found = verdicts_on(PROMPT)
    assert [found[name].score for name in ("template", "refusal", "language")] == [None] * 3
    assert verdicts_on(PROMPT, language={"languages": []})["language"].score is None


@pytest.mark.parametrize(
    "prompt",
    [
        "una lista per la spesa",
        "Hotel Restaurant Taxi Polizei",
        "blorp snarg fleem wibble",
        "1234 5678 9012 3456",
        "\U0001f600 \U0001f601 \U0001f602 \U0001f603",
        "\x01 \x02 \x03 \ufffe",
    ],
)
def test_where_the_language_cannot_be_told_the_instruction_stays(prompt: str) -> None:
    assert failed(prompt) == ""


@settings(max_examples=200)
@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_breaks_a_rule(prompt: str, text: str) -> None:
    found = verdicts_on(prompt, text)
    assert list(found) == ORDER and all(bool(v.reason) != v.passed for v in found.values())
    assert not any(v.reason.startswith("raised") for v in found.values())


def naive_run(left: list[str], right: list[str]) -> int:
    runs = {tuple(left[i:j]) for i in range(len(left)) for j in range(i + 1, len(left) + 1)}
    return max((len(run) for run in runs if any(tuple(right[k : k + len(run)]) == run for k in range(len(right)))), default=0)


WORDS = st.lists(st.sampled_from("abc"), max_size=9)


@settings(max_examples=300)
@given(WORDS, WORDS)
def test_longest_shared_run_agrees_with_a_naive_search(left: list[str], right: list[str]) -> None:
    assert longest_shared_run(left, right) == naive_run(left, right) == longest_shared_run(right, left)


@settings(max_examples=100)
@given(WORDS, WORDS, WORDS)
def test_a_text_shares_all_of_a_part_that_was_put_into_it(before: list[str], part: list[str], after: list[str]) -> None:
    assert longest_shared_run(part, before + part + after) == len(part)


LONG = "my umbrella turned inside out in the first bit of wind although I only bought it on Tuesday from the shop at the corner of your street"
NEAR = LONG.replace("Tuesday", "Wednesday")
OTHER = "could you please tell me whether the Sunday market is still on when it rains and where the bread van parks on such a day"


def verdicts(*texts: str, threshold: float | None = 0.7) -> list[tuple[bool, str]]:
    with closing(Deduplicator("text", threshold)) as seen:
        found = [seen.check(text, f"id{i}") for i, text in enumerate(texts)]
        assert {v.name for v in found} == {"dedup.text"}
        return [(v.passed, v.reason) for v in found]


def test_the_same_words_are_an_exact_duplicate_whatever_their_case_and_punctuation() -> None:
    assert verdicts("Where is it?", "where IS it!", "Where was it?", threshold=None) == [(True, ""), (False, "has the same words as id0"), (True, "")]


def test_a_near_duplicate_is_dropped_and_a_different_text_is_not() -> None:
    assert verdicts(LONG, NEAR, OTHER) == [(True, ""), (False, "is a near-duplicate of id0"), (True, "")]


def test_the_same_words_in_another_order_are_a_different_text() -> None:
    assert verdicts(LONG, " ".join(sorted(LONG.split()))) == [(True, ""), (True, "")]


def test_the_score_of_a_near_duplicate_is_its_trigram_similarity() -> None:
    with closing(Deduplicator("text", 0.7)) as seen:
        first, same, near = (seen.check(text, id_).score for id_, text in zip("abc", (LONG, LONG, NEAR), strict=True))
        one, two = (set(zip(t.split(), t.split()[1:], t.split()[2:], strict=False)) for t in (LONG, NEAR))
        assert first is same is None
        assert near == round(len(one & two) / len(one | two), 4)


def test_long_texts_are_compared_by_a_sketch_that_comes_close() -> None:
    rng = random.Random(0)
    text = " ".join(str(rng.randrange(10**6)) for _ in range(2_000))
    half = " ".join(text.split()[:1_600])
    with closing(Deduplicator("text", 0.7)) as seen:
        seen.check(text, "a")
        assert seen.check(half, "b").score == pytest.approx(0.8, abs=0.08)


def test_every_near_duplicate_among_many_is_traced_to_its_first() -> None:
    rng = random.Random(0)
    first = [" ".join(rng.choices(["kite", "lamp", "door", "rain", "shop", "left", "blue", "cold", "ring", "note"], k=60)) for _ in range(200)]
    with closing(Deduplicator("text", 0.7)) as seen:
        assert all(seen.check(text, f"a{i}").passed for i, text in enumerate(first))
        found = [seen.check(f"{text} indeed", "b").reason for text in first]
        assert found == [f"is a near-duplicate of a{i}" for i in range(200)]


def test_without_a_threshold_only_exact_duplicates_are_dropped() -> None:
    assert [passed for passed, _ in verdicts(LONG, NEAR, LONG, threshold=None)] == [True, True, False]


def test_the_threshold_decides_what_is_near() -> None:
    assert [passed for passed, _ in verdicts(LONG, NEAR, threshold=0.95)] == [True, True]


def test_what_was_seen_first_stays_whichever_it_is() -> None:
    assert verdicts(NEAR, LONG)[0] == (True, "") and verdicts(NEAR, LONG)[1][0] is False


def test_a_dropped_text_is_not_remembered_in_place_of_the_first() -> None:
    assert verdicts(LONG, NEAR, NEAR)[2] == (False, "is a near-duplicate of id0")


@pytest.mark.parametrize("texts", [("yes", "no"), ("yes please", "no thanks"), ("?!", "..."), ("", " "), ("\ud800", "\udfff")])
def test_texts_too_short_for_trigrams_are_compared_exactly(texts: tuple[str, str]) -> None:
    assert verdicts(*texts) == [(True, ""), (True, "")]
    assert verdicts(texts[0], texts[0])[1] == (False, "has the same words as id0")


def test_fields_are_kept_apart_by_name() -> None:
    with closing(Deduplicator("prompt", None)) as seen:
        assert seen.check("x", "1").name == "dedup.prompt"


@settings(max_examples=50)
@given(st.lists(st.text(max_size=20), max_size=8))
def test_a_second_pass_over_the_same_texts_finds_every_one(texts: list[str]) -> None:
    with closing(Deduplicator("text", 0.7)) as seen:
        for i, text in enumerate(texts):
            seen.check(text, f"a{i}")
        assert not any(seen.check(text, f"b{i}").passed for i, text in enumerate(texts))


@pytest.mark.parametrize(
    ("given_", "alone", "passed"), [(-1.0, -1.1, True), (-1.0, -1.2, True), (-1.0, -1.0999, False), (-1.0, -1.0, False), (-2.0, -1.0, False)]
)
def test_the_gain_must_reach_the_bound(given_: float, alone: float, passed: bool) -> None:
    verdict = check_gain(round(given_ - alone, 6), ConsistencyConfig(min_gain=0.1))
    assert verdict.name == "consistency" and verdict.passed is passed
    assert verdict.score is not None and math.isclose(verdict.score, given_ - alone, abs_tol=1e-6)


def test_too_small_a_gain_is_told_with_its_size_and_the_bound() -> None:
    assert check_gain(-0.5, ConsistencyConfig(min_gain=0.1)).reason == "makes the text -0.500 nats per token likelier, less than +0.100"
    assert check_gain(0.5, ConsistencyConfig(min_gain=0.1)).reason == ""


def test_a_candidate_whose_gain_ranks_too_low_is_dropped_where_ranks_are_asked_for() -> None:
    assert ranks([0.1, 0.7, 0.3, 0.7]) == [4, 1, 3, 1]
    config = ConsistencyConfig(min_gain=0.0, max_rank=2)
    assert check_gain(0.3, config, rank=2).passed
    assert check_gain(0.3, config, rank=3).reason == "2 other candidates make the text likelier, more than 1"


class Counted(ScriptedModel):
    """A scripted model that remembers what it scored."""

    def __init__(self, folder: Path) -> None:
        script = (
            'score:\n- {match: "Instruction:\\nAsk", logprob: -0.5}\n- {match: "Instruction", logprob: -9.0}\n- {match: "^### Response:\\n$", logprob: -2.0}\n'
        )
        (folder / "s.yaml").write_text(script, encoding="utf-8")
        super().__init__("s.yaml", base=folder)
        self.scored: list[Scoring] = []

    async def score(self, request: Scoring) -> Scored:
        self.scored.append(request)
        return await super().score(request)


def test_gains_share_what_the_text_alone_is_worth(tmp_path: Path) -> None:
    scorer = Counted(tmp_path)
    gains = TextGains("one two three", scorer, load_template("forward"), ConsistencyConfig(max_tokens=2))
    assert asyncio.run(gains.of(["Ask", "Tell"])) == [1.5, -7.0] and len(scorer.scored) == 3
    assert asyncio.run(gains.of(["Ask again"])) == [1.5] and len(scorer.scored) == 4, "log p(text) is not asked for anew"
    assert {(s.continuation, s.max_tokens) for s in scorer.scored} == {("one two three", 2)}


def test_a_scoring_stops_at_its_token_cap(tmp_path: Path) -> None:
    scorer = Counted(tmp_path)
    assert asyncio.run(scorer.score(Scoring("### Response:\n", "one two three", 2))).logprobs == (-2.0, -2.0)
    assert len(asyncio.run(scorer.score(Scoring("### Response:\n", "one two three"))).logprobs) == 3
