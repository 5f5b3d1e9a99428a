"""HTML's entities, by name and by number."""

from __future__ import annotations

import html
from html.entities import html5

import numpy as np

from wit_builder.queries.wikitext.scan import (
    HASH,
    SEMICOLON,
    U8,
    Names,
    Scan,
    byte_at,
    is_letter,
    is_name,
    joined,
    keep,
    lower_at,
    step,
    write,
)


def _named() -> tuple[Names, Names]:
    """Return names (with semicolon, sorted) and values.

    Without the two (``&nGt;``, ``&nLt;``) that are longer decoded: no step writes more than it
    reads.
    """
    named = {name.encode(): value.encode() for name, value in html5.items() if name[-1] == ";"}
    names = sorted(name for name, value in named.items() if len(value) <= len(name) + 1)
    return joined(names), joined([named[name] for name in names])


(_NAMES, _NAME_STARTS), (_VALUES, _VALUE_STARTS) = _named()
_LONGEST = int(np.diff(_NAME_STARTS).max())

# A low number is read as Windows-1252 or is no character (-1): "numeric character reference end
# state" of html.spec.whatwg.org, which html.unescape follows.
_LOW = np.array([ord(html.unescape(f"&#{n};") or "\0") or -1 for n in range(160)], np.int64)
_NO_CHARACTER, _TOO_HIGH = 0xFFFD, 0x110000


@step
def entity(scan: Scan, at: int, end: int) -> int:
    """Decode an entity; without its semicolon it is text, as for MediaWiki's ``Sanitizer``."""
    if byte_at(scan.data, at + 1, end) == HASH:
        return _number(scan, at, end)
    after = at + 1
    while after - at <= _LONGEST and is_name(lower_at(scan.data, after, end)):
        after += 1
    if byte_at(scan.data, after, end) != SEMICOLON:
        return keep(scan, at)
    found = _find(scan.data, at + 1, after + 1)
    if found < 0:
        return keep(scan, at)
    for i in range(_VALUE_STARTS[found], _VALUE_STARTS[found + 1]):
        write(scan, _VALUES[i])
    return after + 1


@step
def _find(data: U8, at: int, end: int) -> int:
    """Return which entity has this name, or -1: by bisection, as the names are sorted."""
    low, high = 0, _NAME_STARTS.size - 1
    while low < high:
        middle = (low + high) // 2
        first, size = _NAME_STARTS[middle], _NAME_STARTS[middle + 1] - _NAME_STARTS[middle]
        same = 0
        while same < min(size, end - at) and data[at + same] == _NAMES[first + same]:
            same += 1
        # The only semicolon of a name is its end, so none is the beginning of another.
        if same == size:
            return middle
        if data[at + same] < _NAMES[first + same]:
            high = middle
        else:
            low = middle + 1
    return -1


@step
def _number(scan: Scan, at: int, end: int) -> int:
    """Decode a numeric character reference."""
    data = scan.data
    base = 16 if lower_at(data, at + 2, end) == ord("x") else 10
    first = at + (3 if base == 16 else 2)
    after, code = first, 0
    while _digit(lower_at(data, after, end)) < base:
        code = min(code * base + _digit(lower_at(data, after, end)), _TOO_HIGH)
        after += 1
    if after == first or byte_at(data, after, end) != SEMICOLON:
        return keep(scan, at)
    _write_number(scan, code)
    return after + 1


@step
def _digit(lower: int) -> int:
    """Return the value of a digit of any base, or 99."""
    if is_letter(lower):
        return lower - 87
    return lower - 48 if is_name(lower) else 99


@step
def _write_number(scan: Scan, code: int) -> None:
    """Write the character that a browser shows for a number, if any."""
    if code < _LOW.size:
        code = _LOW[code]
    elif 0xD800 <= code <= 0xDFFF or code == _TOO_HIGH:
        code = _NO_CHARACTER
    if code >= 0 and not (0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE):
        _write_utf8(scan, code)


@step
def _write_utf8(scan: Scan, code: int) -> None:
    if code < 0x80:
        write(scan, code)
        return
    size = 2 if code < 0x800 else 3 if code < 0x10000 else 4
    write(scan, (0xF00 >> size) & 0xFF | code >> 6 * (size - 1))
    for i in range(size - 2, -1, -1):
        write(scan, 0x80 | code >> 6 * i & 0x3F)
