"""From a downloaded body to the JPEG that is packed: checked, oriented, shrunk, without metadata.

Pillow reads the header first, so that a picture over the pixel cap is never decoded, and decodes
(JPEG at an eighth, quarter or half of its size where that is still large enough; a truncated file
is told from a whole one, which OpenCV does not). OpenCV resizes and encodes. The same body and
section give the same bytes, with the same versions of both libraries.

A JPEG that needs no pixel changed is not encoded again; only its metadata segments are left out.

The perceptual hash is of the whole picture, upright and shrunk, before it is cropped or encoded.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import imagehash
import msgspec
import numpy as np
import numpy.typing as npt
from PIL import Image

from wit_builder.sections import ImageSection
from wit_builder.tables import Reason

_FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"]
_ORIENTATION = 0x0112  # EXIF 2.32, section 4.6.4
_SWAPS_SIDES = {5, 6, 7, 8}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
_ALPHA_MODES = {"RGBA", "LA", "PA", "La", "RGBa"}


class Picture(msgspec.Struct, frozen=True):
    """A picture fit to be packed. Sizes are in pixels, the original's as it is meant to be seen.

    ``phash`` is its 64-bit pHash in hex; None where all of it has one brightness, see ``_phash``.
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
    """Return the picture in a body as it is to be packed, or why there is none.

    The shorter side becomes ``size_px`` if it is longer (never enlarged), as in img2dataset's
    ``keep_ratio`` and ``center_crop`` with "only if bigger"; a centre crop is then square.
    """
    try:
        with Image.open(io.BytesIO(body), formats=_FORMATS) as image:
            return _prepare(image, body, section)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        return Unusable(Reason.IMAGE_TOO_LARGE, str(error))
    except Exception:  # noqa: BLE001 - hostile headers make Pillow raise nearly anything
        return _unidentified(body)


def _prepare(image: Any, body: bytes, section: ImageSection) -> Picture | Unusable:
    jpeg = image.format in {"JPEG", "MPO"}  # MPO: a JPEG with further pictures behind it
    mime = "image/jpeg" if jpeg else Image.MIME[image.format]
    orientation = _orientation(image)
    width, height = image.size[::-1] if orientation in _SWAPS_SIDES else image.size
    refused = _refusal(width, height, section)
    if refused is not None:
        return Unusable(*refused, mime, width, height)
    shrink = min(width, height) > section.size_px
    if jpeg and shrink:
        # DCT scaling: the decoder makes only as many pixels as the resize below needs.
        image.draft(None, _at_least(image.size, section.size_px))
    try:
        image.load()
        untouched = jpeg and image.mode in {"RGB", "L"} and orientation == 1 and not shrink
        pixels = np.asarray(image if untouched else _oriented(_rgb(image), orientation))
    except Exception as error:  # noqa: BLE001 - damaged data makes Pillow raise nearly anything
        return Unusable(Reason.IMAGE_TRUNCATED, _text(error), mime, width, height)
    if untouched:
        packed = without_metadata(body)
        return Picture(packed, mime, width, height, width, height, _phash(pixels))
    if shrink:
        pixels = _shrunk(pixels, (width, height), section.size_px)
    phash = _phash(pixels)
    if shrink and section.mode == "center_crop":
        pixels = _centre(pixels, section.size_px)
    packed = _encoded(pixels, section.quality)
    return Picture(packed, mime, pixels.shape[1], pixels.shape[0], width, height, phash)


def _phash(pixels: npt.NDArray[np.uint8]) -> str | None:
    """Return the pHash of a picture, 16 hex digits; None where it has one brightness only.

    All such pictures would share a hash, for they have no frequencies to compare. About 0.5 ms for
    341 x 256 pixels.
    """
    grey = Image.fromarray(pixels).convert("L")
    darkest, brightest = grey.getextrema()
    return None if darkest == brightest else str(imagehash.phash(grey))


def _orientation(image: Any) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, struct.error):
        return 1  # broken metadata is no reason to lose the picture
    return value if value in range(1, 9) else 1


def _refusal(width: int, height: int, section: ImageSection) -> tuple[Reason, str] | None:
    shape = f"{width} x {height}"
    if width * height > section.max_pixels:
        return Reason.IMAGE_TOO_LARGE, shape
    if min(width, height) < section.min_side_px:
        return Reason.IMAGE_TOO_SMALL, shape
    if max(width, height) > section.max_aspect * min(width, height):
        return Reason.IMAGE_ASPECT, shape
    return None


def _at_least(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Return a size of the same shape that ``draft`` must not go below."""
    scale = shorter / min(size)
    return int(size[0] * scale) + 1, int(size[1] * scale) + 1


def _rgb(image: Any) -> Any:
    """Return a Pillow image as 8-bit RGB: transparency on white, 16 bits scaled down."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        image = Image.fromarray((values.clip(0, 65535) / 257 + 0.5).astype(np.uint8))
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _oriented(image: Any, orientation: int) -> Any:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _shrunk(
    pixels: npt.NDArray[np.uint8], original: tuple[int, int], shorter: int
) -> npt.NDArray[np.uint8]:
    scale = shorter / min(original)
    width, height = (max(shorter, round(side * scale)) for side in original)
    out: npt.NDArray[Any] = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return out


def _centre(pixels: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    height, width, _ = pixels.shape
    left, top = (width - side) // 2, (height - side) // 2
    return pixels[top : top + side, left : left + side]


def _encoded(pixels: npt.NDArray[np.uint8], quality: int) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    good, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    assert good
    return bytes(data)


def without_metadata(jpeg: bytes) -> bytes:
    """Return a JPEG file without its metadata segments, its pixels untouched.

    EXIF (GPS), XMP, IPTC, ICC profiles, comments and whatever follows the end of the image go.
    JFIF's APP0 and Adobe's APP14 stay, for they say how colours are stored (ITU-T T.81, annex B).
    A file whose structure cannot be followed comes back as far as it can.
    """
    out = bytearray(jpeg[:2])
    at = 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        marker = jpeg[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xD9:
            break
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker == 0xDA:
            end = _end_of_scan(jpeg, end)
        if not _is_metadata(marker):
            out += jpeg[at:end]
        at = end
    return bytes(out) + b"\xff\xd9"


def _is_metadata(marker: int) -> bool:
    return marker == 0xFE or (0xE1 <= marker <= 0xEF and marker != 0xEE)


def _end_of_scan(jpeg: bytes, at: int) -> int:
    """Return where the marker after a scan's entropy-coded data stands; it has none but RSTn."""
    while (at := jpeg.find(b"\xff", at)) != -1 and at + 1 < len(jpeg):
        if jpeg[at + 1] not in {0x00, 0xFF} and not 0xD0 <= jpeg[at + 1] <= 0xD7:
            return at
        at += 1 if jpeg[at + 1] == 0xFF else 2
    return len(jpeg)


def _unidentified(body: bytes) -> Unusable:
    """Return a few words on a body that Pillow cannot tell; pages under picture URLs are common."""
    start = body[:512].lstrip().lower()
    if body.startswith(_SIGNATURES) or body[8:12] == b"WEBP":
        return Unusable(Reason.IMAGE_TRUNCATED, "damaged in its header")
    if start.startswith((b"<!doctype html", b"<html")):
        return Unusable(Reason.NOT_AN_IMAGE, "HTML")
    words = "empty" if not start else "SVG" if b"<svg" in start else f"starts {body[:8].hex()}"
    return Unusable(Reason.NOT_AN_IMAGE, words)


def _text(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
