"""Where an embedding's cosine begins to mean *the same picture*: measured on the test set itself.

A threshold that is right for one model is wrong for the next: what a small model gives two emoji, a
large one gives two copies. The CLIP paper looks at pairs and sets one for each data set (section
5). Until somebody has looked, the default is the model's own measure: copies of some test pictures
are made, and the threshold is what ``KEPT`` of their cosines reach. So it says how many copies are
kept, of whatever model; how many other pictures are kept depends on the model, and is told.

Legend: N pictures, K copies of each, M pairs, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from wit_train.embedding import Embedding
from wit_train.overlap.alignment import Aligned, aligned
from wit_train.overlap.variants import VARIANTS, Variant
from wit_train.resize import Pixels

F32 = npt.NDArray[np.float32]

KEPT = 0.98
"""Share of copies whose cosine is at least the threshold."""

PICTURES = 100
"""Test pictures that copies are made of."""

_BATCH = 64
_CROP = Variant("crop", 0.5, 0.0)


class Measured(NamedTuple):
    """What a model gives copies and others.

    Attributes:
        threshold: what ``KEPT`` of the copies reach.
        copies: cosines [N·K] of pictures and their copies.
        others: cosines [N] of pictures and, of the other pictures, the one most like each.
    """

    threshold: float
    copies: F32
    others: F32

    @property
    def others_kept(self) -> float:
        """Share of pictures that have another one, not a copy, that would be taken for one."""
        return float((self.others >= self.threshold).mean()) if len(self.others) else 0.0


def measured(embedding: Embedding, pictures: Sequence[Pixels]) -> Measured:
    """Return the default threshold of a model for a test set.

    Args:
        embedding: the model.
        pictures: a few of the set's.
    """
    whole = VARIANTS[0]
    copies = [aligned(*pair) for picture in pictures for pair in copies_of(picture)]
    image_ND = _features(embedding, [aligned(whole, p, p).test for p in pictures])
    like_NN = image_ND @ image_ND.T
    np.fill_diagonal(like_NN, -1)
    others = like_NN.max(1) if len(pictures) > 1 else np.empty(0, np.float32)
    cosines = cosines_of(embedding, copies)
    # One sample of few decides: rounded down, so that what is printed is what is meant.
    least = float(np.quantile(cosines.astype(np.float64), 1 - KEPT)) if len(cosines) else 1.0
    return Measured(round(math.floor(least * 1000) / 1000, 3), cosines, others)


def copies_of(picture: Pixels) -> list[tuple[Variant, Pixels, Pixels]]:
    """Return some copies of a picture, each as a candidate: variant, test and training picture.

    Recompressed at JPEG quality 30, of half the size, grey, brighter, cropped.
    """
    height, width = picture.shape[:2]
    half = (max(1, width // 2), max(1, height // 2))
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    copies: list[Any] = [
        cv2.imdecode(encoded, cv2.IMREAD_COLOR),
        cv2.resize(picture, half, interpolation=cv2.INTER_AREA),
        cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
        cv2.convertScaleAbs(picture, alpha=1.25),
        picture[height // 20 : height - height // 20, : width - width // 10],
    ]
    *same, crop = copies
    return [*((VARIANTS[0], picture, copy) for copy in same), (_CROP, picture, crop)]


def cosines_of(embedding: Embedding, pairs: Sequence[Aligned]) -> F32:
    """Return the cosines [M] of what pairs of pictures show."""
    left = _features(embedding, [pair.test for pair in pairs])
    right = _features(embedding, [pair.training for pair in pairs])
    cosine_M: F32 = (left * right).sum(1)
    return cosine_M


def _features(embedding: Embedding, pictures: Sequence[Pixels]) -> F32:
    """Return the features [N, D] of pictures, normalised."""
    parts = []
    for start in range(0, len(pictures), _BATCH):
        prepared = [embedding.prepared(p) for p in pictures[start : start + _BATCH]]
        parts.append(embedding.images(prepared).cpu().numpy())
    return np.concatenate(parts) if parts else np.empty((0, 1), np.float32)
