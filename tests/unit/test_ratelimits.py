"""What headers say of limits, in the forms that endpoints use, and in those that nobody should."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safer_instruct.models.ratelimits import Allowance, allowances, duration_s, lowered, retry_after_s

DATE = "Mon, 23 Nov 2026 12:00:00 GMT"
HOSTILE = ["", " ", "soon", "-1", "-0.5", "nan", "inf", "-inf", "1e9", "1_000", "0x10", "٣", "9" * 400, "86401", "1 2", "\x00", "💥", "--", "1s1"]


@pytest.mark.parametrize(("text", "seconds"), [("7", 7), (" 7 ", 7), ("0.25", 0.25), ("0", 0), ("86400", 86_400), ("1", 1.0)])
def test_retry_after_in_seconds(text: str, seconds: float) -> None:
    assert retry_after_s({"retry-after": text}) == seconds


def test_milliseconds_are_more_exact_and_win() -> None:
    assert retry_after_s({"retry-after-ms": "1250", "retry-after": "2"}) == 1.25


def test_a_date_counts_from_the_endpoints_own_clock() -> None:
    assert retry_after_s({"retry-after": "Mon, 23 Nov 2026 12:00:42 GMT", "date": DATE}) == 42
    assert retry_after_s({"retry-after": "Monday, 23-Nov-26 12:00:42 GMT", "date": DATE}) == 42  # RFC 850
    assert retry_after_s({"retry-after": "Mon Nov 23 12:00:42 2026", "date": DATE}) == 42  # asctime


def test_without_one_it_counts_from_ours() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert retry_after_s({"retry-after": soon}) == pytest.approx(100, abs=2)


def test_a_date_that_has_passed_is_now() -> None:
    assert retry_after_s({"retry-after": "Mon, 23 Nov 2026 11:00:00 GMT", "date": DATE}) == 0


@pytest.mark.parametrize("text", [*HOSTILE, "Fri, 31 Dec 2100 23:59:59 GMT", "Mon, 99 Nov 2026 12:00:00 GMT", "Mon, 23 Nov 99999999999 12:00:00 GMT"])
def test_what_makes_no_sense_is_ignored(text: str) -> None:
    assert retry_after_s({"retry-after": text, "date": DATE}) is None
    assert text == "86401" or retry_after_s({"retry-after-ms": text}) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6m0s", 360), ("120ms", 0.12), ("1s", 1), ("1h2m3.5s", 3723.5), ("2m59.56s", 179.56), ("20us", 2e-5), ("58", 58), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [*HOSTILE, "6m 0s", "s", "1x", "1.s", "25h", "1d"])
def test_durations_that_are_none(text: str) -> None:
    assert duration_s(text) is None


def test_openai() -> None:
    headers = {
        "X-RateLimit-Limit-Requests": "60",
        "X-RateLimit-Remaining-Requests": "59",
        "X-RateLimit-Reset-Requests": "1s",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "6m0s",
        "x-ratelimit-limit-project-tokens": "20000",
        "x-ratelimit-remaining-project-tokens": "1000",
        "x-ratelimit-reset-project-tokens": "120ms",
    }
    assert allowances(lowered(headers)) == {
        "requests": Allowance(59, 1, 60),
        "tokens": Allowance(149_984, 360, 150_000),
        "project-tokens": Allowance(1000, 0.12, 20_000),
    }


def test_anthropic() -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-11-23T12:00:36Z",
        "anthropic-ratelimit-tokens-limit": "80000",
        "anthropic-ratelimit-tokens-remaining": "79000",
        "anthropic-ratelimit-tokens-reset": "2026-11-23T14:00:01.5+02:00",
        "date": DATE,
    }
    assert allowances(headers) == {"anthropic-requests": Allowance(0, 36, 50), "anthropic-tokens": Allowance(79_000, 1.5, 80_000)}


@pytest.mark.parametrize("text", [*HOSTILE, "2026-11-23T12:00:36", "2026-13-40T99:00:00Z", "99999-01-01T00:00:00Z", "2126-11-23T12:00:00Z"])
def test_limits_that_make_no_sense_are_ignored(text: str) -> None:
    assert allowances({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": text}) == {}
    assert allowances({"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": text, "date": DATE}) == {}
    assert text == "86401" or allowances({"x-ratelimit-remaining-requests": text, "x-ratelimit-reset-requests": "1s"}) == {}


def test_a_limit_below_what_is_left_is_no_limit() -> None:
    headers = {"x-ratelimit-limit-requests": "5", "x-ratelimit-remaining-requests": "6", "x-ratelimit-reset-requests": "1s"}
    assert allowances(headers) == {"requests": Allowance(6, 1, None)}


@given(st.text(), st.text(), st.text())
def test_no_text_breaks_them(one: str, two: str, three: str) -> None:
    headers = {"retry-after": one, "retry-after-ms": two, "date": three}
    for family in ("x-ratelimit-{}-requests", "anthropic-ratelimit-tokens-{}"):
        headers |= {family.format("limit"): one, family.format("remaining"): two, family.format("reset"): three}
    wait = retry_after_s(headers)
    assert wait is None or 0 <= wait <= 86_400
    assert all(a.remaining >= 0 and 0 <= a.reset_s <= 86_400 for a in allowances(headers).values())


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)))
def test_no_date_breaks_them(moment: datetime) -> None:
    wait = retry_after_s({"retry-after": format_datetime(moment.replace(tzinfo=UTC), usegmt=True)})
    assert wait is None or 0 <= wait <= 86_400
    assert wait != 0 or moment.timestamp() <= time.time() + 86_400
