"""Personal data and links in a text: e-mail addresses, telephone numbers, IBANs, payment cards, IP addresses, social security numbers, URLs.

What has a check digit is checked (IBAN: ISO 13616, mod 97; cards: Luhn, ISO/IEC 7812), what has none must be written in a form
that little else has. Names and postal addresses are not found. Why no library: bench/README.md, "Personal data".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator

from safer_instruct.detect.spans import Span, apart

# Possessive repeats where a text of millions of characters could otherwise be tried again from each of them.
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[a-z0-9-]{1,63}\.){1,4}[a-z]{2,24}\b(?!@)", re.I)
_URL = re.compile(r"\b(?:https?://|www\.)[^\s<>\"'\]}|\\^`]{3,2000}", re.I)
_URL_MARKS = ("://", "www.", "Www.", "WWW.")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b")
_CARD = re.compile(r"(?<![\d.,/-])(?:\d[ -]?){12,18}\d(?![\d]|[.,/-]\d)")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\d]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:])(?:[0-9a-f]{1,4}:){2,7}(?::?[0-9a-f]{1,4}){1,7}(?![\w:])", re.I)
_SSN = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
_PHONE = re.compile(
    r"(?<![\w.,/+#$£€-])(?<!\d )(?:"
    r"\+\d{1,3}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){1,4}"  # +44 20 7946 0018
    r"|\(0?\d{2,5}\)[ .-]?\d{3,4}[ .-]?\d{3,4}"  # (020) 7946 0018, (555) 010-9999
    r"|00\d{2,3}[ .-]\d{1,4}(?:[ .-]?\d{2,4}){1,4}"
    r"|0\d{2,4}[ .-]\d{3,4}(?:[ .-]?\d{3,4})?|0\d{3,4}[ .-]\d{6}"  # 020 7946 0018, 07700 900123
    r"|07\d{9}|01\d{9}"
    r"|\d{3}[.-]\d{3}[.-]\d{4}|1-\d{3}-\d{3}-\d{4}|0\d(?:[ .]\d{2}){4}"  # 555-010-9999, 01 23 45 67 89
    r")(?![\w%]|[.,/-]\d)"
)
_SPOKEN_PHONE = re.compile(
    r"\b(?:tel|phone|call|ring|mobile|cell|fax|text|whatsapp|number is|reach me)\b[^\d\n+]{0,25}(\+?\d[\d .()-]{5,18}\d)(?![\w%]|[.,/-]\d)", re.I
)
_DIGIT = re.compile(r"\d")
_IBAN_LENGTHS = {
    **{"AT": 20, "BE": 16, "BG": 22, "CH": 21, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "EE": 20, "ES": 24, "FI": 18, "FR": 27, "GB": 22, "GR": 27, "HR": 21},
    **{"HU": 28, "IE": 22, "IS": 26, "IT": 27, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MT": 31, "NL": 18, "NO": 15, "PL": 28, "PT": 25, "RO": 24},
    **{"SE": 24, "SI": 19, "SK": 24, "SM": 27, "TR": 26, "UA": 29, "AE": 23, "SA": 24, "IL": 23, "QA": 29, "KW": 30, "BR": 29, "PK": 24},
}


def find_pii(text: str, kinds: Collection[str] | None = None) -> list[Span]:
    """Personal data in `text`, in order, none overlapping another.

    Args:
        text: What is searched.
        kinds: Of `PII_KINDS`, what to look for; None for all of them.
    """
    digits = _digits(text)
    if not digits and "@" not in text and not any(mark in text for mark in _URL_MARKS):
        return []
    spans: list[Span] = []
    for kind, (needs, find) in _FINDERS.items():
        if (kinds is None or kind in kinds) and (digits >= needs if isinstance(needs, int) else any(mark in text for mark in needs)):
            spans += (Span(kind, start, end) for start, end in find(text))
    return apart(spans)


def _digits(text: str) -> int:
    if text.isascii():  # deleting bytes is five times as fast as a search
        return len(text) - len(text.encode("ascii").translate(None, b"0123456789"))
    return len(_DIGIT.findall(text))


def _all(pattern: re.Pattern[str], accept: Callable[[str], bool] = bool) -> Callable[[str], Iterator[tuple[int, int]]]:
    return lambda text: (found.span() for found in pattern.finditer(text) if accept(found.group()))


def _urls(text: str) -> Iterator[tuple[int, int]]:
    for found in _URL.finditer(text):
        ends = ".,;:!?*_" if "(" in found.group() else ".,;:!?*_)"
        yield found.start(), found.start() + len(found.group().rstrip(ends))


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    for found in _IBAN.finditer(text):
        length, at = _IBAN_LENGTHS.get(found.group()[:2], 0), found.start()
        end, seen = at, 0
        while end < found.end() and seen < length:  # the pattern may have taken a word that follows
            seen += text[end] != " "
            end += 1
        if length and seen == length and _mod97(text[at:end].replace(" ", "")) == 1:
            yield at, end


def _mod97(iban: str) -> int:
    return int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97


def _is_card(written: str) -> bool:
    digits = [int(c) for c in written if c.isdigit()]
    groups = len(written.replace("-", " ").split(" "))
    doubled = (sum(divmod(2 * d, 10)) for d in digits[-2::-2])
    return digits[0] in (2, 3, 4, 5, 6) and groups <= 5 and len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _ips(text: str) -> Iterator[tuple[int, int]]:
    if text.count(".") > 2:
        yield from _all(_IPV4, _is_ip)(text)
    if text.count(":") > 1:
        yield from _all(_IPV6, _is_ip)(text)


def _is_ip(written: str) -> bool:
    try:
        found = ipaddress.ip_address(written)
    except ValueError:
        return False
    numbers_a_section = found.version == 4 and max(found.packed) < 30  # 12.3.4.5; and 8.8.8.8, which is nobody's
    return not (found.is_loopback or found.is_unspecified or numbers_a_section or written.startswith(("255.", "0.")))


def _phones(text: str) -> Iterator[tuple[int, int]]:
    for found in _PHONE.finditer(text):
        if 7 <= sum(c.isdigit() for c in found.group()) <= 15:
            yield found.span()
    for found in _SPOKEN_PHONE.finditer(text):
        if 7 <= sum(c.isdigit() for c in found.group(1)) <= 15:
            yield found.span(1)


# What a text must hold one of, or how many digits, for the search to be worth it, and the search; surest kinds first.
_FINDERS: dict[str, tuple[int | tuple[str, ...], Callable[[str], Iterator[tuple[int, int]]]]] = {
    "email": (("@",), _all(_EMAIL)),
    "url": (_URL_MARKS, _urls),
    "iban": (2, _ibans),
    "ip": (1, _ips),
    "ssn": (9, _all(_SSN)),
    "card": (13, _all(_CARD, _is_card)),
    "phone": (7, _phones),
}
PII_KINDS = tuple(_FINDERS)
