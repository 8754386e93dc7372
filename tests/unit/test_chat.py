"""The body of a request in OpenAI's language, by who is asked, and what is read of an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from safer_instruct.models.chat import completion_body, dialect_of, read_answer, read_completions
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


PLAIN = {  # an answer, by its parts: what a server may write there, the usual first
    ("choices", 0, "message", "content"): ["Good day.", "", None, "\ud83d", 7, [{"type": "text", "text": "Good"}]],
    ("choices", 0, "message", "refusal"): [None, "No.", 3],
    ("choices", 0, "message"): [{}, None, "Good day."],
    ("choices", 0, "finish_reason"): ["stop", "length", "content_filter", None, 1],
    ("choices", 0, "logprobs"): [None, {"content": [{"logprob": -1.5}]}, {}, "none"],
    ("choices", 0, "index"): [0, 1, "0", "a", None, True],
    ("choices", 0, "text"): [None, "Good day.", 5],
    ("choices", 0): [{}, None],
    ("choices",): [[], None, {}],
    ("usage", "prompt_tokens"): [5, 0, None, "5", 5.0, 5.5, True],
    ("usage", "completion_tokens"): [3, None, "x"],
    ("usage", "prompt_tokens_details"): [{"cached_tokens": 4}, {"cached_tokens": 400}, None],
    ("usage",): [{}, None, []],
}


def with_part(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Good day.", "refusal": None}, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3},
    }
    part: Any = usual
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    return usual


def reading(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (MalformedError, FilteredError) as exc:
        return repr(exc)


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in PLAIN.items() for value in values])
def test_the_quick_reading_of_an_answer_says_what_the_full_one_does(path: tuple[str | int, ...], value: Any) -> None:
    data = with_part(path, value)

    def in_full() -> Any:
        answer, tokens = read_answer(data, 1)
        return answer.completions, tokens

    assert reading(lambda: read_completions(data, 1)) == reading(in_full)


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
