"""Characters that hide or command become marks; everything else stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safer_instruct.visible import hides, shorten, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text\twith a tab\nand lines", "plain text\twith a tab\nand lines"),
        ("Zoë said: 你好, שלום, 👩‍👩‍👧, می‌خواهم", "Zoë said: 你好, שלום, 👩‍👩‍👧, می‌خواهم"),
        ("a\r\nb\rc", "a\nb⟨U+000D⟩c"),
        ("\x1b[31mred", "⟨U+001B⟩[31mred"),
        ("\u202egnp.exe", "⟨U+202E⟩gnp.exe"),
        ("zero\u200bwidth\ufeff", "zero⟨U+200B⟩width⟨U+FEFF⟩"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("line\u2028end", "line⟨U+2028⟩end"),
    ],
)
def test_what_hides_is_marked_and_what_is_seen_stays(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(alphabet=st.characters()))
def test_nothing_that_hides_is_left(text: str) -> None:
    shown = visible(text)
    assert not any(map(hides, shown)) and visible(shown) == shown
    shown.encode("utf-8")


def test_a_long_text_is_cut_with_an_ellipsis() -> None:
    assert shorten("abc", 3) == "abc" and shorten("abcdef", 4) == "abc…"
