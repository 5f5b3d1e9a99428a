"""From the bytes of a picture to the pixels a model sees.

A JPEG is decoded by libjpeg-turbo, through ``simplejpeg``, to the same pixels as by Pillow in half
the time; everything else, and every JPEG that is unusual or damaged, by Pillow. So Pillow's verdict
holds, and open_clip's: a file that was cut short is no picture. EXIF orientation is ignored.
Resizing is Pillow's antialiased bicubic filter (see ``resize``).
"""

from __future__ import annotations

import io
import math
import warnings
from typing import Annotated, Any, Literal

import cv2
import msgspec
import numpy as np
import simplejpeg
from msgspec import Meta
from PIL import Image

from wit_train.resize import Box, Pixels, resized
from wit_train.seeds import Purpose, fraction, hash_of

MAX_PIXELS = 178_956_970
"""Larger pictures are not decoded: Pillow's own limit, where it raises."""

_Share = Annotated[float, Meta(ge=0, le=1)]
_Positive = Annotated[float, Meta(gt=0)]
# No EPS, for one: Pillow would start Ghostscript on it.
_FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]
_JPEG = b"\xff\xd8"
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_TRIES = 10  # torchvision's

# Of which of a sample's random numbers is what: a stored order of training depends on it.
_AREA, _ACROSS, _DOWN, _GRAY, _JITTER, _RESIZED = 0, 1, 2, 3, 4, 7

# It warns at half of the size at which it raises.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Augment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What happens to a picture in training. The defaults are the paper's: a random square crop."""

    crop: Literal["square", "resized"] = "square"
    """`square`: as large as fits but for ``min_area``; `resized`: torchvision's RandomResizedCrop,
    of random area and shape, as open_clip trains with."""
    min_area: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Of a square crop: its area as a share of the largest square's is drawn from [min_area, 1]."""
    scale: tuple[_Positive, Annotated[float, Meta(le=1)]] = (0.9, 1.0)
    """Of a resized crop: the least and the largest share of the picture's area."""
    ratio: tuple[_Positive, _Positive] = (3 / 4, 4 / 3)
    """Of a resized crop: the least and the largest width over height."""
    gray: _Share = 0.0
    """Share of pictures that lose their colours."""
    jitter: _Share = 0.0
    """Brightness, contrast and saturation are scaled by 1 +- this at most."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name, (least, largest) in {"scale": self.scale, "ratio": self.ratio}.items():
            if least > largest:
                raise ValueError(f"{name}: the first is to be the smaller one")
        if self.crop == "resized" and self.min_area != 1:
            raise ValueError("min_area is for square crops; a resized crop has scale")


class Decoder:
    """Encoded pictures to what the model sees, one after the other.

    Args:
        image_size: side of the results, pixels.
        augment: the augmentation of training; None: the transform of evaluation.
        seed: of the augmentation, with epoch and sample.
    """

    def __init__(self, image_size: int, augment: Augment | None, seed: int) -> None:
        self._size, self._augment, self._seed = image_size, augment, seed
        blank = np.zeros((image_size + 1, image_size + 1, 3), np.uint8)
        resized(blank, image_size, image_size)  # loads the kernels, which takes up to a second

    def decode(self, data: bytes | memoryview, epoch: int, sample_id: int, out: Pixels) -> bool:
        """Write a picture into C-contiguous uint8 ``out`` [size, size, 3], and return True.

        Returns:
            False where there is no picture to decode: ``out`` is then as it was.
        """
        picture = pixels(data)
        if picture is None:
            return False
        if self._augment is None:
            for_evaluation(picture, self._size, out)
        else:
            for_training(picture, self._size, self._augment, (self._seed, epoch, sample_id), out)
        return True


def pixels(data: bytes | memoryview) -> Pixels | None:
    """Return the picture in an encoded file, or None where there is none to decode.

    Never raises for what is in the file: damaged, cut short, or larger than ``MAX_PIXELS``.
    """
    if data[:2] == _JPEG:
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if height * width > MAX_PIXELS:
                return None
            if colours not in {"CMYK", "YCCK"}:
                usual: Pixels = simplejpeg.decode_jpeg(data)
                return usual
        except ValueError:
            pass  # that is for Pillow to judge: some of what libjpeg warns of does no harm
    return _by_pillow(data)


def _by_pillow(data: bytes | memoryview) -> Pixels | None:
    try:
        image: Any = Image.open(io.BytesIO(data), formats=_FORMATS)
        image.info.pop("transparency", None)  # is dropped; Pillow would warn of some kinds of it
        if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
            gray = (np.asarray(image).clip(0, 65535).astype(np.uint32) + 128) // 257
            image = Image.fromarray(gray.astype(np.uint8))
        return np.asarray(image.convert("RGB"))
    except Exception:  # noqa: BLE001 - Pillow raises nearly anything, also struct.error and KeyError
        return None


def for_training(
    picture: Pixels,
    size: int,
    augment: Augment,
    words: tuple[int, ...],
    out: Pixels | None = None,
) -> Pixels:
    """Return a random crop, resized and augmented.

    Args:
        picture: as decoded.
        size: side of the result, pixels.
        augment: what happens to it.
        words: (seed, epoch, sample): the same words give the same crop.
        out: C-contiguous uint8 [size, size, 3] to write into; None makes one.

    Returns:
        uint8 [size, size, 3].
    """
    draws = hash_of(Purpose.AUGMENT, *words)
    box = _crop(picture.shape[0], picture.shape[1], augment, draws)
    result = resized(box.of(picture), size, size, out)
    if augment.jitter:
        jitter = [fraction(draws, _JITTER + i) for i in range(3)]
        _jitter(result, [1 + augment.jitter * (2 * u - 1) for u in jitter])
    if augment.gray and fraction(draws, _GRAY) < augment.gray:
        result[:] = cv2.cvtColor(result, cv2.COLOR_RGB2GRAY)[:, :, None]
    return result


def _crop(height: int, width: int, augment: Augment, draws: int) -> Box:
    if augment.crop == "resized":
        return resized_crop(height, width, augment, draws)
    share = augment.min_area + (1 - augment.min_area) * fraction(draws, _AREA)
    side = max(1, round(min(height, width) * math.sqrt(share)))
    top = int(fraction(draws, _DOWN) * (height - side + 1))
    return Box(top, int(fraction(draws, _ACROSS) * (width - side + 1)), side, side)


def resized_crop(height: int, width: int, augment: Augment, draws: int) -> Box:
    """Return a box with the distribution of torchvision's ``RandomResizedCrop``.

    Area and shape are drawn until such a box fits, ten times at most; then it is the largest one
    in the centre whose shape is allowed.
    """
    logs = math.log(augment.ratio[0]), math.log(augment.ratio[1])
    for first in range(_RESIZED, _RESIZED + 4 * _TRIES, 4):
        area = height * width * _between(*augment.scale, fraction(draws, first))
        ratio = math.exp(_between(*logs, fraction(draws, first + 1)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(fraction(draws, first + 2) * (height - h + 1))
            return Box(top, int(fraction(draws, first + 3) * (width - w + 1)), h, w)
    return _centre_crop(height, width, augment.ratio)


def _centre_crop(height: int, width: int, ratio: tuple[float, float]) -> Box:
    h, w = height, width
    if width / height < ratio[0]:
        h = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = max(1, round(height * ratio[1]))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def _between(least: float, largest: float, share: float) -> float:
    return least + (largest - least) * share


def _jitter(picture: Pixels, factors: list[float]) -> None:
    """Make it brightness * (mean + contrast * (saturated - mean)), clipped.

    The three steps are affine, so they are one 3 x 4 matrix: one pass over the pixels.
    """
    brightness, contrast, saturation = factors
    mean = float(np.dot(cv2.mean(picture)[:3], _LUMA))
    mix = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * _LUMA
    shift = np.full((3, 1), brightness * (1 - contrast) * mean, np.float32)
    picture[:] = cv2.transform(picture, np.hstack([brightness * contrast * mix, shift]))


def for_evaluation(picture: Pixels, size: int, out: Pixels | None = None) -> Pixels:
    """Return the centre square of the picture resized so that its shorter side is ``size``.

    Args:
        picture: as decoded.
        size: side of the result, pixels.
        out: C-contiguous uint8 [size, size, 3] to write into; None makes one.

    Returns:
        uint8 [size, size, 3]; equal to open_clip's evaluation transform of the same pixels.
    """
    height, width = picture.shape[:2]
    short = min(height, width)
    # torchvision: the longer side is truncated, the crop's corner rounded
    to_h, to_w = int(size * height / short), int(size * width / short)
    box = Box(round((to_h - size) / 2), round((to_w - size) / 2), size, size)
    return resized(picture, to_h, to_w, out, box)
