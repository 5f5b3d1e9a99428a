"""Rows of a list of pictures that is a parquet file: of the columns wanted alone.

Text may be of any of Arrow's types of strings and bytes, or of a dictionary of these. A row group
that is damaged is told, and the next one read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wit_builder import storage
from wit_builder.crawl.list_rows import Rows, Wanted, missing
from wit_builder.errors import ArchiveError
from wit_builder.ranges import open_ranges

_BATCH_ROWS = 1 << 15
_BATCH_BYTES = 16 << 20


@contextlib.contextmanager
def opened(place: str) -> Iterator[pq.ParquetFile]:
    """Give a parquet file, to be read without threads.

    Raises:
        ArchiveError: it is none.
        StorageError: it is not there, or cannot be read just now.
    """
    with contextlib.ExitStack() as stack:
        if storage.is_remote(place):
            # a column of a row group is one read, however large: nothing is gained by more ahead
            raw = stack.enter_context(open_ranges(place, ahead=1))
            file: pa.NativeFile = pa.PythonFile(raw, mode="r")
        else:
            with storage.translated(place, "read"):
                file = stack.enter_context(pa.OSFile(storage.filesystem(place)[1]))
        try:
            table = pq.ParquetFile(file)
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, OSError):
                _only_damage(place, error)
            raise ArchiveError(
                f"not a readable parquet file: {_plain(error)}",
                where=storage.redact(place),
                fix="download it again, or name its format in the source",
            ) from error
        yield table


def _only_damage(place: str, error: OSError) -> None:
    """Raise what the file system says; Arrow's own findings have no number."""
    if error.errno is not None:
        with storage.translated(place, "read"):
            raise error


def _plain(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def rows(place: str, wanted: Wanted, groups: tuple[int, int] | None = None) -> Iterator[Rows]:
    """Yield a file's rows, some ten thousand in memory at a time.

    Args:
        place: the file, local or remote.
        wanted: which columns.
        groups: the first row group to read and the last; by default all.

    Raises:
        ArchiveError: no parquet file, a column is not there, or is of a type that is no text.
        StorageError: it is not there, or cannot be read just now.
    """
    with opened(place) as file:
        _check_types(place, file.schema_arrow, wanted)
        counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        first, last = groups or (0, len(counts) - 1)
        for group in range(first, last + 1):
            yield from _row_group(place, file, wanted, group, sum(counts[:group]))


def _check_types(place: str, schema: pa.Schema, wanted: Wanted) -> None:
    for name in wanted.columns:
        if name not in schema.names:
            raise missing(place, name, schema.names)
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if name in wanted.loose and not pa.types.is_nested(kind):
            continue
        if not (_is_text(kind) or pa.types.is_null(kind)):
            raise ArchiveError(
                f"column {name!r} is no text but {kind}",
                where=storage.redact(place),
                fix="name another column in its source",
            )


def _is_text(kind: pa.DataType) -> bool:
    tests = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
    return any(getattr(pa.types, f"is_{test}")(kind) for test in tests)


def _row_group(
    place: str, file: pq.ParquetFile, wanted: Wanted, group: int, before: int
) -> Iterator[Rows]:
    """Yield the rows of a row group; of one that is damaged, those before the damage."""
    batches = file.iter_batches(
        _batch_rows(file, group, wanted), [group], wanted.columns, use_threads=False
    )
    row = before + 1
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            if isinstance(error, OSError):
                _only_damage(place, error)
            damage = f"row group {group}, from row {row} on: {_plain(error)}"
            nothing = {name: pa.array([], pa.binary()) for name in wanted.columns}
            yield Rows(nothing, np.empty(0, np.int64), [], damage)
            return
        if batch is None:
            return
        columns = {name: _binary(batch.column(name)) for name in wanted.columns}
        yield Rows(columns, np.arange(row, row + batch.num_rows), [])
        row += batch.num_rows


def _batch_rows(file: pq.ParquetFile, group: int, wanted: Wanted) -> int:
    """Return how many rows to decode at once, by the average size of one."""
    chunks = _column_chunks(file, group, wanted.columns)
    size = sum(chunk.total_uncompressed_size for chunk in chunks)
    rows = file.metadata.row_group(group).num_rows
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * rows // max(size, 1)))


def _column_chunks(file: pq.ParquetFile, group: int, columns: list[str]) -> list[Any]:
    metadata = file.metadata.row_group(group)
    chunks = (metadata.column(i) for i in range(metadata.num_columns))
    return [chunk for chunk in chunks if chunk.path_in_schema in columns]


def group_bytes(file: pq.ParquetFile, columns: list[str]) -> list[int]:
    """Return how many compressed bytes some columns have in each row group; one at least."""
    return [
        max(1, sum(chunk.total_compressed_size for chunk in _column_chunks(file, group, columns)))
        for group in range(file.num_row_groups)
    ]


def _binary(column: pa.Array) -> pa.Array:
    """Return a column as bytes: text as it is, anything else as it is written."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not _is_text(column.type):
        column = column.cast(pa.string())
    return column.cast(pa.binary())
