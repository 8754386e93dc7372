"""What endpoints say beside the text, each in words of its own: that a content filter held it back, how much a cache saved."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from safer_instruct.models.protocol import Withheld

_CODES = {  # letters alone, in small
    "contentfilter",  # Azure
    "responsibleaipolicyviolation",  # Azure, inside
    "contentpolicyviolation",  # OpenAI, OpenRouter
    "moderationblocked",  # OpenAI
    "datainspectionfailed",  # Alibaba
    "refusal",  # OpenRouter, of a provider that refuses with an error
}
_WORDS = re.compile(  # OpenAI's reasoning models, DeepSeek, Anthropic: their codes say less
    "prompt was flagged|content exists risk|blocked by content filtering policy", re.I
)
_USUAL = (None, "stop", "length", "end_turn", "max_tokens")
_NOTHING: Mapping[str, Any] = {}
_FILTER_REASONS = {"contentfilter", "safety", "prohibitedcontent", "blocklist", "spii", "recitation"}  # the last five are Gemini's


def withheld_by(finish_reason: str | None) -> Withheld:
    """What held a completion back, by its finish or stop reason; Gemini through OpenRouter writes `content_filter: SAFETY`."""
    if finish_reason in _USUAL:
        return ""
    reason = _letters((finish_reason or "").partition(":")[0])
    return "refusal" if reason == "refusal" else "filter" if reason in _FILTER_REASONS else ""


def refuses_content(body: Any) -> bool:
    """Whether the body of an answer without a completion, an error as a rule, says that a content filter stopped it."""
    if not isinstance(body, Mapping):
        return False
    if _part(body, "promptFeedback").get("blockReason"):
        return True
    error = body.get("error", body)
    if not isinstance(error, Mapping):
        return bool(_WORDS.search(str(error)))
    inner, metadata = _part(error, "innererror"), _part(error, "metadata")
    codes = {_letters(str(code)) for code in (error.get("code"), error.get("type"), inner.get("code"), metadata.get("error_type"))}
    said = f"{error.get('message', '')} {error.get('detail', '')}"
    return bool(codes & _CODES or "flagged_input" in metadata or _WORDS.search(said))


def cached_tokens(body: Mapping[str, Any]) -> int:
    """How many tokens of the prompt the server had in its prefix cache; 0 where it does not tell."""
    usage, timings, gemini = _part(body, "usage"), _part(body, "timings"), _part(body, "usageMetadata")
    told = (
        _part(usage, "prompt_tokens_details").get("cached_tokens"),  # OpenAI, llama.cpp, vLLM with --enable-prompt-tokens-details
        usage.get("prompt_cache_hit_tokens"),  # DeepSeek
        usage.get("cache_read_input_tokens"),  # Anthropic
        gemini.get("cachedContentTokenCount"),
        timings.get("cache_n"),  # older llama.cpp
        body.get("tokens_cached"),  # its own endpoint
    )
    for count in told:
        if type(count) is int and count > 0:  # True is none
            return count
    return 0


def _part(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = body.get(name)
    return part if isinstance(part, dict) else _NOTHING


def _letters(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalpha())
