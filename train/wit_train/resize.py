"""Pillow's antialiased bicubic resize, to the bit, in a sixth of its time.

Pillow resizes in two passes: columns first, or, since 13, rows first where the height loses more
than twice as many pixels as the width. An output pixel is a weighted mean of 4 pixels, of more
where the picture shrinks, with weights of 22 bits after the point, rounded to 8 bits after each
pass. Here both passes go down the rows, so that a row's pixels, whatever their channel, are summed
many at a time: the picture is transposed before the first one and after it.

"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import cv2
import numba
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""[H, W, 3], red green blue."""

_I32 = npt.NDArray[np.int32]

_BITS = 22  # after the point: Pillow's, of 32, 8 are the pixel's and 2 for what is beyond white
_HALF = 1 << (_BITS - 1)


class _Taps(NamedTuple):
    """Which rows each output row is made of: ``weights.shape[1]`` of them, from ``first``."""

    first: _I32
    weights: _I32


class Box(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, picture: Pixels) -> Pixels:
        """Return that part, without a copy."""
        return picture[self.top : self.top + self.height, self.left : self.left + self.width]


class _Span(NamedTuple):
    """What is made of one axis: pixels from ``start`` on, up to ``stop``, of ``length``."""

    length: int
    start: int
    stop: int


def resized(
    picture: Pixels, height: int, width: int, out: Pixels | None = None, part: Box | None = None
) -> Pixels:
    """Return a picture at another size, as ``Image.resize((width, height), BICUBIC)`` gives it.

    Args:
        picture: uint8 [H, W, 3], H and W at least 1; its rows may lie apart, as a crop's do.
        height: of the result, pixels.
        width: of the result, pixels.
        out: C-contiguous uint8 [height, width, 3] to write into; None makes one.
        part: the part of the result that is made; None: all of it. ``out`` has its size.

    Returns:
        ``out``.
    """
    rows, columns = picture.shape[:2]
    top, left, h, w = part or (0, 0, height, width)
    if out is None:
        out = np.empty((h, w, 3), np.uint8)
    assert out.flags.c_contiguous, "or a copy would be written to"
    down, across = _Span(height, top, top + h), _Span(width, left, left + w)
    lines, into = picture.reshape(rows, columns * 3), out.reshape(h, w * 3)
    if height < rows and rows - height > 2 * (columns - width):
        _across(_down(lines, down), across, into)
    else:
        _down(_across(lines, across), down, into)
    return out


def _down(lines: Pixels, span: _Span, out: Pixels | None = None) -> Pixels:
    """Return [n, m] as [span, m]."""
    if len(lines) == span.length:
        return _copied(lines[span.start : span.stop], out)
    if out is None:
        out = np.empty((span.stop - span.start, lines.shape[1]), np.uint8)
    first, weights = _taps(len(lines), span)
    source = np.ascontiguousarray(lines).view()
    source.flags.writeable = False  # as Pillow's pixels are: numba compiles for one kind only
    _KERNELS.get(weights.shape[1], _of_many)(source, first, weights, out)
    return out


def _across(lines: Pixels, span: _Span, out: Pixels | None = None) -> Pixels:
    """Return [n, columns * 3] as [n, span * 3]."""
    rows, columns = len(lines), lines.shape[1] // 3
    if columns == span.length:
        return _copied(lines[:, 3 * span.start : 3 * span.stop], out)
    upright: Any = cv2.transpose(lines).reshape(columns, 3 * rows)
    return _transposed(_down(upright, span).reshape(-1, rows), out)


def _transposed(lines: Pixels, out: Pixels | None) -> Pixels:
    result: Any = cv2.transpose(lines, dst=out)
    return result


def _copied(lines: Pixels, out: Pixels | None) -> Pixels:
    if out is None:
        return lines
    out[:] = lines
    return out


@functools.lru_cache(maxsize=1024)  # of about 5 KB; a random crop's sides are a few hundred
def _taps(inputs: int, span: _Span) -> _Taps:
    """Return Pillow's taps for one axis (``precompute_coeffs`` of its Resample.c)."""
    scale = inputs / span.length
    stretch = max(scale, 1.0)
    centre = (np.arange(span.start, span.stop) + 0.5) * scale
    first = np.maximum(0, (centre - 2 * stretch + 0.5).astype(np.int64))
    end = np.minimum(inputs, (centre + 2 * stretch + 0.5).astype(np.int64))
    # Every output gets as many taps, some of weight 0, and none beyond the last row.
    most = int((end - first).max())
    taps = next((n for n in _KERNELS if most <= n <= inputs), most)
    from_row = np.minimum(first, inputs - taps)
    row = from_row[:, None] + np.arange(taps)
    weights = _bicubic((row - centre[:, None] + 0.5) * (1 / stretch))
    weights[(row < first[:, None]) | (row >= end[:, None])] = 0
    total = np.zeros(len(centre))
    for tap in range(taps):  # in Pillow's order: the last bit depends on it
        total += weights[:, tap]
    fixed = weights / total[:, None] * (1 << _BITS)
    rounded = np.trunc(fixed + np.copysign(0.5, fixed))
    return _Taps(from_row.astype(np.int32), rounded.astype(np.int32))


def _bicubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the cubic convolution kernel with a = -0.5 (Keys 1981), in Pillow's order of terms."""
    a = -0.5
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


_kernel = numba.njit(cache=True, nogil=True)
_inline = numba.njit(inline="always")


@_inline
def _pixel(fixed: Any) -> Any:
    """Return a sum as a pixel: rounded, and what is beyond black or white cut off."""
    return min(max(np.int32(fixed + _HALF) >> _BITS, 0), 255)


@_inline
def _four(values: Any, first: int) -> Any:
    return values[first], values[first + 1], values[first + 2], values[first + 3]


@_inline
def _two(values: Any, first: int) -> Any:
    return values[first], values[first + 1]


@_inline
def _sum_of_four(w: Any, r: Any, x: int) -> Any:
    return _sum_of_two(w[:2], r[:2], x) + _sum_of_two(w[2:], r[2:], x)


@_inline
def _sum_of_two(w: Any, r: Any, x: int) -> Any:
    return w[0] * np.int32(r[0][x]) + w[1] * np.int32(r[1][x])


@_kernel
def _of_4(source: Pixels, first: _I32, weights: _I32, out: Pixels) -> None:
    for y in range(out.shape[0]):
        into = out[y]
        w, r = _four(weights[y], 0), _four(source, first[y])
        for x in range(into.size):
            into[x] = _pixel(_sum_of_four(w, r, x))


@_kernel
def _of_5(source: Pixels, first: _I32, weights: _I32, out: Pixels) -> None:
    for y in range(out.shape[0]):
        row, into = first[y], out[y]
        w, r = _four(weights[y], 0), _four(source, row)
        w4, r4 = weights[y, 4], source[row + 4]
        for x in range(into.size):
            into[x] = _pixel(_sum_of_four(w, r, x) + w4 * np.int32(r4[x]))


@_kernel
def _of_6(source: Pixels, first: _I32, weights: _I32, out: Pixels) -> None:
    for y in range(out.shape[0]):
        row, into = first[y], out[y]
        w, r = _four(weights[y], 0), _four(source, row)
        v, s = _two(weights[y], 4), _two(source, row + 4)
        for x in range(into.size):
            into[x] = _pixel(_sum_of_four(w, r, x) + _sum_of_two(v, s, x))


@_kernel
def _of_7(source: Pixels, first: _I32, weights: _I32, out: Pixels) -> None:
    for y in range(out.shape[0]):
        into = out[y]
        w, r = _four(weights[y], 0), _four(source, first[y])
        v, s = _two(weights[y], 4), _two(source, first[y] + 4)
        w6, r6 = weights[y, 6], source[first[y] + 6]
        for x in range(into.size):
            six = _sum_of_four(w, r, x) + _sum_of_two(v, s, x)
            into[x] = _pixel(six + w6 * np.int32(r6[x]))


@_kernel
def _of_8(source: Pixels, first: _I32, weights: _I32, out: Pixels) -> None:
    for y in range(out.shape[0]):
        row, into = first[y], out[y]
        w, r = _four(weights[y], 0), _four(source, row)
        v, s = _four(weights[y], 4), _four(source, row + 4)
        for x in range(into.size):
            into[x] = _pixel(_sum_of_four(w, r, x) + _sum_of_four(v, s, x))


@_kernel
def _of_many(source: Pixels, first: _I32, weights: _I32, out: Pixels) -> None:
    taps = weights.shape[1]
    fours = taps // 4 * 4
    sums = np.empty(out.shape[1], np.int32)
    for y in range(out.shape[0]):
        sums[:] = 0
        for tap in range(0, fours, 4):
            w, r = _four(weights[y], tap), _four(source, first[y] + tap)
            for x in range(sums.size):
                sums[x] += np.int32(_sum_of_four(w, r, x))
        for tap in range(fours, taps):
            weight, line = weights[y, tap], source[first[y] + tap]
            for x in range(sums.size):
                sums[x] += weight * np.int32(line[x])
        into = out[y]
        for x in range(sums.size):
            into[x] = _pixel(sums[x])


_KERNELS = {4: _of_4, 5: _of_5, 6: _of_6, 7: _of_7, 8: _of_8}  # 0.6 of the time of ``_of_many``
