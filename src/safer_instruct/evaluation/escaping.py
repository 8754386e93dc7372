"""Somebody else's words in a Markdown file of ours."""

from __future__ import annotations

import html


def escaped(text: str) -> str:
    """Somebody else's words in Markdown: no markup of theirs is read."""
    safe = html.escape(text, quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]|#~" else c for c in safe)
