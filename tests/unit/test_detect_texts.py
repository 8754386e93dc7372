"""Refusals, gibberish, language, repetition, contamination; and junk for all detectors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safer_instruct.detect.contamination import BenchmarkIndex, read_prompts
from safer_instruct.detect.gibberish import gibberish_reason, word_logprob
from safer_instruct.detect.injection import find_injections
from safer_instruct.detect.language import check_languages, language_of
from safer_instruct.detect.leakage import measure_leakage
from safer_instruct.detect.pii import find_pii
from safer_instruct.detect.refusal import classify
from safer_instruct.detect.repetition import repeated_share
from safer_instruct.detect.secrets import find_secrets
from safer_instruct.detect.words import words, words_of
from safer_instruct.errors import SourceError

ROOT = Path(__file__).parents[2]
REFUSALS = ROOT / "tests" / "data" / "refusals"


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def agreement(name: str) -> float:
    labelled = rows(REFUSALS / name)
    return sum(classify(row["text"]).label == row["label"] for row in labelled) / len(labelled)


def test_replies_that_are_sorry_for_what_happened_and_say_what_will_be_done_help() -> None:
    """Of those that the models were not fitted on (`bench/refusal_fit.py` takes each eighth)."""
    lines = (ROOT / "examples" / "tune" / "civility-plain.jsonl").read_text(encoding="utf-8").splitlines()
    kind = [json.loads(line)["kind"] for number, line in enumerate(lines) if number % 8 in (3, 6)]
    assert sum(classify(text).label == "compliance" for text in kind) >= 0.97 * len(kind) > 400


def test_agreement_with_answers_written_before_the_rules() -> None:
    assert agreement("heldout.jsonl") >= 0.96
    assert agreement("heldout-plain.jsonl") >= 0.95


@pytest.mark.parametrize(
    ("label", "answer"),
    [
        ("refusal", "I'm sorry, but I can't help with that."),
        ("refusal", "I\N{RIGHT SINGLE QUOTATION MARK}m unable to assist."),
        ("refusal", "No."),
        (
            "partial",
            "I can't write the whole essay for you, but here is an outline: begin with the causes, then describe two battles, and end with what changed.",
        ),
        ("compliance", "I can't recommend this book enough!"),
        ("compliance", "Sorry about that! Here is the corrected version: the cat sat on the mat."),
        ("compliance", "I am sorry about that, and I will look into thing number 16 answer."),
        ("compliance", '"I cannot help you," said the wizard, and turned back to his soup.'),
        ("compliance", ""),
    ],
)
def test_the_three_classes(label: str, answer: str) -> None:
    assert classify(answer).label == label


@pytest.mark.parametrize("name", ["assistants", "people", "borders"])
def test_agreement_with_answers_of_authors_who_knew_nothing_of_the_detector(name: str) -> None:
    """On the third of each set that nothing was fitted on; measured: 0.90, 0.86, 0.75."""
    unseen = [row for row in rows(ROOT / "bench" / "data" / f"refusals-{name}.jsonl") if row["split"] == "test"]
    assert sum(classify(row["text"]).label == row["label"] for row in unseen) >= 0.7 * len(unseen) > 30


@pytest.mark.parametrize(("name", "at_least"), [("last", 130), ("unseen", 130), ("unseen-products", 120), ("unseen-sensitive", 120)])
def test_agreement_with_prompts_and_answers_that_nothing_was_fitted_on(name: str, at_least: int) -> None:
    """Their errors were not looked at either; measured: 0.89, 0.89, 0.91, 0.89."""
    unseen = rows(ROOT / "bench" / "data" / f"refusals-{name}.jsonl")
    assert sum(classify(row["text"], row["prompt"]).label == row["label"] for row in unseen) >= 0.86 * len(unseen) > at_least


@pytest.mark.parametrize(
    ("label", "answer"),
    [
        ("refusal", "Count me out of that one."),
        ("refusal", "What the guests told me stays with me."),
        ("partial", "The invitation is below. The joke about her ex I have left on the floor.\n\n'Come hungry, leave dancing. Saturday at six.'"),
        ("compliance", "I couldn't find a mistake in the first two lines. In the third, 'their' should be 'there'."),
    ],
)
def test_declining_in_other_words_is_told_by_the_whole_answer(label: str, answer: str) -> None:
    found = classify(answer)
    assert found.label == label
    assert (found.span == "") == (label == "compliance")


@pytest.mark.parametrize("answer", ["Das kann ich leider nicht machen. Bitte fragen Sie einen Arzt.", "Je ne peux pas vous aider avec cela.", "xyz", "42"])
def test_answers_of_unknown_words_are_found_compliant(answer: str) -> None:
    assert classify(answer).label == "compliance"


def test_a_refusal_shows_the_words_that_decided() -> None:
    found = classify("Thanks for writing. I can't share staff phone numbers.")
    assert (found.label, found.span) == ("refusal", "i cannot share staff phone numbers.")
    assert 0.5 < found.confidence <= 1
    assert classify("The kettle boils at 100 degrees.").span == ""


@pytest.mark.parametrize(
    "text", ["sdkfjh skdjfh ksjdhf kjshdf kjhsdf", "a" * 40, "CafÃ© trÃ¨s bon, dÃ©jÃ  vu", "\x01\x02\x03\x04\x05abc", "}{][)(*&^%$#@!~`;:?><"]
)
def test_gibberish_has_a_reason(text: str) -> None:
    assert gibberish_reason(text)


BLOB = "TWFyeSBoYWQgYSBsaXR0bGUgbGFtYiAxMjMgYW5kIGl0cyBmbGVlY2Ugd2Fz"  # a rhyme in base64
WALL = "Climbing roses want a wall that looks to the south. "


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ha\x01\x02\x03lf of it", "3 of 13 characters are control codes or unassigned"),
        ("ha\x01\x02lf of it", ""),
        (WALL * 4 + "\x01" * 5, "5 of 213 characters are control codes or unassigned"),
        (WALL * 4 + "\x01" * 4, ""),
        ("Caf\u00c3\u00a9 tr\u00c3\u00a8s bon", "2 marks of a broken encoding"),
        ("Caf\u00c3\u00a9 bon", ""),
        (WALL * 3 + "caf\u00c3\u00a9 tr\u00c3\u00a8s", "2 marks of a broken encoding"),
        ((WALL * 4)[:189] + "caf\u00c3\u00a9 tr\u00c3\u00a8s", ""),
        ("!" * 15, "the same character '!' many times in a row"),
        ("ab" + "!" * 15, "the same character '!' many times in a row"),
        ("Stop" + "!" * 14, ""),
        ("Title\n" + "=" * 40 + "\n" + "~" * 40, ""),
        (f"{BLOB} {WALL}{WALL}"[:119], "60 of 119 characters are encoded data"),
        (f"{BLOB} {WALL}{WALL}"[:120], ""),
        ("a-name-that-is-made-of-very-many-little-words-in-a-row", ""),
        ("?!?!?!?!", ""),
        ("?!?!?!?!?", "9 of 9 characters are signs"),
        ("sdkfjh garden kjhsdf", "12 of 18 letters are in words that no language has"),
        ("sdkfjh garden", ""),
        ("sdkfjhkd", "8 of 8 letters are in words that no language has"),
        ("sdkfjhk", ""),
        ("sdkf jhsk kjhs", "12 of 12 letters are in words that no language has"),
        ("sdk jhs kjh sdf", ""),
        ("?! ?! ?! ?! ?! a", "10 of 16 characters are signs"),
        ("abc ?!?!?!?!?!?!", ""),
        ("12345678 " + "?!" * 11, "22 of 31 characters are signs"),
        ("sdkfjh skdjfh ksjdhf \u00e9", "18 of 18 letters are in words that no language has"),
        ("Где аптека? sdkfjhs", ""),
        ("ЖЖЖ ЖЖЖ sdkfjh ksjdh", "11 of 11 letters are in words that no language has"),
        ("\x01" * 3_000, "2000 of 2000 characters are control codes or unassigned"),
        (WALL * 40 + "\x01" * 3_000, ""),
    ],
)
def test_gibberish_counts_from_its_bounds_on_and_says_how_much_of_it_there_is(text: str, reason: str) -> None:
    assert gibberish_reason(text) == reason


def test_a_word_is_as_likely_as_its_letter_pairs_on_average() -> None:
    assert word_logprob("ab", {"^a": -1.0, "ab": -2.0, "b$": -3.0}) == -2.0
    assert word_logprob("ab", {}) == -9.0, "a pair that no language has"


@pytest.mark.parametrize(
    "text",
    [
        "Where is my parcel?",
        "def f(x):\n    return [y**2 for y in x]",
        "Gdzie jest najbliższy przystanek?",
        "最近的药店在哪里?",
        "lol brb gtg ttyl",
        "----------\nTitle\n----------",
        "Krzysztof Szczepański",
        "",
        "42",
    ],
)
def test_code_names_lists_and_languages_are_no_gibberish(text: str) -> None:
    assert gibberish_reason(text) == ""


def test_repeated_share_counts_trigrams() -> None:
    assert repeated_share("a b c d a b c") == pytest.approx(1 / 5)
    assert repeated_share("a b") == repeated_share("a b c d") == 0
    assert repeated_share("a") == repeated_share("a a") == repeated_share("a a a") == repeated_share("") == 0


def test_language() -> None:
    assert language_of("Where is the nearest station, please?") == "en"
    assert language_of("Wo ist bitte der nächste Bahnhof?") == "de"
    assert language_of("xq") is None
    assert language_of("זהו משפט בעברית שנכתב כדי לבדוק את השפה של הטקסט הזה היום") == "he", "CLD2 has an older code"
    check_languages(("en", "he", "haw"))
    for code, hint in (("eng", "did you mean 'en'?"), ("xx", "write two small letters"), ("zh-Hant", "did you mean 'zh'?")):
        with pytest.raises(ValueError, match=f"'{code}' is no code of a language that is told; {re.escape(hint)}"):
            check_languages(("en", code))


def test_a_text_in_several_languages_is_in_none_and_of_a_long_one_the_beginning_is_read() -> None:
    assert language_of("Quiero saber donde esta mi paquete, por favor. 最近の薬局はどこですか。 Monsieur, je ne peux pas vous aider avec cela.") is None
    assert language_of(WALL * 80 + "Wo ist bitte der n\u00e4chste Bahnhof? " * 400) == "en"


def test_words_do_not_depend_on_whether_an_accent_stands_beside_them() -> None:
    text = " ".join(f"A{chr(code)}b" for code in range(128))
    assert words(f"{text} \u00e9") == [*words(text), "\u00e9"]


def test_long_texts_are_not_kept_in_memory() -> None:
    longest = "a" * 20_000
    assert words_of(longest) is words_of(longest) and words_of(f"{longest}b") is not words_of(f"{longest}b")


LONG = "In which year did the two brothers from the small town by the river open their first shop?"


def test_thirteen_words_in_common_are_contamination() -> None:
    index = BenchmarkIndex([("trivia", ["Who?", LONG]), ("jokes", ["Tell me a joke about boats"])])
    found = index.find(f"Quick: {LONG.upper()} Thanks.")
    assert found is not None and (found.benchmark, found.prompt) == ("trivia", LONG)
    assert len(found.run.split()) == 13
    assert index.find(" ".join(LONG.split()[:12])) is None and index.find(" ".join(LONG.split()[-12:])) is None


@pytest.mark.parametrize("text", [" ".join(LONG.split()[-13:]), f"Well, {' '.join(LONG.split()[-13:])}", f"{' '.join(LONG.split()[:13])} again"])
def test_a_run_counts_at_the_beginning_and_at_the_very_end_of_either_side(text: str) -> None:
    found = BenchmarkIndex([("trivia", [LONG])]).find(text)
    assert found is not None and found.run in " ".join(words(LONG))


def test_an_opening_in_common_hides_no_run_behind_it() -> None:
    found = BenchmarkIndex([("trivia", [LONG])]).find(f"In which year was that? {LONG}")
    assert found is not None and found.run == " ".join(words(LONG)[:13])


def test_a_prompt_that_two_benchmarks_have_is_the_first_ones() -> None:
    index = BenchmarkIndex([("trivia", [LONG]), ("copy", [LONG])])
    found = index.find(LONG)
    assert found is not None and found.benchmark == "trivia" and len(index) == 2


def test_a_shorter_prompt_must_be_met_as_a_whole() -> None:
    index = BenchmarkIndex([("jokes", ["Tell me a joke about boats", "A joke"])])
    found = index.find("tell me a joke about boats!")
    assert found is not None and found.benchmark == "jokes"
    assert index.find("tell me a joke about boats and trains") is None
    assert index.find("me a joke about boats") is None
    assert index.find("A joke") is None


def test_a_prompt_of_four_words_is_a_prompt_and_one_of_three_is_everybodys() -> None:
    index = BenchmarkIndex([("jokes", ["Name three red birds", "Name three birds"])])
    assert index.find("Name three red birds.") is not None and index.find("Name three birds.") is None


def test_prompts_of_a_benchmark_are_read_from_jsonl_and_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "one", "answer": 1}\n\n"two"\n', encoding="utf-8")
    (tmp_path / "b.txt").write_text("three\n\n four \n", encoding="utf-8")
    assert (read_prompts(tmp_path / "a.jsonl"), read_prompts(tmp_path / "b.txt")) == (["one", "two"], ["three", "four"])


@pytest.mark.parametrize(("line", "word"), [("{", "broken JSON"), ('{"a": 1}', "no prompt"), ("[1]", "no prompt")])
def test_a_benchmark_file_that_cannot_be_read_says_where(tmp_path: Path, line: str, word: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'"fine"\n{line}\n', encoding="utf-8")
    with pytest.raises(SourceError, match=rf"a\.jsonl:2.*{word}"):
        read_prompts(tmp_path / "a.jsonl")
    with pytest.raises(SourceError, match="benchmark file"):
        read_prompts(tmp_path / "none.txt")


DETECTORS: list[Callable[[str], object]] = [
    classify,
    gibberish_reason,
    find_pii,
    find_secrets,
    find_injections,
    language_of,
    repeated_share,
    BenchmarkIndex([("b", [LONG])]).find,
    lambda text: measure_leakage(text, text[::-1]),
]


@given(st.text(st.characters(), max_size=200))
def test_no_text_makes_a_detector_raise(text: str) -> None:
    for detect in DETECTORS:
        detect(text)


@pytest.mark.parametrize(
    "piece", ["a", "1", "a@", "1.", "https://", "I can't ", "ignore all ", '"', "eyJ.", "password=", "0:", "- ", "not ", "(0", "the system prompt "]
)
def test_the_same_piece_many_thousand_times_comes_back(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    for detect in DETECTORS:
        detect(text)
