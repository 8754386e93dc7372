"""What an answer's headers say about an endpoint's limits: `Retry-After`, and what OpenAI and Anthropic tell of what is left.

Headers are other people's words: every function takes any text, and gives None for what it cannot make sense of.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_DAY_S = 86_400.0  # a longer wait is a mistake, not a request; daily limits are the longest in use
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|us|µs|ns|h|m|s)")
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_FAMILIES = {  # name of a limit -> how its three headers are called
    "requests": "x-ratelimit-{}-requests",
    "tokens": "x-ratelimit-{}-tokens",
    "project-tokens": "x-ratelimit-{}-project-tokens",
    "anthropic-requests": "anthropic-ratelimit-requests-{}",
    "anthropic-tokens": "anthropic-ratelimit-tokens-{}",
}
_HEADERS = {name: tuple(pattern.format(what) for what in ("limit", "remaining", "reset")) for name, pattern in _FAMILIES.items()}


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of one limit.

    Attributes:
        remaining: Requests or tokens that may still be used.
        reset_s: Seconds until all of `limit` may be used again. OpenAI, Groq and Anthropic refill evenly until then.
        limit: The most that can be left, where the endpoint tells.
    """

    remaining: float
    reset_s: float
    limit: float | None = None

    def part(self, share: float) -> Allowance:
        """What one of several callers may use of it."""
        return self if share == 1 else Allowance(self.remaining * share, self.reset_s, None if self.limit is None else self.limit * share)


def lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers with their names in lower case, as the functions below want them."""
    return {name.lower(): value for name, value in headers.items()}


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that `retry-after-ms` or `Retry-After` (seconds or an HTTP date) asks to wait."""
    in_ms = _number(headers.get("retry-after-ms", ""))
    if in_ms is not None:
        return _sane(in_ms / 1000)
    text = headers.get("retry-after", "")
    seconds = _number(text)
    return _sane(seconds) if seconds is not None else _until(_http_date(text), headers)


def allowances(headers: Mapping[str, str]) -> dict[str, Allowance]:
    """What is left of each limit that the headers tell of, by the limit's name; the names of token limits end in `tokens`."""
    found = {}
    for name, (limit_header, remaining_header, reset_header) in _HEADERS.items():
        if remaining_header not in headers:
            continue
        remaining = _number(headers[remaining_header])
        reset = headers.get(reset_header, "")
        reset_s = _until(_rfc3339(reset), headers) if name.startswith("anthropic") else duration_s(reset)
        if remaining is not None and reset_s is not None:
            limit = _number(headers.get(limit_header, ""))
            found[name] = Allowance(remaining, reset_s, limit if limit and limit >= remaining else None)
    return found


def duration_s(text: str) -> float | None:
    """Seconds in a duration such as `6m0s`, `120ms`, `1h2m3.5s`, or a plain number of seconds."""
    seconds = _number(text)
    if seconds is None:
        parts = _DURATION.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text.strip():
            return None
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    return _sane(seconds)


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text := text.strip()) else None


def _sane(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= _DAY_S else None


def _until(moment: datetime | None, headers: Mapping[str, str]) -> float | None:
    """Seconds to a moment by the endpoint's own clock (its `Date` header), or by ours if it shows none; 0 if it has passed."""
    if moment is None:
        return None
    date = _http_date(headers.get("date", ""))
    return _sane(max(0.0, moment.timestamp() - (date.timestamp() if date else time.time())))


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _rfc3339(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo else None
