"""What the JSON of WAT records says, found in one walk over the bytes of many.

A WAT record has one JSON object for each record of the WARC file (Common Crawl's ia-web-commons
makes them). The walk goes from string to string and follows objects and arrays, so that a
record which is cut or garbled is told; it takes no offence at how a number is written, or at a
wrong escape. It looks only at what stands at these places, in whatever order:

    Envelope.WARC-Header-Metadata: WARC-Target-URI, WARC-Date
    Envelope.Payload-Metadata.HTTP-Response-Metadata
        Response-Message.Status
        Headers: those that may hold an opt-out
        HTML-Metadata.Head: Base; Metas that may hold an opt-out; Link with a rel
        HTML-Metadata.Links: IMG@/src with url, alt and title; links that may be to a licence

Strings come back as *spans*: where they begin and end in the bytes, within their quotes.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from wit_builder.crawl.quotes import index_quotes, room
from wit_builder.crawl.wat_links import (
    LINK_COLUMNS,
    Walk,
    add_signal,
    has,
    take_link,
    take_plain_links,
)
from wit_builder.web.agent import TOKEN

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

VALID, HTML, URL, DATE, STATUS, BASE = 0, 1, 2, 4, 6, 8
"""Columns of ``Scan.records``: two flags, then spans."""
_RECORD_COLUMNS = 10
HREF, ALT, TITLE = 1, 3, 5
"""Columns of ``Scan.pictures`` where spans begin; the first is the record's number."""
NAME, VALUE = 2, 4
"""Columns of ``Scan.signals`` where spans begin, behind the number and the kind."""
HEADER, META = 0, 1
"""Kinds of ``Scan.signals``, beside ``LINK``."""

_MAX_DEPTH = 64

# Containers on the way, and what a key in one leads to. Everything else is passed over.
_OTHER, _TOP, _ENVELOPE, _WARC, _PAYLOAD, _RESPONSE, _MESSAGE, _HEADERS = range(8)
_HTML, _HEAD, _METAS, _HEAD_LINKS, _LINKS, _META, _LINK = range(8, 15)
_V_URL, _V_DATE, _V_STATUS, _V_BASE, _V_HEADER, _V_NAME, _V_CONTENT = range(15, 22)
_V_PATH, _V_HREF, _V_ALT, _V_TITLE, _V_REL = range(22, 27)

_KEYS = {
    (_TOP, "Envelope"): _ENVELOPE,
    (_ENVELOPE, "WARC-Header-Metadata"): _WARC,
    (_WARC, "WARC-Target-URI"): _V_URL,
    (_WARC, "WARC-Date"): _V_DATE,
    (_ENVELOPE, "Payload-Metadata"): _PAYLOAD,
    (_PAYLOAD, "HTTP-Response-Metadata"): _RESPONSE,
    (_RESPONSE, "Response-Message"): _MESSAGE,
    (_MESSAGE, "Status"): _V_STATUS,
    (_RESPONSE, "Headers"): _HEADERS,
    (_RESPONSE, "HTML-Metadata"): _HTML,
    (_HTML, "Head"): _HEAD,
    (_HEAD, "Base"): _V_BASE,
    (_HEAD, "Metas"): _METAS,
    (_HEAD, "Link"): _HEAD_LINKS,
    (_HTML, "Links"): _LINKS,
    (_META, "name"): _V_NAME,
    (_META, "content"): _V_CONTENT,
    (_LINK, "path"): _V_PATH,
    (_LINK, "url"): _V_HREF,
    (_LINK, "alt"): _V_ALT,
    (_LINK, "title"): _V_TITLE,
    (_LINK, "rel"): _V_REL,
}
_PRIME = np.uint64(0x100000001B3)  # FNV-1a, 64 bit


def _key_hash(state: int, key: str) -> int:
    value = state
    for byte in key.encode():
        value = ((value ^ byte) * int(_PRIME)) % (1 << 64)
    return value


_SLOTS = 256
_SHIFT = 23  # of the hash's bits, for which no two keys share a place
_KEY_HASHES: U64 = np.zeros(_SLOTS, np.uint64)
_KEY_STATES = np.zeros(_SLOTS, np.int64)
for (_state, _key), _leads_to in _KEYS.items():
    _hash = _key_hash(_state, _key)
    _place = (_hash >> _SHIFT) % _SLOTS
    assert _KEY_HASHES[_place] == 0, "two keys in one place: take other bits of the hash"
    _KEY_HASHES[_place], _KEY_STATES[_place] = _hash, _leads_to


class Scan(NamedTuple):
    """What the walk found.

    Attributes:
        records: a row per record: whether it is valid JSON; whether it is of an HTML page; spans of
            page URL, date, HTTP status and base, of which the start is 0 where there is none.
        pictures: a row per ``IMG@/src``: number of the record, spans of address, alt and title.
        signals: a row per header or meta that may hold an opt-out, and per link that may be to a
            licence: number of the record, kind, spans of name and value (of ``rel`` and address).
    """

    records: I64
    pictures: I64
    signals: I64


def scan(data: U8, offsets: I64) -> Scan:
    """Return what records say.

    Args:
        data: the JSON of all records, one after the other.
        offsets: where each begins, and the last one's end.
    """
    records = np.zeros((offsets.size - 1, _RECORD_COLUMNS), np.int64)
    pictures = np.empty((data.size // len('{"path":"IMG@/src"}') + 1, 7), np.int64)
    signals = np.empty((data.size // len('"",') + 1, 6), np.int64)  # a header may be an array
    walk = Walk(
        data,
        room(int(np.diff(offsets).max(initial=0))),
        np.zeros(LINK_COLUMNS, np.int64),
        records,
        pictures,
        signals,
        counts := np.zeros(2, np.int64),
    )
    _scan(walk, offsets)
    return Scan(records, pictures[: counts[0]], signals[: counts[1]])


_OPT_OUT_HEADERS = tuple(
    np.frombuffer(name, np.uint8)
    for name in (b"x-robots-tag", b"tdm-reservation", b"content-usage")
)
_OPT_OUT_METAS = tuple(
    np.frombuffer(name, np.uint8) for name in (b"robots", TOKEN.encode(), b"tdm-reservation")
)
_QUOTE, _BACKSLASH, _COMMA, _COLON, _AMPERSAND = (np.uint8(ord(c)) for c in '"\\,:&')
_OBJECT, _END_OBJECT, _ARRAY, _END_ARRAY = (np.uint8(ord(c)) for c in "{}[]")
_A_VALUE, _A_VALUE_OR_END, _A_KEY, _A_KEY_OR_END, _WHAT_FOLLOWS = range(5)


@numba.njit(cache=True, nogil=True)
def _scan(walk: Walk, offsets: I64) -> None:
    # Whole, because the state of the walk is a dozen locals, which a call a value would spill.
    data, quotes, link = walk.data, walk.quotes, walk.link
    stack = np.zeros(_MAX_DEPTH, np.int64)
    is_object = np.zeros(_MAX_DEPTH, np.bool_)
    for number in range(offsets.size - 1):
        record = walk.records[number]
        at, end = offsets[number], offsets[number + 1]
        index_quotes(data, at, end, quotes)
        quote = 0  # which of them is the next
        depth, role, expected = 0, _TOP, _A_VALUE
        key_start = key_end = 0
        while at < end:
            byte = data[at]
            if byte == _QUOTE and expected <= _A_KEY_OR_END:
                start, at = at + 1, quotes[quote + 1]
                quote += 2
                if at == end:
                    break
                if expected >= _A_KEY:
                    key_start, key_end = start, at
                    role = _role_of(stack[depth], data, start, at)
                    at += 1
                    while at < end and data[at] <= 32:
                        at += 1
                    if at == end or data[at] != _COLON:
                        break
                    expected = _A_VALUE
                else:
                    if role >= _V_URL:
                        _take_string(walk, number, role, (key_start, key_end, start, at))
                    expected = _WHAT_FOLLOWS
            elif byte == _COMMA and expected == _WHAT_FOLLOWS and depth > 0:
                if is_object[depth]:
                    expected = _A_KEY
                else:
                    role, expected = stack[depth], _A_VALUE
            elif byte == _OBJECT and expected <= _A_VALUE_OR_END and depth < _MAX_DEPTH - 1:
                if role == _LINK:
                    behind, quote = take_plain_links(walk, number, at, quote, end)
                    if behind > at:
                        at, expected = behind, _WHAT_FOLLOWS
                        continue
                depth += 1
                is_object[depth] = True
                stack[depth] = role if role <= _HEAD or role >= _META else _OTHER
                if role >= _V_URL:
                    stack[depth] = _OTHER
                elif role >= _META:
                    link[:] = 0
                elif role == _HTML:
                    record[HTML] = 1
                expected = _A_KEY_OR_END
            elif byte == _ARRAY and expected <= _A_VALUE_OR_END and depth < _MAX_DEPTH - 1:
                depth += 1
                is_object[depth] = False
                stack[depth] = _role_in_array(role)
                role, expected = stack[depth], _A_VALUE_OR_END
            elif byte == _END_OBJECT and expected in (_A_KEY_OR_END, _WHAT_FOLLOWS):
                if depth == 0 or not is_object[depth]:
                    break
                if stack[depth] == _LINK:
                    take_link(walk, number)
                elif stack[depth] == _META and _addresses_us(data, link[0], link[1]):
                    add_signal(walk, number, (META, link[0], link[1], link[2], link[3]))
                depth -= 1
                expected = _WHAT_FOLLOWS
            elif byte == _END_ARRAY and expected in (_A_VALUE_OR_END, _WHAT_FOLLOWS):
                if depth == 0 or is_object[depth]:
                    break
                depth -= 1
                expected = _WHAT_FOLLOWS
            elif byte > 32:
                if expected > _A_VALUE_OR_END or not _is_literal(byte):
                    break
                while at + 1 < end and _is_literal(data[at + 1]):
                    at += 1
                expected = _WHAT_FOLLOWS
            at += 1
        record[VALID] = at == end and depth == 0 and expected == _WHAT_FOLLOWS


@numba.njit(cache=True)
def _take_string(walk: Walk, number: int, role: int, spans: tuple[int, int, int, int]) -> None:
    """Keep a value that is looked for: the spans of its key and of itself."""
    start, end = spans[2], spans[3]
    if role >= _V_PATH:
        place = 2 * (role - _V_PATH)
        walk.link[place], walk.link[place + 1] = start, end
    elif role >= _V_NAME:
        place = 2 * (role - _V_NAME)
        walk.link[place], walk.link[place + 1] = start, end
    elif role == _V_HEADER:
        add_signal(walk, number, (HEADER, *spans))
    else:
        place = URL + 2 * (role - _V_URL)
        walk.records[number, place], walk.records[number, place + 1] = start, end


@numba.njit(cache=True, inline="always")
def _role_of(state: int, data: U8, start: int, end: int) -> int:
    """Return what the value of a key is."""
    if state == _OTHER:
        return _OTHER
    if state == _HEADERS:
        for name in numba.literal_unroll(_OPT_OUT_HEADERS):
            if end - start == name.size and has(data, start, end, name):
                return _V_HEADER
        return _OTHER
    value = np.uint64(state)
    for k in range(start, end):
        value = (value ^ np.uint64(data[k])) * _PRIME
    place = (value >> np.uint64(_SHIFT)) % np.uint64(_SLOTS)
    return _KEY_STATES[place] if _KEY_HASHES[place] == value else _OTHER


@numba.njit(cache=True, inline="always")
def _role_in_array(role: int) -> int:
    """Return what each element of an array is: a repeated header is an array of strings."""
    if role == _METAS:
        return _META
    if role in (_LINKS, _HEAD_LINKS):
        return _LINK
    return role if role == _V_HEADER else _OTHER


@numba.njit(cache=True, inline="always")
def _is_literal(byte: np.uint8) -> bool:
    """Return whether a byte may be of a number, true, false or null."""
    return bool(97 <= byte | 32 <= 122 or 48 <= byte <= 57 or byte in (43, 45, 46))


@numba.njit(cache=True)
def _addresses_us(data: U8, start: int, end: int) -> bool:
    """Return whether a meta's name may be one that holds opt-outs; an escaped one may be."""
    for k in range(start, end):
        if data[k] in (_BACKSLASH, _AMPERSAND):
            return True
    for name in numba.literal_unroll(_OPT_OUT_METAS):  # noqa: SIM110 - numba inlines no generators
        if has(data, start, end, name):
            return True
    return False
