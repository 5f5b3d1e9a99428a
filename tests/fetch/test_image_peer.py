"""Pictures beside those of img2dataset's own resizer, from the same bodies.

What ``image.py`` states of sizes and PSNR is measured here, on what decodes from both outputs. Its
option ``skip_reencode`` is on, for we encode nothing anew that stays as it is, either.
"""

from __future__ import annotations

import io
import os
import statistics
import warnings
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from tests.mock_web import encoded
from wit_builder.fetch.image import Picture, prepare
from wit_builder.sections import ImageSection

MODES = ["keep_ratio", "center_crop", "border", "no"]


def photograph(width: int, height: int) -> Image.Image:
    """Return what a photograph is made of: areas, texture at every scale, and edges."""
    random = np.random.default_rng([width, height])
    pixels = np.full((height, width, 3), 128, np.float32)
    across, contrast = 3.0, 55.0
    while across < max(width, height):
        shape = max(2, round(across * height / max(width, height))), max(2, round(across))
        colours = random.normal(size=(*shape, 3)) / 2 + random.normal(size=(*shape, 1))
        pixels += contrast * cv2.resize(colours.astype(np.float32), (width, height))
        across, contrast = across * 2, contrast * 0.6
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        left, top = int(random.integers(0, width)), int(random.integers(0, height))
        edge = int(random.integers(5, min(width, height) // 2))
        colour = tuple(random.integers(0, 256, 3).tolist())
        draw.ellipse((left, top, left + edge, top + edge), outline=colour, width=3)
    return image


@pytest.fixture(scope="module")
def bodies() -> dict[str, bytes]:
    """Bodies of every kind; a name starts with JPEG where it may be decoded at reduced size."""
    bodies = {}
    for size in [(300, 300), (256, 400), (130, 90), (431, 300), (700, 525), (1023, 600)]:
        image, name = photograph(*size), "{} x {}".format(*size)
        bodies[f"JPEG {name}"] = encoded(image, "JPEG", quality=85)
        if min(size) <= 300:
            bodies[f"PNG {name}"] = encoded(image, "PNG", compress_level=1)
            bodies[f"WebP {name}"] = encoded(image, "WEBP", quality=80, method=0)
    tall = photograph(1000, 1400)
    image, other = photograph(640, 480), photograph(480, 640).transpose(Image.Transpose.ROTATE_90)
    alpha, grey, palette = image.copy(), image.convert("L"), image.quantize(200)
    alpha.putalpha(other.convert("L"))
    return bodies | {
        "JPEG, progressive": encoded(tall, "JPEG", quality=90, progressive=True),
        "JPEG, large": encoded(photograph(1500, 1050).resize((3000, 2100)), "JPEG", quality=85),
        "JPEG, 4:4:4": encoded(image, "JPEG", quality=90, subsampling=0),
        "JPEG, grey": encoded(grey, "JPEG", quality=85),
        "JPEG, CMYK": encoded(image.convert("CMYK"), "JPEG", quality=90),
        "WebP, large": encoded(tall, "WEBP", quality=80, method=0),
        "WebP, alpha": encoded(alpha, "WEBP", quality=90, method=0),
        "GIF": encoded(palette, "GIF"),
        "BMP": encoded(image, "BMP"),
        "PNG, large": encoded(tall, "PNG", compress_level=1),
        "PNG, grey": encoded(grey, "PNG"),
        "PNG, 1 bit": encoded(grey.convert("1"), "PNG"),
        "PNG, alpha": encoded(alpha, "PNG", compress_level=1),
        "PNG, grey and alpha": encoded(alpha.convert("LA"), "PNG"),
        "PNG, palette": encoded(palette, "PNG"),
        "PNG, palette with transparency": encoded(palette, "PNG", transparency=7),
    }


@pytest.fixture(scope="module")
def resizer() -> Any:
    """The class of img2dataset; it asks for a newer albumentations online unless told not to."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from img2dataset.resizer import Resizer
    return Resizer


def _theirs(resizer: Any, body: bytes, section: ImageSection) -> Any:
    peer = resizer(section.size_px, section.mode, not section.enlarge, skip_reencode=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out, *_, error = peer(io.BytesIO(body))
    assert error is None, error
    return cv2.imdecode(np.frombuffer(out, np.uint8), cv2.IMREAD_COLOR)


def _ours(body: bytes, section: ImageSection) -> Any:
    picture = prepare(body, section)
    assert isinstance(picture, Picture), picture
    decoded: Any = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape[:2] == (picture.height, picture.width)
    return decoded


@pytest.mark.parametrize("enlarge", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_pictures_equal_img2dataset_s(mode, enlarge, bodies, resizer):
    """Each mode gives img2dataset's sizes, and its pixels within the PSNR that is stated."""
    section = ImageSection(mode=mode, enlarge=enlarge)
    jpegs: dict[str, float] = {}
    others: dict[str, float] = {}
    for name, body in bodies.items():
        theirs, ours = _theirs(resizer, body, section), _ours(body, section)
        assert ours.shape == theirs.shape, name
        levels = jpegs if name.startswith("JPEG") else others
        levels[name] = min(cv2.PSNR(ours, theirs), 99)
    reduced = [level for level in jpegs.values() if level < 55]
    assert min(reduced) >= 36, jpegs
    assert statistics.median(reduced) >= 40, jpegs
    assert min(others.values()) >= 55, others


@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    mode=st.sampled_from(MODES),
    enlarge=st.booleans(),
    kind=st.sampled_from(["PNG", "JPEG"]),
)
def test_sizes_equal_img2dataset_s(resizer, size, mode, enlarge, kind):
    """A picture of any size and shape ends with the size that img2dataset gives it."""
    section = ImageSection(size_px=24, mode=mode, enlarge=enlarge, min_side_px=1, max_aspect=1000.0)
    body = encoded(Image.new("RGB", size, "teal"), kind)
    assert _ours(body, section).shape == _theirs(resizer, body, section).shape
