"""Pictures."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wit_train.decode import Augment, for_evaluation, for_training, pixels


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 48), st.integers(0, 2**40))
def test_training_pictures_are_square_whatever_comes_in(h: int, w: int, size: int, sample: int):
    """Any picture becomes [size, size, 3] of uint8."""
    augment = Augment(min_area=0.3, gray=0.5, jitter=0.8)
    result = for_training(noise(h, w), size, augment, (0, 0, sample))
    assert result.shape == (size, size, 3)
    assert result.dtype == np.uint8


def test_the_same_words_give_the_same_crop_and_others_another():
    """Augmentation is a function of (seed, epoch, sample)."""
    picture = noise(60, 90)
    augment = Augment(min_area=0.5, jitter=0.3)
    first, again, other = (
        for_training(picture, 32, augment, words) for words in [(1, 2, 3), (1, 2, 3), (1, 3, 3)]
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_papers_crop_is_the_largest_square_anywhere_along_the_longer_side():
    """Without augmentation, crops differ in their place along the longer side alone."""
    ramp = np.broadcast_to(np.arange(96, dtype=np.uint8)[None, :, None], (32, 96, 3)).copy()
    firsts = {int(for_training(ramp, 32, Augment(), (0, 0, i))[0, 0, 0]) for i in range(400)}
    assert firsts == set(range(65))


def test_a_picture_can_lose_its_colours():
    """Gray = 1 makes all channels equal."""
    result = for_training(noise(40, 40), 32, Augment(gray=1.0), (0, 0, 0))
    assert np.array_equal(result[..., 0], result[..., 2])


@pytest.mark.parametrize("shape", [(64, 64), (100, 37), (37, 100), (20, 31), (333, 500)])
def test_evaluation_pictures_are_open_clips(shape: tuple[int, int]):
    """The evaluation transform gives open_clip's pixels, up and down, high and wide."""
    from open_clip.transform import image_transform

    picture = noise(*shape)
    transform = image_transform(32, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))
    expected = transform(Image.fromarray(picture)).permute(1, 2, 0).numpy() * 255
    np.testing.assert_allclose(for_evaluation(picture, 32), expected, atol=0.01)


def test_decoding_gives_red_green_blue_as_pillow_does():
    """A JPEG's pixels are Pillow's within two grey levels."""
    data = cv2.imencode(".jpg", noise(50, 70), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    decoded = pixels(data)
    assert decoded is not None
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert abs(decoded.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"not a picture", b"\xff\xd8\xff"])
def test_what_is_no_picture_gives_none(data: bytes):
    """Bytes that do not decode are not an error: the stream takes another sample."""
    assert pixels(data) is None
