"""The same text once, the same instruction once: the first as they come, or the best once all are there; nothing else is touched or counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from safer_instruct.barrier import Spool, at_once
from safer_instruct.config import FilterConfig, RunConfig
from safer_instruct.distinct import distinct, memories
from safer_instruct.example import Candidate, Example, Turn, Verdict
from safer_instruct.filters.dedup import Deduplicators
from safer_instruct.state import StageState

WRONG = Verdict("text.words", False, 1, "too short")
ASKED = "please tell me how long the parcel to the island takes"


def example(id_: str, text: str, **fields: Any) -> Example:
    return Example(id_, text, "a", "f", 1, **fields)


def asked(id_: str, prompt: str, logprob: float | None, **fields: Any) -> Example:
    return example(id_, f"text of {id_}", prompt=prompt, candidates=(Candidate("another", 0.0), Candidate(prompt, logprob)), **fields)


async def stream(examples: list[Example]) -> AsyncGenerator[Example, None]:
    for one in examples:
        yield one


def sifted(examples: list[Example], field: str, stage: StageState | None = None, **config: Any) -> dict[str, str]:
    """What drops each, '' for those that stay; in order."""

    async def collected() -> list[Example]:
        with ExitStack() as stack:
            seen = {name: stack.enter_context(closing(Deduplicators(name, 0.8, by_category=False))) for name in ("text", "prompt")}
            return [one async for one in distinct(stream(examples), field, FilterConfig(**config), seen, stage or StageState())]

    return {one.id: one.dropped_by.name if one.dropped_by else "" for one in asyncio.run(collected())}


@pytest.mark.parametrize("keep", ["first", "best"])
def test_of_equal_texts_one_stays_and_the_others_are_counted_as_dropped(keep: str) -> None:
    stage = StageState()
    texts = [example("a", "the parcel was late again"), example("b", "the parcel was late again"), example("c", "nobody answers the telephone")]
    assert sifted(texts, "text", stage, keep=keep) == {"a": "", "b": "dedup.text", "c": ""}
    assert (stage.done, stage.dropped) == (3, 1)


def test_without_near_duplicates_only_equal_texts_are_duplicates() -> None:
    like = [
        example("a", "the parcel was late again and again"),
        example("b", "the parcel was late again and again today"),
        example("c", "The parcel was late again and again."),
    ]
    assert sifted(like, "text", keep="best", near_duplicate=None) == {"a": "", "b": "", "c": "dedup.text"}
    assert list(sifted(like, "text", keep="best", near_duplicate=0.6).values()).count("") == 1


@pytest.mark.parametrize("keep", ["first", "best"])
def test_what_was_dropped_before_stays_dropped_for_that_and_holds_no_place(keep: str) -> None:
    stage = StageState()
    texts = [example("a", "the parcel was late again", verdicts=(WRONG,)), example("b", "the parcel was late again")]
    assert sifted(texts, "text", stage, keep=keep) == {"a": "text.words", "b": ""}
    assert (stage.done, stage.dropped) == (2, 0), "what dropped it counted it"


def test_the_longest_of_like_texts_is_the_best() -> None:
    short = "the parcel that you sent to me was late again and nobody at your office could tell me why it took so long to come here"
    texts = [example("a", short), example("b", f"{short} today")]
    assert sifted(texts, "text", keep="best") == {"a": "dedup.text", "b": ""}
    assert sifted(texts, "text", keep="first") == {"a": "", "b": "dedup.text"}


def test_the_likeliest_of_equal_instructions_is_the_best_and_one_that_was_given_the_last() -> None:
    found = sifted([asked("a", ASKED, -2.0), asked("b", ASKED, -1.0), asked("c", ASKED, None)], "prompt", keep="best")
    assert found == {"a": "dedup.prompt", "b": "", "c": "dedup.prompt"}
    assert sifted([asked("a", ASKED, None), asked("b", ASKED, -9.0)], "prompt", keep="best") == {"a": "dedup.prompt", "b": ""}


@pytest.mark.parametrize("keep", ["first", "best"])
def test_an_instruction_after_another_history_is_another_one_and_a_text_is_not(keep: str) -> None:
    histories = [(Turn("user", "my lamp is broken"),), (Turn("user", "which paint dries by the evening?"),)]
    both = [asked(name, ASKED, -1.0, history=history) for name, history in zip("ab", histories, strict=True)]
    assert sifted(both, "prompt", keep=keep) == {"a": "", "b": ""}
    texts = [example(name, "the parcel was late again", history=history) for name, history in zip("ab", histories, strict=True)]
    assert sifted(texts, "text", keep=keep) == {"a": "", "b": "dedup.text"}


def test_instructions_are_not_counted_as_texts_that_were_seen() -> None:
    stage = StageState()
    sifted([asked("a", ASKED, -1.0), asked("b", ASKED, -1.0)], "prompt", stage)
    assert (stage.done, stage.dropped) == (0, 1)


def test_with_a_target_by_category_only_texts_are_compared_across_categories() -> None:
    def repeated(target: Any) -> dict[str, bool]:
        config = RunConfig.model_validate(
            {"domain": "civility", "source": {"path": "t.jsonl"}, "models": {"inducer": "embedded", "expert": "embedded"}, "target": target}
        )
        found = {}
        for name, seen in memories(config).items():
            seen.check(ASKED, "1", "a")
            found[name] = not seen.check(ASKED, "2", "b").passed
        return found

    assert repeated(None) == repeated(5) == {"text": True, "prompt": True, "response": True}
    assert repeated({"a": 5, "b": 5}) == {"text": True, "prompt": False, "response": False}


def test_what_waits_on_disk_comes_back_in_order_to_several_readers_while_more_is_written() -> None:
    spool = Spool[int]()
    for number in range(3):
        spool.append(number)
    first, second = iter(spool), iter(spool)
    assert [next(first), next(second), next(first)] == [0, 0, 1]
    spool.append(3)
    assert list(first) == [2, 3] and list(second) == [1, 2, 3] and list(spool) == [0, 1, 2, 3]
    spool.close()
    with pytest.raises(ValueError, match="closed"):
        spool.append(4)


def test_the_living_are_judged_together_and_each_gets_its_own_verdicts() -> None:
    asked_for: list[list[str]] = []

    def judge(rows: list[str]) -> list[list[Verdict]]:
        asked_for.append(rows)
        return [[Verdict(f"seen.{row}", True), Verdict("odd", row != "c")] for row in rows]

    async def judged() -> list[Example]:
        examples = [example("a", "a"), example("b", "b", verdicts=(WRONG,)), example("c", "c")]
        return [one async for one in at_once(stream(examples), lambda one: one.text, judge)]

    a, b, c = asyncio.run(judged())
    assert asked_for == [["a", "c"]]
    assert [v.name for v in a.verdicts] == ["seen.a", "odd"] and a.alive
    assert b.verdicts == (WRONG,)
    assert [v.name for v in c.verdicts] == ["seen.c", "odd"] and not c.alive
