"""From a downloaded body to the JPEG that is packed: checked, oriented, scaled, without metadata.

A picture with too many pixels is known by its header, and never decoded. Its EXIF orientation is
applied (img2dataset does not), then all metadata is dropped. A JPEG that needs no pixel changed is
not encoded again; only its metadata segments are left out. The same body and section give the same
bytes, with the same versions of Pillow and OpenCV.

Pictures equal img2dataset 1.47's of the same options: the same sizes, and a PSNR of at least 55 dB
between what decodes from both; for photographs in a JPEG that is decoded at reduced size
(``_DRAFT``) or is CMYK, at least 36 dB, the median at least 40. Fine writing may fall to 26.

Threads may prepare pictures side by side; of those that take much memory (``_ALONE_BYTES``) a
process has one at a time, and none that would take more than ``_MAX_BYTES``, so that a worker with
two such threads stays below 1 GB.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import cv2
import msgspec
import numpy as np
from PIL import Image

from wit_builder.fetch.decode import Opened, drafted, opened, takes_too_long
from wit_builder.fetch.jpeg import without_metadata
from wit_builder.fetch.resize import Pixels, Size, fitted, framed, of_array, reframed, scaled
from wit_builder.phash import phash
from wit_builder.sections import ImageSection
from wit_builder.tables import Reason

_SIDEWAYS = {5, 6, 7, 8}
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
_AVIF = {b"ftypavif", b"ftypavis"}
_DRAFT = 1.125  # a JPEG is decoded at this many times the final size, or more
_HASHED_PX = 512  # shorter side of the largest picture that is hashed as it is
_MAX_BYTES = 640 << 20  # of memory, for one picture
_ALONE_BYTES = 48 << 20
_ALONE = threading.Lock()


class Picture(msgspec.Struct, frozen=True):
    """A picture fit to be packed. Sizes are in pixels, the original's as it is meant to be seen.

    ``phash`` is its 64-bit pHash in hex; None where all of it has one brightness.
    """

    jpeg: bytes
    mime: str
    width: int
    height: int
    original_width: int
    original_height: int
    phash: str | None


class Unusable(msgspec.Struct, frozen=True):
    """A body that gives no picture, and why; what its header said, where it could be read."""

    reason: Reason
    detail: str = ""
    mime: str | None = None
    original_width: int | None = None
    original_height: int | None = None


def prepare(body: bytes, section: ImageSection) -> Picture | Unusable:
    """Return the picture in a body as it is to be packed, or why there is none."""
    try:
        picture = opened(body)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        return Unusable(Reason.IMAGE_TOO_LARGE, str(error))
    except Exception:  # noqa: BLE001 - hostile headers make Pillow raise nearly anything
        return _unidentified(body)
    size = _turned(picture.size, picture.orientation)
    final = framed(size, section)
    unchanged = picture.is_plain_jpeg and final == size
    needed = _hashed(size) if unchanged else fitted(size, section)
    refused = _refusal(size, section)
    if refused is None:
        picture = _drafted(picture, needed)
        refused = _too_costly(picture, needed)
    if refused is not None:
        return Unusable(*refused, picture.mime, *size)
    with _turn(picture, needed):
        try:
            pixels = _pixels(picture, needed)
        except Exception as error:  # noqa: BLE001 - damaged data makes Pillow raise nearly anything
            return Unusable(Reason.IMAGE_TRUNCATED, _text(error), picture.mime, *size)
        if unchanged:
            packed = without_metadata(body)
        else:
            packed = _encoded(reframed(pixels, final), section.quality)
        return Picture(packed, picture.mime, *final, *size, _phash(pixels))


def get_ready() -> None:
    """Load and compile what the first picture needs: 0.4 s, and 6 s more once on a machine.

    A thread that does it later would hold up every other of its process.
    """
    gradient = np.arange(12 * 12 * 3, dtype=np.uint8).reshape(12, 12, 3)
    prepare(_encoded(gradient, 90), ImageSection(size_px=8))
    prepare(bytes(cv2.imencode(".png", gradient)[1]), ImageSection(size_px=8))


def _turned(size: Size, orientation: int) -> Size:
    return size[::-1] if orientation in _SIDEWAYS else size


def _refusal(size: Size, section: ImageSection) -> tuple[Reason, str] | None:
    width, height = size
    shape = f"{width} x {height}"
    if width * height > section.max_pixels:
        return Reason.IMAGE_TOO_LARGE, shape
    if min(width, height) < section.min_side_px:
        return Reason.IMAGE_TOO_SMALL, shape
    if max(width, height) > section.max_aspect * min(width, height):
        return Reason.IMAGE_ASPECT, shape
    return None


def _drafted(picture: Opened, needed: Size) -> Opened:
    """Return a picture to be decoded at the size needed, or the next larger that costs less."""
    if not picture.is_jpeg:
        return picture
    width, height = _turned(needed, picture.orientation)
    return drafted(picture, (math.ceil(_DRAFT * width), math.ceil(_DRAFT * height)))


def _too_costly(picture: Opened, needed: Size) -> tuple[Reason, str] | None:
    takes = _bytes(picture, needed)
    if takes > _MAX_BYTES:
        return Reason.IMAGE_TOO_LARGE, f"would take {takes >> 20} MiB"
    if takes_too_long(picture):
        return Reason.IMAGE_TOO_LARGE, f"{picture.scans} scans"
    return None


def _bytes(picture: Opened, needed: Size) -> int:
    return picture.takes_bytes + 4 * needed[0] * needed[1]  # scaled, and encoded


def _turn(picture: Opened, needed: Size) -> AbstractContextManager[object]:
    return _ALONE if _bytes(picture, needed) > _ALONE_BYTES else nullcontext()


def _pixels(picture: Opened, needed: Size) -> Pixels:
    """Return the picture at a size, upright, as [h, w, 1] or [h, w, 3] in blue, green, red."""
    pixels = scaled(picture.raster(), _turned(needed, picture.orientation))
    if picture.image is not None:
        picture.image.close()  # or it would keep what it decoded while this is encoded
    upright: Pixels = _UPRIGHT[picture.orientation](pixels)
    return upright.reshape(*upright.shape[:2], -1)  # OpenCV drops the axis of a single channel


_UPRIGHT: dict[int, Callable[[Any], Any]] = {  # a tenth of what a copy by numpy takes
    1: lambda pixels: pixels,
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.flip(cv2.transpose(pixels), -1),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def _hashed(size: Size) -> Size:
    """Return the size at which a picture is hashed: its own, unless that is large."""
    scale = min(1.0, _HASHED_PX / min(size))
    return round(size[0] * scale), round(size[1] * scale)


def _phash(pixels: Pixels) -> str | None:
    """Return the pHash of a picture, 16 hex digits; None where it has one brightness only.

    It is that of the picture as prepared, but upright and whole: before borders, cropping and
    encoding.
    """
    own = pixels.shape[1], pixels.shape[0]
    if (size := _hashed(own)) != own:
        pixels = scaled(of_array(np.ascontiguousarray(pixels)), size)
    return phash(np.ascontiguousarray(pixels))


def _encoded(pixels: Pixels, quality: int) -> bytes:
    good, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert good
    return bytes(data)


def _unidentified(body: bytes) -> Unusable:
    """Return a few words on a body that Pillow cannot tell; pages under picture URLs are common."""
    start = body[:512].lstrip().lower()
    if body.startswith(_SIGNATURES) or body[8:12] == b"WEBP" or body[4:12] in _AVIF:
        return Unusable(Reason.IMAGE_TRUNCATED, "damaged in its header")
    if start.startswith((b"<!doctype html", b"<html")):
        return Unusable(Reason.NOT_AN_IMAGE, "HTML")
    words = "empty" if not start else "SVG" if b"<svg" in start else f"starts {body[:8].hex()}"
    return Unusable(Reason.NOT_AN_IMAGE, words)


def _text(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
