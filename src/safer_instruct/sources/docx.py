"""DOCX as paragraphs: mammoth makes semantic HTML of it, which is read like any other."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

from safer_instruct.extras import require
from safer_instruct.sources.html import parse_html
from safer_instruct.sources.passages import Block
from safer_instruct.sources.records import RowRefused
from safer_instruct.sources.streams import MIB

_OLE = b"\xd0\xcf\x11\xe0"  # the container of .doc files, and of encrypted .docx
_BODY = "word/document.xml"


def read_docx(raw: bytes, max_mb: int) -> Iterator[Block]:
    """The paragraphs, list items and headings of a Word document, in order.

    Args:
        raw: The file.
        max_mb: Most megabytes that its parts may unpack to, images left out, which are not unpacked.

    Raises:
        RowRefused: It is encrypted, no Word document, or a decompression bomb.
        MissingExtraError: The extra `docs` is not installed.
    """
    mammoth = require("mammoth", extra="docs", purpose="reading DOCX")
    if raw.startswith(_OLE):
        raise RowRefused("the document is encrypted, or an old .doc; open it in a word processor and save it as .docx without a password")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as parts:
            infos = parts.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as exc:
        raise RowRefused(f"the file is damaged, or no Word document: {exc}") from None
    if _BODY not in {info.filename for info in infos}:
        raise RowRefused(f"the file is no Word document: it holds no {_BODY}")
    if any(info.flag_bits & 1 for info in infos):
        raise RowRefused("the document is encrypted; save it without a password")
    unpacked = sum(info.file_size for info in infos if not info.filename.startswith("word/media/"))
    if unpacked > max_mb * MIB:  # a part that unpacks to more than it declares ends in a checksum error
        raise RowRefused(f"the document unpacks to {unpacked / MIB:,.0f} MB from {len(raw) / MIB:,.1f} MB, more than {max_mb} MB (source.documents.max_mb)")
    page = mammoth.convert_to_html(io.BytesIO(raw), convert_image=mammoth.images.img_element(lambda _: {}), include_embedded_style_map=False)
    yield from parse_html(page.value)
