"""What the JSON of WAT records says, found in one walk over the bytes of many.

A WAT record has one JSON object for each record of the WARC file (Common Crawl's ia-web-commons
makes them). The walk goes through every byte and follows strings, objects and arrays, so that a
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

from wit_builder.web.agent import TOKEN

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

VALID, HTML, URL, DATE, STATUS, BASE = 0, 1, 2, 4, 6, 8
"""Columns of ``Scan.records``: two flags, then spans."""
_RECORD_COLUMNS = 10
HREF, ALT, TITLE = 1, 3, 5
"""Columns of ``Scan.pictures`` where spans begin; the first is the record's number."""
HEADER, META, LINK = 0, 1, 2
"""Kinds of ``Scan.signals``."""

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
    found = _Found(records, pictures, signals)
    counts = _scan(data, offsets, found)
    return Scan(records, pictures[: counts[0]], signals[: counts[1]])


class _Found(NamedTuple):
    records: I64
    pictures: I64
    signals: I64


_OPT_OUT_HEADERS = tuple(
    np.frombuffer(name, np.uint8)
    for name in (b"x-robots-tag", b"tdm-reservation", b"content-usage")
)
_OPT_OUT_METAS = tuple(
    np.frombuffer(name, np.uint8) for name in (b"robots", TOKEN.encode(), b"tdm-reservation")
)
_IMG = np.frombuffer(b"IMG@/src", np.uint8)
_CREATIVE_COMMONS = np.frombuffer(b"creativecommons.org/", np.uint8)
_LICENSE = np.frombuffer(b"license", np.uint8)
_QUOTE, _BACKSLASH, _COMMA, _COLON, _AMPERSAND = (np.uint8(ord(c)) for c in '"\\,:&')
_OBJECT, _END_OBJECT, _ARRAY, _END_ARRAY = (np.uint8(ord(c)) for c in "{}[]")
_A_VALUE, _A_VALUE_OR_END, _A_KEY, _A_KEY_OR_END, _WHAT_FOLLOWS = range(5)


@numba.njit(cache=True, nogil=True)
def _scan(data: U8, offsets: I64, found: _Found) -> tuple[int, int]:
    # Whole, because the state of the walk is a dozen locals, which a call a value would spill.
    stack = np.zeros(_MAX_DEPTH, np.int64)
    is_object = np.zeros(_MAX_DEPTH, np.bool_)
    link = np.zeros(12, np.int64)  # spans of an object's path, url, alt, title, rel, and of a meta
    pictures = signals = 0
    for number in range(offsets.size - 1):
        record = found.records[number]
        at, end = offsets[number], offsets[number + 1]
        depth, role, expected = 0, _TOP, _A_VALUE
        key_start = key_end = 0
        while at < end:
            byte = data[at]
            if byte == _QUOTE and expected <= _A_KEY_OR_END:
                start = at + 1
                at = _string_end(data, start, end)
                if at < 0:
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
                    if role >= _V_PATH:
                        place = 2 * (role - _V_PATH)
                        link[place], link[place + 1] = start, at
                    elif role >= _V_URL:
                        if role <= _V_BASE:
                            place = URL + 2 * (role - _V_URL)
                            record[place], record[place + 1] = start, at
                        elif role == _V_HEADER:
                            signals = _signal(
                                found.signals,
                                signals,
                                (number, HEADER, key_start, key_end, start, at),
                            )
                        else:
                            place = 2 * (role - _V_NAME)
                            link[place], link[place + 1] = start, at
                    expected = _WHAT_FOLLOWS
            elif byte == _COMMA and expected == _WHAT_FOLLOWS and depth > 0:
                if is_object[depth]:
                    expected = _A_KEY
                else:
                    role, expected = stack[depth], _A_VALUE
            elif byte == _OBJECT and expected <= _A_VALUE_OR_END and depth < _MAX_DEPTH - 1:
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
                    if _is(data, link[0], link[1], _IMG):
                        row = found.pictures[pictures]
                        row[0] = number
                        row[1:] = link[2:8]
                        pictures += 1
                    elif _may_be_license(data, link):
                        signals = _signal(
                            found.signals,
                            signals,
                            (number, LINK, link[8], link[9], link[2], link[3]),
                        )
                elif stack[depth] == _META and _addresses_us(data, link[0], link[1]):
                    signals = _signal(
                        found.signals, signals, (number, META, link[0], link[1], link[2], link[3])
                    )
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
    return pictures, signals


@numba.njit(cache=True, inline="always")
def _string_end(data: U8, at: int, end: int) -> int:
    """Return where the string that begins here ends (its quote), or -1 if it does not."""
    while at < end:
        byte = data[at]
        if byte == _QUOTE:
            return at
        if byte == _BACKSLASH:
            at += 1
        at += 1
    return -1


@numba.njit(cache=True, inline="always")
def _role_of(state: int, data: U8, start: int, end: int) -> int:
    """Return what the value of a key is."""
    if state == _OTHER:
        return _OTHER
    if state == _HEADERS:
        for name in numba.literal_unroll(_OPT_OUT_HEADERS):
            if end - start == name.size and _has(data, start, end, name):
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


@numba.njit(cache=True, inline="always")
def _is(data: U8, start: int, end: int, word: U8) -> bool:
    if end - start != word.size:
        return False
    for k in range(word.size):  # noqa: SIM110 - numba inlines no generators
        if data[start + k] != word[k]:
            return False
    return True


@numba.njit(cache=True)
def _has(data: U8, start: int, end: int, word: U8) -> bool:
    """Return whether a word stands in a string, in any case; ``word`` in lower case."""
    for first in range(start, end - word.size + 1):
        k = 0
        while k < word.size and _lower(data[first + k]) == word[k]:
            k += 1
        if k == word.size:
            return True
    return False


@numba.njit(cache=True, inline="always")
def _lower(byte: np.uint8) -> np.uint8:
    return np.uint8(byte + 32) if 65 <= byte <= 90 else byte


@numba.njit(cache=True, inline="always")
def _may_be_license(data: U8, link: I64) -> bool:
    """Return whether a link says it is to a licence, or leads to Creative Commons."""
    if _has(data, link[8], link[9], _LICENSE):
        return True
    at, end = link[2], link[3]
    host = 0
    while at < end and host < 2:  # behind the two slashes
        host += data[at] == 47
        at += 1
        if at - link[2] > 8:
            return False
    if end - at > 4 and data[at] == 119 and data[at + 3] == 46:  # www.
        at += 4
    return _is(data, at, min(end, at + _CREATIVE_COMMONS.size), _CREATIVE_COMMONS)


@numba.njit(cache=True)
def _addresses_us(data: U8, start: int, end: int) -> bool:
    """Return whether a meta's name may be one that holds opt-outs; an escaped one may be."""
    for k in range(start, end):
        if data[k] in (_BACKSLASH, _AMPERSAND):
            return True
    for name in numba.literal_unroll(_OPT_OUT_METAS):  # noqa: SIM110 - numba inlines no generators
        if _has(data, start, end, name):
            return True
    return False


@numba.njit(cache=True, inline="always")
def _signal(signals: I64, count: int, row: tuple[int, int, int, int, int, int]) -> int:
    for k in range(6):
        signals[count, k] = row[k]
    return count + 1
