"""How large a picture becomes, and its pixels at that size: img2dataset's modes.

Sizes are img2dataset 1.47's to the pixel. The shorter side (``keep_ratio``, ``center_crop``) or the
longer one (``border``) becomes ``size_px``; sides are rounded half to even. A picture that is not
larger stays as it is, uncropped and without borders, unless ``enlarge`` is set.

Shrinking is OpenCV's ``INTER_AREA``: every output pixel is the mean of the area it covers. The
kernel is our own, for it needs no copy of what Pillow decoded, puts transparent pixels on white on
the way, takes a large picture strip by strip, and is faster: rows are summed first, many columns at
a time, which makes 0.5 ms of 1.7 from 800 x 600 to 341 x 256. It differs from OpenCV's by
rounding, at most 1 in 255. Enlarging is OpenCV's ``INTER_LANCZOS4``, img2dataset's default.

H, W: rows and columns of the source, C: its channels (1 grey, 3, or 4: the fourth is alpha or
filler), h, w, c: of the output, c is 1 or 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import msgspec
import numba
import numpy as np
import numpy.typing as npt

from wit_builder.sections import ImageSection

Pixels = npt.NDArray[np.uint8]
_Floats = npt.NDArray[np.float32]
_Places = npt.NDArray[np.uint64]
Size = tuple[int, int]
"""Width and height, in pixels."""

STRIP_PIXELS = 2_000_000  # source pixels that are converted at a time: 8 MB


class Raster(msgspec.Struct, frozen=True):
    """A decoded picture, whose pixels are handed out in the form that shrinking takes.

    ``rows(top, bottom)`` returns them as [n, W, C]. Channels are grey; or blue, green, red, if
    ``bgr``, or red, green, blue. A fourth is alpha, not premultiplied, if ``alpha``, or filler.
    They are asked for once, from top to bottom, about ``strip_pixels`` at a time; the last row of
    one strip may be the first of the next.
    """

    size: Size
    bgr: bool
    alpha: bool
    rows: Callable[[int, int], Pixels]
    strip_pixels: int = STRIP_PIXELS


def fitted(size: Size, section: ImageSection) -> Size:
    """Return the size that a picture of this size is scaled to, before it is cropped or padded."""
    if not _applies(size, section):
        return size
    scale = section.size_px / (max(size) if section.mode == "border" else min(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def framed(size: Size, section: ImageSection) -> Size:
    """Return the size that a picture of this size ends with, cropped or padded."""
    if section.mode in {"center_crop", "border"} and _applies(size, section):
        return section.size_px, section.size_px
    return fitted(size, section)


def _applies(size: Size, section: ImageSection) -> bool:
    if section.mode == "no":
        return False
    return section.enlarge or (max if section.mode == "border" else min)(size) > section.size_px


def scaled(raster: Raster, size: Size) -> Pixels:
    """Return a picture at a size, as [h, w, 1] or [h, w, 3] in blue, green, red, on white."""
    smaller = min(size[0], raster.size[0]), min(size[1], raster.size[1])
    pixels: Any = _shrunk(raster, smaller)
    if not raster.bgr and pixels.shape[2] == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    if size != smaller:
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_LANCZOS4)
    return pixels.reshape(size[1], size[0], -1)  # OpenCV drops the axis of a single channel


def reframed(pixels: Pixels, size: Size) -> Pixels:
    """Return the centre of a picture, or it with white borders, so that it has this size."""
    height, width = pixels.shape[:2]
    left, top = max(0, (width - size[0]) // 2), max(0, (height - size[1]) // 2)
    pixels = pixels[top : top + size[1], left : left + size[0]]
    wider, higher = size[0] - pixels.shape[1], size[1] - pixels.shape[0]
    margins = (higher // 2, higher - higher // 2), (wider // 2, wider - wider // 2), (0, 0)
    return np.pad(pixels, margins, constant_values=255) if wider or higher else pixels


def of_array(pixels: Pixels, *, bgr: bool = True, alpha: bool = False) -> Raster:
    """Return an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] as a raster."""
    rows, columns = pixels.shape[:2]
    whole = pixels.reshape(rows, columns, -1)
    return Raster((columns, rows), bgr, alpha, lambda top, bottom: whole[top:bottom])


def _shrunk(raster: Raster, size: Size) -> Pixels:
    """Return a picture at a size that is nowhere larger than it, on white, strip by strip."""
    (columns, rows), (width, height) = raster.size, size
    step = height
    if rows * columns > 2 * raster.strip_pixels:
        step = max(1, raster.strip_pixels * height // (rows * columns))
    out: Pixels | None = None
    for y in range(0, height, step):
        end = min(height, y + step)
        top, bottom = y * rows // height, -(-end * rows // height)
        strip = np.ascontiguousarray(raster.rows(top, bottom))
        strip.flags.writeable = False  # as Pillow's are: numba compiles for one kind only
        if out is None:
            out = np.empty((height, width, min(3, strip.shape[2])), np.uint8)
        if size == raster.size and not raster.alpha:
            copied = cv2.cvtColor(strip, cv2.COLOR_RGBA2RGB) if strip.shape[2] == 4 else strip
            out[y:end] = copied
        else:
            _mean(strip, raster.alpha, rows, height, y, out[y:end])
    assert out is not None
    return out


@numba.njit(cache=True, nogil=True)
def _covered(output: int, inputs: int, outputs: int) -> tuple[int, int, np.float32, np.float32]:
    """Return which inputs an output covers, the first and the last, and their shares of it.

    Output ``i`` covers ``[i * inputs / outputs, (i + 1) * inputs / outputs)``. Where the two are
    the same, the share of the first is 1 and that of the last 0. Every input between has the share
    ``outputs / inputs``.
    """
    start = output * inputs
    end = start + inputs
    first, last = start // outputs, (end + outputs - 1) // outputs - 1
    if first == last:
        return first, last, np.float32(1), np.float32(0)
    share_of_first = np.float32(((first + 1) * outputs - start) / inputs)
    return first, last, share_of_first, np.float32((end - last * outputs) / inputs)


@numba.njit(cache=True, nogil=True)
def _mean(
    source: Pixels,
    alpha: bool,  # noqa: FBT001 - numba takes no keywords
    rows: int,
    height: int,
    begin: int,
    out: Pixels,
) -> None:
    """Fill ``out`` with the means of what its pixels cover: rows first, then columns.

    ``out`` starts with row ``begin`` of ``height``; ``source`` has what it covers of ``rows``.
    """
    channels, width = source.shape[2], out.shape[1]
    lines = source.reshape(source.shape[0], -1)
    sums = np.empty(lines.shape[1], np.float32)
    white = np.empty(lines.shape[1], np.uint8)
    means = np.empty(width * out.shape[2], np.float32)
    # Indices without a sign: or each is asked whether it counts from the end, half of the time.
    ends = np.empty((width, 2), np.uint64)
    shares = np.empty((width, 2), np.float32)
    for x in range(width):
        first, last, shares[x, 0], shares[x, 1] = _covered(x, source.shape[1], width)
        ends[x, 0], ends[x, 1] = channels * first, channels * last
    across, down = np.float32(width / source.shape[1]), np.float32(height / rows)
    top = _covered(begin, rows, height)[0]
    for y in range(out.shape[0]):
        first, last, share_of_first, share_of_last = _covered(begin + y, rows, height)
        for row in range(first, last + 1):
            line = lines[row - top]
            if alpha:
                _put_on_white(line, white)
                line = white
            if row == first:
                for i in range(sums.size):
                    sums[i] = share_of_first * line[i]
            else:
                share = share_of_last if row == last else down
                for i in range(sums.size):
                    sums[i] += share * line[i]
        if out.shape[2] == 1:
            _mean_of_greys(sums, ends, shares, across, means)
        else:
            _mean_of_colours(sums, np.uint64(channels), ends, shares, across, means)
        rounded = out[y].reshape(-1)
        for i in range(means.size):
            rounded[i] = np.int32(means[i] + np.float32(0.5))


@numba.njit(cache=True, nogil=True)
def _put_on_white(line: Pixels, white: Pixels) -> None:
    """Mix colours with white by alpha; (t + t // 256) // 256 is v / 255 rounded, if t = v + 128."""
    pixels, mixed = line.reshape(-1, 4), white.reshape(-1, 4)
    for x in range(pixels.shape[0]):
        alpha = np.uint32(pixels[x, 3])
        under = np.uint32(255) * (np.uint32(255) - alpha) + np.uint32(128)
        for channel in range(3):
            total = np.uint32(np.uint32(pixels[x, channel]) * alpha + under)
            mixed[x, channel] = np.uint32(total + (total >> np.uint32(8))) >> np.uint32(8)


@numba.njit(cache=True, nogil=True)
def _mean_of_greys(
    sums: _Floats, ends: _Places, shares: _Floats, inner: np.float32, out: _Floats
) -> None:
    for x in range(out.size):
        first, last = ends[x, 0], ends[x, 1]
        between = np.float32(0)
        for i in range(first + np.uint64(1), last):
            between += sums[i]
        out[x] = shares[x, 0] * sums[first] + shares[x, 1] * sums[last] + inner * between


@numba.njit(cache=True, nogil=True)
def _mean_of_colours(
    sums: _Floats,
    channels: np.uint64,
    ends: _Places,
    shares: _Floats,
    inner: np.float32,
    out: _Floats,
) -> None:
    """Written out for three colours, for a loop over them takes twice as long."""
    one, two = np.uint64(1), np.uint64(2)
    for x in range(ends.shape[0]):
        first, last = ends[x, 0], ends[x, 1]
        a = b = c = np.float32(0)
        i = first + channels
        while i < last:
            a += sums[i]
            b += sums[i + one]
            c += sums[i + two]
            i += channels
        head, tail = shares[x, 0], shares[x, 1]
        out[3 * x] = head * sums[first] + tail * sums[last] + inner * a
        out[3 * x + 1] = head * sums[first + one] + tail * sums[last + one] + inner * b
        out[3 * x + 2] = head * sums[first + two] + tail * sums[last + two] + inner * c
