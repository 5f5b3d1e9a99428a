"""What two pictures both show, made alike in size, colours and exposure; how well its pixels fit.

A copy loses its edges, size, colours and exposure first, so these are taken out of the comparison.
Which crop of the larger picture the smaller one is, is found by correlation, over places and sizes;
how high it gets says without any model whether it is one.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import cv2
import numpy as np

from wit_train.decode import pixels
from wit_train.overlap.variants import Variant
from wit_train.resize import Pixels

SIDE = 64  # of what is correlated, pixels
_SIDES = range(52, SIDE + 1, 2)  # of the smaller picture in it: 81 % of each side and more
_SEEN = 128  # side of what a model is shown
_LARGEST = 512  # of the shorter side: four times what a model is shown
_MEAN, _SPREAD = 128.0, 55.0  # of the levels of what a model is shown


class Aligned(NamedTuple):
    """The same part of two pictures, if they show the same.

    Attributes:
        test, training: uint8 [128, 128, 3], grey, of equal mean and spread.
        correlation: of their pixels, Pearson's, at 64 x 64.
    """

    test: Pixels
    training: Pixels
    correlation: float


class _Box(NamedTuple):
    """A part of a picture, in shares of its sides, and how well another picture fits there."""

    correlation: float
    top: float
    left: float
    side: float


_WHOLE = _Box(-1, 0, 0, 1)


def shrunk(body: bytes) -> Pixels | None:
    """Return the picture in an encoded file, as large as is of use here; None if it has none."""
    picture = pixels(body)
    if picture is None or min(picture.shape[:2]) <= _LARGEST:
        return picture
    share = _LARGEST / min(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * share)), max(1, round(picture.shape[0] * share)))
    small: Any = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return cast("Pixels", small)


def aligned(variant: Variant, test: Pixels, training: Pixels) -> Aligned:
    """Return what both pictures show, if one is the variant of the other. 2 ms, measured.

    Args:
        variant: which of the two may be a crop; of ``whole`` either.
        test: uint8 [h, w, 3].
        training: likewise, of another size.
    """
    ours, theirs = _grey(test), _grey(training)
    if variant.mirrored:
        ours = ours[:, ::-1]
    in_ours = _best(ours, theirs) if variant.kind != "part" else _WHOLE
    in_theirs = _best(theirs, ours) if variant.kind != "crop" else _WHOLE
    if in_ours.correlation >= in_theirs.correlation:
        return Aligned(_shown(_cut(ours, in_ours)), _shown(theirs), in_ours.correlation)
    return Aligned(_shown(ours), _shown(_cut(theirs, in_theirs)), in_theirs.correlation)


def _grey(picture: Pixels) -> Any:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def _best(large: Any, small: Any) -> _Box:
    """Return where in one picture another one fits best; of equal sizes, shapes do not matter."""
    squared, found = _square(large, SIDE), _WHOLE
    for side in _SIDES:
        fits = cv2.matchTemplate(squared, _square(small, side), cv2.TM_CCOEFF_NORMED)
        _, best, _, (left, top) = cv2.minMaxLoc(fits)
        if np.isfinite(best) and best > found.correlation:
            found = _Box(float(best), top / SIDE, left / SIDE, side / SIDE)
    return found


def _cut(picture: Any, box: _Box) -> Any:
    height, width = picture.shape
    top, left = int(box.top * height), int(box.left * width)
    h, w = max(1, round(box.side * height)), max(1, round(box.side * width))
    return picture[top : top + h, left : left + w]


def _square(picture: Any, side: int) -> Any:
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)


def _shown(picture: Any) -> Any:
    """Return what a model is shown of a grey picture."""
    levels = _square(picture, _SEEN).astype(np.float32)
    levels = (levels - levels.mean()) / max(1.0, float(levels.std())) * _SPREAD + _MEAN
    grey = levels.clip(0, 255).round().astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
