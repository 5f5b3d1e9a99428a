"""Means of areas, beside OpenCV's."""

from __future__ import annotations

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wit_builder.fetch.resize import of_array, reframed, scaled

sides = st.integers(1, 70)


@settings(max_examples=200, deadline=None)
@given(
    source=st.tuples(sides, sides),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    channels=st.sampled_from([1, 3, 4]),
    seed=st.integers(0, 9),
)
def test_shrinking_is_opencv_s(source, shares, channels, seed):
    """Any picture shrunk to any size is OpenCV's to one step of 255; filler is left out."""
    size = tuple(max(1, round(side * share)) for side, share in zip(source, shares, strict=True))
    pixels = np.random.default_rng(seed).integers(0, 256, (*source[::-1], channels), np.uint8)
    expected = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).reshape(*size[::-1], -1)
    ours = scaled(of_array(pixels), size)
    assert ours.shape[2] == min(3, channels)
    assert np.abs(ours.astype(int) - expected[:, :, :3]).max() <= 1


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("size", [(300, 200), (99, 61), (7, 5), (500, 350)])
def test_strips_change_nothing(alpha, size):
    """A picture that is taken strip by strip comes out as one that is taken whole."""
    pixels = np.random.default_rng(1).integers(0, 256, (200, 300, 4), np.uint8)
    raster = of_array(pixels, bgr=False, alpha=alpha)
    whole = scaled(raster, size)
    assert np.array_equal(scaled(msgspec.structs.replace(raster, strip_pixels=2_000), size), whole)


def test_transparency_is_white_before_it_is_mixed():
    """Each pixel is put on white by its own alpha, and rounded, as img2dataset does."""
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 4), np.uint8)
    alpha = pixels[:, :, 3:] / 255
    expected = np.rint(alpha * pixels[:, :, :3] + 255 * (1 - alpha))
    assert np.array_equal(scaled(of_array(pixels, alpha=True), (50, 40)), expected)
    mean = expected.reshape(20, 2, 25, 2, 3).mean(axis=(1, 3))
    assert np.abs(scaled(of_array(pixels, alpha=True), (25, 20)) - mean).max() <= 0.5


def test_extremes_stay():
    """White stays white and black black, whatever the shares round to."""
    for level in (0, 255):
        pixels = np.full((997, 1009, 3), level, np.uint8)
        for size in ((256, 256), (341, 256), (1000, 990), (3, 997)):
            assert (scaled(of_array(pixels), size) == level).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_borders_are_white(channels):
    """Borders are white, and the larger half of an odd one is right of, or below, the picture."""
    pixels = np.zeros((4, 7, channels), np.uint8)
    padded = reframed(pixels, (10, 7))
    assert padded.shape == (7, 10, channels)
    assert np.array_equal(padded[1:5, 1:8], pixels)
    assert padded.sum() == 255 * channels * (70 - 28)


def test_the_centre_is_cut_out():
    """A crop takes the centre; of an odd remainder the larger half is right of it, or below."""
    pixels = np.arange(70, dtype=np.uint8).reshape(7, 10, 1)
    assert np.array_equal(reframed(pixels, (7, 4)), pixels[1:5, 1:8])
