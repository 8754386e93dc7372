"""docs/audit.md names every check; the config in docs/documents.md is valid and complete."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from safer_instruct.audit.run import CHECKS
from safer_instruct.config import SourceConfig
from safer_instruct.settings.documents import DocumentConfig

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_has_a_line_for_every_check_and_no_other() -> None:
    page = (DOCS / "audit.md").read_text("utf-8")
    assert re.findall(r"^\| `([a-z-]+)` \|", page, re.M) == list(CHECKS)


def test_the_config_of_the_documents_page_is_valid_and_shows_every_key_with_its_default() -> None:
    text = (DOCS / "documents.md").read_text("utf-8").split("```yaml\n")[1].split("```")[0]
    source = SourceConfig.model_validate(yaml.safe_load(text)["source"])
    assert source.documents == DocumentConfig() and source.documents.model_fields_set == set(DocumentConfig.model_fields)
