"""URLs and texts by the column: what ``urls`` and ``str.split`` do, without a loop over the rows.

Most URLs of the web can be made normal by moving bytes. A kernel does that and tells which; the
others, one in thirty or so, go through Python one at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder.crawl.blocks import address_of, byte_at, copy
from wit_builder.crawl.join import joined
from wit_builder.crawl.urls import (
    CONTROLS,
    DATA_URI,
    MAX_URL_CHARS,
    BadUrlError,
    normalise,
    resolve,
)
from wit_builder.hashing import binary_buffers

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Bad = list[tuple[int, str]]
"""Position in the column of each refused URL, and why."""


def normalise_urls(urls: pa.Array) -> tuple[pa.Array, Bad]:
    """Return absolute URLs in normal form, null where one is refused; and why, for these.

    Args:
        urls: string array without nulls; white space around them is no part of them.
    """
    nowhere = np.full(len(urls), -1)
    plain, normal = joined(urls, pa.array([], pa.string()), nowhere)
    return _settled(
        urls, plain, normal, lambda index: normalise(urls[index].as_py().strip(CONTROLS))
    )


def resolve_urls(hrefs: pa.Array, bases: pa.Array, which: I64) -> tuple[pa.Array, Bad]:
    """Return what attribute values mean on their pages, null where refused; and why, for these.

    Args:
        hrefs: string array of the values as they stand in the pages, without nulls.
        bases: string array of normalised URLs: of the pages, or of their ``<base>``.
        which: position in ``bases`` for each value.
    """
    plain, normal = joined(hrefs, bases, which)

    def settle(index: int) -> str:
        return resolve(hrefs[index].as_py(), bases[int(which[index])].as_py())

    return _settled(hrefs, plain, normal, settle)


def _settled(
    hrefs: pa.Array, plain: pa.Array, normal: Mask, settle: Callable[[int], str]
) -> tuple[pa.Array, Bad]:
    """Return the plain URLs, and of those that are not normal what ``settle`` makes of them.

    That costs some 20 us each, of which there are one in a hundred on the web.
    """
    short = pc.less_equal(pc.binary_length(hrefs), MAX_URL_CHARS // 2)
    normal = normal & short.to_numpy(zero_copy_only=False)
    inline = pc.starts_with(hrefs, "data:").to_numpy(zero_copy_only=False)
    bad: Bad = [(index, DATA_URI) for index in np.flatnonzero(inline).tolist()]
    odd = np.flatnonzero(~normal & ~inline)
    settled = np.full(len(hrefs), None, object)
    for index in odd.tolist():
        try:
            settled[index] = settle(index)
        except BadUrlError as error:
            bad.append((index, str(error)))
    if normal.all():
        return plain, bad
    odd_ones = pa.array(settled[~normal], plain.type)
    return pc.replace_with_mask(plain, pa.array(~normal), odd_ones), sorted(bad)


def collapse(texts: pa.Array) -> pa.Array:
    """Return texts with white space collapsed and trimmed: ``" ".join(text.split())`` of each.

    Args:
        texts: string array without nulls.
    """
    data, offsets = binary_buffers(texts)
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint8)
    ends = _collapse(data, offsets, out)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(out[: ends[-1]])]
    return pa.Array.from_buffers(texts.type, len(texts), buffers)


@numba.njit(cache=True, nogil=True)
def _collapse(data: U8, offsets: I64, out: U8) -> I32:
    """Write texts collapsed; return where each ends (from 0)."""
    source, target = address_of(data), address_of(out)
    ends = np.zeros(offsets.size, np.int32)
    size = 0
    for i in range(offsets.size - 1):
        at, end = offsets[i], offsets[i + 1]
        if not _is_odd(source + at, source + end):
            size += copy(source + at, target + size, end - at)
        else:
            begin, spaced = size, False
            while at < end:
                space = _space(source + at, source + end)
                if space > 0:
                    spaced = size > begin
                    at += space
                    continue
                if spaced:
                    out[size] = 0x20
                    size, spaced = size + 1, False
                out[size] = data[at]
                size, at = size + 1, at + 1
        ends[i + 1] = size
    return ends


@numba.njit(cache=True)
def _is_odd(at: int, end: int) -> bool:
    """Return whether a text has white space other than single spaces inside, or may have.

    It stands between two addresses.
    """
    found = False
    before = np.uint8(0x20)  # before the first byte, as after a space, none may stand
    for k in range(at, end):
        byte = byte_at(k)
        # all of Unicode's other spaces begin with these bytes
        other = (byte == 0xC2) | ((byte >= 0xE1) & (byte <= 0xE3))
        found |= (byte < 0x20) | ((byte == 0x20) & (before == 0x20)) | other
        before = byte
    return found or (before == 0x20 and end > at)


@numba.njit(cache=True, inline="always")
def _space(at: int, end: int) -> int:
    """Return how many bytes the white space at an address has, as UTF-8; 0 if none stands there."""
    byte = byte_at(at)
    if byte <= 0x20:
        return 1 if byte >= 0x1C or 0x09 <= byte <= 0x0D else 0
    if byte == 0xC2:
        return 2 if at + 1 < end and byte_at(at + 1) in (0x85, 0xA0) else 0
    if not 0xE1 <= byte <= 0xE3 or at + 2 >= end:
        return 0
    code = (
        (np.int64(byte) & 15) << 12
        | (np.int64(byte_at(at + 1)) & 63) << 6
        | (np.int64(byte_at(at + 2)) & 63)
    )
    known = 0x2000 <= code <= 0x200A or code in (0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
    return 3 if known else 0
