"""The perceptual hash, beside imagehash's."""

from __future__ import annotations

import imagehash
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wit_builder import phash as kernels
from wit_builder.phash import phash

sides = st.integers(1, 600) | st.sampled_from([1, 2, 16, 31, 32, 33, 64])


def drawn(kind: str, size: tuple[int, int], channels: int, seed: int) -> np.ndarray:
    """Return noise, black and white, a few large areas, or what is its own mirror image."""
    random = np.random.default_rng(seed)
    shape = size[1], size[0], channels
    if kind == "areas":
        coarse = random.integers(0, 256, (5, 4, channels), np.uint8)
        rows, columns = (
            np.arange(side) * n // side for side, n in zip(shape, (5, 4), strict=False)
        )
        return coarse[rows][:, columns]
    if kind == "extremes":
        return (random.integers(0, 2, shape) * 255).astype(np.uint8)
    noise = random.integers(0, 256, shape, np.uint8)
    return np.maximum(noise, noise[:, ::-1]) if kind == "mirrored" else noise


@settings(max_examples=250, deadline=None)
@given(
    size=st.tuples(sides, sides),
    channels=st.sampled_from([1, 3]),
    kind=st.sampled_from(["noise", "extremes", "areas", "mirrored"]),
    seed=st.integers(0, 99),
)
def test_it_is_imagehash_s(size, channels, kind, seed):
    """Any picture of any shape is scaled to Pillow's pixels, and has imagehash's hash."""
    pixels = drawn(kind, size, channels, seed)
    reds_first = np.ascontiguousarray(pixels[:, :, ::-1])
    image = Image.fromarray(reds_first if channels == 3 else pixels[:, :, 0])
    darkest, brightest = image.convert("L").getextrema()
    expected = None if darkest == brightest else str(imagehash.phash(image))
    assert phash(pixels) == expected


def test_it_does_not_depend_on_where_pixels_lie():
    """A picture that is a view of another, turned or cut out, has the hash of its copy."""
    pixels = np.random.default_rng(1).integers(0, 256, (90, 70, 3), np.uint8)
    for view in (pixels[::-1], pixels.swapaxes(0, 1), pixels[10:, 5:60]):
        assert phash(view) == phash(view.copy())


def test_one_kernel_does_for_all():
    """Nothing is compiled anew for a picture of another shape or kind."""
    for shape in ((40, 50, 3), (40, 50, 1), (300, 20, 3)):
        phash(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    assert len(kernels._scale.signatures) == 1
