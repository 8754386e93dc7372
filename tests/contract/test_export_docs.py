"""docs/export.md names every format and column; its commands are run by tests/integration/test_docs_run.py."""

from __future__ import annotations

import re

from documented import ROOT, blocks, commands

from safer_instruct.export import FORMATS
from safer_instruct.export.rows import PROVENANCE


def test_the_page_names_every_format_and_column() -> None:
    typed = [command.text for block in blocks("docs/export.md") for command in commands(block)]
    assert {format_ for command in typed for format_ in re.findall(r"--format (\S+)", command)} == set(FORMATS)
    page = (ROOT / "docs" / "export.md").read_text("utf-8")
    assert all(f"`{column}`" in page for column in PROVENANCE)
