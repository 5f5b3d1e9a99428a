"""Lists that users bring: queries with weights, grams with counts, titles with views.

====================  =====================================================================
``.txt``              a text a line, without numbers; blank lines are skipped
``.csv``, ``.tsv``    the first line names the columns; fields in double quotes may hold
                      separators, line breaks, and double quotes, doubled
``.parquet``          columns of these names
====================  =====================================================================

All but parquet may be packed (``.gz``), and are UTF-8, with or without a byte-order mark. Further
columns are ignored. Space around a text is cut, rows without a text are skipped.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from wit_builder import storage
from wit_builder.errors import QueryListError, StorageError
from wit_builder.queries import compressed

Number = Literal["weight", "count", "views"]

_BATCH_ROWS = 1 << 20
_BLOCK_BYTES = 16 << 20


class _Kind(msgspec.Struct, frozen=True):
    """A kind of list, known by the name of its number.

    Attributes:
        what: for errors.
        key: of the recipe, for errors.
        type: of the number.
        required: whether every row must have one.
    """

    what: str
    key: str
    type: Any
    required: bool = False


_KINDS: dict[Number, _Kind] = {
    "weight": _Kind("a custom list", "queries.custom", pa.float64()),
    "count": _Kind("a list of counts", "queries.wikipedia.counts", pa.int64(), required=True),
    "views": _Kind("a list of titles", "queries.wikipedia.title_lists", pa.int64()),
}


class _Source(msgspec.Struct, frozen=True):
    """A list's place, and the names of its columns."""

    place: str
    text: str
    number: Number

    @property
    def kind(self) -> _Kind:
        return _KINDS[self.number]

    @property
    def schema(self) -> pa.Schema:
        text = pa.field(self.text, pa.string(), nullable=False)
        return pa.schema([text, pa.field(self.number, self.kind.type)])

    def wrong(self, what: str, where: str = "", fix: str = "") -> QueryListError:
        """Return the error that says what is wrong with the list, and where in it."""
        place = f"{self.place}, {where}" if where else self.place
        advice = fix or f"correct it, or check {self.kind.key} in the recipe"
        return QueryListError(f"{self.kind.what} {what}", where=place, fix=advice)


def read(place: str, text: str, number: Number, row_groups: range | None = None) -> pa.Table:
    """Return a list whole; ``batches`` tells how.

    Raises:
        QueryListError: as ``batches``.
    """
    source = _Source(place, text, number)
    tables = batches(place, text, number, row_groups)
    return pa.concat_tables([source.schema.empty_table(), *tables])


def batches(
    place: str, text: str, number: Number, row_groups: range | None = None
) -> Iterator[pa.Table]:
    """Yield a list's rows in order, some hundred thousand in memory at a time.

    Args:
        place: a file as the module tells, local or remote.
        text: name of the column of texts, as the tables have it too.
        number: name of the column of numbers: a ``weight`` is a float, ``count`` and ``views`` are
            integers. It may be missing, and a number too (null), but for counts.
        row_groups: of a parquet file, which to read; by default all.

    Raises:
        QueryListError: not there, of an unknown kind, cut short or damaged, not UTF-8, without the
            column, or with a number that is none, negative, or not finite; names line or row.
    """
    source = _Source(place, text, number)
    suffix = "." + storage.name_of(place.removesuffix(".gz")).rpartition(".")[2]
    packed = place.endswith(".gz")
    if suffix == ".parquet" and not packed:
        yield from _parquet(source, row_groups)
    elif suffix == ".txt":
        yield from _lines(source)
    elif suffix in (".csv", ".tsv"):
        yield from _delimited(source, "," if suffix == ".csv" else "\t")
    else:
        fix = "give a .txt, .csv or .tsv file, or one of these as .gz, or a .parquet file"
        raise source.wrong("is a file of an unknown kind", fix=fix)


def group_rows(place: str, number: Number) -> list[int]:
    """Return how many rows each row group of a parquet list has: work can be split by them.

    Raises:
        QueryListError: not there, or not parquet.
    """
    with _opened(_Source(place, "", number)) as file:
        metadata = file.metadata
        return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def _lines(source: _Source) -> Iterator[pa.Table]:
    if source.kind.required:
        fix = "give a .csv, .tsv or .parquet file"
        raise source.wrong(f"needs the column {source.number}, which a text file has not", fix=fix)
    rest = b""
    for chunk in _utf8(source):
        whole, found, rest_of_chunk = chunk.rpartition(b"\n")
        if found:
            yield _line_table(source, rest + whole)
            rest = b""
        rest += rest_of_chunk
    yield _line_table(source, rest)


def _line_table(source: _Source, lines: bytes) -> pa.Table:
    texts = pc.split_pattern(pa.array([lines.decode()]), "\n").flatten()
    return _table(source, texts, pa.nulls(len(texts), source.kind.type))


def _utf8(source: _Source) -> Iterator[bytes]:
    """Yield a file's bytes, known to be UTF-8, without a byte-order mark."""
    check = codecs.getincrementaldecoder("utf-8")()
    fix = f"check {source.kind.key} in the recipe"
    line = 1
    at_start = True
    for chunk in compressed.chunks(source.place, source.kind.what, fix):
        with _line_named(source, line):
            check.decode(chunk)
        line += chunk.count(b"\n")
        yield chunk.removeprefix(codecs.BOM_UTF8) if at_start else chunk
        at_start = False
    with _line_named(source, line):
        check.decode(b"", final=True)


@contextlib.contextmanager
def _line_named(source: _Source, line: int) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        line += error.object.count(b"\n", 0, error.start)
        raise source.wrong("is not UTF-8", f"line {line}", "save it as UTF-8") from error


class _Fed(io.RawIOBase):
    """A stream of what an iterator yields."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        """Fill the buffer: Arrow takes a short read for a block, and wants a line in each."""
        filled = 0
        while filled < len(into):
            self._left = self._left or memoryview(next(self._chunks, b""))
            size = min(len(into) - filled, len(self._left))
            if not size:
                break
            into[filled : filled + size] = self._left[:size]
            self._left = self._left[size:]
            filled += size
        return filled


def _delimited(source: _Source, delimiter: str) -> Iterator[pa.Table]:
    chunks = _utf8(source)
    first = next(chunks, b"")
    lines = io.StringIO(first.decode(errors="ignore"), newline="")
    wanted = _wanted(source, next(csv.reader(lines, delimiter=delimiter), []))
    stream = _Fed(_again(first, chunks))
    row = 2  # the first names the columns
    for batch in _parsed(source, stream, delimiter, wanted):
        yield _checked(source, batch, row)
        row += batch.num_rows


def _again(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others
    yield b"\n"  # a last line may lack its break; empty lines are skipped


def _parsed(
    source: _Source, stream: io.RawIOBase, delimiter: str, wanted: list[str]
) -> Iterator[pa.RecordBatch]:
    """Yield the wanted columns as strings."""
    types = dict.fromkeys(wanted, pa.string())
    try:
        with pacsv.open_csv(
            stream,
            pacsv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
            pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            pacsv.ConvertOptions(include_columns=wanted, column_types=types),
        ) as reader:
            yield from reader
    except pa.ArrowInvalid as error:
        raise source.wrong(f"cannot be parsed: {_one_line(error)}") from error


def _opened(source: _Source) -> contextlib.AbstractContextManager[pq.ParquetFile]:
    return open_parquet(source.place, source.kind.what, source.kind.key)


def _parquet(source: _Source, groups: range | None) -> Iterator[pa.Table]:
    with _opened(source) as file:
        wanted = _wanted(source, file.schema_arrow.names)
        chosen = range(file.num_row_groups) if groups is None else groups
        row = 1 + sum(file.metadata.row_group(i).num_rows for i in range(chosen.start))
        for batch in file.iter_batches(_BATCH_ROWS, list(chosen), wanted, use_threads=False):
            yield _checked(source, batch, row)
            row += batch.num_rows


@contextlib.contextmanager
def open_parquet(place: str, what: str, key: str) -> Iterator[pq.ParquetFile]:
    """Give a parquet file of the user's; what is wrong with it is told with the recipe's key.

    Args:
        place: the file, local or remote; it must be read without threads.
        what: what it is, for errors: "a custom list".
        key: of the recipe, that names it.

    Raises:
        QueryListError: not there, no parquet, or damaged where it is read.
    """
    try:
        with storage.open_arrow(place) as file:
            yield pq.ParquetFile(file)
    except StorageError as error:
        fix = f"check {key} in the recipe"
        raise QueryListError(f"cannot read {what}: {error.what}", where=place, fix=fix) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _wanted(source: _Source, names: list[str]) -> list[str]:
    """Return the columns to read of those there."""
    needed = [source.text, source.number] if source.kind.required else [source.text]
    for name in needed:
        if name not in names:
            there = ", ".join(names) or "none"
            raise source.wrong(f"has no column {name}; columns there: {there}"[:300])
    return [name for name in (source.text, source.number) if name in names]


def _checked(source: _Source, batch: pa.RecordBatch, first_row: int) -> pa.Table:
    """Return a batch's rows with their numbers, all of them in order."""
    text = batch.column(source.text)
    try:
        text = text.cast(pa.string()).fill_null("")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise source.wrong(f"has no text in its column {source.text}: {text.type}") from error
    if source.number not in batch.schema.names:
        return _table(source, text, pa.nulls(len(text), source.kind.type))
    given = batch.column(source.number)
    if pa.types.is_string(given.type) or pa.types.is_large_string(given.type):
        given = pc.utf8_trim_whitespace(given)
        given = pc.if_else(pc.equal(given, ""), None, given)
    return _table(source, text, _numbers(source, given, first_row))


def _table(source: _Source, text: pa.Array, number: pa.Array) -> pa.Table:
    table = pa.table([pc.utf8_trim_whitespace(text), number], schema=source.schema)
    return table.filter(pc.not_equal(table[source.text], ""))


def _numbers(source: _Source, given: pa.Array, first_row: int) -> pa.Array:
    """Return numbers of the kind's type; the first that is none is an error."""
    kind = source.kind
    if not _fits(given, kind.type):
        raise _no_number(source, given, _first_unfit(given, kind.type), first_row)
    numbers = given.cast(kind.type)
    good = pc.and_(pc.is_finite(numbers), pc.greater_equal(numbers, 0))
    bad = pc.index(good.fill_null(not kind.required), False).as_py()
    if bad >= 0:
        raise _no_number(source, given, bad, first_row)
    return numbers


def _fits(values: pa.Array, kind: pa.DataType) -> bool:
    try:
        values.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True


def _first_unfit(values: pa.Array, kind: pa.DataType) -> int:
    """Return the first value that cannot be cast, of values that cannot all be."""
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        if _fits(values.slice(low, middle - low), kind):
            low = middle
        else:
            high = middle
    return low


def _no_number(source: _Source, given: pa.Array, at: int, first_row: int) -> QueryListError:
    sort = "whole number" if pa.types.is_integer(source.kind.type) else "number"
    value = given[at].as_py()
    found = "nothing" if value is None else repr(value)[:80]
    what = f"has {found} as {source.number}, not a {sort} from 0 up"
    return source.wrong(what, f"row {first_row + at}")
