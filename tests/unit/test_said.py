"""What of a model's answer is what it says: without the reasoning of a model that thinks aloud, and without NUL."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from safer_instruct.errors import AnswerError
from safer_instruct.ledger import Ledger, Meter, Recorded
from safer_instruct.models.protocol import Completion, Generated, Generation, Sampling, Turn, Usage
from safer_instruct.models.said import is_unended, reasoning_mark, said, why_unfinished, without_reasoning
from safer_instruct.models.structured import object_schema, parse
from safer_instruct.reverse import before_heading

REQUEST = Generation((Turn("user", "Ask."),), Sampling(), 3)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>hmm the user wants</think>Where is my parcel?", "Where is my parcel?"),
        ("\n<think>\n\n</think>\n\nWhere is my parcel?", "Where is my parcel?"),
        ("<Thinking>one</Thinking> <reasoning>two</reasoning>\nThree.", "Three."),
        ("hmm the user wants\n</think>\n\nWhere is my parcel?", "Where is my parcel?"),
        ("hmm</think>Where?", "Where?"),
        ("hmm </think>", ""),
        ("<think>all of it</think>", ""),
        ("The tag `</think>` ends it.", "The tag `</think>` ends it."),
        ("Write </think> to end it.", "Write </think> to end it."),
        ("Write <think> and\n</think>\nround it.", "Write <think> and\n</think>\nround it."),
        ("Say <think>this</think>.", "Say <think>this</think>."),
        ("  Where?\n", "  Where?\n"),
    ],
)
def test_reasoning_at_the_beginning_is_no_part_of_what_is_said(text: str, answer: str) -> None:
    assert without_reasoning(text) == answer
    assert bool(reasoning_mark(text)) == (text != answer)


def test_reasoning_without_an_end_is_an_answer_that_was_cut() -> None:
    cut = said(Generated((Completion("<think>hmm the user ## wants", -0.5, True, 5),))).completions[0]
    assert (cut.finished, cut.text, cut.logprob) == (False, "<think>hmm the user ## wants", None) and is_unended(cut.text)
    assert why_unfinished(cut.text, "respond.max_tokens").startswith("is reasoning without an end (<think>), and no answer; raise respond.max_tokens")
    assert why_unfinished("a cut", "respond.max_tokens") == "was cut at the token limit (respond.max_tokens)"
    assert before_heading(Completion("<think>hmm\n## more", finished=False)).finished is False
    with pytest.raises(AnswerError, match="reasoning without an end"):
        parse('<think>I might say {"answer": "yes"}', object_schema("a", answer={"type": "string"}))


def test_what_is_known_of_likelihood_is_not_that_of_the_answer_alone() -> None:
    answer = Generated((Completion("<think>a</think>b", -0.5, True, 5), Completion("b", -0.5, True, 5)), Usage(3, 4))
    assert said(answer) == Generated((Completion("b"), Completion("b", -0.5, True, 5)), Usage(3, 4))


@pytest.mark.parametrize(
    ("text", "kept"),
    [("a\0b", "ab"), ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"), ("a\tb\r\nc", "a\tb\r\nc")],
)
def test_nul_is_no_part_of_what_is_said_and_other_codes_are_shown_as_of_a_source_text(text: str, kept: str) -> None:
    assert said(Generated((Completion(text),))).completions[0].text == kept


def test_an_answer_that_says_nothing_else_and_one_that_was_withheld_stay_as_they_are() -> None:
    for plain in (Generated((Completion("Where?\n", -0.5, True, 5),)), Generated((Completion("<think>no", withheld="filter"),))):
        assert said(plain) is plain


def test_the_ledger_keeps_the_answer_as_it_came_and_gives_the_same_each_time(tmp_path: Path) -> None:
    raw = Generated((Completion("<think>hmm</think>Where?"),), Usage(11, 5))

    class Thinking:
        name, fingerprint, concurrency, priced, status, asked = "fixed:m", "fixed", 1, True, "", 0

        async def generate(self, request: Generation) -> Generated:
            self.asked += 1
            return raw

    model = Thinking()

    async def ask(ledger: Ledger, plain: bool) -> Generated:
        read = (lambda answer: answer) if plain else said
        return await Recorded(model, ledger, "induce", Meter(), read=read).generate(REQUEST)  # type: ignore[arg-type]

    async def thrice(ledger: Ledger) -> list[Generated]:
        return [await ask(ledger, plain) for plain in (False, False, True)]

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        fresh, replayed, kept = asyncio.run(thrice(ledger))
    assert fresh == replayed == said(raw) and fresh.completions[0].text == "Where?"
    assert kept == raw and model.asked == 1


def test_a_long_answer_of_many_marks_takes_no_longer_than_it_must() -> None:
    assert without_reasoning("<think></think>" * 50_000 + "a") == "a"
    assert without_reasoning("</think> a " * 50_000) == "</think> a " * 50_000
