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
