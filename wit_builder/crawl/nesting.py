"""Whether parsing a page would cost much more than its size: told before it is parsed.

A conforming parser has work to do that grows with the square of a page, and memory, too:

* it looks up through the open elements on most tags (WHATWG HTML, 13.2.6.4.7), so nothing but
  nested ``<div>`` costs minutes. Browsers cap the depth at 512; lexbor does not;
* formatting elements that are not closed are opened anew, as copies with all their attributes, in
  every block that follows (13.2.4.3): 80 kB of ``<font size=1><p><font size=2><p>`` ... take
  gigabytes;
* an attribute's name is looked for among those before it in its tag;
* the attributes of a second ``<html>`` or ``<body>`` are each looked for among those of the first;
* lexbor keeps the names of tags and attributes in hash tables that do not grow.

``too_costly`` bounds all of these from above. A glance at where tags begin is enough for nearly all
pages: it tells how many there are, how many may be formatting, and whether all are short. What that
cannot clear is scanned: tags are read, and open elements kept, as the parser would, except that in
doubt an element stays open.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from wit_builder.crawl.open_elements import (
    EMPTY,
    FNV_PRIME,
    FNV_START,
    FOREIGN,
    FORMAT_BYTES,
    FORMATS,
    FORMATTING,
    KINDS,
    MAX_OPEN,
    MERGED,
    NAMES,
    OPEN,
    PLAINTEXT,
    RAW,
    SINGLE,
    STARTS,
    end,
    nearest,
    note_formatting,
    start,
)

MAX_STEPS = 500_000_000
"""Elements looked at in all, a few seconds; a large real page takes a few million."""
MAX_COPIED_BYTES = 2_000_000_000
"""Copies of formatting elements, as they are estimated, which is four to ten times too high."""
MAX_NAMES = 50_000
"""Distinct names of tags and attributes, half a second."""
MAX_COMPARED = 500_000_000
"""Names of attributes that others are compared with, two or three seconds."""
MAX_MERGED_BYTES = 1 << 15
"""Tags ``<html>`` and ``<body>`` after the first ones, half a second."""

_FEW_TAGS = 20_000
_FEW_BYTES = 1 << 19  # 20,000 tags, and as many names as fit, cost a second or two
_SMALL_BYTES = 1 << 16  # as many attributes as fit in one tag cost a second
_SHORT_BYTES = 8192  # of a tag, outside of quotes; 64 tags with as many names as fit cost a second
_ELEMENT_BYTES = 300  # a copy's memory
_ATTRIBUTE_BYTES = 60  # and of a letter of its tag: the shortest attribute is two


def too_costly(page: bytes) -> str | None:
    """Return why a page must not be parsed, or None if it may be.

    Args:
        page: HTML in UTF-8 (or another superset of ASCII).
    """
    codes = np.frombuffer(page, np.uint8)
    words = np.frombuffer(page, np.uint64, len(page) // 8)
    tags, formatting, formatting_bytes, short = _glance(words, codes, STARTS)
    copied = _ELEMENT_BYTES * formatting + _ATTRIBUTE_BYTES * formatting_bytes
    if (
        short
        and tags < _FEW_TAGS
        and len(page) < _FEW_BYTES
        and formatting_bytes < MAX_MERGED_BYTES
        and copied * (tags - formatting) < MAX_COPIED_BYTES
    ):
        return None
    return _WHY[_scan(codes, NAMES, KINDS)]


_WHY = (
    None,
    "nested too deep to parse",
    "too much formatting left open to parse",
    "too many attributes or names to parse",
)

_LT = np.uint64(0x3C3C3C3C3C3C3C3C)
_ONES = np.uint64(0x0101010101010101)
_HIGHS = np.uint64(0x8080808080808080)
_PLACES = np.uint64(0x0001020304050607)


@numba.njit(cache=True, nogil=True)
def _glance(
    words: npt.NDArray[np.uint64], page: npt.NDArray[np.uint8], starts: npt.NDArray[np.bool_]
) -> tuple[int, int, int, bool]:
    """Return how many tags there are at most, how many count, their bytes, whether all are short.

    Eight bytes at a time: 1/12 of what parsing takes; 1/6 where tags are followed to their ends,
    which those of a small page need not be unless they count. (The usual test for a zero byte may
    tell one too many after a true one, which is looked at again.)
    """
    tags = counted = size = 0
    for word in range(words.size - 1):
        zero = words[word] ^ _LT
        found = (zero - _ONES) & ~zero & _HIGHS
        if found:
            tags += int(((found >> np.uint64(7)) * _ONES) >> np.uint64(56))
            after = words[word] >> np.uint64(8) | words[word + 1] << np.uint64(56)
            found &= after << np.uint64(1)  # letters have this bit set, slash and mark do not
            while found:
                lowest = found & (~found + np.uint64(1))
                found ^= lowest
                at = 8 * word + int(((lowest >> np.uint64(7)) * _PLACES) >> np.uint64(56))
                counts = starts[page[at + 1] | int(page[at + 2]) << 8]
                if page[at] == 60 and (counts or page.size > _SMALL_BYTES):
                    stop, bare = _tag_end(page, at + 2)
                    if bare >= _SHORT_BYTES:
                        return tags, counted, size, False
                    counted += counts
                    size += stop - at if counts else 0
    return tags, counted, size, True


@numba.njit(cache=True, nogil=True)
def _tag_end(page: npt.NDArray[np.uint8], at: int) -> tuple[int, int]:
    """Return where a tag ends, at the first ``>`` outside of quotes, and its bytes outside of them.

    It is followed no further than until it is not short.
    """
    begin, stop = at, min(page.size, at + _SHORT_BYTES)
    quoted = before = 0
    while at < stop:
        byte = page[at]
        at += 1
        if byte > 62:
            before = 0
            continue
        if byte == 62:
            return at - 1, at - begin - quoted
        if byte in (34, 39) and before == 61:
            opened = at
            while at < page.size and page[at] != byte:
                at += 1
            quoted += at - opened
            stop = min(page.size, stop + at - opened)
            at += 1
        if byte > 32:
            before = byte
    return at, at - begin - quoted


@numba.njit(cache=True, nogil=True)
def _scan(
    page: npt.NDArray[np.uint8], known: npt.NDArray[np.uint64], kinds: npt.NDArray[np.int64]
) -> int:
    """Return which limit is exceeded, by its place in ``_WHY``: a parser's tokenizer in small."""
    opened = np.empty((MAX_OPEN + 1, 3), np.int64)
    formats = np.empty((MAX_OPEN + 1, 3), np.int64)
    have = np.zeros(5, np.int64)
    seen = np.zeros(1 << 17, np.bool_)
    distinct = merged = compared = steps = at = 0
    frozen = 0  # up to here it is not sure whether end tags are any
    copied = 0.0
    while at < page.size - 2:
        if page[at] != 60:
            at += 1
            continue
        closing = page[at + 1] == 47
        begin = at + 2 if closing else at + 1
        if not 97 <= page[begin] | 32 <= 122:
            at = _past_comment(page, at)
            continue
        name, after = _name(page, begin, 0)
        slot = name & np.uint64(known.size - 1)
        kind = kinds[slot] if known[slot] == name else 0
        distinct += not seen[name & np.uint64(seen.size - 1)]
        seen[name & np.uint64(seen.size - 1)] = True
        at, empty, count, fresh = _attributes(page, after, seen)
        distinct += fresh
        compared += count * count // 2
        steps += have[OPEN] + have[FORMATS] + 1
        copied += _ELEMENT_BYTES * have[FORMATS] + _ATTRIBUTE_BYTES * have[FORMAT_BYTES]
        merged += at - begin if kind & MERGED else 0
        if steps > MAX_STEPS or have[OPEN] == MAX_OPEN:
            return 1
        if copied > MAX_COPIED_BYTES or have[FORMATS] == MAX_OPEN:
            return 2
        if distinct > MAX_NAMES or merged > MAX_MERGED_BYTES or compared > MAX_COMPARED:
            return 3
        code = int(np.int64(name))
        if closing:
            if at > frozen:
                end(opened, formats, have, code, kind)
            continue
        if kind & SINGLE:
            end(opened, formats, have, code, kind)
        if kind & FORMATTING:
            steps += note_formatting(page[begin:at], opened, formats, have, code, kind)
        start(opened, formats, have, code, kind | EMPTY if empty else kind)
        if kind & (RAW | PLAINTEXT) and at > frozen:
            stop = _raw_end(page, at, name) if kind & RAW else page.size
            if nearest(opened, have, FOREIGN) >= 0 or kind & PLAINTEXT:
                frozen = stop
            else:
                frozen = _past_escape(page, at, stop)
                at = stop
    return 0


@numba.njit(cache=True, nogil=True)
def _name(page: npt.NDArray[np.uint8], at: int, stop: int) -> tuple[np.uint64, int]:
    """Return a name's hash, its letters in lower case, and where it ends; at ``stop``, too."""
    name = np.uint64(FNV_START)
    while at < page.size:
        byte = page[at]
        if byte <= 32 or byte in (47, 62, stop):
            break
        if 65 <= byte <= 90:
            byte |= 32
        name = (name ^ np.uint64(byte)) * np.uint64(FNV_PRIME)
        at += 1
    return name, at


@numba.njit(cache=True, nogil=True)
def _attributes(
    page: npt.NDArray[np.uint8], at: int, seen: npt.NDArray[np.bool_]
) -> tuple[int, bool, int, int]:
    """Return where a tag ends, whether it closes itself, and its attributes: all, and new names."""
    count = fresh = 0
    slash = False
    while at < page.size:
        byte = page[at]
        if byte == 62:
            return at + 1, slash, count, fresh
        slash = byte == 47
        if byte <= 32 or slash:
            at += 1
            continue
        name, at = _name(page, at + 1, 61)
        name ^= np.uint64(byte)
        count += 1
        fresh += not seen[name & np.uint64(seen.size - 1)]
        seen[name & np.uint64(seen.size - 1)] = True
        at = _past_value(page, at)
    return at, slash, count, fresh


@numba.njit(cache=True, nogil=True)
def _past_value(page: npt.NDArray[np.uint8], at: int) -> int:
    """Return where an attribute ends whose name ends here."""
    while at < page.size and page[at] <= 32:
        at += 1
    if at == page.size or page[at] != 61:
        return at
    at += 1
    while at < page.size and page[at] <= 32:
        at += 1
    if at < page.size and (page[at] == 34 or page[at] == 39):
        quote = page[at]
        at += 1
        while at < page.size and page[at] != quote:
            at += 1
        return at + 1
    while at < page.size and page[at] > 32 and page[at] != 62:
        at += 1
    return at


@numba.njit(cache=True, nogil=True)
def _past_comment(page: npt.NDArray[np.uint8], begin: int) -> int:
    """Return where a comment ends, or what is taken for one; if it is text, the next byte."""
    after = page[begin + 1]
    if after == 33 and begin + 3 < page.size and page[begin + 2] == 45 == page[begin + 3]:
        for at in range(begin + 2, page.size - 2):
            if page[at] == 45 == page[at + 1]:
                if page[at + 2] == 62:
                    return at + 3
                bang = page[at + 2] == 33 and at >= begin + 4
                if bang and at + 3 < page.size and page[at + 3] == 62:
                    return at + 4
        return page.size
    if after not in (33, 47, 63):
        return begin + 1
    at = begin + 2
    while at < page.size and page[at] != 62:
        at += 1
    return at + 1


@numba.njit(cache=True, nogil=True)
def _raw_end(page: npt.NDArray[np.uint8], at: int, name: np.uint64) -> int:
    """Return where the end tag of an element stands whose content is text."""
    while at < page.size - 1:
        if page[at] == 60 and page[at + 1] == 47 and _name(page, at + 2, 0)[0] == name:
            return at
        at += 1
    return page.size


@numba.njit(cache=True, nogil=True)
def _past_escape(page: npt.NDArray[np.uint8], at: int, stop: int) -> int:
    """Return up to where a script may go on after its end tag, because of a ``<!--`` in it."""
    while at < stop - 3:
        if page[at] == 60 and page[at + 1] == 33 and page[at + 2] == 45 == page[at + 3]:
            return max(stop, _past_comment(page, at))
        at += 1
    return stop
