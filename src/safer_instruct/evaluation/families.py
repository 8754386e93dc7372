"""Which family a model belongs to, told from its name: a judge likes what its own relatives write (Panickssery et al. 2024)."""

from __future__ import annotations

import re

# The first pattern that is found in the name decides. Derivatives are told by the base that their name keeps: hence the order.
_FAMILIES = (
    ("Claude", r"claude|anthropic"),
    ("Gemini and Gemma", r"gemini|gemma|palm|bison"),
    ("Qwen", r"qwen|qwq"),
    ("DeepSeek", r"deepseek"),
    ("Mistral", r"mistral|mixtral|ministral|magistral|codestral|zephyr"),
    ("SmolLM", r"smollm"),
    ("Phi", r"\bphi\b|phi-?\d"),
    ("Grok", r"\bgrok"),
    ("Command", r"command-?[ra]|cohere|\baya\b"),
    ("OLMo", r"olmo|tulu"),
    ("Yi", r"\byi-?\d"),
    ("GLM", r"\bglm|chatglm"),
    ("Kimi", r"kimi|moonshot"),
    ("Falcon", r"falcon"),
    ("Llama", r"llama|alpaca|vicuna|nemotron"),
    ("GPT", r"\bgpt|chatgpt|\bo[1345](?:-|\b)|davinci"),
)


def family_of(model: str) -> str:
    """The family of a model string `provider:name`; empty where its name tells none.

    A heuristic: a name of one's own (`served:weights/final`) tells nothing, and a model distilled from another family's answers
    keeps its base's name.
    """
    name = model.partition(":")[2].lower() or model.lower()
    return next((family for family, pattern in _FAMILIES if re.search(pattern, name)), "")
