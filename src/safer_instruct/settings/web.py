"""What a config can say of web crawls as sources: which records are read, and how much of a page."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from safer_instruct.settings.numbers import Positive
from safer_instruct.yamlfile import Strict


class WebConfig(Strict):
    """How WARC and WET files become texts; `documents` says how their pages are cut.

    Attributes:
        main_text: Of an HTML page only what looks like its main text; otherwise all that a reader of the page sees.
        max_mb: Larger records are set aside, and so are pages that unpack to more.
        types: Media types of the pages that are read; others are set aside.
    """

    main_text: bool = True
    max_mb: Positive = 8
    types: Annotated[tuple[str, ...], Field(min_length=1)] = ("text/html", "application/xhtml+xml", "text/plain")
