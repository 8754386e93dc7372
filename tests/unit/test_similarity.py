"""chrF and ROUGE-L agree with sacrebleu 2.6 and rouge-score 0.1.2, whose values stand here; the rest is counted by hand."""

from __future__ import annotations

import pytest

from safer_instruct.analysis.similarity import chrf, copied_share, distinct, rouge_l

REFERENCE = [  # hypothesis, reference, sacrebleu's sentence chrF2, rouge-score's rougeL F1
    ("The cat sat on the mat.", "The cat is on the mat.", 67.172735, 0.833333),
    ("How do I bake bread?", "Give me a recipe for sourdough bread.", 12.992122, 0.166667),
    ("abc", "abc", 100.0, 1.0),
    ("a", "b", 0.0, 0.0),
    ("hi", "hi there friend", 14.396887, 0.5),
    ("Can I get a refund for my kettle?", "Where is the kettle that I ordered?", 20.828117, 0.133333),
    ("", "x", 0.0, 0.0),
    ("ab", "abcdefg", 26.760563, 0.0),
]


@pytest.mark.parametrize(("hypothesis", "reference", "expected_chrf", "expected_rouge"), REFERENCE)
def test_similarity_is_that_of_the_usual_tools(hypothesis: str, reference: str, expected_chrf: float, expected_rouge: float) -> None:
    assert chrf(hypothesis, reference) == pytest.approx(expected_chrf, abs=1e-5)
    assert rouge_l(hypothesis, reference) == pytest.approx(expected_rouge, abs=1e-5)


def test_copied_words_are_those_in_runs_of_three() -> None:
    source = "We glued the blue vase, and you dropped it again."
    assert copied_share("Did you say we glued the blue vase yesterday", source) == pytest.approx(5 / 9)
    assert copied_share("The blue one, and you?", source) == 0.0, "runs of two are no copying"
    assert copied_share(source, source) == 1.0
    assert copied_share("", source) == 0.0


def test_distinct_counts_different_runs_over_all() -> None:
    assert distinct(["a b a b", "a b"], 1) == pytest.approx(2 / 6)
    assert distinct(["a b a b", "a b"], 2) == pytest.approx(2 / 4)
    assert distinct(["a", ""], 2) == 0.0
