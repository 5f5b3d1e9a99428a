"""Plain PNG files, beside Pillow's decoder."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
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


@settings(max_examples=150, deadline=None)
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
    expected = np.asarray(Image.open(io.BytesIO(body))).reshape(size[1], size[0], channels)
    assert np.array_equal(whole(body, step), expected)


def test_what_is_not_plain_is_left_to_others():
    """Palettes, 1 and 16 bits, grey with alpha, colours that stand for nothing: none is ours."""
    image = picture(30, 20)
    others = [image.convert(mode) for mode in ("P", "1", "LA", "I;16")]
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


LINES = np.arange(50 * 151, dtype=np.uint8).reshape(50, 151)
FLAWS = {
    "a filter that there is not": zlib.compress(np.full((50, 151), 5, np.uint8).tobytes()),
    "lines that end early": zlib.compress(np.zeros((49, 151), np.uint8).tobytes()),
    "a stream that ends early": zlib.compress(np.zeros((50, 151), np.uint8).tobytes())[:-20],
    "a stream of noise": np.random.default_rng(0).bytes(900),
    "an empty stream": b"",
    "gzip instead of zlib": b"\x1f\x8b\x08" + bytes(40),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_damage_behind_sound_checksums_is_told(flaw):
    """Pixel data that nothing can be made of end as damaged, though every checksum is right."""
    result = prepare(written(LINES, 3, data=FLAWS[flaw]), ImageSection(min_side_px=8))
    assert isinstance(result, Unusable)
    assert result.reason is Reason.IMAGE_TRUNCATED
    assert (result.original_width, result.original_height) == (50, 50)
