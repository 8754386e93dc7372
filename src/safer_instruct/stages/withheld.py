"""Content filters: an answer that was held back is an error of whoever asks, and a verdict of its example."""

from __future__ import annotations

from safer_instruct.example import Verdict
from safer_instruct.models.protocol import Completion, Generation, Model
from safer_instruct.oneline import one_line, shortened

_SHOWN_CHARS = 200


class WithheldError(Exception):
    """The answer was withheld."""

    def __init__(self, completion: Completion) -> None:
        super().__init__(completion.withheld)
        self.completion = completion


async def answered(model: Model, request: Generation) -> Completion:
    """The first completion.

    Raises:
        WithheldError: It was withheld.
        ModelError: The model failed after its retries.
    """
    completion = (await model.generate(request)).completions[0]
    if completion.withheld:
        raise WithheldError(completion)
    return completion


def content_filter(stage: str, completion: Completion) -> Verdict:
    """The verdict that a stage gives on an example whose answer was withheld."""
    shown = shortened(one_line(completion.text), _SHOWN_CHARS)
    what = "the model refused" if completion.withheld == "refusal" else "a content filter withheld the answer"
    return Verdict(f"{stage}.content_filter", False, None, f"{what}: {shown}" if shown else what)
