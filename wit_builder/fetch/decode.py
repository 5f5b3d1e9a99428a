"""The pixels of a downloaded body, as a raster, and what it takes to get them.

Pillow reads the header and decodes, a JPEG at an eighth, a quarter or a half of its size where that
is large enough. What it decoded is converted strip by strip, when it is asked for, so that there is
no second copy of the whole. Ordinary PNG files are decoded by ``png.raster`` at 2 to 4 times
OpenCV's speed, large ones at 1.4 to 2.8 times. OpenCV decodes WebP, and other PNG files of common
size, 1.6 and 1.2 times as fast as Pillow; it would not do for the rest: it gives a picture that is
half grey for a JPEG that was cut short, takes four bytes a pixel more for PNG, and knows neither
16 bits nor every transparency.

Of an animation only the first frame is decoded.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import msgspec
import numpy as np
import pyarrow as pa
from PIL import AvifImagePlugin, Image

from wit_builder.fetch import jpeg, png, webp
from wit_builder.fetch.resize import Pixels, Raster, Size, of_array

# What is too large is refused by its header. Pillow raises beyond twice its limit all the same.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # units run side by side, as with cv2.setNumThreads

_FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"]
_ORIENTATION = 0x0112  # EXIF 2.32, section 4.6.4
_ALPHA_MODES = {"RGBA", "LA", "PA", "La", "RGBa"}
_PNG_PIXELS_BY_OPENCV = 8_000_000
# What a decoder takes at its worst, for each pixel: measured, but for rounding.
_BYTES_PER_PIXEL = {"JPEG": 4, "MPO": 4, "PNG": 4, "WEBP": 16, "GIF": 4, "BMP": 4, "AVIF": 17}
_BYTES_PER_PIXEL_BY_OPENCV = 8
_MAX_SCANNED_PIXELS = 2_000_000_000  # in about 1.5 s; an ordinary progressive JPEG has ten scans
_LOSS = 10.0  # of brightness' coefficients, for each step of reduction; see ``drafted``


class Opened(msgspec.Struct, frozen=True):
    """A body of which only the header was read; ``size`` is as stored, not as it is to be seen.

    ``raster`` decodes it, and raises nearly anything if it is damaged or cut short. ``takes_bytes``
    is about how much memory that takes at most. ``image`` is Pillow's, where that decodes.
    """

    body: bytes
    mime: str
    size: Size
    orientation: int
    takes_bytes: int
    raster: Callable[[], Raster]
    image: Any = None
    scans: int = 1

    @property
    def is_jpeg(self) -> bool:
        """Whether it is one, or starts with one (MPO: further pictures follow)."""
        return self.mime == "image/jpeg"

    @property
    def is_plain_jpeg(self) -> bool:
        """Whether it is one that every reader shows alike: grey or colour, and upright."""
        return self.is_jpeg and self.image.mode in {"L", "RGB"} and self.orientation == 1


def opened(body: bytes) -> Opened:
    """Return what a body's header says; raises nearly anything if it is no picture."""
    if body.startswith(png.SIGNATURE) and (bare := png.bare(body)) is not None:
        return _opened_png(bare)
    if (size := webp.plain(body)) is not None:
        return _by_opencv(body, "image/webp", size)
    image: Any = Image.open(io.BytesIO(body), formats=_FORMATS)
    # Pillow decodes runs byte by byte in Python, 0.2 s for 1 MB.
    runs = image.format == "BMP" and image.tile and image.tile[0][0] == "bmp_rle"
    animated = body[12:16] == b"VP8X" and body[20] & 2  # RFC 9649, section 2.7
    if runs or (image.format == "WEBP" and not animated):
        return _by_opencv(body, Image.MIME[image.format], image.size, _orientation(image))
    return _by_pillow(body, image)


def _opened_png(bare: png.Bare) -> Opened:
    if bare.channels is not None:
        turned = _orientation(_with_exif(Image.Image(), bare.exif))
        takes = png.takes_bytes(bare)
        return Opened(b"", "image/png", bare.size, turned, takes, partial(png.raster, bare))
    body = bare.file()
    image: Any = _with_exif(Image.open(io.BytesIO(body), formats=_FORMATS), bare.exif)
    grey = image.mode == "L" and "transparency" in image.info
    if bare.bits > 8 or grey or image.width * image.height > _PNG_PIXELS_BY_OPENCV:
        return _by_pillow(body, image)
    return _by_opencv(body, "image/png", image.size, _orientation(image))


def _with_exif(image: Any, exif: bytes) -> Any:
    if exif:
        image.info["exif"] = exif
    return image


def _orientation(image: Any) -> int:
    try:
        value = Image.Image.getexif(image).get(_ORIENTATION, 1)  # PNG's own decodes the picture
    except (OSError, SyntaxError, ValueError, struct.error):
        return 1  # broken metadata is no reason to lose the picture
    return value if value in range(1, 9) else 1


def _by_opencv(body: bytes, mime: str, size: Size, orientation: int = 1) -> Opened:
    takes = size[0] * size[1] * _BYTES_PER_PIXEL_BY_OPENCV
    return Opened(body, mime, size, orientation, takes, partial(_of_opencv, body, size))


def _by_pillow(body: bytes, image: Any) -> Opened:
    is_jpeg = image.format in {"JPEG", "MPO"}
    mime = "image/jpeg" if is_jpeg else Image.MIME[image.format]
    takes = image.width * image.height * _BYTES_PER_PIXEL[image.format]
    raster = partial(_of_pillow, image)
    scans = _scans(image, body) if is_jpeg else 1
    return Opened(body, mime, image.size, _orientation(image), takes, raster, image, scans)


def _scans(image: Any, body: bytes) -> int:
    progressive = "progressive" in image.info
    return jpeg.scans(body, image.fp.tell(), len(image.getbands()), progressive=progressive)


def drafted(picture: Opened, size: Size) -> Opened:
    """Return a JPEG to be decoded at the smallest of 1/8, 1/4, 1/2 and 1 no smaller than a size.

    Scans of a progressive one that make brightness finer than shows at that size are left out:
    these are most of it, and what is left decodes in 0.4 of the time. It costs photographs less
    than decoding at reduced size does: by itself, 44 dB or more, at a quarter of the size 49.
    """
    image, body, mime = picture.image, picture.body, picture.mime
    image.draft(None, size)
    if "progressive" in image.info and image.width < picture.size[0]:
        step = np.reshape(image.quantization[image.layer[0][3]], (8, 8))[:4, :4].mean()
        body = jpeg.coarse(body, step, _LOSS * picture.size[0] / image.width)
        if len(body) < len(picture.body):
            image = Image.open(io.BytesIO(body), formats=["JPEG"])
            image.draft(None, size)
    image.decodermaxblock = len(body)  # not 64 KB at a time: 4 % faster
    takes = image.width * image.height * _BYTES_PER_PIXEL[image.format]
    if picture.scans > 1:  # libjpeg keeps all coefficients, 16 bits each, whatever was drafted
        takes += 2 * len(image.getbands()) * picture.size[0] * picture.size[1]
    raster = partial(_of_pillow, image)
    rest = picture.size, picture.orientation, takes, raster, image, picture.scans
    return Opened(body, mime, *rest)


def takes_too_long(picture: Opened) -> bool:
    """Return whether a JPEG of a few bytes a scan asks for too many passes over its pixels."""
    pixels = picture.size[0] * picture.size[1]
    return picture.scans > 1 and picture.scans * pixels > _MAX_SCANNED_PIXELS


def _of_opencv(body: bytes, size: Size) -> Raster:
    pixels: Any = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[1::-1] != size or pixels.dtype != np.uint8:
        raise OSError("damaged or cut short")
    return of_array(pixels, alpha=pixels.ndim == 3 and pixels.shape[2] == 4)


def _of_pillow(image: Any) -> Raster:
    image.load()
    alpha = image.mode in _ALPHA_MODES or "transparency" in image.info
    alpha &= not image.mode.startswith("I")

    def rows(top: int, bottom: int) -> Pixels:
        whole = (top, bottom) == (0, image.height)
        strip = image if whole else image.crop((0, top, image.width, bottom))
        return _array(_plain(strip, alpha=alpha))

    return Raster(image.size, bgr=False, alpha=alpha, rows=rows)


def _plain(image: Any, *, alpha: bool) -> Any:
    """Return a Pillow image as RGBA if it has transparency, else as RGB or 8-bit grey."""
    if image.mode.startswith("I"):
        values = np.asarray(image).clip(0, 65535).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    mode = "RGBA" if alpha else "L" if image.mode in {"1", "L"} else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _array(image: Any) -> Pixels:
    """Return a Pillow image as [H, W, C] without a copy, RGB with a fourth channel of filler.

    Pillow hands out its memory (as Arrow) if that is one piece, which it is up to 16 MB.
    """
    try:
        column = pa.array(image)
    except ValueError:
        copy: Pixels = np.asarray(image)
        return copy.reshape(image.height, image.width, -1)
    values = column if image.mode == "L" else column.values
    memory = np.frombuffer(values.buffers()[1], np.uint8)
    return memory.reshape(image.height, image.width, -1)
