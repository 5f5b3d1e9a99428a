"""What decodes and what does not, and which part of it, at which size, a model sees."""

from __future__ import annotations

import io
from typing import Any

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import resized_crop as torchvisions_crop

from benchmarks.fetch_server import photograph
from wit_train.decode import (
    MAX_PIXELS,
    Augment,
    Decoder,
    for_evaluation,
    for_training,
    pixels,
    resized_crop,
)
from wit_train.seeds import Purpose, hash_of

Pixels = npt.NDArray[np.uint8]

PHOTOGRAPH = photograph(np.random.default_rng(0), 120, 90)
KINDS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 90},
    "progressive JPEG": {"progressive": True},
    "JPEG of full colour": {"subsampling": 0},
    "JPEG 4:1:1": {"subsampling": "4:1:1"},
    "PNG": {},
    "WEBP": {"quality": 80},
    "lossless WEBP": {"lossless": True},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
    "AVIF": {"quality": 80, "max_threads": 1},
}


def noise(height: int, width: int) -> Pixels:
    small = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    picture: Any = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(picture)


def encoded(picture: Any, kind: str, **more: Any) -> bytes:
    """Return a picture, an array or Pillow's, as a file."""
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    form = next(word for word in kind.split() if word.isupper())
    image.save(body := io.BytesIO(), form, **KINDS[kind], **more)
    return body.getvalue()


def as_pillow_does(data: bytes) -> Pixels:
    """Return what open_clip sees of a file."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def claiming(data: bytes, height: int, width: int) -> bytes:
    """Return a baseline JPEG whose header says that it is of another size."""
    at = data.index(b"\xff\xc0") + 5  # marker, length, precision
    return data[:at] + height.to_bytes(2) + width.to_bytes(2) + data[at + 4 :]


# --- what decodes -----------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_the_pixels_that_pillow_finds_in_it(kind: str):
    """Whatever decodes it: the pixels are those open_clip trains on."""
    data = encoded(PHOTOGRAPH, kind)
    np.testing.assert_array_equal(pixels(data), as_pillow_does(data))
    np.testing.assert_array_equal(pixels(memoryview(data)), as_pillow_does(data))


@pytest.mark.parametrize("mode", ["L", "CMYK", "1"])
def test_a_grey_or_cmyk_jpeg_has_three_channels(mode: str):
    """Grey and CMYK become red, green, blue as Pillow has it."""
    data = encoded(Image.fromarray(PHOTOGRAPH).convert(mode), "JPEG")
    np.testing.assert_array_equal(pixels(data), as_pillow_does(data))


def test_transparency_is_dropped():
    """Of a PNG with alpha the colours stay, as Pillow's convert("RGB") leaves them."""
    alpha = np.dstack([PHOTOGRAPH, PHOTOGRAPH[..., 0]])
    data = encoded(alpha, "PNG")
    np.testing.assert_array_equal(pixels(data), PHOTOGRAPH)


def test_a_palette_with_transparency_gives_its_colours():
    """A palette is looked up, and its transparent entries are colours like others."""
    paletted = Image.fromarray(PHOTOGRAPH).quantize(16)
    data = encoded(paletted, "PNG", transparency=bytes(range(16)))
    np.testing.assert_array_equal(pixels(data), np.asarray(paletted.convert("RGB")))


def test_sixteen_bits_become_eight():
    """Of 16 bits a pixel the upper ones count, in grey, too, which Pillow would cut off at 255."""
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    grey = pixels(encoded(Image.fromarray(ramp), "PNG"))
    colour = pixels(cv2.imencode(".png", np.dstack([ramp] * 3))[1].tobytes())
    expected = np.dstack([(ramp // 257).astype(np.uint8)] * 3)
    np.testing.assert_array_equal(grey, expected)
    np.testing.assert_array_equal(colour, expected)


def test_orientation_is_ignored():
    """A picture stays as it is stored, as open_clip leaves it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = pixels(encoded(PHOTOGRAPH, "JPEG", exif=exif))
    assert picture is not None
    assert picture.shape == PHOTOGRAPH.shape


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_pixel_is_a_picture(kind: str):
    """1 x 1 decodes, and is resized."""
    picture = pixels(encoded(PHOTOGRAPH[:1, :1], kind))
    assert picture is not None
    assert for_evaluation(picture, 8).shape == (8, 8, 3)


# --- what does not ----------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"not a picture", b"\xff\xd8\xff", b"\x89PNG"])
def test_what_is_no_picture_gives_none(data: bytes):
    """Bytes that do not decode are not an error: the stream takes another sample."""
    assert pixels(data) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short_gives_none(kind: str):
    """Half a file is no picture, even where a decoder would fill the rest with grey."""
    data = encoded(PHOTOGRAPH, kind)
    assert pixels(data[: len(data) // 2]) is None


def test_even_the_last_bytes_of_a_jpeg_are_needed():
    """A JPEG without its end is cut short, as for Pillow."""
    data = encoded(PHOTOGRAPH, "JPEG")
    assert all(pixels(data[:-cut]) is None for cut in (1, 2, 3, 20))


def test_what_libjpeg_only_warns_of_is_a_picture():
    """Stray bytes between the parts of a JPEG do no harm."""
    data = encoded(PHOTOGRAPH, "JPEG")
    scan = data.index(b"\xff\xda")
    stray = data[:scan] + b"\0\0" + data[scan:]
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(stray)
    np.testing.assert_array_equal(pixels(stray), as_pillow_does(data))


def test_a_jpeg_that_claims_to_be_huge_is_not_decoded(monkeypatch: pytest.MonkeyPatch):
    """Beyond Pillow's limit the header is all that is read."""
    monkeypatch.setattr(simplejpeg, "decode_jpeg", pytest.fail)
    width = MAX_PIXELS // 60_000 + 1
    assert pixels(claiming(encoded(PHOTOGRAPH, "JPEG"), 60_000, width)) is None


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
def test_other_kinds_that_claim_to_be_huge_give_none(kind: str):
    """The limit holds whatever the format."""
    data = bytearray(encoded(PHOTOGRAPH[:1, :1], kind))
    at, size = {"PNG": (16, (20_000).to_bytes(4)), "GIF": (6, b"\xff\xff"), "BMP": (18, b"")}[kind]
    size = size or (20_000).to_bytes(4, "little")
    data[at : at + 2 * len(size)] = size * 2
    assert pixels(bytes(data)) is None


@given(st.sampled_from(sorted(KINDS)), st.data())
def test_damage_never_raises(kind: str, data: st.DataObject):
    """Whatever is overwritten: there is a picture, or none."""
    body = bytearray(encoded(PHOTOGRAPH[:20, :20], kind))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    picture = pixels(bytes(body))
    assert picture is None or (picture.ndim == 3 and picture.shape[2] == 3)


# --- training ---------------------------------------------------------------

Sides = st.integers(1, 90)


@given(
    Sides, Sides, st.integers(1, 48), st.integers(0, 2**40), st.sampled_from(["square", "resized"])
)
def test_training_pictures_are_square_whatever_comes_in(
    h: int, w: int, size: int, sample: int, crop: Any
):
    """Any picture becomes [size, size, 3] of uint8."""
    min_area = 0.3 if crop == "square" else 1.0
    augment = Augment(crop=crop, min_area=min_area, gray=0.5, jitter=0.8)
    result = for_training(noise(h, w), size, augment, (0, 0, sample))
    assert result.shape == (size, size, 3)
    assert result.dtype == np.uint8


@pytest.mark.parametrize("augment", [Augment(min_area=0.5, jitter=0.3), Augment(crop="resized")])
def test_the_same_words_give_the_same_crop_and_others_another(augment: Augment):
    """Augmentation is a function of (seed, epoch, sample)."""
    first, again, other = (
        for_training(PHOTOGRAPH, 32, augment, words) for words in [(1, 2, 3), (1, 2, 3), (1, 3, 3)]
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
    assert np.array_equal(result[..., 0], result[..., 1])
    assert np.array_equal(result[..., 0], result[..., 2])


@pytest.mark.parametrize("shape", [(256, 342), (342, 256), (300, 300), (100, 700), (700, 90)])
def test_resized_crops_are_distributed_as_torchvisions(shape: tuple[int, int]):
    """Sides and corner of 3,000 boxes: Kolmogorov and Smirnov would not tell them apart."""
    torch.manual_seed(0)
    image = torch.empty((3, *shape), device="meta")
    augment, count = Augment(crop="resized"), 3000
    scale, ratio = list(augment.scale), list(augment.ratio)
    theirs = [RandomResizedCrop.get_params(image, scale, ratio) for _ in range(count)]
    words = [hash_of(Purpose.AUGMENT, 0, 0, sample) for sample in range(count)]
    ours = [resized_crop(*shape, augment, draws) for draws in words]
    for one, other in zip(np.transpose(theirs), np.transpose(np.asarray(ours)), strict=True):
        assert ks_2samp(one, other).pvalue > 0.001


@pytest.mark.parametrize("shape", [(256, 342), (342, 256), (90, 60), (500, 700)])
def test_a_resized_crop_has_open_clips_pixels(shape: tuple[int, int]):
    """Given the same box, pixels are those of torchvision's antialiased bicubic, to the bit."""
    picture = photograph(np.random.default_rng(shape), shape[1], shape[0])
    augment = Augment(crop="resized")
    for sample in range(10):
        box = resized_crop(*shape, augment, hash_of(Purpose.AUGMENT, 0, 0, sample))
        image = Image.fromarray(picture)
        theirs = torchvisions_crop(image, *box, [224, 224], InterpolationMode.BICUBIC)
        ours = for_training(picture, 224, augment, (0, 0, sample))
        np.testing.assert_array_equal(ours, np.asarray(theirs))


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": [0.9, 0.8]},
        {"ratio": [2, 1]},
        {"crop": "resized", "min_area": 0.5},
        {"scale": [0, 1]},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]):
    """Bounds in the wrong order, and keys of the other crop, are errors of the recipe."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, Augment)


# --- evaluation -------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize(
    "shape", [(64, 64), (100, 37), (37, 100), (20, 31), (333, 500), (500, 90), (256, 342)]
)
def test_evaluation_pictures_are_open_clips(shape: tuple[int, int], size: int):
    """The evaluation transform gives open_clip's pixels, to the bit, up and down, high and wide."""
    from open_clip.transform import image_transform

    picture = photograph(np.random.default_rng(shape), shape[1], shape[0])
    transform = image_transform(size, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))
    theirs = transform(Image.fromarray(picture)).permute(1, 2, 0).numpy() * 255
    np.testing.assert_array_equal(for_evaluation(picture, size), theirs.round())


def test_a_long_strip_takes_no_more_memory_than_its_centre():
    """Of a line of 60,000 pixels, which would be 9 GB, only the centre square is made."""
    strip = np.full((1, 60_000, 3), 7, np.uint8)
    assert (for_evaluation(strip, 224) == 7).all()


# --- the whole --------------------------------------------------------------


@pytest.mark.parametrize(
    "augment", [Augment(), Augment(crop="resized", gray=0.5, jitter=0.2), None]
)
def test_a_decoder_writes_what_the_functions_return(augment: Augment | None):
    """Decoding in place is decoding, cropping and resizing."""
    data = encoded(PHOTOGRAPH, "JPEG")
    decoder, batch = Decoder(32, augment, seed=7), np.zeros((3, 32, 32, 3), np.uint8)
    for sample, out in enumerate(batch):
        assert decoder.decode(memoryview(data), 5, sample, out)
        picture = as_pillow_does(data)
        expected = (
            for_evaluation(picture, 32)
            if augment is None
            else for_training(picture, 32, augment, (7, 5, sample))
        )
        np.testing.assert_array_equal(out, expected)


def test_a_decoder_leaves_out_what_it_cannot_decode():
    """An unusable file is reported, and the place in the batch stays as it was."""
    out = np.full((32, 32, 3), 9, np.uint8)
    assert not Decoder(32, Augment(), seed=0).decode(memoryview(b"no picture"), 0, 0, out)
    assert (out == 9).all()
