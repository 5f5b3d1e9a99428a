"""Lines cut into fields, held against a plain reading of the same rules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wit_builder.crawl.list_fields import Layout, blocks

QUOTE = b'"'


def plainly(data: bytes, layout: Layout) -> tuple[list[tuple[int, list[bytes]]], list[int]]:
    """Return line and fields of each row, and the lines of those that are broken."""
    data = data if data.endswith(b"\n") or not data else data + b"\n"
    rows, broken = [], []
    at, line = 0, 1
    while at < len(data):
        fields, end = row_at(data, at, layout)
        if fields is None:  # ends with its line
            broken.append(line)
            end = data.index(b"\n", at) + 1
        elif data[at:end] not in (b"\n", b"\r\n"):
            if len(fields) == layout.fields:
                rows.append((line, [fields[i] for i in layout.wanted]))
            else:
                broken.append(line)
        line += data.count(b"\n", at, end)
        at = end
    return rows, broken


def row_at(data: bytes, at: int, layout: Layout) -> tuple[list[bytes] | None, int]:
    """Return the fields that begin at a byte, or None, and where they end."""
    fields: list[bytes] = []
    while True:
        quoted = layout.quote >= 0 and data[at : at + 1] == QUOTE
        value, at = quoted_at(data, at + 1) if quoted else bare_at(data, at, layout.delimiter)
        if value is None:
            return None, at
        fields.append(value)
        if data[at : at + 2] == b"\r\n":
            at += 1
        if data[at] == ord("\n"):
            return fields, at + 1
        if data[at] != layout.delimiter:
            return None, at
        at += 1


def quoted_at(data: bytes, at: int) -> tuple[bytes | None, int]:
    value = b""
    while at < len(data):
        if data[at : at + 2] == QUOTE * 2:
            at += 1
        elif data[at : at + 1] == QUOTE:
            return value, at + 1
        value += data[at : at + 1]
        at += 1
    return None, at


def bare_at(data: bytes, at: int, delimiter: int) -> tuple[bytes, int]:
    begin = at
    while data[at] not in (delimiter, ord("\n")) and data[at : at + 2] != b"\r\n":
        at += 1
    return data[begin:at], at


@st.composite
def lists(draw: st.DrawFn) -> tuple[bytes, Layout, int]:
    """Make a list with many separators and quotes, its layout, and the size of its chunks."""
    data = b"".join(
        draw(
            st.lists(st.sampled_from([b'"', b",", b"\n", b"\r\n", b"\r", b"a", b"\0"]), max_size=40)
        )
    )
    fields = draw(st.integers(1, 3))
    wanted = draw(st.lists(st.integers(0, fields - 1), min_size=1, unique=True))
    quote = draw(st.sampled_from([-1, ord('"')]))
    return data, Layout(fields, wanted, ord(","), quote), draw(st.integers(1, 50))


@given(lists())
def test_fields_are_those_of_a_plain_reading(made):
    """Rows, their lines, and what is broken are as the rules say, however the bytes arrive."""
    data, layout, chunk_bytes = made
    chunks = (data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes))
    rows, broken = [], []
    for block in blocks(chunks, layout):
        columns = [column.to_pylist() for column in block.columns]
        rows += [
            (line, list(row)) for line, *row in zip(block.lines.tolist(), *columns, strict=True)
        ]
        broken += [line for line, _ in block.broken]
    assert (rows, sorted(broken)) == plainly(data, layout)
