"""What was found in WAT records, without the bytes around it.

Of a page that was gone through, a tenth is of use. Kept by itself, the page need not be, and what
is done with the columns of many pages finds their bytes close together.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from wit_builder.crawl.blocks import address_of, copy
from wit_builder.crawl.wat_json import HREF, NAME, URL, Scan

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]


class Kept:
    """Takes what scans found, one after the other, and gives it as if it were of one.

    Attributes:
        records: how many were scanned.
        of_bytes: what they were found in.
    """

    def __init__(self) -> None:
        self.records = self.of_bytes = 0
        # no string begins at 0, which says that there is none
        self._parts: list[U8] = [np.zeros(1, np.uint8)]
        self._scans: list[Scan] = []
        self._bytes = 1

    def add(self, data: U8, found: Scan) -> None:
        """Take what was found in some data; the spans are changed."""
        tables = [found.records[:, URL:], found.pictures[:, HREF:], found.signals[:, NAME:]]
        size = sum(_size(spans) for spans in tables)
        part = np.empty(size, np.uint8)
        filled = 0
        for spans in tables:
            filled = _move(data, spans, part, filled, self._bytes)
        for rows in (found.pictures, found.signals):
            rows[:, 0] += self.records
        self._parts.append(part)
        self._scans.append(Scan(found.records, found.pictures.copy(), found.signals.copy()))
        self._bytes += size
        self.records += len(found.records)
        self.of_bytes += len(data)

    def all(self) -> tuple[U8, Scan]:
        """Return the strings, and what was found, with spans in these."""
        found = Scan(*map(np.concatenate, zip(*self._scans, strict=True)))
        return np.concatenate(self._parts), found


@numba.njit(cache=True, nogil=True)
def _size(spans: I64) -> int:
    """Return how many bytes there are in spans."""
    size = 0
    for i in range(spans.shape[0]):
        for k in range(0, spans.shape[1], 2):
            size += spans[i, k + 1] - spans[i, k]
    return size


@numba.njit(cache=True, nogil=True)
def _move(data: U8, spans: I64, part: U8, filled: int, before: int) -> int:
    """Copy strings to a part; make the spans say where, with what is before the part."""
    source, target = address_of(data), address_of(part)
    for i in range(spans.shape[0]):
        for k in range(0, spans.shape[1], 2):
            start, end = spans[i, k], spans[i, k + 1]
            if start > 0:
                spans[i, k] = before + filled
                filled += copy(source + start, target + filled, end - start)
                spans[i, k + 1] = before + filled
    return filled
