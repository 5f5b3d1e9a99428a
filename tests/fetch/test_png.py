"""Plain PNG files, beside Pillow's decoder."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.mock_web import encoded, picture
from wit_builder.fetch import png
from wit_builder.fetch.image import Unusable, prepare
from wit_builder.sections import ImageSection
from wit_builder.tables import Reason

COLOURS = {1: 0, 3: 2, 4: 6}


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def written(lines: np.ndarray, channels: int, *, data: bytes | None = None) -> bytes:
    """Return a PNG file of lines that are filtered already, in several IDAT chunks."""
    height, width = lines.shape[0], (lines.shape[1] - 1) // channels
    header = struct.pack(">IIBBBBB", width, height, 8, COLOURS[channels], 0, 0, 0)
    data = zlib.compress(lines.tobytes()) if data is None else data
    pieces = [data[at : at + 1000] for at in range(0, len(data), 1000)]
    body = b"".join(chunk(b"IDAT", piece) for piece in pieces)
    return png.SIGNATURE + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def whole(body: bytes, step: int) -> np.ndarray:
    """Return what a file decodes to, some lines at a time, a strip's last one asked for twice."""
    bare = png.bare(body)
    assert bare is not None
    assert bare.channels is not None
    raster = png.raster(bare)
    height = raster.size[1]
    first = raster.rows(0, min(step, height))
    tops = range(step, height, step)
    rest = [raster.rows(top - 1, min(top + step, height))[1:] for top in tops]
    return np.concatenate([first, *rest])


def pillow_s(body: bytes, channels: int) -> np.ndarray:
    """Return what Pillow decodes it to."""
    image = Image.open(io.BytesIO(body))
    return np.asarray(image).reshape(image.height, image.width, channels)


@pytest.fixture(params=["at once", "in pieces"])
def _inflated(request, monkeypatch):
    """Have pictures inflated at once, or none of them."""
    if request.param == "in pieces":
        monkeypatch.setattr(png, "_WHOLE_BYTES", 0)


@pytest.mark.usefixtures("_inflated")
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.sampled_from([1, 3, 4]),
    step=st.integers(1, 50),
    levels=st.sampled_from([2, 9, 256]),
    seed=st.integers(0, 99),
)
def test_pixels_are_pillow_s(size, channels, step, levels, seed):
    """Any bytes in lines of any filters are the pixels that Pillow makes of them, in any strips."""
    random = np.random.default_rng(seed)
    lines = random.integers(0, levels, (size[1], 1 + size[0] * channels)).astype(np.uint8)
    lines[:, 0] = random.integers(0, 5, size[1])
    body = written(lines, channels)
    assert np.array_equal(whole(body, step), pillow_s(body, channels))


@pytest.mark.parametrize("width", [1, 2, 3, 67])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", range(5))
def test_each_filter_is_pillow_s(kind, channels, width):
    """A filter by itself, with large values and small ones beside each other."""
    random = np.random.default_rng(kind)
    levels = np.array([0, 1, 2, 127, 128, 129, 254, 255], np.uint8)
    lines = random.choice(levels, (90, 1 + width * channels))
    lines[1:, 0] = kind
    lines[0, 0] = random.integers(5)
    body = written(lines, channels)
    assert np.array_equal(whole(body, 31), pillow_s(body, channels))


def test_what_is_not_plain_is_left_to_others():
    """Small palettes, 1 and 16 bits, grey with alpha, colours for nothing: none is ours."""
    image = picture(30, 20)
    others = [image.convert(mode) for mode in ("1", "LA", "I;16")]
    others.append(image.quantize(16))
    bodies = [encoded(other, "PNG") for other in others]
    bodies.append(encoded(image, "PNG", transparency=(1, 2, 3)))
    for body in bodies:
        bare = png.bare(body)
        assert bare is not None
        assert bare.channels is None
    for mode in ("L", "RGB", "RGBA"):
        bare = png.bare(encoded(image.convert(mode), "PNG"))
        assert bare is not None
        assert bare.channels == len(mode)


def indexed(indices: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG file of indices, with chunks before its data."""
    header = struct.pack(">IIBBBBB", indices.shape[1], indices.shape[0], 8, 3, 0, 0, 0)
    data = zlib.compress(np.pad(indices, ((0, 0), (1, 0))).tobytes())
    every = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return png.SIGNATURE + b"".join(chunk(*part) for part in every)


@pytest.mark.usefixtures("_inflated")
@pytest.mark.parametrize("count", [1, 100, 256])
@pytest.mark.parametrize("alphas", [0, 1, 77, 256])
def test_palettes_are_opencv_s(count, alphas):
    """Of a palette of 8 bits OpenCV's colours are shown, and black where it has none."""
    random = np.random.default_rng(count)
    palette, alpha = random.bytes(3 * count), random.bytes(min(alphas, count))
    chunks = [(b"PLTE", palette), (b"tRNS", alpha)][: 2 if alpha else 1]
    body = indexed(random.integers(0, 256, (60, 45)).astype(np.uint8), *chunks)
    bare = png.bare(body)
    assert bare is not None
    assert png.raster(bare).alpha == bool(alpha)
    expected: Any = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
    channels = [2, 1, 0, 3] if alpha else [2, 1, 0]
    assert np.array_equal(whole(body, 7)[:, :, : len(channels)], expected[:, :, channels])


PLTE, TRNS = (b"PLTE", bytes(range(60))), (b"tRNS", bytes(20))


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [TRNS],
        [TRNS, PLTE],
        [PLTE, PLTE],
        [PLTE, TRNS, TRNS],
        [PLTE, (b"tRNS", bytes(21))],
        [(b"PLTE", bytes(61))],
        [(b"PLTE", b"")],
        [(b"PLTE", bytes(771))],
    ],
    ids=lambda chunks: " ".join(f"{kind.decode()}{len(data)}" for kind, data in chunks) or "none",
)
def test_odd_palettes_are_left_to_others(chunks):
    """What is missing, twice, out of order or of a wrong length is not ours to judge."""
    bare = png.bare(indexed(np.zeros((30, 30), np.uint8), *chunks))
    assert bare is not None
    assert bare.channels is None


LINES = np.arange(50 * 151, dtype=np.uint8).reshape(50, 151)
FLAWS = {
    "a filter that there is not": zlib.compress(np.full((50, 151), 5, np.uint8).tobytes()),
    "lines that end early": zlib.compress(np.zeros((49, 151), np.uint8).tobytes()),
    "half of all lines' bytes": zlib.compress(np.zeros((50, 75), np.uint8).tobytes()),
    "a stream that ends early": zlib.compress(np.zeros((50, 151), np.uint8).tobytes())[:-20],
    "a stream of noise": np.random.default_rng(0).bytes(900),
    "an empty stream": b"",
    "gzip instead of zlib": b"\x1f\x8b\x08" + bytes(40),
}


@pytest.mark.usefixtures("_inflated")
@pytest.mark.parametrize("flaw", FLAWS)
def test_damage_behind_sound_checksums_is_told(flaw):
    """Pixel data that nothing can be made of end as damaged, though every checksum is right."""
    result = prepare(written(LINES, 3, data=FLAWS[flaw]), ImageSection(min_side_px=8))
    assert isinstance(result, Unusable)
    assert result.reason is Reason.IMAGE_TRUNCATED
    assert (result.original_width, result.original_height) == (50, 50)


SOUND = LINES.copy()
SOUND[:, 0] %= 5
FORGIVEN = {
    "one line more": zlib.compress(SOUND.tobytes() + SOUND[0].tobytes()),
    "far more lines": zlib.compress(SOUND.tobytes() + bytes(1_000_000)),
    "no checksum": zlib.compress(SOUND.tobytes())[:-4],
    "half a checksum": zlib.compress(SOUND.tobytes())[:-2],
    "bytes behind it": zlib.compress(SOUND.tobytes()) + b"behind" * 99,
}


@pytest.mark.usefixtures("_inflated")
@pytest.mark.parametrize("flaw", FORGIVEN)
def test_what_is_wrong_behind_the_pixels_is_forgiven(flaw):
    """Where all pixels are there, they are shown, as Pillow shows them."""
    body = written(SOUND, 3, data=FORGIVEN[flaw])
    assert np.array_equal(whole(body, 20), pillow_s(body, 3))


def test_what_is_inflated_at_once_is_counted():
    """What a picture takes has room for its lines, where all of them are there at a time."""
    small, large = (png.bare(written(np.zeros((rows, 8001), np.uint8), 4)) for rows in (900, 9000))
    assert small is not None
    assert large is not None
    assert png.takes_bytes(small) > 900 * 8001
    assert png.takes_bytes(large) < 9000 * 8001
