"""Headers of WebP files, beside Pillow's reading of them."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.mock_web import encoded, picture
from wit_builder.fetch import webp


@pytest.mark.parametrize("size", [(1, 1), (40, 30), (16383, 2), (257, 300)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"icc_profile": b"p" * 99}])
def test_size(size, mode, options):
    """Lossy or lossless, transparent or with a profile: the size is known by the header."""
    body = encoded(Image.new(mode, size, "red"), "WEBP", **options)
    assert webp.plain(body) == size


def test_others_are_left_to_pillow():
    """EXIF may say how to turn it, XMP as well; an animation and what is cut short are not read."""
    image = picture(50, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert webp.plain(encoded(image, "WEBP", exif=exif)) is None
    assert webp.plain(encoded(image, "WEBP", xmp=b"<x/>")) is None
    assert (
        webp.plain(encoded(image, "WEBP", save_all=True, append_images=[picture(50, 40, 1)]))
        is None
    )
    for options in ({}, {"lossless": True}):
        body = encoded(image, "WEBP", **options)
        assert all(webp.plain(body[:end]) is None for end in range(len(body)))
    assert webp.plain(encoded(image, "PNG")) is None
