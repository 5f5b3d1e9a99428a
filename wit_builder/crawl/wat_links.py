"""The links of WAT records: most of their bytes, and nearly all written in one way.

    {"path":"A@/href","url":"...","text":"..."},{"path":"IMG@/src","url":"...","alt":"..."}

With the places of the quotes, each key tells by its eight bytes where its value is, and no byte
is looked at but these and the one behind the value. What is written in any other way (white space,
a value that is no string, nesting) is left to the walk of ``wat_json``, which reads all of JSON.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from wit_builder.crawl.blocks import address_of, byte_at, eight_at

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

LINK = 2
"""Kind of a signal: a link that may be to a licence."""

PATH, HREF, ALT, TITLE, REL, UNSEEN = 0, 2, 4, 6, 8, 10
"""Where the spans of a link's values are in ``Walk.link``."""
LINK_COLUMNS = 12

_COMMA, _COLON, _SLASH, _OBJECT, _END_OBJECT = (np.uint8(ord(c)) for c in ",:/{}")


def _word(text: bytes) -> np.uint64:
    """Return up to eight bytes as ``eight_at`` reads them."""
    return np.frombuffer(text.ljust(8, b"\0"), np.uint64)[0]


_SIX, _SEVEN = _word(b"\xff" * 6), _word(b"\xff" * 7)
_PATH_IS, _TEXT_IS, _TITLE_IS = _word(b'path":"'), _word(b'text":"'), _word(b'title":"')
_URL_IS, _ALT_IS, _REL_IS = _word(b'url":"'), _word(b'alt":"'), _word(b'rel":"')
_IMG = _word(b"IMG@/src")
_LOWER = _word(b" " * 8)
_HTTP, _HTTPS = _word(b"http://"), _word(b"https://")
_AT_LEAST = len("//creativecommons.org/")
_CREATIVE, _WWW_CREA = _word(b"creative"), _word(b"www.crea")
_TIVECOMM, _ONS_ORG = _word(b"tivecomm"), _word(b"ons.org/")
_LICENSE = np.frombuffer(b"license", np.uint8)


class Walk(NamedTuple):
    """What a walk goes over, and what it finds.

    Attributes:
        data: the JSON of all records.
        quotes: places of the quotes of the record where the walk is.
        link: spans of what a link says, of ``LINK_COLUMNS``.
        records, pictures, signals: as in ``wat_json.Scan``, the latter two with room for more.
        counts: rows of pictures and of signals.
    """

    data: U8
    quotes: I64
    link: I64
    records: I64
    pictures: I64
    signals: I64
    counts: I64


@numba.njit(cache=True)
def take_plain_links(walk: Walk, number: int, at: int, quote: int, end: int) -> tuple[int, int]:
    """Take links one after the other, as long as they are plain.

    Args:
        walk: where they are, and go.
        number: of the record.
        at: where the first begins.
        quote: which of the quotes is the next.
        end: of the record.

    Returns:
        Where the last plain one ends, and the next quote there; ``at`` if there is none.
    """
    # One function for all links of a record: numba counts references where arrays are handed on.
    data, quotes, link = walk.data, walk.quotes, walk.link
    address = address_of(data)
    behind = at
    while at + 1 < end and data[at] == _OBJECT:
        link[:] = 0
        ahead = quote
        at += 1
        while quotes[ahead] == at and at + 9 <= end:
            column = _column(eight_at(address + at + 1))
            start, at = quotes[ahead + 2] + 1, quotes[ahead + 3]
            if column < 0:
                column = UNSEEN
                if quotes[ahead + 1] + 3 != start or data[start - 2] != _COLON:
                    break
            link[column], link[column + 1] = start, at
            at += 1
            ahead += 4
            if at >= end or data[at] != _COMMA:
                break
            at += 1
        else:  # not a plain key
            return behind, quote
        if at >= end or data[at] != _END_OBJECT:
            return behind, quote
        at += 1
        behind, quote = at, ahead
        if _is_picture(address, link[PATH], link[PATH + 1]):
            row = walk.pictures[walk.counts[0]]
            row[0] = number
            for k in range(6):
                row[1 + k] = link[HREF + k]
            walk.counts[0] += 1
        elif link[REL + 1] > link[REL] or _is_creative_commons(
            address, link[HREF], link[HREF + 1], data.size
        ):
            take_link(walk, number)
        if at >= end or data[at] != _COMMA:
            return behind, quote
        at += 1
    return behind, quote


@numba.njit(cache=True)
def _column(key: np.uint64) -> int:
    """Return where the value of a key goes, -1 if it is another key or not followed by a string."""
    if key & _SEVEN == _PATH_IS:
        return PATH
    if key & _SIX == _URL_IS:
        return HREF
    if key & _SEVEN == _TEXT_IS:
        return UNSEEN
    if key & _SIX == _ALT_IS:
        return ALT
    if key == _TITLE_IS:
        return TITLE
    return REL if key & _SIX == _REL_IS else -1


@numba.njit(cache=True)
def _is_picture(address: int, start: int, end: int) -> bool:
    return bool(end - start == 8 and eight_at(address + start) == _IMG)


@numba.njit(cache=True)
def take_link(walk: Walk, number: int) -> None:
    """Keep the link at hand if it is of a picture, or may be to a licence."""
    data, link = walk.data, walk.link
    address = address_of(data)
    if _is_picture(address, link[PATH], link[PATH + 1]):
        row = walk.pictures[walk.counts[0]]
        row[0] = number
        for k in range(6):
            row[1 + k] = link[HREF + k]
        walk.counts[0] += 1
    elif has(data, link[REL], link[REL + 1], _LICENSE) or _is_creative_commons(
        address, link[HREF], link[HREF + 1], data.size
    ):
        add_signal(walk, number, (LINK, link[REL], link[REL + 1], link[HREF], link[HREF + 1]))


@numba.njit(cache=True)
def _is_creative_commons(address: int, href: int, end: int, size: int) -> bool:
    """Return whether an address leads to Creative Commons, in so many bytes of data."""
    if href + _AT_LEAST > size:
        return False
    scheme = eight_at(address + href) | _LOWER
    slashes = href + (8 if scheme == _HTTPS else 7 if scheme & _SEVEN == _HTTP else 2)
    host = eight_at(address + slashes)
    if host not in (_CREATIVE, _WWW_CREA):  # nearly all: a branch that can be foretold
        return False
    at = slashes + (4 if host == _WWW_CREA else 0)
    return bool(
        at + len("creativecommons.org/") <= end
        and eight_at(address + at) == _CREATIVE
        and byte_at(address + slashes - 1) == byte_at(address + slashes - 2) == _SLASH
        and eight_at(address + at + 4) == _TIVECOMM
        and eight_at(address + at + 12) == _ONS_ORG
    )


@numba.njit(cache=True)
def has(data: U8, start: int, end: int, word: U8) -> bool:
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


@numba.njit(cache=True)
def add_signal(walk: Walk, number: int, told: tuple[int, int, int, int, int]) -> None:
    """Keep what may be an opt-out or a licence: its kind, the spans of name and value."""
    row = walk.signals[walk.counts[1]]
    row[0] = number
    for k in range(5):
        row[1 + k] = told[k]
    walk.counts[1] += 1
