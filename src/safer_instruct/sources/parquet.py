"""Reader of Parquet, one page per column and 1,024 rows at a time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

from safer_instruct.errors import SourceError
from safer_instruct.sources.files import File
from safer_instruct.sources.records import BadRow
from safer_instruct.sources.rows import Made, Reading, make_row
from safer_instruct.sources.streams import DAMAGE, MIB, opened

_BATCH_ROWS = 1024


def read_parquet(file: File, reading: Reading[Made]) -> Iterator[Made | BadRow]:
    """One result per row of `file`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    damage: Any = (*DAMAGE, pa.ArrowException, UnicodeDecodeError)  # the last from broken column names
    row = 0
    with opened(file) as stream, tempfile.TemporaryFile() if file.packing else nullcontext(stream) as seekable:
        if file.packing:  # Parquet is read from its end
            try:
                shutil.copyfileobj(stream, seekable, MIB)
            except DAMAGE as exc:
                yield BadRow(file.name, 1, f"the file cannot be unpacked and was skipped: {exc}", "", unread=True)
                return
        try:  # pre_buffer would hold every row group until the end
            parquet = pq.ParquetFile(seekable, buffer_size=MIB, pre_buffer=False, page_checksum_verification=True)
            names = parquet.schema_arrow.names
        except damage as exc:
            raise SourceError(f"{file.name}: cannot be read as Parquet: {exc}; replace the file, or leave it out of 'path'") from exc
        columns = reading.columns(file, names)
        try:
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
                for values in zip(*(map(_value, batch.column(name)) for name in columns), strict=True):
                    row += 1
                    yield make_row(file, row, values[0], partial(dict, zip(columns, values, strict=True)), reading)
        except damage as exc:
            yield BadRow(file.name, row + 1, f"the file is damaged; nothing from this row on was read: {exc}", "", unread=True)


def _value(scalar: Any) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as exc:
        return exc
