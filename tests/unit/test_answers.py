"""What endpoints say beside the text, under the names that they have for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safer_instruct.models.answers import cached_tokens, refuses_content, withheld_by

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize(
    ("reason", "withheld"),
    [
        *((r, "filter") for r in ("content_filter", "SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "RECITATION", "content_filter: PROHIBITED_CONTENT")),
        ("refusal", "refusal"),
        *((r, "") for r in ("stop", "length", "end_turn", "max_tokens", "STOP", "MAX_TOKENS", "tool_calls", "", None)),
    ],
)
def test_a_finish_reason_says_what_held_the_answer_back(reason: str | None, withheld: str) -> None:
    assert withheld_by(reason) == withheld


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "content_filter", "message": "filtered", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},  # Azure
        {"error": {"code": None, "message": "no", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        {"error": {"code": "content_policy_violation", "message": "no"}},  # OpenAI
        {"error": {"code": "invalid_prompt", "message": "Invalid prompt: your prompt was flagged as potentially violating our usage policy."}},
        {"error": {"code": "invalid_request_error", "message": "Content Exists Risk", "type": "invalid_request_error"}},  # DeepSeek
        {"detail": "Content Exists Risk"},
        {"error": {"code": "data_inspection_failed", "message": "no"}},  # Alibaba
        {"error": {"code": 403, "message": "no", "metadata": {"reasons": ["violence"], "flagged_input": "..."}}},  # OpenRouter
        {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 7}},  # Gemini
    ],
)
def test_a_request_that_a_filter_stopped_is_told_from_others(body: Any) -> None:
    assert refuses_content(body)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "invalid_prompt", "message": "messages must not be empty"}},
        {"error": {"code": "invalid_request_error", "message": "Unknown parameter: content_filter"}},
        {"error": {"code": 403, "message": "key has no access", "metadata": {"provider_name": "x"}}},
        {"error": {"message": "flagged"}},
        {"error": "rate limit"},
        {"promptFeedback": {"blockReason": None}},
        {"choices": []},
        {},
        [],
        None,
        "content_filter",
    ],
)
def test_other_errors_are_no_filters(body: Any) -> None:
    assert not refuses_content(body)


@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda i: st.lists(i) | st.dictionaries(st.sampled_from(["error", "code", "innererror", "metadata"]), i)
    )
)
def test_any_body_can_be_looked_at(body: Any) -> None:
    assert refuses_content(body) in (True, False)


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ({"usage": {"prompt_tokens_details": {"cached_tokens": 7}}}, 7),  # OpenAI, vLLM, llama.cpp
        ({"usage": {"prompt_cache_hit_tokens": 7, "prompt_cache_miss_tokens": 3}}, 7),  # DeepSeek
        ({"usage": {"cache_read_input_tokens": 7, "cache_creation_input_tokens": 3}}, 7),  # Anthropic
        ({"usageMetadata": {"cachedContentTokenCount": 7}}, 7),  # Gemini
        ({"timings": {"cache_n": 7, "prompt_n": 3}}, 7),  # llama.cpp
        ({"tokens_cached": 7}, 7),
        ({"usage": {"prompt_tokens_details": {"cached_tokens": 0}}, "timings": {"cache_n": 7}}, 7),
        *((b, 0) for b in ({}, {"usage": None}, {"usage": {"prompt_tokens_details": None}}, {"usage": {"prompt_tokens_details": {"cached_tokens": "7"}}})),
        *((b, 0) for b in ({"timings": {"cache_n": -1}}, {"tokens_cached": True}, {"usage": [7]})),
    ],
)
def test_cached_tokens_are_found_wherever_they_stand(body: Any, count: int) -> None:
    assert cached_tokens(body) == count
