"""The body of a request for a message, by what its model takes, and what is read of an answer."""

from __future__ import annotations

from typing import Any

import pytest

from safer_instruct.models.messages import THINKING_TOKENS, message_body, read_message, single
from safer_instruct.models.parsing import MalformedError
from safer_instruct.models.protocol import Completion, Generation, Sampling, Turn
from safer_instruct.models.spending import Tokens
from safer_instruct.models.structured import object_schema

SAMPLING = Sampling(max_tokens=7, temperature=0.3, top_k=11, repetition_penalty=1.2, n=3)
OLD = ["claude-3-5-haiku-20241022", "claude-sonnet-4-20250514", "claude-opus-4-1", "claude-sonnet-4-5-20250929", "claude-opus-4-6", "claude-haiku-4-5"]


def body(model: str, prompt: Any = "Hello", sampling: Sampling = SAMPLING) -> dict[str, Any]:
    return message_body(model, single(model, Generation(prompt, sampling, seed=5)))


def message(**fields: Any) -> dict[str, Any]:
    usage = {"input_tokens": 3, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 500, "output_tokens": 6}
    answer = {"type": "message", "content": [{"type": "text", "text": "Good day."}], "stop_reason": "end_turn", "usage": usage}
    return answer | fields


@pytest.mark.parametrize("model", [*OLD, "qwen3-8b", "MiniMax-M4"])
def test_a_model_that_samples_is_told_how(model: str) -> None:
    assert body(model) == {"model": model, "max_tokens": 7, "temperature": 0.3, "top_k": 11, "messages": [{"role": "user", "content": "Hello"}]}
    assert body(model, sampling=Sampling(temperature=1.7, top_k=0)).items() >= {"temperature": 1.0}.items()
    assert "top_k" not in body(model, sampling=Sampling(top_k=0))


@pytest.mark.parametrize(
    ("model", "manner"),
    [
        ("claude-opus-4-7", {"max_tokens": 7}),
        ("claude-opus-4-7-20260416", {"max_tokens": 7}),
        ("claude-opus-4-8", {"max_tokens": 7}),
        ("claude-opus-5", {"max_tokens": 7, "thinking": {"type": "disabled"}}),
        ("claude-sonnet-5", {"max_tokens": 7, "thinking": {"type": "disabled"}}),
        ("claude-haiku-5-5", {"max_tokens": 7, "thinking": {"type": "disabled"}}),
        ("claude-sonnet-5-5", {"max_tokens": 7, "thinking": {"type": "between_tools"}}),
        *((m, {"max_tokens": 7 + THINKING_TOKENS, "output_config": {"effort": "low"}}) for m in ("claude-opus-5-5", "claude-fable-5-2", "claude-epic-9")),
    ],
)
def test_a_newer_model_is_not_sent_what_it_refuses_and_thinks_as_little_as_it_can(model: str, manner: dict[str, Any]) -> None:
    assert body(model) == {"model": model, "messages": [{"role": "user", "content": "Hello"}]} | manner


def test_system_turns_stand_apart_and_long_ones_are_marked_for_the_cache() -> None:
    chat = (Turn("system", "Be kind."), Turn("user", "a"), Turn("assistant", "b"), Turn("system", "Be brief."), Turn("user", "c"))
    short = body("m", chat)
    assert short["system"] == "Be kind.\n\nBe brief."
    assert [(m["role"], m["content"]) for m in short["messages"]] == [("user", "a"), ("assistant", "b"), ("user", "c")]
    long = body("m", (Turn("system", "Be kind. " * 100), Turn("user", "a")))
    assert long["system"] == [{"type": "text", "text": "Be kind. " * 100, "cache_control": {"type": "ephemeral"}}]
    assert "system" not in body("m")


def test_the_tokens_of_the_cache_are_part_of_those_read() -> None:
    assert read_message(message()) == (Completion("Good day."), Tokens(543, 6, 40, 500))
    assert read_message(message(usage=None)) == (Completion("Good day."), None)


@pytest.mark.parametrize(
    ("fields", "completion"),
    [
        ({"stop_reason": "max_tokens"}, Completion("Good day.", finished=False)),
        ({"stop_reason": "model_context_window_exceeded"}, Completion("Good day.", finished=False)),
        ({"stop_reason": "refusal"}, Completion("Good day.", withheld="refusal")),
        ({"content": []}, Completion("")),
        ({"content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, Completion("ab")),
        ({"content": [{"type": "text", "text": "\ud83d"}]}, Completion("\ufffd")),
    ],
)
def test_only_what_was_written_for_the_reader_is_the_completion(fields: dict[str, Any], completion: Completion) -> None:
    assert read_message(message(**fields))[0] == completion


@pytest.mark.parametrize("data", [{}, message(content=None), message(content=[{"text": "no type"}]), {"error": {"message": "overloaded"}}])
def test_anything_else_is_malformed(data: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        read_message(data)


def test_a_schema_is_sent_to_the_models_that_keep_to_one() -> None:
    schema = object_schema("verdict", answer={"type": "boolean"})
    request = Generation("Hello", SAMPLING, schema=schema)
    held = {"format": {"type": "json_schema", "schema": schema.definition}}
    assert message_body("claude-haiku-4-5", request)["output_config"] == held
    assert message_body("claude-opus-5-5", request)["output_config"] == {"effort": "low"} | held
    for model in ("claude-3-5-haiku-20241022", "claude-sonnet-4-20250514", "claude-opus-4-1", "qwen3-8b"):
        assert "output_config" not in message_body(model, request)
