"""Pictures that a page carries inside."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest

from wit_train.decode import pixels
from wit_train.evaluate.thumbnails import MAX_BYTES, SIDE, thumbnail, thumbnails

START = "data:image/jpeg;base64,"


def _encoded(height: int, width: int, *, noise: bool = False) -> bytes:
    drawn = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    flat = np.full((height, width, 3), (200, 100, 50), np.uint8)  # blue, green, red
    return cv2.imencode(".png", drawn if noise else flat)[1].tobytes()


def _bytes(data: bytes) -> bytes:
    uri = thumbnail(data)
    assert uri is not None
    assert uri.startswith(START)
    return base64.b64decode(uri.removeprefix(START), validate=True)


@pytest.mark.parametrize(
    ("size", "small"),
    [
        ((600, 900), (107, 160)),
        ((50, 40), (50, 40)),
        ((1, 4000), (1, 160)),
        ((160, 160), (SIDE,) * 2),
    ],
)
def test_shape_is_kept_and_nothing_is_enlarged(size, small):
    """The longer side is at most ``SIDE``, the shorter in proportion and at least a pixel."""
    shown = pixels(_bytes(_encoded(*size)))
    assert shown is not None
    assert shown.shape[:2] == small


def test_colours_are_those_of_the_picture():
    """Red stays red: channels are not swapped."""
    shown = pixels(_bytes(_encoded(300, 300)))
    assert shown is not None
    assert np.abs(shown.mean((0, 1)) - (50, 100, 200)).max() < 3


def test_noise_is_small_too():
    """What compresses badly loses quality and not the page its size."""
    assert len(_bytes(_encoded(500, 500, noise=True))) <= MAX_BYTES


@pytest.mark.parametrize("flaw", [b"", b"<html>", _encoded(90, 90, noise=True)[:500]])
def test_what_does_not_decode_has_none(flaw):
    """Damaged bytes are no thumbnail and no error."""
    assert thumbnail(flaw) is None


def test_all_are_asked_for_at_once_and_each_is_answered():
    """Each place is asked for once, in order; what is missing or damaged says which."""
    asked = []

    def pictures(places):
        asked.append([*places])
        return {1: b"torn", 7: _encoded(9, 9)}

    found = thumbnails([7, 1, 4, 7], pictures)
    assert asked == [[1, 4, 7]]
    assert [(at, shown.uri is None, shown.said) for at, shown in found.items()][:2] == [
        (1, True, "does not decode"),
        (4, True, "cannot be read"),
    ]
    assert found[7].uri
