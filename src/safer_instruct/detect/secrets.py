"""Credentials in a text: keys of known shape, private keys, tokens, and values that are assigned to names like `password`."""

from __future__ import annotations

import base64
import json
import math
import re
from collections import Counter
from collections.abc import Callable

from safer_instruct.detect.spans import Span, apart

_MIN_ENTROPY_BITS = 3.0  # per character, of a value that is told by its name alone
_PLACEHOLDER = re.compile(
    r"your|example|placeholder|changeme|xxxx|\.\.\.|<|\*\*|dummy|insert|todo|12345678|password|secret|token|env|getenv|none|null|abcdef", re.I
)


def _anything(_: str) -> bool:
    return True


def _is_jwt(token: str) -> bool:
    try:  # it begins with {"; padding beyond what is lacking is passed over
        return "alg" in json.loads(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))
    except ValueError:
        return False


def _looks_random(value: str) -> bool:
    mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    return mixed and not _PLACEHOLDER.search(value) and _entropy_bits(value) >= _MIN_ENTROPY_BITS


def _entropy_bits(value: str) -> float:
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


# kind: pattern (a group, where it has one, is the secret), and what its match must be besides
_SHAPES: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "private_key": (re.compile(r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----"), _anything),
    "jwt": (re.compile(r"\beyJ[\w-]{8,4000}\.[\w-]{8,8000}\.[\w-]{8,2000}"), _is_jwt),
    "aws_key": (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), lambda key: not key.endswith("EXAMPLE")),
    "github_token": (re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{60,90})\b"), _anything),
    "gitlab_token": (re.compile(r"\bglpat-[\w-]{20,}"), _anything),
    "slack_token": (re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,200}"), _anything),
    "google_key": (re.compile(r"\bAIza[\w-]{35}"), _anything),
    "openai_key": (re.compile(r"\bsk-(?:proj-|ant-|or-)?[A-Za-z0-9_-]{20,200}"), _looks_random),
    "stripe_key": (re.compile(r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,100}"), _anything),
    "huggingface_token": (re.compile(r"\bhf_[A-Za-z0-9]{30,40}\b"), _anything),
    "npm_token": (re.compile(r"\bnpm_[A-Za-z0-9]{36}\b"), _anything),
    "sendgrid_key": (re.compile(r"\bSG\.[\w-]{22}\.[\w-]{43}"), _anything),
    "url_password": (re.compile(r"\b[a-z][a-z0-9+]{1,15}://[^\s:/@]{1,60}:([^\s:/@]{4,100})@"), lambda value: not _PLACEHOLDER.search(value)),
    "bearer": (re.compile(r"\bBearer ([A-Za-z0-9._~+/-]{20,500}=*)"), _looks_random),
    "assigned": (
        re.compile(
            r"\b(?:\w{0,40}[_-])?(?:api[_-]?key|secret(?:[_-]?key)?|access[_-]?key|auth[_-]?token|access[_-]?token|token|passwd|password"
            r"|pwd)[\"']?\s{0,4}[:=]{1,2}\s{0,4}[\"']?([^\s\"',;]{8,200})",
            re.I,
        ),
        _looks_random,
    ),
}
# One look tells nearly every text that it holds nothing of the above.
_MARKS = (
    "-----BEGIN",
    "eyJ",
    "AKIA",
    "ASIA",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xox",
    "AIza",
    "sk-",
    "k_live_",
    "k_test_",
    "hf_",
    "npm_",
    "SG.",
    "://",
    "Bearer ",
)
_NAMED = re.compile(r"(?:key|secret|token|passwd|password|pwd)[\"']?\s{0,4}[:=]", re.I)
_UNDASHED_MARKS = tuple(mark for mark in _MARKS if "-" not in mark and "_" not in mark)


def _holds_mark(text: str) -> bool:
    return any(mark in text for mark in (_MARKS if "-" in text or "_" in text else _UNDASHED_MARKS))


def find_secrets(text: str) -> list[Span]:
    """Credentials in `text`, in order, none overlapping another. Placeholders like `your-api-key` are left alone."""
    if not _holds_mark(text) and not ((":" in text or "=" in text) and _NAMED.search(text)):
        return []
    spans: list[Span] = []
    for kind, (pattern, accept) in _SHAPES.items():
        for found in pattern.finditer(text):
            group = 1 if pattern.groups else 0
            if accept(found.group(group)):
                spans.append(Span(kind, *found.span(group)))
    return apart(spans)
