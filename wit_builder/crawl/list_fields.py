r"""Lines of a list, cut into fields: csv, tsv, or whole lines.

A kernel walks over blocks of bytes and notes where the wanted fields of each row begin and end; no
row becomes a Python object. Where quotes count (csv, RFC 4180), a quoted field may hold delimiters,
line ends, and quotes, doubled. A row that is broken ends with its line: a quote that is never
closed, or that closes in the middle of a field, costs that line alone. Empty lines are skipped. A
line ends with ``\n`` or ``\r\n``; a NUL is a byte as any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder.crawl.list_bytes import DamagedError

MAX_ROW_BYTES = 4 << 20
"""Bytes beyond which a row is broken, and not held in memory."""

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_NEWLINE, _RETURN = 10, 13
_NONE = -1
_BAD_QUOTE, _TOO_LONG = -1, -2


class Layout(NamedTuple):
    """How a line is cut into fields.

    Attributes:
        fields: that each row must have.
        wanted: which of them to keep.
        delimiter: byte between fields, or -1.
        quote: byte around fields, or -1.
        rest: whether the last field takes further delimiters.
    """

    fields: int
    wanted: list[int]
    delimiter: int = _NONE
    quote: int = _NONE
    rest: bool = False


class Block(NamedTuple):
    """Some rows of a list.

    Attributes:
        columns: the wanted fields, a binary array each.
        lines: number of each row's first line, from 1.
        broken: line and fault of each row that is left out.
        data: the bytes that the rows stand in, whole lines; empty for rows too long to hold.
        damage: why there is nothing after it, if the file is damaged.
    """

    columns: list[pa.Array]
    lines: I64
    broken: list[tuple[int, str]]
    data: memoryview
    damage: str = ""


def blocks(chunks: Iterator[bytes], layout: Layout) -> Iterator[Block]:
    """Yield the rows that stand in chunks, in order, a block for a chunk or so.

    Damage (``DamagedError`` of the chunks) is told by the last block; the line that it cuts is
    dropped.
    """
    held, line, damage = b"", 1, ""
    skipping = False  # within a line too long to hold
    while not damage:
        try:
            chunk = next(chunks, None)
        except DamagedError as error:
            chunk, damage = b"", str(error)
        if chunk is None:
            break
        if skipping:
            end = chunk.find(b"\n")
            if end < 0:
                continue
            chunk, line, skipping = chunk[end + 1 :], line + 1, False
        held += chunk
        while True:
            block, used, line = _cut(held, line, layout)
            yield block
            held = held[used:]
            if len(held) <= MAX_ROW_BYTES:
                break
            yield _only_broken(layout, line, _TOO_LONG)
            end = held.find(b"\n")
            if end < 0:
                held, skipping = b"", True
                break
            held, line = held[end + 1 :], line + 1
    if damage:
        held = held[: held.rfind(b"\n") + 1]
    yield from _last(held, line, layout)
    if damage:
        yield _no_rows(layout)._replace(damage=damage)


def _last(held: bytes, line: int, layout: Layout) -> Iterator[Block]:
    """Yield the rows at the end of a file, the last of which may lack its line end."""
    held = held + b"\n" if held and not held.endswith(b"\n") else held
    while held:
        block, used, line = _cut(held, line, layout)
        yield block
        held = held[used:]
        if held:  # a quote is open: the row is broken, and ends with its line
            yield _only_broken(layout, line, _BAD_QUOTE)
            held, line = held[held.find(b"\n") + 1 :], line + 1


_FAULTS = {
    _BAD_QUOTE: "a quote is not closed, or closes within the field",
    _TOO_LONG: f"more than {MAX_ROW_BYTES >> 20} MiB",
}


def _only_broken(layout: Layout, line: int, fault: int) -> Block:
    return _no_rows(layout)._replace(broken=[(line, _FAULTS[fault])])


def _no_rows(layout: Layout) -> Block:
    nothing = pa.array([], pa.binary())
    columns = [nothing] * len(layout.wanted)
    return Block(columns, np.empty(0, np.int64), [], memoryview(b""))


def _cut(held: bytes, line: int, layout: Layout) -> tuple[Block, int, int]:
    """Return the whole rows of some bytes, how many bytes they are, and the line after them."""
    data = np.frombuffer(held, np.uint8)
    most_rows = np.count_nonzero(data == _NEWLINE) + 1  # one may begin that does not end
    width = len(layout.wanted)
    slots = np.full(layout.fields, -1, np.int64)
    slots[layout.wanted] = np.arange(width)
    splits = layout.fields - 1 if layout.rest else len(data)
    rows = _Rows(
        np.empty((most_rows, width, 2), np.int32),
        np.zeros((most_rows, width), np.bool_),
        np.empty(most_rows, np.int64),
        np.empty(most_rows, np.int32),
    )
    signs = (layout.delimiter, layout.quote, splits)
    count, used, line = _split(data, line, signs, slots, rows)
    good = rows.found[:count] == layout.fields
    keep = np.flatnonzero(good)
    columns = [_gathered(data, rows.spans[keep, i], rows.doubled[keep, i]) for i in range(width)]
    broken = [
        (int(rows.lines[row]), _fault(int(rows.found[row]), layout))
        for row in np.flatnonzero(~good)  # a loop over what is broken: half a microsecond each
    ]
    return Block(columns, rows.lines[keep], broken, memoryview(held)[:used]), used, line


def _fault(found: int, layout: Layout) -> str:
    return _FAULTS.get(found) or f"{found} fields, not {layout.fields}"


class _Rows(NamedTuple):
    """What the kernel fills in, a row of each array for a row of the list.

    Attributes:
        spans: first byte and end of each wanted field.
        doubled: whether there are doubled quotes in it.
        lines: number of the row's first line.
        found: how many fields the row has, or its fault, which is negative.
    """

    spans: I32
    doubled: Bools
    lines: I64
    found: I32


@numba.njit(cache=True)
def _split(
    data: U8, line: int, signs: tuple[int, int, int], slots: I64, to: _Rows
) -> tuple[int, int, int]:
    """Fill in the wanted fields of each whole row; return rows, bytes used, and the next line.

    Better whole than in pieces: it is one walk over the bytes, with the place in them as its state.
    """
    delimiter, quote, splits = signs
    size = data.size
    rows = 0
    begin = 0
    while begin < size:
        at = begin
        field = 0
        newlines = 0
        fault = 0
        ended = False
        while not ended:
            first = at
            last = at
            if at < size and quote >= 0 and data[at] == quote:
                at += 1
                first = at
                twice = False
                closed = False
                while at < size:
                    if data[at] == quote:
                        if at + 1 < size and data[at + 1] == quote:
                            twice = True
                            at += 1
                        else:
                            closed = at + 1 < size
                            break
                    elif data[at] == _NEWLINE:
                        newlines += 1
                    at += 1
                if not closed:
                    return rows, begin, line
                last = at
                at += 1
                if data[at] == _RETURN:
                    if at + 1 == size:
                        return rows, begin, line
                    if data[at + 1] == _NEWLINE:
                        at += 1
                if data[at] not in (delimiter, _NEWLINE):
                    fault = _BAD_QUOTE
                    break
                if field < slots.size and slots[field] >= 0:
                    to.doubled[rows, slots[field]] = twice
            else:
                while at < size and data[at] != _NEWLINE:
                    if data[at] == delimiter and field < splits:
                        break
                    at += 1
                if at == size:
                    return rows, begin, line
                last = at
                if data[at] == _NEWLINE and last > first and data[last - 1] == _RETURN:
                    last -= 1
            if field < slots.size and slots[field] >= 0:
                to.spans[rows, slots[field], 0] = first
                to.spans[rows, slots[field], 1] = last
            field += 1
            ended = data[at] == _NEWLINE
            at += 1
        if fault == 0 and at - begin > MAX_ROW_BYTES:
            fault = _TOO_LONG
        if fault != 0:
            at = begin
            while at < size and data[at] != _NEWLINE:
                at += 1
            if at == size:
                return rows, begin, line
            at += 1
            newlines = 0
        blank = fault == 0 and field == 1 and first == last and data[begin] != quote
        if not blank:
            to.lines[rows] = line
            to.found[rows] = fault if fault != 0 else field
            rows += 1
        line += newlines + 1
        begin = at
    return rows, begin, line


def _gathered(data: U8, spans: I32, doubled: Bools) -> pa.Array:
    """Return spans of bytes as a binary array, doubled quotes undone where there are any."""
    offsets = np.zeros(len(spans) + 1, np.int32)
    np.cumsum(spans[:, 1] - spans[:, 0], out=offsets[1:])
    out = np.empty(offsets[-1], np.uint8)
    if doubled.any():
        _copy_undoubled(data, spans, doubled, out, offsets)
    else:
        _copy(data, spans, out, offsets)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(out)]
    return pa.Array.from_buffers(pa.binary(), len(spans), buffers)


@numba.njit(cache=True)
def _copy(data: U8, spans: I32, out: U8, offsets: I32) -> None:
    for row in range(len(spans)):
        to = offsets[row]
        for at in range(spans[row, 0], spans[row, 1]):
            out[to] = data[at]
            to += 1


@numba.njit(cache=True)
def _copy_undoubled(data: U8, spans: I32, doubled: Bools, out: U8, offsets: I32) -> None:
    """Copy spans, and correct the offsets: what is left of a doubled quote is one."""
    quote = np.uint8(ord('"'))
    to = 0
    for row in range(len(spans)):
        offsets[row] = to
        at = spans[row, 0]
        while at < spans[row, 1]:
            out[to] = data[at]
            to += 1
            at += 2 if doubled[row] and data[at] == quote else 1
    offsets[len(spans)] = to
