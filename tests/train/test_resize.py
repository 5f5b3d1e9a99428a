"""Resizing, beside Pillow's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks.fetch_server import photograph
from wit_train.resize import Box, resized

Pixels = npt.NDArray[np.uint8]

# From a fifth of the size to four times it, and further; alike in both directions, and not.
SIZES = [(51, 68), (128, 171), (224, 224), (224, 299), (256, 341), (255, 342), (300, 400)]
SIZES += [(1024, 1368), (13, 17), (256, 40), (40, 342), (40, 342 * 2), (1, 1), (700, 20)]


def by_pillow(picture: Pixels, height: int, width: int) -> Pixels:
    resample: Any = Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(picture).resize((width, height), resample))


@pytest.mark.parametrize("size", SIZES)
def test_a_photograph_has_pillows_pixels(size: tuple[int, int]):
    """Shrunk or enlarged, evenly or not: no pixel differs."""
    picture = photograph(np.random.default_rng(0), 342, 256)
    np.testing.assert_array_equal(resized(picture, *size), by_pillow(picture, *size))


Sides = st.integers(1, 70)


@given(Sides, Sides, st.integers(1, 120), st.integers(1, 120), st.integers(0, 2**32 - 1))
def test_any_picture_has_pillows_pixels(h: int, w: int, height: int, width: int, seed: int):
    """White noise and hard edges, which overshoot at black and white, differ in no pixel either."""
    picture = np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)
    if seed % 2:
        picture = np.where(picture > 127, 255, 0).astype(np.uint8)
    np.testing.assert_array_equal(
        resized(picture, height, width), by_pillow(picture, height, width)
    )


@pytest.mark.parametrize("size", [(224, 224), (256, 224), (224, 256), (256, 256), (20, 224)])
def test_a_crop_is_resized_in_place(size: tuple[int, int]):
    """A part of a read-only picture is resized into given memory, and nothing beyond its edge."""
    picture = photograph(np.random.default_rng(0), 342, 256)
    picture.flags.writeable = False
    crop, batch = picture[:, 43:299], np.zeros((3, *size, 3), np.uint8)
    resized(crop, *size, batch[1])
    np.testing.assert_array_equal(batch[1], by_pillow(crop, *size))
    assert not batch[[0, 2]].any()


@given(Sides, Sides, st.integers(1, 60), st.integers(1, 60), st.data())
def test_a_part_is_that_part_of_the_whole(
    h: int, w: int, height: int, width: int, data: st.DataObject
):
    """What is made of a part only is what is there in the whole."""
    picture = photograph(np.random.default_rng(0), 70, 70)[:h, :w]
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    rows, columns = (data.draw(st.integers(1, n)) for n in (height - top, width - left))
    part = Box(top, left, rows, columns)
    whole = resized(picture, height, width)
    np.testing.assert_array_equal(resized(picture, height, width, part=part), part.of(whole))
