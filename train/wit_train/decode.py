"""From the bytes of a picture to the pixels a model sees.

OpenCV decodes and resizes, and lets other threads run while it does; evaluation resizes with
Pillow's antialiased bicubic filter, the one that open_clip evaluates with.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta
from PIL import Image

from wit_train.seeds import Purpose, uniforms

Pixels = npt.NDArray[np.uint8]
"""[H, W, 3], red green blue."""

_Share = Annotated[float, Meta(ge=0, le=1)]
# EXIF orientation is ignored, as Pillow and open_clip ignore it
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


class Augment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What happens to a picture in training. The defaults are the paper's: a random square crop.

    Attributes:
        min_area: the crop's area as a share of the largest square's is drawn from [min_area, 1].
        gray: share of pictures that lose their colours.
        jitter: brightness, contrast and saturation are scaled by 1 +- this at most.
    """

    min_area: Annotated[float, Meta(gt=0, le=1)] = 1.0
    gray: _Share = 0.0
    jitter: _Share = 0.0


def pixels(data: bytes) -> Pixels | None:
    """Return the picture in an encoded file, or None where there is none to decode."""
    if not data:
        return None
    try:
        decoded: Any = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS)
    except cv2.error:  # e.g. dimensions beyond OpenCV's limit
        return None
    return None if decoded is None else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def for_training(picture: Pixels, size: int, augment: Augment, words: tuple[int, ...]) -> Pixels:
    """Return a random square crop, augmented.

    Args:
        picture: as decoded.
        size: side of the result, pixels.
        augment: what else happens to it.
        words: (seed, epoch, sample): the same words give the same crop.

    Returns:
        uint8 [size, size, 3].
    """
    area, across, down, gray, *jitter = uniforms(7, Purpose.AUGMENT, *words)
    height, width = picture.shape[:2]
    share = augment.min_area + (1 - augment.min_area) * area
    side = max(1, round(min(height, width) * math.sqrt(share)))
    top, left = int(down * (height - side + 1)), int(across * (width - side + 1))
    result = _resized(picture[top : top + side, left : left + side], size)
    if augment.jitter:
        result = _jittered(result, [1 + augment.jitter * (2 * u - 1) for u in jitter])
    if gray < augment.gray:
        result = _gray(result)
    return result


def _gray(picture: Pixels) -> Pixels:
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    result: Any = cv2.merge([gray, gray, gray])
    return result


def _resized(picture: Pixels, size: int) -> Pixels:
    """Return a square picture at another size: averaged where it shrinks, cubic where it grows."""
    filter_ = cv2.INTER_AREA if picture.shape[0] >= size else cv2.INTER_CUBIC
    resized: Any = cv2.resize(picture, (size, size), interpolation=filter_)
    return resized


def _jittered(picture: Pixels, factors: list[float]) -> Pixels:
    """Return brightness * (mean + contrast * (saturated - mean)), clipped.

    The three steps are affine, so they are one 3 x 4 matrix: one pass over the pixels.
    """
    brightness, contrast, saturation = factors
    mean = float(np.dot(cv2.mean(picture)[:3], _LUMA))
    mix = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * _LUMA
    shift = np.full((3, 1), brightness * (1 - contrast) * mean, np.float32)
    result: Any = cv2.transform(picture, np.hstack([brightness * contrast * mix, shift]))
    return result


def for_evaluation(picture: Pixels, size: int) -> Pixels:
    """Return the centre square of the picture resized so that its shorter side is ``size``.

    Returns:
        uint8 [size, size, 3]; equal to open_clip's evaluation transform on the same pixels.
    """
    height, width = picture.shape[:2]
    short = min(height, width)
    # torchvision: the longer side is truncated, the crop's corner rounded
    to_h, to_w = int(size * height / short), int(size * width / short)
    resized = np.asarray(Image.fromarray(picture).resize((to_w, to_h), Image.Resampling.BICUBIC))
    top, left = round((to_h - size) / 2), round((to_w - size) / 2)
    return resized[top : top + size, left : left + size]
