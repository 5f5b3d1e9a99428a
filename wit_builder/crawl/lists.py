"""Candidates from lists of picture URLs with texts: LAION, CC3M, CC12M, DataComp, YFCC, or others.

One unit reads a file, or some row groups of a large parquet file. What a broken row is, and
how it is told, is for ``list_rows`` and ``list_parquet``; what columns mean, for the recipe.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from wit_builder import storage
from wit_builder.crawl import list_parquet, list_rows
from wit_builder.crawl.candidates import Collector, Output, Piece, collecting, done
from wit_builder.crawl.columns import collapse, normalise_urls
from wit_builder.crawl.list_rows import Format, Rows, Wanted
from wit_builder.errors import ArchiveError, GoneError, StorageError
from wit_builder.hashing import binary_buffers
from wit_builder.recipe import digest
from wit_builder.sections import TablesSource
from wit_builder.storage import Published
from wit_builder.tables import FOUND, Reason, TextFrom
from wit_builder.units import Done

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

_LARGE_BYTES = 512 << 20
"""Size from which a parquet file is read by several units."""
_PIECE_BYTES = 128 << 20
"""Compressed bytes, of the columns wanted, that one of them reads."""
_LOOK_UPS = 16
_HOPELESS_ROWS = 10_000
"""Rows without a good one, from the start on, after which a file is given up."""

_BAD_ROWS = f"rejected:{Reason.BAD_ROW}"
_NO_URL = "no URL"


class TableJob(msgspec.Struct, frozen=True):
    """One list, or some row groups of it, and where its candidates go.

    Attributes:
        source: with the one path to read, and its format.
        groups: the first row group to read and the last, or None for all.
        output: places of candidates and rejections.
    """

    source: TablesSource
    groups: tuple[int, int] | None
    output: Output


# --- what there is to do ----------------------------------------------------


def pieces(source: TablesSource) -> list[Piece]:
    """Return a piece for every file, in the order of the paths; for a large parquet file several.

    A file that several paths name is read once.

    Raises:
        ArchiveError: a file is not there, a pattern matches nothing, a format is not known, or the
            columns named do not go with the format.
        StorageError: a bucket cannot be reached.
    """
    places = list(dict.fromkeys(place for path in source.paths for place in _found(path)))
    kinds = [_format(place, source) for place in places]
    for place, kind in zip(places, kinds, strict=True):
        _check_columns(place, kind, source)
    with ThreadPoolExecutor(_LOOK_UPS) as threads:
        identities = list(threads.map(_identity, places))
        parts = list(threads.map(lambda p, k: _parts(p, k, source), places, kinds))
    settings = digest(replace(source, paths=[]))
    made = []
    for place, kind, identity, runs in zip(places, kinds, identities, parts, strict=True):
        reading = replace(source, paths=[place], format=kind)
        for groups in runs:
            part = f"#{groups[0]}-{groups[1]}" if groups else ""
            job = functools.partial(TableJob, reading, groups)
            made.append(Piece("tables", place + part, [identity + part, settings], job))
    return made


def _found(path: str) -> list[str]:
    try:
        return storage.glob(path)
    except StorageError as error:
        raise _not_there(path, error) from error


def _identity(place: str) -> str:
    try:
        return storage.identity(place)
    except GoneError as error:
        raise _not_there(place, error) from error


def _not_there(place: str, error: StorageError) -> ArchiveError:
    fix = "check the paths of this source in the recipe"
    return ArchiveError(f"cannot read a list: {error.what}", where=storage.redact(place), fix=fix)


def _format(place: str, source: TablesSource) -> Format:
    kind = list_rows.format_of(place) if source.format == "auto" else source.format
    if kind is None:
        raise ArchiveError(
            "the name does not tell what kind of list it is",
            where=storage.redact(place),
            fix='set its format in the source: "parquet", "csv", "tsv", "jsonl" or "txt"',
        )
    return kind


def _check_columns(place: str, kind: Format, source: TablesSource) -> None:
    if source.columns and kind not in ("csv", "tsv"):
        raise ArchiveError(
            f"columns are named for a {kind} file, whose columns have names",
            where=storage.redact(place),
            fix="leave columns out; url, texts and the others name what is in the file",
        )
    wanted = _wanted(source, kind)
    for column in wanted.columns if wanted.names else []:
        if column not in wanted.names:
            raise list_rows.missing(place, column, wanted.names)


def _wanted(source: TablesSource, kind: Format) -> Wanted:
    others = [column for column in (source.page_url, source.license) if column]
    strict = [source.url, *source.texts]
    columns = list(dict.fromkeys([*strict, *others, *source.only]))
    loose = frozenset([*others, *source.only]) - frozenset(strict)
    names = [source.url, source.texts[0]] if kind == "txt" else source.columns
    return Wanted(columns, source.url, loose, names)


def _parts(place: str, kind: Format, source: TablesSource) -> list[tuple[int, int] | None]:
    """Return the runs of row groups that units read, first and last of each; None for all."""
    if kind != "parquet" or storage.size_of(place) < _LARGE_BYTES:
        return [None]
    with list_parquet.opened(place) as file:
        sizes = list_parquet.group_bytes(file, _wanted(source, kind).columns)
    part = (np.cumsum(sizes) - 1) // _PIECE_BYTES
    starts = np.flatnonzero(np.diff(part, prepend=-1)).tolist()
    ends = [start - 1 for start in starts[1:]] + [len(sizes) - 1]
    return list(zip(starts, ends, strict=True)) if len(starts) > 1 else [None]


# --- doing it ---------------------------------------------------------------


def run(job: TableJob) -> Done:
    """Write the candidates of one piece; what is broken in it is rejected, the rest is kept.

    Counts ``pages`` (rows read), ``filtered`` (rows that ``only`` leaves out), ``candidates``,
    ``repeated`` (the same pair again) and ``rejected:REASON``.

    Raises:
        ArchiveError: it is not of its format, a column is not there, or no row can be read.
        StorageError: it cannot be read, or the output cannot be written.
    """
    published: list[Published] = []
    with collecting(job.output, published) as collector:
        for rows in _rows(job):
            _take(rows, job.source, collector)
            read, broken = (collector.counts[key] for key in ("pages", _BAD_ROWS))
            if read >= _HOPELESS_ROWS and broken == read:
                raise _hopeless(job, rows)
    return done(collector, published)


def _rows(job: TableJob) -> Iterator[Rows]:
    place = job.source.paths[0]
    kind = _format(place, job.source)
    wanted = _wanted(job.source, kind)
    if kind == "parquet":
        return list_parquet.rows(place, wanted, job.groups)
    if kind == "jsonl":
        return list_rows.jsonl(place, wanted)
    return list_rows.delimited(place, kind, wanted)


def _hopeless(job: TableJob, rows: Rows) -> ArchiveError:
    number, fault = rows.broken[-1] if rows.broken else (int(rows.numbers[-1]), _NO_URL)
    return ArchiveError(
        f"none of the first rows can be read: {fault}",
        where=f"{storage.redact(job.source.paths[0])}, {_unit(job.source)} {number}",
        fix="check format and columns of this source in the recipe",
    )


def _unit(source: TablesSource) -> str:
    return "row" if source.format == "parquet" else "line"


def _take(rows: Rows, source: TablesSource, collector: Collector) -> None:
    """Give a batch of rows to the collector."""
    collector.counts["pages"] += len(rows.numbers) + len(rows.broken)
    for number, fault in rows.broken:
        collector.reject(Reason.BAD_ROW, f"{_unit(source)} {number}: {fault}", None)
    if rows.damage:
        collector.reject(Reason.BAD_RECORD, rows.damage, None)
    if len(rows.numbers):
        rows = _with_url(_only(rows, source, collector), source, collector)
        texts = [_text(rows.columns[name], source) for name in source.texts]
        some = functools.reduce(pc.or_, map(_not_empty, texts))
        if without := len(some) - some.true_count:
            collector.counts[f"rejected:{Reason.NO_TEXT}"] += without
            rows, texts = _filtered(rows, some), [text.filter(some) for text in texts]
        urls = _urls(rows, source, collector)
        collector.add(_pairs(rows, urls, texts, source))


def _filtered(rows: Rows, mask: pa.Array) -> Rows:
    columns = {name: column.filter(mask) for name, column in rows.columns.items()}
    numbers = rows.numbers[mask.to_numpy(zero_copy_only=False)]
    return rows._replace(columns=columns, numbers=numbers)


def _only(rows: Rows, source: TablesSource, collector: Collector) -> Rows:
    """Return the rows whose columns have the values that the recipe asks for."""
    for name, value in source.only.items():
        same = pc.equal(rows.columns[name], pa.scalar(value.encode(), pa.binary()))
        same = same.fill_null(False)
        collector.counts["filtered"] += len(same) - same.true_count
        rows = _filtered(rows, same)
    return rows


def _with_url(rows: Rows, source: TablesSource, collector: Collector) -> Rows:
    """Return the rows that have a URL, in UTF-8 and without space around it; reject the others."""
    given = rows.columns[source.url].fill_null(b"")
    urls, wrong = _decoded(given)
    urls = pc.utf8_trim_whitespace(urls)
    there = _not_empty(urls)
    if wrong is not None:
        there = pc.and_not(there, wrong)
    rows = rows._replace(columns={**rows.columns, source.url: urls})
    if there.false_count == 0:
        return rows
    for i in np.flatnonzero(~there.to_numpy(zero_copy_only=False)).tolist():
        fault = _NO_URL if wrong is None or not wrong[i].as_py() else "the URL is not UTF-8"
        detail = f"{_unit(source)} {rows.numbers[i]}: {fault}"
        collector.reject(Reason.BAD_ROW, detail, None)
    return _filtered(rows, there)


def _urls(rows: Rows, source: TablesSource, collector: Collector) -> pa.Array:
    """Return normalised URLs, null where one is refused."""
    urls, bad = normalise_urls(rows.columns[source.url])
    for i, why in bad:
        collector.reject(Reason.BAD_URL, f"{_unit(source)} {rows.numbers[i]}: {why}", None)
    return urls


def _pairs(rows: Rows, urls: pa.Array, texts: list[pa.Array], source: TablesSource) -> pa.Table:
    """Return a pair for each URL that was not refused and each of its texts, the same text once."""
    size = len(urls)
    archive = storage.name_of(source.paths[0])
    shared = {
        "url": urls,
        "text_from": pa.repeat(pa.scalar(TextFrom.GIVEN.value), size),
        "page_url": _links(rows, source.page_url),
        "license": _links(rows, source.license),
        "archive": pa.repeat(pa.scalar(archive), size),
        "found_at": pa.nulls(size, FOUND.field("found_at").type),
        "picture_at": pa.nulls(size, pa.string()),
    }
    tables = []
    for i, text in enumerate(texts):
        wanted = pc.and_(pc.is_valid(urls), _not_empty(text))
        for other in texts[:i]:
            wanted = pc.and_(wanted, pc.not_equal(text, other))
        columns = {**shared, "text": text}
        table = pa.table([columns[name] for name in FOUND.names], FOUND.names)
        tables.append(table if wanted.false_count == 0 else table.filter(wanted))
    return pa.concat_tables(tables)


def _links(rows: Rows, name: str | None) -> pa.Array:
    """Return a column's normalised URLs, null where there is none."""
    if name is None:
        return pa.nulls(len(rows.numbers), pa.string())
    given, _ = _decoded(rows.columns[name])
    encoded = given.dictionary_encode()  # the same few licences over and over
    urls, _ = normalise_urls(pc.utf8_trim_whitespace(encoded.dictionary))
    return urls.take(encoded.indices)


# --- texts ------------------------------------------------------------------


def _not_empty(texts: pa.Array) -> pa.Array:
    return pc.not_equal(pc.binary_length(texts), 0)


def _text(column: pa.Array, source: TablesSource) -> pa.Array:
    """Return a column's texts, white space collapsed; empty where there is none."""
    column = column.fill_null(b"") if column.null_count else column
    if source.percent_encoded:
        column = _percent_decoded(column)
    return collapse(_decoded(column)[0])


def _decoded(column: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """Return a binary column as strings, U+FFFD for what is not UTF-8; and where, if anywhere."""
    if pa.types.is_string(column.type):
        return column, None
    try:
        return column.cast(pa.string()), None
    except pa.ArrowInvalid:  # rare: a loop over the rows, 0.3 us each
        values = column.to_pylist()
        texts = [value and value.decode(errors="replace") for value in values]
        wrong = [
            bool(value) and text.encode() != value  # U+FFFD itself may stand in a text
            for value, text in zip(values, texts, strict=True)
        ]
        return pa.array([text or "" for text in texts], pa.string()), pa.array(wrong)


def _percent_decoded(column: pa.Array) -> pa.Array:
    """Return texts with ``+`` as a space and ``%XX`` as a byte; a ``%`` that begins none stays."""
    data, offsets = binary_buffers(column)
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint8)
    ends = np.zeros(len(column) + 1, np.int32)
    _undo_percents(data, offsets, out, ends)
    return pa.Array.from_buffers(
        pa.binary(), len(column), [None, pa.py_buffer(ends), pa.py_buffer(out)]
    )


@numba.njit(cache=True, nogil=True)
def _undo_percents(data: U8, offsets: I64, out: U8, ends: I32) -> None:
    to = 0
    for row in range(offsets.size - 1):
        at = offsets[row]
        end = offsets[row + 1]
        while at < end:
            byte = data[at]
            if byte == ord("+"):
                byte = np.uint8(ord(" "))
            elif byte == ord("%") and at + 2 < end:
                high, low = _digit(data[at + 1]), _digit(data[at + 2])
                if high >= 0 and low >= 0:
                    byte = np.uint8(16 * high + low)
                    at += 2
            out[to] = byte
            to += 1
            at += 1
        ends[row + 1] = to


@numba.njit(cache=True, inline="always")
def _digit(byte: np.uint8) -> int:
    """Return a hexadecimal digit's value, or -1."""
    if ord("0") <= byte <= ord("9"):
        return int(byte) - ord("0")
    lower = int(byte) | 0x20
    return lower - ord("a") + 10 if ord("a") <= lower <= ord("f") else -1
