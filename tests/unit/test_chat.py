"""The body of a request in OpenAI's language, by who is asked, and what is read of an answer."""

from __future__ import annotations

from typing import Any

import pytest

from safer_instruct.models.chat import completion_body, dialect_of, read_answer
from safer_instruct.models.parsing import FilteredError, MalformedError
from safer_instruct.models.protocol import Completion, Generation, Sampling, Turn
from safer_instruct.models.spending import Tokens

CHAT = (Turn("user", "Hello"),)
SAMPLING = Sampling(max_tokens=7, temperature=0.3, top_k=11, repetition_penalty=1.2, n=2)
COMMON = {"model", "messages", "temperature"}


@pytest.mark.parametrize(
    ("provider", "host", "fields"),
    [
        ("openai", "api.openai.com", {"max_completion_tokens", "n", "seed"}),
        ("openai", "127.0.0.1", {"max_tokens", "n", "seed", "top_k", "repetition_penalty"}),
        ("gemini", "generativelanguage.googleapis.com", {"max_tokens", "n", "seed"}),
        ("mistral", "api.mistral.ai", {"max_tokens", "random_seed"}),
    ],
)
def test_nobody_gets_a_field_that_they_do_not_know(provider: str, host: str, fields: set[str]) -> None:
    assert completion_body("m", Generation(CHAT, SAMPLING), dialect_of(provider, host)).keys() == COMMON | fields


def test_a_raw_prompt_has_the_old_name_of_the_cap_everywhere() -> None:
    assert completion_body("m", Generation("Hello", SAMPLING), dialect_of("openai", "api.openai.com")).items() >= {"prompt": "Hello", "max_tokens": 7}.items()


def answer(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": "Good day."}} | fields], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}


@pytest.mark.parametrize(
    ("fields", "completion"),
    [
        ({}, Completion("Good day.")),
        ({"finish_reason": "length"}, Completion("Good day.", finished=False)),
        ({"finish_reason": "content_filter"}, Completion("Good day.", withheld="filter")),
        ({"message": {"content": None, "refusal": "No."}}, Completion("No.", withheld="refusal")),
        ({"message": {"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Good"}]}}, Completion("Good")),
        ({"message": {"content": "\ud83d"}}, Completion("\ufffd")),
        ({"logprobs": {"content": [{"logprob": -1.0}, {"logprob": -3.0}]}}, Completion("Good day.", -2.0, tokens=2)),
    ],
)
def test_a_choice_is_a_completion(fields: dict[str, Any], completion: Completion) -> None:
    read, tokens = read_answer(answer(**fields), 1)
    assert (read.completions, tokens) == ([completion], Tokens(5, 3))


def test_no_choices_are_a_filters_work_or_no_answer() -> None:
    with pytest.raises(FilteredError):
        read_answer({"choices": [], "promptFeedback": {"blockReason": "SAFETY"}})
    for n in (None, 1):
        with pytest.raises(MalformedError):
            read_answer({"choices": []}, n)


@pytest.mark.parametrize(
    ("prompt", "asked", "logprobs"),
    [
        (
            CHAT,
            {"logprobs": True, "top_logprobs": 20},
            {"content": [{"logprob": -0.1, "top_logprobs": [{"token": " No", "logprob": -2.4}, {"token": "Yes", "logprob": -0.1}]}]},
        ),
        ("Hello", {"logprobs": 20}, {"tokens": ["Yes"], "token_logprobs": [-0.1], "top_logprobs": [{" No": -2.4, "Yes": -0.1}]}),
    ],
)
def test_the_likeliest_first_tokens_are_asked_for_and_read(prompt: Any, asked: dict[str, Any], logprobs: dict[str, Any]) -> None:
    request = Generation(prompt, Sampling(1, 0.0, 0), alternatives=20)
    assert completion_body("m", request, dialect_of("openai", "127.0.0.1"), want_logprobs=True).items() >= asked.items()
    read, _ = read_answer(answer(logprobs=logprobs), 1)
    assert read.with_alternatives[0].alternatives == (("Yes", -0.1), (" No", -2.4)) and read.completions[0].alternatives == ()


def test_an_endpoint_that_tells_no_alternatives_is_read_all_the_same() -> None:
    assert read_answer(answer(), 1)[0].with_alternatives == [Completion("Good day.")]
