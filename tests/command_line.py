"""Commands called in the test's own process, and what they said."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from safer_instruct.cli import main


class Said(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Said]


def caller(capfd: pytest.CaptureFixture[str]) -> Cli:
    """Calls `safer-instruct` with its arguments."""

    def call(*arguments: str) -> Said:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = capfd.readouterr()
        return Said(ended.value.code if isinstance(ended.value.code, int) else 0, out, err)

    return call
