"""Verb and object of an instruction, by rules of word order."""

from __future__ import annotations

import pytest

from safer_instruct.analysis.verbnoun import structure, verb_and_object


@pytest.mark.parametrize(
    ("text", "verb", "noun"),
    [
        ("Write a short story about a dragon.", "write", "story"),
        ("Please summarize the following articles.", "summarize", "article"),
        ("Could you please give me a list of books?", "give", "list"),
        ("How do I bake a chocolate cake?", "bake", "cake"),
        ("How can I reset my password?", "reset", "password"),
        ("I'd like you to translate this sentence into French.", "translate", "sentence"),
        ("I have lost my library card and I want a third one. Can you help?", "lose", "card"),
        ("Hello. My gate broke. When will you send the engineer's report?", "send", "report"),
        ("What do I need to bring?  I need to buy a ticket.", "buy", "ticket"),
        ("What is the capital of France?", "be", "capital"),
        ("Do you charge children for entry?", "charge", "children"),
        ("Explain why the sky is blue.", "explain", ""),
        ("Quickly sort these numbers.", "sort", "number"),
        ("The soup was lukewarm.", "", ""),
        ("", "", ""),
        ("你好", "", ""),
    ],
)
def test_the_verb_that_a_text_turns_on_and_its_object(text: str, verb: str, noun: str) -> None:
    assert verb_and_object(text) == (verb, noun)


@pytest.mark.parametrize(
    ("many", "one"),
    [
        ("tomatoes heroes echoes", "tomato hero echo"),
        ("shoes toes canoes horseshoes", "shoe toe canoe horseshoe"),
        ("leaves loaves bookshelves wolves halves", "leaf loaf bookshelf wolf half"),
        ("knives housewives lives", "knife housewife life"),
        ("gloves olives sleeves valves grooves archives stoves", "glove olive sleeve valve groove archive stove"),
    ],
)
def test_nouns_in_oes_and_ves_stand_in_the_singular(many: str, one: str) -> None:
    assert [verb_and_object(f"Draw the {noun}.") for noun in many.split()] == [("draw", noun) for noun in one.split()]


def test_the_commonest_come_first_with_their_objects() -> None:
    found = structure(["Write a poem."] * 3 + ["Write an essay."] + ["Sort the list."] * 2 + ["Hm."] * 2)
    assert found.top(verbs=2, objects=1) == [("write", 4, [("poem", 3)]), ("sort", 2, [("list", 2)])]
    assert found.texts == 8 and found.coverage == pytest.approx(6 / 8)


def test_no_text_takes_long() -> None:
    """Hostile lengths and repetitions: the beginning is read, whatever follows."""
    assert verb_and_object("please " * 100_000) == ("", "")
    assert verb_and_object("write " + "a" * 500_000)[0] == "write"
