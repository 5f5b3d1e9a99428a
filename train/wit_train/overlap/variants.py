"""The hashes by which a test picture is looked for: whole, cropped, as a part of more; mirrored.

A perceptual hash survives another size, compression and colours, and hardly any cropping. So a test
picture asks by several hashes. Where the training picture is a crop of it, one of its own crops is
near. Where it is itself a crop of the training picture, what was cut off is not known: its edge,
repeated outwards, stands for that. How much each of them finds: decision 0053.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from wit_builder.phash import phash
from wit_train.resize import Pixels

U64 = npt.NDArray[np.uint64]

SHARE = 0.9
"""Of each side, what a crop keeps."""

NOISE = 2.0
"""Of a frequency, in levels of 256 (orthonormal transform): what small changes may add to it."""

_FLAT = 0.5  # levels of 256: of a picture with no higher frequency nothing is asked
_LEAST_SURE, _ALL = 24, (1 << 64) - 1
_HASHED, _LOW = 32, 8  # side of what a hash looks at, and frequencies that it keeps each way
_LEAST_SIDE = 128  # of what crops are hashed of; a hash looks at 32 x 32 pixels
_PLACES = tuple(itertools.product((0.0, 0.5, 1.0), repeat=2))
_WORDS = {0.0: ("top", "left"), 0.5: ("middle", "middle"), 1.0: ("bottom", "right")}


class Variant(NamedTuple):
    """What of a test picture is compared with what of a training picture.

    Attributes:
        kind: ``whole``; ``crop``: a crop of the test picture with the whole training picture;
            ``part``: the whole test picture with a crop of the training picture.
        down, across: where the crop is: 0 top or left, 1 bottom or right.
        mirrored: whether left and right are swapped.
    """

    kind: str
    down: float = 0.0
    across: float = 0.0
    mirrored: bool = False

    @property
    def name(self) -> str:
        """For tables and people: ``crop top left, mirrored``."""
        place = f" {_WORDS[self.down][0]} {_WORDS[self.across][1]}" if self.kind != "whole" else ""
        return f"{self.kind}{place}{', mirrored' if self.mirrored else ''}"


_PLAIN = (
    Variant("whole"),
    *(Variant(kind, down, across) for kind in ("crop", "part") for down, across in _PLACES),
)
VARIANTS = (*_PLAIN, *(v._replace(mirrored=True) for v in _PLAIN))
"""All of them, the plainest first."""

_MIRROR = np.tile(np.array([1, -1], np.float32), _LOW * _LOW // 2)


def hash_of(picture: Pixels) -> int | None:
    """Return the pHash of uint8 [h, w, 3] in red green blue; None if it has one brightness."""
    bgr: Any = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    digits = phash(bgr)
    return None if digits is None else int(digits, 16)


class Asking(NamedTuple):
    """The hashes by which a test picture asks.

    Attributes:
        hash_V: uint64.
        sure_V: uint64: bits that small changes of the picture leave as they are, those of a
            frequency well off the median. A symmetric picture has none of the odd frequencies, so
            that half of its bits are noise. Where hardly any bit is sure, all count.
        variant_V: uint8, numbers in ``VARIANTS``, ascending.
    """

    hash_V: U64
    sure_V: U64
    variant_V: npt.NDArray[np.uint8]


NOTHING = Asking(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint8))
"""By which nothing is asked."""


def asking(picture: Pixels) -> Asking:
    """Return the hashes of a test picture; none of one that has one brightness. 1 ms.

    A hash that an earlier variant has is left out, as is a variant of one brightness. All but the
    first are made here, at a fifth of the cost: scaled by areas, not by Lanczos' filter, which
    shows in unsure bits only; of a mirror image the odd frequencies change their signs.

    Args:
        picture: uint8 [h, w, 3] in red green blue.
    """
    own = hash_of(picture)
    if own is None:
        return NOTHING
    colourless: Any = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    grey = _small(colourless)
    plain_V64 = np.stack([_frequencies(_seen(grey, variant)) for variant in _PLAIN])
    frequency_V64 = np.concatenate([plain_V64, plain_V64 * _MIRROR])
    off_V64 = frequency_V64 - np.median(frequency_V64, axis=1, keepdims=True)
    hash_V, sure_V = _words(off_V64 > 0), _words(np.abs(off_V64) >= NOISE)
    hash_V[0] = own
    sure_V[np.count_nonzero(np.abs(off_V64) >= NOISE, axis=1) < _LEAST_SURE] = _ALL
    seen = dict[tuple[int, int], int]()
    for number, both in enumerate(zip(hash_V.tolist(), sure_V.tolist(), strict=True)):
        if number == 0 or np.abs(frequency_V64[number, 1:]).max() >= _FLAT:
            seen.setdefault(both, number)
    kept = list(seen.values())
    return Asking(hash_V[kept], sure_V[kept], np.array(kept, np.uint8))


def _frequencies(grey: Pixels) -> npt.NDArray[np.float32]:
    """Return the lowest 8 x 8 frequencies, row by row, of an orthonormal cosine transform."""
    small = cv2.resize(grey, (_HASHED, _HASHED), interpolation=cv2.INTER_AREA)
    lowest: Any = cv2.dct(small.astype(np.float32))[:_LOW, :_LOW]
    return lowest.reshape(-1)


def _words(bits_V64: npt.NDArray[np.bool_]) -> U64:
    return np.packbits(bits_V64, axis=1).view(">u8")[:, 0].astype(np.uint64)


def _small(grey: Pixels) -> Pixels:
    scale = _LEAST_SIDE / min(grey.shape)
    if scale >= 1:
        return grey
    to = (round(grey.shape[1] * scale), round(grey.shape[0] * scale))
    small: Any = cv2.resize(grey, to, interpolation=cv2.INTER_AREA)
    return small


def _seen(grey: Pixels, variant: Variant) -> Pixels:
    """Return what a training picture would be, were it this plain variant of the test picture."""
    if variant.kind == "crop":
        grey = _crop(grey, variant.down, variant.across)
    if variant.kind == "part":
        grey = _extended(grey, variant.down, variant.across)
    return grey


def _crop(picture: Pixels, down: float, across: float) -> Pixels:
    height, width = picture.shape[:2]
    h, w = max(1, round(height * SHARE)), max(1, round(width * SHARE))
    top, left = round((height - h) * down), round((width - w) * across)
    return picture[top : top + h, left : left + w]


def _extended(grey: Pixels, down: float, across: float) -> Pixels:
    """Return the picture with its edge repeated, so that a crop would give it back."""
    more_h, more_w = (round(side / SHARE) - side for side in grey.shape)
    top, left = round(more_h * down), round(more_w * across)
    sides = (top, more_h - top, left, more_w - left)
    extended: Any = cv2.copyMakeBorder(grey, *sides, cv2.BORDER_REPLICATE)
    return extended
