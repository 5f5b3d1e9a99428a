"""URLs and texts by the column: what ``urls`` and ``str.split`` do, without a loop over the rows.

Most URLs of the web are in normal form already, and most texts have nothing to collapse. Kernels
and Arrow tell which; the others, one in ten or so, go through Python one at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder.crawl.urls import MAX_URL_CHARS, BadUrlError, normalise, resolve
from wit_builder.hashing import binary_buffers

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Bad = list[tuple[int, str]]
"""Position in the column of each refused URL, and why."""

# Already normal: plain host, no port, no dot segment, no escape that normalising would undo. A part
# of a path must not begin with a dot; RE2 cannot look ahead, so a dot comes with what is before it.
_CHARS = "A-Za-z0-9_~!$&'()*+,;=:@-"
_KEPT = "20|22|23|25|3C|3E|5B|5C|5D|7B|7C|7D|[89A-F][0-9A-F]"
_NORMAL = (
    r"^https?://[a-z0-9]+(?:[.-][a-z0-9]+)*\.[a-z]{2,}/"
    rf"(?:(?:[{_CHARS}]|%(?:{_KEPT}|2F))+\.?|/)*"
    rf"(?:\?(?:[./?{_CHARS}]|%(?:{_KEPT}|26|2B|3D))+)?$"
)


def normalise_urls(urls: pa.Array) -> tuple[pa.Array, Bad]:
    """Return absolute URLs in normal form, null where one is refused; and why, for these.

    Args:
        urls: string array without nulls.
    """
    return _settled(urls, lambda index: normalise(urls[index].as_py()))


def resolve_urls(hrefs: pa.Array, bases: pa.Array, which: I64) -> tuple[pa.Array, Bad]:
    """Return what attribute values mean on their pages, null where refused; and why, for these.

    Args:
        hrefs: string array of the values as they stand in the pages, without nulls.
        bases: string array of normalised URLs: of the pages, or of their ``<base>``.
        which: position in ``bases`` for each value.
    """
    joined = _joined(hrefs, bases, which)
    return _settled(joined, lambda i: resolve(hrefs[i].as_py(), bases[int(which[i])].as_py()))


def _settled(urls: pa.Array, settle: Callable[[int], str]) -> tuple[pa.Array, Bad]:
    """Return the URLs, those that are not plainly normal replaced by what ``settle`` makes of them.

    That costs about 10 us each, of which there are one in twenty on the web.
    """
    normal = pc.and_(
        pc.match_substring_regex(urls, _NORMAL),
        pc.less_equal(pc.binary_length(urls), MAX_URL_CHARS // 2),
    )
    bad: Bad = []
    settled: list[str | None] = []
    odd = np.flatnonzero(~normal.to_numpy(zero_copy_only=False))
    for index in odd.tolist():
        try:
            settled.append(settle(index))
        except BadUrlError as error:
            bad.append((index, str(error)))
            settled.append(None)
    if not settled:
        return urls, bad
    return pc.replace_with_mask(urls, pc.invert(normal), pa.array(settled, urls.type)), bad


def _joined(hrefs: pa.Array, bases: pa.Array, which: I64) -> pa.Array:
    """Return hrefs behind what they leave out of their page's URL; odd ones may come out wrong."""
    data, offsets = binary_buffers(hrefs)
    base, base_offsets = binary_buffers(bases)
    longest = int(np.max(np.diff(base_offsets), initial=0))
    out = np.empty(int(offsets[-1] - offsets[0]) + longest * len(hrefs), np.uint8)
    ends = _join(data, offsets, base, base_offsets, which, out)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(out[: ends[-1]].tobytes())]
    return pa.Array.from_buffers(pa.string(), len(hrefs), buffers)


@numba.njit(cache=True, nogil=True)
def _join(
    data: U8, offsets: I64, base: U8, base_offsets: I64, which: I64, out: U8
) -> npt.NDArray[np.int32]:
    """Write every href behind its prefix; return where each ends (from 0)."""
    ends = np.zeros(offsets.size, np.int32)
    size = 0
    for i in range(offsets.size - 1):
        begin, end = offsets[i], offsets[i + 1]
        first = base_offsets[which[i]]
        for k in range(_left_out(data[begin:end], base[first : base_offsets[which[i] + 1]])):
            out[size] = base[first + k]
            size += 1
        for k in range(begin, end):
            out[size] = data[k]
            size += 1
        ends[i + 1] = size
    return ends


@numba.njit(cache=True, inline="always")
def _left_out(href: U8, base: U8) -> int:
    """Return how much of the page's URL stands before an href: scheme, origin, folder or nothing.

    What begins otherwise (``?``, ``#``, another scheme) is left as it is: no normal URL.
    """
    if href.size == 0 or href[0] == ord("?") or href[0] == ord("#"):
        return 0
    slashes = 3
    if href[0] == ord("/"):
        slashes = 1 if href.size > 1 and href[1] == ord("/") else 2
    else:
        for byte in href:
            if byte == ord(":"):
                return 0
            if byte == ord("/"):
                break
    return _prefix(base, slashes)


@numba.njit(cache=True)
def _prefix(base: U8, slashes: int) -> int:
    """Return the length of a URL up to its host's slashes (1), path (2) or last folder (3)."""
    seen = last = 0
    for k in range(base.size):
        if base[k] == ord("?"):
            break
        if base[k] == ord("/"):
            seen += 1
            last = k
            if slashes < 3 and seen == 2 * slashes - 1:
                return k
    return last + 1


def collapse(texts: pa.Array) -> pa.Array:
    """Return texts with white space collapsed and trimmed: ``" ".join(text.split())`` of each.

    Args:
        texts: string array without nulls.
    """
    data, offsets = binary_buffers(texts)
    odd = np.zeros(len(texts), np.bool_)
    _uncollapsed(data, offsets, odd)
    if not odd.any():
        return texts
    mask = pa.array(odd)
    # one in fifty texts of the web, at half a microsecond each
    plain = [" ".join(text.split()) for text in texts.filter(mask).to_pylist()]
    return pc.replace_with_mask(texts, mask, pa.array(plain, texts.type))


@numba.njit(cache=True, nogil=True)
def _uncollapsed(data: U8, offsets: I64, odd: npt.NDArray[np.bool_]) -> None:
    """Tell which texts have white space other than single spaces inside, or may have."""
    for i in range(odd.size):
        end = offsets[i + 1]
        found = False
        before = np.uint8(0x20)  # before the first byte, as after a space, none may stand
        for k in range(offsets[i], end):
            byte = data[k]
            # all of Unicode's other spaces begin with these bytes: U+0085, 00A0, 1680, 2xxx, 3000
            other = (byte == 0xC2) | ((byte >= 0xE1) & (byte <= 0xE3))
            found |= (byte < 0x20) | ((byte == 0x20) & (before == 0x20)) | other
            before = byte
        odd[i] = found or (before == 0x20 and end > offsets[i])
