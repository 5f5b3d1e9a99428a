"""Whether parsing a page would take time that grows with the square of its size.

On every block-level start tag an HTML parser looks up through the open elements for a ``<p>`` to
close (WHATWG HTML, 13.2.6.4.7). So a page of nothing but nested ``<div>`` is quadratic: 100,000 of
them (0.5 MB) took lexbor 62 s. Browsers cap the depth at 512; lexbor does not, so such pages are
told from their tags before they are parsed.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

MAX_STEPS = 500_000_000
"""Elements looked at in all; a large real page takes a few million."""
_FEW_TAGS = 20_000

_CLOSES_P = (
    "address article aside blockquote center details dialog dir div dl fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hgroup listing main menu nav ol pre search section "
    "summary ul"
)
_FLAT = (  # never open, or closed by the next of their kind: they do not nest
    "area base br col embed hr img input link meta param source track wbr "
    "p li dd dt option td th tr tbody thead tfoot"
)


def too_deep(page: bytes) -> bool:
    """Return whether a page's tags nest so deep that it must not be parsed.

    Args:
        page: HTML in UTF-8 (or another superset of ASCII).
    """
    if page.count(b"<") < _FEW_TAGS:
        return False
    return bool(_steps(np.frombuffer(page, np.uint8), _CLOSES_P_CODES, _FLAT_CODES) > MAX_STEPS)


def _codes(names: str) -> npt.NDArray[np.uint64]:
    """Return each name's first eight letters as a little-endian number, sorted."""
    return np.array(
        sorted(int.from_bytes(n.encode()[:8], "little") for n in names.split()), np.uint64
    )


_CLOSES_P_CODES = _codes(_CLOSES_P)
_FLAT_CODES = _codes(_FLAT)


@numba.njit(cache=True, nogil=True)
def _steps(
    page: npt.NDArray[np.uint8], closes_p: npt.NDArray[np.uint64], flat: npt.NDArray[np.uint64]
) -> int:
    steps = depth = at = 0
    while at < page.size - 2:
        if page[at] != ord("<"):
            at += 1
            continue
        closing = page[at + 1] == ord("/")
        at += 2 if closing else 1
        name = np.uint64(0)
        letters = 0
        while at < page.size and letters < 8:
            letter = page[at] | 32 if page[at] > 64 else page[at]
            if not (97 <= letter <= 122 or 48 <= letter <= 57):
                break
            name |= np.uint64(letter) << np.uint64(8 * letters)
            letters += 1
            at += 1
        if name == 0 or _has(flat, name):
            continue
        if closing:
            depth = max(0, depth - 1)
        else:
            steps += depth if _has(closes_p, name) else 0
            depth += 1
    return steps


@numba.njit(cache=True)
def _has(codes: npt.NDArray[np.uint64], name: np.uint64) -> bool:
    at = np.searchsorted(codes, name)
    return bool(at < codes.size and codes[at] == name)
