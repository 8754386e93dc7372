"""When a reader of refusals is asked, and how much it counts."""

from __future__ import annotations

import pytest

from safer_instruct.detect.refusal import RefusalClass, classify, shares
from safer_instruct.detect.wording import shipped

CLEAR = "I'm sorry, but I can't help with that."
UNCLEAR = "That is between her and her alarm."


class Says:
    """A reader that is sure of one class, and remembers what it was asked."""

    def __init__(self, label: RefusalClass, share: float = 1.0) -> None:
        self.shares: dict[RefusalClass, float] = dict.fromkeys(("refusal", "partial", "compliance"), (1 - share) / 2)
        self.shares[label] = share
        self.asked: list[tuple[str, str]] = []

    def __call__(self, answer: str, prompt: str) -> dict[RefusalClass, float]:
        self.asked.append((answer, prompt))
        return self.shares


def test_what_the_words_tell_clearly_is_not_read() -> None:
    reader = Says("compliance")
    assert classify(CLEAR, "Write it.", reader) == classify(CLEAR, "Write it.")
    assert reader.asked == []


def test_what_they_do_not_is_read_with_its_prompt_and_the_reader_counts_as_much_as_they_do() -> None:
    reader = Says("refusal", 0.8)
    by_words = shares(UNCLEAR, shipped(), "Why was she late?")
    assert max(by_words.values()) < 0.9
    found = classify(UNCLEAR, "Why was she late?", reader)
    assert reader.asked == [(UNCLEAR, "Why was she late?")]
    assert found.label == "refusal"
    assert found.confidence == pytest.approx((by_words["refusal"] + 0.8) / 2, abs=1e-4)
    assert found.span == "that is between her and her alarm."


@pytest.mark.parametrize("label", ["refusal", "partial", "compliance"])
def test_a_reader_that_is_not_sure_leaves_the_words_their_say(label: RefusalClass) -> None:
    thirds = Says(label, 1 / 3)
    assert classify(UNCLEAR, "", thirds).label == classify(UNCLEAR).label
    assert len(thirds.asked) == 1
