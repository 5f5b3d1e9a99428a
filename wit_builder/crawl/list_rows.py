"""Rows of a list of pictures: the columns wanted of a csv, tsv, txt or jsonl file.

A row that is broken is told and left out; the others are kept. A value is bytes here, or null: what
is no UTF-8 is for the reader of the column to judge.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder import storage
from wit_builder.crawl.list_bytes import PACKED, DamagedError, chunks
from wit_builder.crawl.list_fields import MAX_ROW_BYTES, Block, Layout, blocks
from wit_builder.errors import ArchiveError

Format = Literal["parquet", "csv", "tsv", "jsonl", "txt"]

I64 = npt.NDArray[np.int64]


class Wanted(NamedTuple):
    """What to read of a list.

    Attributes:
        columns: to read, each once.
        url: the one of them that must be UTF-8.
        loose: those of them that may be numbers, or something else, and are taken as written.
        names: of all the columns, in a file that does not name them; else empty.
    """

    columns: list[str]
    url: str
    loose: frozenset[str]
    names: list[str]


class Rows(NamedTuple):
    """Some rows of a list, in order.

    Attributes:
        columns: a binary array of each wanted column.
        numbers: of the rows, from 1; where rows are lines, of their first lines.
        broken: number and fault of each row that is left out.
        damage: why there are no more rows, or none of a row group; empty if there is no damage.
    """

    columns: dict[str, pa.Array]
    numbers: I64
    broken: list[tuple[int, str]]
    damage: str = ""


def format_of(place: str) -> Format | None:
    """Return what a file is by the ending of its name, or None."""
    name = storage.name_of(place)
    packed = next((ending for ending in PACKED if name.endswith(ending)), "")
    kind = name.removesuffix(packed).rpartition(".")[2].lower()
    known: dict[str, Format] = {"csv": "csv", "tsv": "tsv", "jsonl": "jsonl", "txt": "txt"}
    return known.get(kind) or ("parquet" if kind == "parquet" and not packed else None)


# --- csv, tsv, txt ----------------------------------------------------------


def delimited(place: str, kind: Format, wanted: Wanted) -> Iterator[Rows]:
    """Yield the rows of a csv, tsv or txt file, some ten thousand in memory at a time.

    Raises:
        ArchiveError: a column is not there, or the line that would name it is not.
        StorageError: the file is not there, or cannot be read just now.
    """
    pieces = chunks(place)
    names = wanted.names
    named = not names
    if named:
        begun = _beginning(place, pieces)
        names = _header(place, begun[0], "," if kind == "csv" else "\t")
        pieces = itertools.chain(begun, pieces)
    positions = [_position(place, column, names) for column in wanted.columns]
    layout = Layout(
        fields=len(names),
        wanted=positions,
        delimiter=ord("," if kind == "csv" else "\t"),
        quote=ord('"') if kind == "csv" else -1,
        rest=kind == "txt",
    )
    for block in blocks(pieces, layout):
        rows = Rows(
            dict(zip(wanted.columns, block.columns, strict=True)),
            block.lines,
            block.broken,
            block.damage,
        )
        if named and len(block.lines):  # its first row names the columns
            rows = _without_first(rows)
            named = False
        yield rows


def _without_first(rows: Rows) -> Rows:
    columns = {name: column.slice(1) for name, column in rows.columns.items()}
    return rows._replace(columns=columns, numbers=rows.numbers[1:])


def _beginning(place: str, pieces: Iterator[bytes]) -> list[bytes]:
    """Return the first pieces of a file: those that have its line of names.

    Raises:
        ArchiveError: the file is empty, or damaged before that line ends.
    """
    begun = [next(pieces, b"")]
    try:
        if b"\n" not in begun[0].lstrip(b"\r\n"):  # all there is, or up to the damage
            begun += itertools.islice(pieces, 1)
    except DamagedError as error:
        raise ArchiveError(
            f"the list is damaged, and nothing of it can be read: {error}",
            where=storage.redact(place),
            fix="get it again, or leave it out",
        ) from error
    if not any(begun):
        raise ArchiveError(
            "the list is empty", where=storage.redact(place), fix="get it again, or leave it out"
        )
    return begun


def _header(place: str, first: bytes, delimiter: str) -> list[str]:
    """Return the names in the first line that is not empty."""
    text = first[:MAX_ROW_BYTES].decode(errors="replace").lstrip("\r\n")
    if delimiter == "\t":
        return text.partition("\n")[0].rstrip("\r").split("\t")
    try:
        return next(csv.reader(io.StringIO(text, newline=""), strict=True), [])
    except csv.Error as error:
        raise ArchiveError(
            f"the line of names cannot be read: {error}",
            where=storage.redact(place),
            fix="if the file has none, name its columns in the source",
        ) from error


def _position(place: str, column: str, names: list[str]) -> int:
    if column not in names:
        raise missing(place, column, names)
    return names.index(column)


def missing(place: str, column: str, names: list[str]) -> ArchiveError:
    """Return the error that says which columns a list has."""
    there = ", ".join(names)[:300] or "none"
    return ArchiveError(
        f"the list has no column {column!r}; columns there: {there}",
        where=storage.redact(place),
        fix="name the right ones in its source (url, texts, columns, ...)",
    )


# --- jsonl ------------------------------------------------------------------


def jsonl(place: str, wanted: Wanted) -> Iterator[Rows]:
    """Yield the rows of a file with a JSON object a line; a key that is not there is null.

    Raises:
        StorageError: the file is not there, or cannot be read just now.
    """
    decoder = _Decoder(wanted)
    for block in blocks(chunks(place), Layout(fields=1, wanted=[0])):
        if len(block.lines):
            yield decoder.decode(block)
        else:
            yield Rows(decoder.nothing, block.lines, block.broken, block.damage)


class _Decoder:
    """Reads objects of the wanted keys, whole blocks at once where all lines are as they should."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._fields = [f"f{i}" for i in range(len(wanted.columns))]
        struct = msgspec.defstruct(
            "Row",
            [(field, self._type(name), None) for field, name in self._named()],
            rename=dict(self._named()),
            gc=False,
        )
        self._decoder = msgspec.json.Decoder(struct)
        self.nothing = {name: pa.array([], pa.binary()) for name in wanted.columns}

    def _named(self) -> list[tuple[str, str]]:
        return list(zip(self._fields, self._wanted.columns, strict=True))

    def _type(self, name: str) -> Any:
        if name in self._wanted.loose:
            return msgspec.Raw
        return str | None

    def decode(self, block: Block) -> Rows:
        """Return a block's rows: 1 us each where no line is odd; an odd one itself costs 6 us."""
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = [] if block.broken else self._decoder.decode_lines(block.data)
            if len(found) == len(block.lines):
                columns = {name: self._column(found, field, name) for field, name in self._named()}
                return Rows(columns, block.lines, [])
        return self._one_by_one(block)

    def _column(self, found: list[Any], field: str, name: str) -> pa.Array:
        values = [getattr(row, field) for row in found]
        if name in self._wanted.loose:
            return pa.array([_bytes_of(value) for value in values], pa.binary())
        return pa.array(values, pa.string()).cast(pa.binary())

    def _one_by_one(self, block: Block) -> Rows:
        broken = list(block.broken)
        good: list[dict[str, bytes | None]] = []
        numbers: list[int] = []
        for number, line in zip(block.lines.tolist(), block.columns[0].to_pylist(), strict=True):
            try:
                good.append(self._values(line))
                numbers.append(number)
            except ValueError as error:
                broken.append((number, str(error)))
        columns = {
            name: pa.array([row[name] for row in good], pa.binary())
            for name in self._wanted.columns
        }
        return Rows(columns, np.array(numbers, np.int64), sorted(broken))

    def _values(self, line: bytes) -> dict[str, bytes | None]:
        """Return a line's values; or raise ``ValueError``, which says what is wrong."""
        try:
            row = self._decoder.decode(line)
            return {name: _given(getattr(row, field)) for field, name in self._named()}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._leniently(line)

    def _leniently(self, line: bytes) -> dict[str, bytes | None]:
        """Do so by Python's reader, which takes NaN, half a surrogate pair, and broken UTF-8."""
        text = line.decode(errors="replace")
        try:
            row = json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_Number)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"no JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError("no JSON object")  # noqa: TRY004 - it is the line's value, not ours
        return {name: self._value(name, row.get(name)) for name in self._wanted.columns}

    def _value(self, name: str, value: Any) -> bytes | None:
        if name in self._wanted.loose and isinstance(value, bool):
            return str(value).lower().encode()
        if value is None or (name in self._wanted.loose and not isinstance(value, str)):
            return None
        is_text = isinstance(value, str) and not isinstance(value, _Number)
        if not is_text and name not in self._wanted.loose:
            raise ValueError(f"{name} is no text")
        if name == self._wanted.url and "\ufffd" in value:
            raise ValueError(f"{name} is not UTF-8")
        return _utf8(value)


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


def _given(value: str | msgspec.Raw | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else _bytes_of(value)


def _utf8(text: str) -> bytes:
    """Return a text in UTF-8; half a surrogate pair, of a text that was cut, is no character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _bytes_of(raw: msgspec.Raw | None) -> bytes | None:
    """Return a text without its quotes, a number as it is written; of anything else, None."""
    value = b"null" if raw is None else bytes(raw)
    if value.startswith(b'"'):
        return msgspec.json.decode(value, type=str).encode()
    return None if value[:1] in (b"n", b"[", b"{") else value
