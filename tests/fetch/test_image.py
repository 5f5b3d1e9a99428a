"""From a body to a JPEG."""

from __future__ import annotations

import io
import re
from importlib import metadata
from typing import Any

import cv2
import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.mock_web import encoded, jpeg, picture, png_header
from wit_builder import phash
from wit_builder.fetch import png, resize
from wit_builder.fetch.image import Picture, Unusable, get_ready, prepare
from wit_builder.fetch.jpeg import without_metadata
from wit_builder.sections import ImageSection
from wit_builder.tables import Reason

SECTION = ImageSection(size_px=64, min_side_px=8)


def opened(result: Picture | Unusable) -> Image.Image:
    assert isinstance(result, Picture), result
    image = Image.open(io.BytesIO(result.jpeg))
    image.load()
    assert (image.format, image.size) == ("JPEG", (result.width, result.height))
    return image


def reason(body: bytes, **section: Any) -> Reason:
    result = prepare(body, ImageSection(**{"size_px": 64, "min_side_px": 8, **section}))
    assert isinstance(result, Unusable)
    return result.reason


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(8, 500),
    height=st.integers(8, 500),
    mode=st.sampled_from(["keep_ratio", "center_crop"]),
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]),
)
def test_the_output_fits(width, height, mode, kind):
    """The shorter side is at most the size, nothing is enlarged, the shape is kept or square."""
    section = ImageSection(size_px=64, mode=mode, max_aspect=100)
    result = prepare(encoded(picture(width, height), kind), section)
    image = opened(result)
    assert (result.original_width, result.original_height) == (width, height)
    assert min(image.size) == min(64, width, height)
    if min(width, height) <= 64:
        assert image.size == (width, height)
    elif mode == "center_crop":
        assert image.size == (64, 64)
    else:
        assert abs(image.size[0] - width * 64 / min(width, height)) <= 0.5
        assert abs(image.size[1] - height * 64 / min(width, height)) <= 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(40, 24), (400, 240)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_orientation_is_applied_then_dropped(orientation, size, kind):
    """However a camera was held, the picture comes out upright and says nothing about it."""
    corner = Image.new("RGB", size, "blue")
    corner.paste("red", (0, 0, size[0] // 2, size[1] // 2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    image = opened(prepare(encoded(corner, kind, exif=exif, quality=95), SECTION))
    assert not image.getexif()
    swapped = orientation >= 5
    assert (image.size[0] > image.size[1]) is not swapped
    reds = np.argwhere(np.asarray(image)[:, :, 0] > 128).mean(axis=0) / np.asarray(image.size)[::-1]
    where = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[orientation]
    assert ("t" if reds[0] < 0.5 else "b") + ("l" if reds[1] < 0.5 else "r") == where


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_picture_is_hashed_upright(orientation):
    """A picture that is not scaled has the hash of what is seen, however large and turned."""
    turned = Image.Exif()
    turned[0x0112] = orientation
    body = encoded(picture(900, 700), "PNG", exif=turned)
    result = prepare(body, ImageSection(mode="no"))
    image = opened(result)
    assert image.size == ((700, 900) if orientation >= 5 else (900, 700))
    own = imagehash.phash(image)
    assert isinstance(result, Picture)
    assert result.phash is not None
    assert imagehash.hex_to_hash(result.phash) - own <= 2


def test_nothing_changes_nothing():
    """A small JPEG without metadata is packed byte for byte."""
    body = jpeg(60, 50)
    result = prepare(body, SECTION)
    assert isinstance(result, Picture)
    assert result == Picture(body, "image/jpeg", 60, 50, 60, 50, result.phash)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_metadata_goes_without_encoding_anew(options):
    """EXIF, comments, profiles and what trails the image go; pixels stay as they are."""
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    bare = jpeg(60, 50, **options)
    body = jpeg(60, 50, exif=exif, comment=b"hello", icc_profile=b"p" * 200, **options) + b"trailer"
    result = prepare(body, SECTION)
    assert isinstance(result, Picture)
    assert result.jpeg == bare


def test_without_metadata_survives_any_damage():
    """A file cut or damaged anywhere still gives a file, never an error."""
    body = jpeg(20, 20)
    for at in range(len(body)):
        assert without_metadata(body[:at])
        assert without_metadata(body[:at] + b"\xff" + body[at + 1 :])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "YCbCr"])
@pytest.mark.parametrize("size", [(60, 50), (300, 200)])
def test_every_mode(mode, size):
    """Every colour mode comes out close to what a viewer shows, on white."""
    source = picture(*size)
    if mode == "I;16":
        grey = np.asarray(source.convert("L")).astype(np.uint16) * 257
        image, shown = Image.fromarray(grey), source.convert("L").convert("RGB")
    else:
        image = source.convert(mode)
        shown = image.convert("RGB")
    body = encoded(image, "JPEG" if mode in {"CMYK", "YCbCr"} else "PNG")
    result = opened(prepare(body, SECTION)).convert("RGB")
    expected = shown.resize(result.size, Image.Resampling.BOX)
    limit = 18 if mode != "1" else 60
    assert np.abs(np.asarray(result, int) - np.asarray(expected, int)).mean() < limit


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_white(mode):
    """What is transparent becomes white, not black."""
    image = Image.new("RGBA", (50, 50), (200, 0, 0, 0))
    body = encoded(image.convert(mode), "PNG")
    assert np.asarray(opened(prepare(body, SECTION))).min() > 250


def test_first_frame_of_an_animation():
    """An animated GIF or WebP gives its first frame."""
    red, blue = (Image.new("RGB", (50, 50), c) for c in ("red", "blue"))
    for kind in ("GIF", "WEBP"):
        body = encoded(red, kind, save_all=True, append_images=[blue], duration=100)
        mean = np.asarray(opened(prepare(body, SECTION))).mean(axis=(0, 1))
        assert mean[0] > 200
        assert mean[2] < 60


def test_reduced_decoding_looks_the_same():
    """Decoding a large JPEG at reduced size stays within 38 dB of decoding it whole."""
    body = jpeg(1600, 1200, quality=95)
    small = np.asarray(opened(prepare(body, ImageSection())))
    whole = np.asarray(Image.open(io.BytesIO(body)))
    expected = cv2.resize(whole, (341, 256), interpolation=cv2.INTER_AREA)
    assert cv2.PSNR(small, expected) > 38


@pytest.mark.parametrize(
    ("body", "expected", "section"),
    [
        (png_header(50_000, 50_000), Reason.IMAGE_TOO_LARGE, {}),
        (png_header(10_000, 9_500), Reason.IMAGE_TOO_LARGE, {}),
        (jpeg(400, 300), Reason.IMAGE_TOO_LARGE, {"max_pixels": 1000}),
        (jpeg(100, 7), Reason.IMAGE_TOO_SMALL, {}),
        (jpeg(400, 10), Reason.IMAGE_ASPECT, {}),
        (jpeg(400, 300)[:-200], Reason.IMAGE_TRUNCATED, {}),
        (jpeg(400, 300)[:1000], Reason.IMAGE_TRUNCATED, {}),
        (jpeg(60, 50)[:-20], Reason.IMAGE_TRUNCATED, {}),
        (encoded(picture(50, 50), "PNG")[:-100], Reason.IMAGE_TRUNCATED, {}),
        (encoded(picture(50, 50), "WEBP")[:-100], Reason.IMAGE_TRUNCATED, {}),
        (png_header(50, 50), Reason.IMAGE_TRUNCATED, {}),
        (b"<!DOCTYPE html><html>not found</html>", Reason.NOT_AN_IMAGE, {}),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Reason.NOT_AN_IMAGE, {}),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", Reason.NOT_AN_IMAGE, {}),
        (b"", Reason.NOT_AN_IMAGE, {}),
    ],
)
def test_unusable(body, expected, section):
    """Each flaw has its reason."""
    assert reason(body, **section) is expected


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_damage_is_survived(data):
    """However a picture is damaged, there is a picture or a reason, never an error."""
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]))
    body = bytearray(encoded(picture(90, 80), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    result = prepare(bytes(body), SECTION)
    assert isinstance(result, Picture | Unusable)


def test_ready_means_compiled():
    """After getting ready, no picture of any kind has a kernel compiled once more."""
    get_ready()
    kernels = resize._mean, png._unfilter, phash._scale
    compiled = [len(kernel.signatures) for kernel in kernels]
    alpha = picture(90, 80).convert("RGBA")
    alpha.putalpha(100)
    for body in (jpeg(90, 80), encoded(alpha, "PNG"), encoded(alpha.convert("L"), "GIF")):
        assert isinstance(prepare(body, SECTION), Picture)
    assert [len(kernel.signatures) for kernel in kernels] == compiled == [1, 1, 1]


def test_same_bytes():
    """The same body gives the same bytes."""
    assert prepare(jpeg(500, 400), SECTION) == prepare(jpeg(500, 400), SECTION)


def hashed(image: Image.Image | bytes, kind: str = "JPEG", **options: Any) -> str | None:
    body = image if isinstance(image, bytes) else encoded(image, kind, **options)
    result = prepare(body, ImageSection())
    assert isinstance(result, Picture), result
    return result.phash


@pytest.fixture(scope="module")
def real_picture() -> Image.Image:
    """The Americas of a map with writing on it, which comes with the package imagehash."""
    [file] = [f for f in metadata.files("imagehash") or [] if f.name == "imagehash.png"]
    image = Image.open(str(file.locate()))
    white = Image.new("RGBA", image.size, "white")
    whole = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return whole.crop((150, 90, 600, 510))


def test_a_copy_has_the_same_perceptual_hash(real_picture):
    """A picture that was encoded anew, rescaled, or turned by its metadata, has the hash it had."""
    own = hashed(real_picture, "PNG")
    assert own is not None
    assert re.fullmatch("[0-9a-f]{16}", own)
    assert [hashed(real_picture, quality=q) for q in (95, 75, 50)] == [own] * 3
    for size in ((1350, 1260), (675, 630), (338, 315), (225, 210), (113, 105)):
        assert hashed(real_picture.resize(size, Image.Resampling.LANCZOS), quality=80) == own
    turned = Image.Exif()
    turned[0x0112] = 6
    sideways = real_picture.transpose(Image.Transpose.ROTATE_90)
    assert hashed(sideways, exif=turned, quality=90) == own


def test_the_perceptual_hash_is_imagehash_s(real_picture):
    """Of a picture that is packed as it is, the hash is what ``imagehash.phash`` gives for it."""
    for image in (real_picture.resize((225, 210)), picture(200, 120)):
        body = encoded(image, "JPEG", quality=90)
        assert hashed(body) == str(imagehash.phash(Image.open(io.BytesIO(body))))


def test_the_crop_is_not_hashed_alone(real_picture):
    """The hash is of the whole picture: cropping does not change it."""
    body = encoded(real_picture, "PNG")
    whole, cropped = (prepare(body, ImageSection(mode=m)) for m in ("keep_ratio", "center_crop"))
    assert isinstance(whole, Picture)
    assert isinstance(cropped, Picture)
    assert whole.phash == cropped.phash


def test_different_pictures_have_different_perceptual_hashes(real_picture):
    """Different pictures, and the same one mirrored or cropped, are told apart."""
    mirrored = real_picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    others = [mirrored, real_picture.crop((100, 0, 450, 420))]
    others += [picture(300, 200, seed) for seed in range(30)]
    hashes = [hashed(image, quality=90) for image in (real_picture, *others)]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize("colour", ["white", "black", "#808080", "#fe0102"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (300, 400)])
def test_one_colour_has_no_perceptual_hash(colour, size):
    """Where there is nothing to compare the hash is null, so that no two of these are equal."""
    section = ImageSection(min_side_px=1)
    result = prepare(encoded(Image.new("RGB", size, colour), "PNG"), section)
    assert isinstance(result, Picture)
    assert result.phash is None


@pytest.mark.parametrize("size", [(1, 2), (2, 1), (8, 8)])
def test_a_tiny_picture_has_a_perceptual_hash(size):
    """A few pixels of two colours are enough."""
    image = Image.new("RGB", size, "white")
    image.putpixel((0, 0), (0, 0, 0))
    result = prepare(encoded(image, "PNG"), ImageSection(min_side_px=1))
    assert isinstance(result, Picture)
    assert result.phash is not None
