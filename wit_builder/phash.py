"""The perceptual hash of a picture: what ``imagehash.phash`` gives, at a quarter of its cost.

imagehash has Pillow make the picture grey and scale it to 32 x 32 by its Lanczos filter, which is
most of the time. Here one kernel does both. Its arithmetic is that of Pillow 13: grey in 16 bits of
fraction (ITU-R 601-2), weights in 22 bits, rounded to 8 bits between across and down. Which of the
two comes first shows in a few bits: across, unless a picture is about twice as high as wide. An
older Pillow always goes across first.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import cv2
import numba
import numpy as np
import numpy.typing as npt
import scipy.fftpack

_Pixels = npt.NDArray[np.uint8]
_Ints = npt.NDArray[np.int32]

_SIDE = 32  # of what is transformed, pixels
_LOW = 8  # frequencies kept each way
_LOBES = 3.0  # of Lanczos' filter
_BITS = 22


def phash(pixels: _Pixels) -> str | None:
    """Return the pHash of [h, w, 1] or [h, w, 3] in blue, green, red: 64 bits, as 16 hex digits.

    None where the picture has one brightness only: all such would share a hash, for they have no
    frequencies to compare. About 0.1 ms for 341 x 256 pixels.
    """
    height, width = pixels.shape[:2]
    if sideways := height > max(_SIDE, 2 * width - _SIDE):
        turned: Any = cv2.transpose(pixels)  # a tenth of what a copy by numpy takes
        pixels, width, height = turned.reshape(width, height, -1), height, width
    small = np.empty((_SIDE, _SIDE), np.float64)
    weights = *_weights(width), *_weights(height)
    if not _scale(np.ascontiguousarray(pixels), *weights, small):
        return None
    if sideways:
        small = small.T
    # as imagehash has it: scipy.fft gives the same, after 7 us more of finding a backend
    return f"{_bits(scipy.fftpack.dctn(small)):016x}"


@functools.lru_cache(maxsize=1024)  # at most 10 kB each: sides of packed pictures vary little
def _weights(inputs: int) -> tuple[_Ints, _Ints]:
    """Return the first input of each output, and what it and those that follow weigh.

    A row may end in zeros, which stand for nothing: inputs beyond the last are not read.
    """
    scale = inputs / _SIDE
    stretch = max(scale, 1.0)
    support = _LOBES * stretch
    first = np.empty(_SIDE, np.int32)
    weights = np.zeros((_SIDE, min(inputs, math.ceil(support) * 2 + 1)), np.int32)
    for output in range(_SIDE):
        centre = (output + 0.5) * scale
        start = max(0, int(centre - support + 0.5))
        end = min(inputs, int(centre + support + 0.5))
        shares = [_lanczos((i - centre + 0.5) / stretch) for i in range(start, end)]
        total = sum(shares)
        # The last ones start early enough to have as many inputs as the rest, some of weight 0.
        first[output] = min(start, inputs - weights.shape[1])
        for i, share in enumerate(shares, start - int(first[output])):
            weights[output, i] = math.floor(share / total * (1 << _BITS) + 0.5)
    return first, weights


def _lanczos(x: float) -> float:
    if not -_LOBES <= x < _LOBES:
        return 0.0
    return _sinc(x) * _sinc(x / _LOBES)


def _sinc(x: float) -> float:
    return math.sin(x * math.pi) / (x * math.pi) if x else 1.0


@numba.njit(cache=True, nogil=True)
def _scale(
    pixels: _Pixels,
    left: _Ints,
    across: _Ints,
    top: _Ints,
    down: _Ints,
    out: npt.NDArray[np.float64],
) -> bool:
    """Fill ``out`` with the picture in grey, scaled; return whether it has two brightnesses."""
    height, width, channels = pixels.shape
    grey = np.empty(width, np.int32)
    narrow = np.empty((_SIDE, height), np.int32)
    darkest, brightest = np.int32(255), np.int32(0)
    for y in range(height):
        _grey(pixels[y].reshape(-1), channels, grey)
        for x in range(width):
            darkest, brightest = min(darkest, grey[x]), max(brightest, grey[x])
        for x in range(_SIDE):
            narrow[x, y] = _weighed(grey[left[x] :], across[x])
    for y in range(_SIDE):
        for x in range(_SIDE):
            out[y, x] = _weighed(narrow[x, top[y] :], down[y])
    return darkest != brightest


@numba.njit(cache=True)
def _bits(frequencies: npt.NDArray[np.float64]) -> np.uint64:
    """Return which of the low frequencies are above their median, the first as the highest bit."""
    low = frequencies[:_LOW, :_LOW].copy().reshape(-1)
    ordered = np.sort(low)
    median = (ordered[low.size // 2 - 1] + ordered[low.size // 2]) / 2
    bits = np.uint64(0)
    for frequency in low:
        bits = (bits << np.uint64(1)) | np.uint64(frequency > median)
    return bits


@numba.njit(cache=True, nogil=True)
def _grey(line: _Pixels, channels: int, grey: _Ints) -> None:
    if channels == 1:
        for x in range(grey.size):
            grey[x] = line[x]
        return
    for x in range(grey.size):
        weighed = np.uint32(line[3 * x + 2]) * np.uint32(19595)
        weighed += np.uint32(line[3 * x + 1]) * np.uint32(38470)
        weighed += np.uint32(line[3 * x]) * np.uint32(7471)
        grey[x] = np.uint32(weighed + np.uint32(32768)) >> np.uint32(16)


@numba.njit(cache=True, nogil=True)
def _weighed(values: _Ints, weights: _Ints) -> np.int32:
    total = np.int32(1 << (_BITS - 1))
    for i in range(weights.size):
        total = np.int32(total + values[i] * weights[i])  # or it would be summed in 64 bits
    level: np.int32 = total >> np.int32(_BITS)
    return min(max(level, np.int32(0)), np.int32(255))
