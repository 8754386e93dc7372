"""Content filters: an answer that was held back is a verdict of its example."""

from __future__ import annotations

from safer_instruct.example import Verdict
from safer_instruct.models.protocol import Completion
from safer_instruct.oneline import one_line, shortened

_SHOWN_CHARS = 200


def content_filter(stage: str, completion: Completion) -> Verdict:
    """The verdict that a stage gives on an example whose answer was withheld."""
    shown = shortened(one_line(completion.text), _SHOWN_CHARS)
    what = "the model refused" if completion.withheld == "refusal" else "a content filter withheld the answer"
    return Verdict(f"{stage}.content_filter", False, None, f"{what}: {shown}" if shown else what)
