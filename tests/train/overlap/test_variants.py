"""The hashes by which a test picture asks, and what of two pictures is compared."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from tests.train.overlap.drawn import picture
from wit_train.overlap.alignment import aligned
from wit_train.overlap.variants import VARIANTS, Variant, asking, hash_of

CROP = (slice(0, 108), slice(15, 150))  # 90 % of each side, top right


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_crop_of_the_test_picture_is_asked_for(mirrored):
    """One of the hashes is near that of a crop of the test picture, mirrored or not."""
    asked, crop = asking(picture(1)), picture(1)[CROP]
    wanted = hash_of(np.ascontiguousarray(crop[:, ::-1] if mirrored else crop))
    assert wanted is not None
    distances = [(int(h) ^ wanted).bit_count() for h in asked.hash_V]
    nearest = VARIANTS[asked.variant_V[int(np.argmin(distances))]]
    assert min(distances) <= 4
    assert nearest == Variant("crop", 0.0, 1.0, mirrored)


def test_a_picture_of_one_brightness_asks_nothing():
    """There is nothing to compare."""
    assert not len(asking(np.full((40, 50, 3), 90, np.uint8)).hash_V)


def test_noise_is_not_compared():
    """Half of the bits of a picture that is its own mirror image are noise, and are unsure."""
    half = picture(2)[:, :75]
    symmetric = np.ascontiguousarray(np.hstack([half, half[:, ::-1]]))
    asked = asking(symmetric)
    assert int(asked.sure_V[0]).bit_count() <= 32
    copy: Any = cv2.GaussianBlur(symmetric, (3, 3), 0)
    found = hash_of(copy)
    assert found is not None
    assert ((found ^ int(asked.hash_V[0])) & int(asked.sure_V[0])).bit_count() <= 1


@pytest.mark.parametrize(("kind", "swapped"), [("crop", False), ("part", True), ("whole", False)])
def test_what_both_show_is_found(kind: str, swapped):
    """A crop fits at its place in the whole, whichever of the two is the training picture."""
    pair = (picture(3), np.ascontiguousarray(picture(3)[CROP]))
    found = aligned(Variant(kind, 0.0, 1.0), *(reversed(pair) if swapped else pair))
    assert found.correlation > 0.98
    assert found.test.shape == found.training.shape == (128, 128, 3)
    other = aligned(Variant(kind, 0.0, 1.0), picture(3), picture(4))
    assert other.correlation < 0.8


def test_exposure_and_colours_are_taken_out():
    """A grey copy of less contrast looks the same to the model."""
    grey = cv2.cvtColor(cv2.cvtColor(picture(5), cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    found = aligned(VARIANTS[0], picture(5), cv2.convertScaleAbs(grey, alpha=0.5, beta=60))
    assert np.abs(found.test.astype(int) - found.training).mean() < 3
