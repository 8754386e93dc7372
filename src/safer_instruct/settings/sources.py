"""The section `source` of a config: where texts are."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from safer_instruct.settings.documents import DocumentConfig
from safer_instruct.settings.numbers import Positive
from safer_instruct.settings.route import RouteConfig
from safer_instruct.settings.web import WebConfig
from safer_instruct.yamlfile import Strict


class SourceConfig(Strict):
    """Where the source texts are, and which column is which.

    Attributes:
        path: A file, a folder (read with everything below it) or a glob, relative to the config. `.gz` and `.zst` are
            unpacked on the way.
        format: `auto` goes by the file's ending: .jsonl .ndjson .json (one object per line, or one array of them), .csv, .tsv, .parquet, .txt .md,
            with the extra `docs` .html .htm .xhtml, .pdf, .docx, and with the extra `web` .warc .wet.
        text: Column with the source text.
        messages: Column with a conversation, in place of `text`: OpenAI's messages, ShareGPT's turns, or an HH transcript. The
            assistant's turn is the source text, and what was said before it its history.
        turns: Of a conversation: `last` takes the last turn of the assistant, `all` makes an example of each.
        id: Column with the user's own id, with a number behind it where an earlier row has it too (`ID-2`); without it the id is a
            digest of the text. A row whose id is empty is set aside.
        category: The domain's category that all rows belong to; needed when the domain has several and no column tells.
        category_column: Column with the category, in place of `category`.
        route: Instead of both: by what a text is given its category.
        unit: For plain text: one document per `file`, or one per `paragraph` (blocks between empty lines).
        max_chars: Longer texts are set aside.
        license: Licence of the texts, for the dataset card and for `--provenance`.
        license_column: Column with the licence of each text, where they differ; an empty one means `license`.
        documents: How HTML, PDF, DOCX and the pages of crawls are cut into passages.
        web: How crawls (WARC and WET) are read; null: as it is by default.
    """

    path: str
    format: Literal["auto", "jsonl", "csv", "tsv", "parquet", "text", "html", "pdf", "docx", "warc"] = "auto"
    text: str = "text"
    messages: str | None = None
    turns: Literal["last", "all"] = "last"
    id: str | None = None
    category: str | None = None
    category_column: str | None = None
    unit: Literal["file", "paragraph"] = "paragraph"
    max_chars: Positive = 20_000
    license: str = ""
    license_column: str | None = None
    documents: DocumentConfig = DocumentConfig()
    web: WebConfig | None = None
    route: RouteConfig | None = None

    @model_validator(mode="after")
    def _text_or_messages(self) -> SourceConfig:
        if self.messages is not None and self.text != "text":
            raise ValueError("has both 'text' and 'messages'; a conversation's text is the assistant's turn, so leave out 'text'")
        if self.messages is None and self.turns != "last":
            raise ValueError("'turns' is for conversations; name their column with 'messages'")
        if self.category and self.category_column:
            raise ValueError("has both 'category', one for all rows, and 'category_column', one for each; leave one of them out")
        if self.route is not None and (self.category or self.category_column):
            raise ValueError("'route' finds the category, so leave out 'category' and 'category_column'")
        return self
