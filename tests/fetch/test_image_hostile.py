"""Bodies that are made to take much memory or time, each named for its flaw."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.mock_web import encoded, picture, png_header
from wit_builder.fetch.image import Picture, Unusable, prepare
from wit_builder.sections import ImageSection
from wit_builder.tables import Reason

SECTION = ImageSection(size_px=64)
PNG_AFTER_HEADER = 33  # bytes of the signature and IHDR


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def blank_png(width: int, height: int, depth: int, colour: int) -> bytes:
    """Return a PNG of zeros, made without ever holding its pixels."""
    row_bytes = 1 + (width * {0: 1, 2: 3, 4: 2, 6: 4}[colour] * depth + 7) // 8
    packer = zlib.compressobj(1)
    data = [packer.compress(b"\0" * row_bytes) for _ in range(height)]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", b"".join(data) + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def gif(screen: tuple[int, int], frame: tuple[int, int]) -> bytes:
    """Return a GIF whose logical screen and first frame have these sizes; its data is short."""
    palette = b"\0\0\0\xff\xff\xff"
    start = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + palette
    return start + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x44\x01\x00;"


def webp_canvas(width: int, height: int) -> bytes:
    """Return an extended WebP with a canvas of this size around a small picture."""
    simple = encoded(picture(40, 40), "WEBP")[12:]
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + sides
    body += b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    frame = b"\0" * 6 + struct.pack("<I", 39)[:3] * 2 + b"\x64\0\0\0" + simple
    body += b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def avif_of(width: int, height: int) -> bytes:
    """Return an AVIF whose properties claim a size."""
    body = encoded(picture(64, 64), "AVIF")
    at = body.index(b"ispe") + 8
    return body[:at] + struct.pack(">II", width, height) + body[at + 8 :]


def rle_bmp(width: int, height: int, runs: bytes) -> bytes:
    """Return a BMP of 8 bits, in runs."""
    palette = bytes(v for level in range(256) for v in (level, level, level, 0))
    sizes = (len(runs), 0, 0, 256, 0)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, *sizes)
    start = 14 + 40 + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + palette + runs


def scan_bomb() -> bytes:
    """Return a progressive JPEG of 4 million pixels whose last scan comes a thousand times."""
    body = encoded(Image.new("L", (2000, 2000)), "JPEG", progressive=True)
    last = body[body.rindex(b"\xff\xda") : -2]
    return body[:-2] + last * 1000 + body[-2:]


FLAWS = {
    "a header of 2.5 billion pixels": (png_header(50_000, 50_000), Reason.IMAGE_TOO_LARGE),
    "a header over our cap only": (png_header(13_000, 13_000), Reason.IMAGE_TOO_LARGE),
    "a huge screen": (gif((65_535, 65_535), (1, 1)), Reason.IMAGE_TOO_LARGE),
    "a frame beyond its screen": (gif((16, 16), (65_535, 65_535)), Reason.IMAGE_TOO_LARGE),
    "a large frame without data": (gif((16, 16), (9_000, 9_900)), Reason.IMAGE_TRUNCATED),
    "no pixels": (gif((0, 0), (0, 0)), Reason.IMAGE_TRUNCATED),
    "a huge canvas": (webp_canvas(16_384, 16_384), Reason.IMAGE_TOO_LARGE),
    "a canvas that is kept four times": (webp_canvas(7_000, 7_000), Reason.IMAGE_TOO_LARGE),
    "a size that libavif refuses": (avif_of(60_000, 60_000), Reason.IMAGE_TRUNCATED),
    "a size that libavif accepts": (avif_of(9_000, 9_000), Reason.IMAGE_TOO_LARGE),
    "a thousand scans": (scan_bomb(), Reason.IMAGE_TOO_LARGE),
    "runs that end early": (rle_bmp(2_000, 2_000, b"\x01\x05" * 1000), Reason.IMAGE_TRUNCATED),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_bomb_has_its_reason(flaw):
    """What is too large by its header, or would take too much, is refused by it."""
    body, reason = FLAWS[flaw]
    result = prepare(body, SECTION)
    assert isinstance(result, Unusable), result
    assert result.reason is reason, result


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("behind", [False, True])
def test_what_surrounds_the_pixels_is_not_inflated(kind, behind, capfd):
    """Texts and profiles of a PNG cost nothing and lose nothing, nor are they complained of."""
    bomb = zlib.compress(b"\0" * 80_000_000, 9)
    data = b"name\0" + {b"iTXt": b"\x01\0\0\0"}.get(kind, b"\0") + bomb
    sound = encoded(picture(100, 90), "PNG")
    at = len(sound) - 12 if behind else PNG_AFTER_HEADER
    bomb_inside = sound[:at] + chunk(kind, data) + chunk(b"eXIf", b"no exif") + sound[at:]
    assert prepare(bomb_inside, SECTION) == prepare(sound, SECTION)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_frames_are_not_counted(kind):
    """Of a long animation the first frame is what is packed, as if it were alone."""
    first, second = (Image.new("RGB", (32, 24), colour) for colour in ("red", "blue"))
    frames = [first if i % 2 else second for i in range(300)]
    animated = encoded(first, kind, save_all=True, append_images=frames, duration=20)
    result, alone = (prepare(b, SECTION) for b in (animated, encoded(first, kind)))
    assert isinstance(result, Picture)
    assert isinstance(alone, Picture)
    levels = [np.asarray(Image.open(io.BytesIO(p.jpeg)), int) for p in (result, alone)]
    assert np.abs(levels[0] - levels[1]).max() <= 2


def test_runs_are_decoded():
    """A BMP in runs is a picture like another."""
    line = bytes(v for level in range(100) for v in (1, 2 * level)) + b"\0\0"
    result = prepare(rle_bmp(100, 80, line * 80 + b"\0\1"), ImageSection())
    assert isinstance(result, Picture)
    shown = np.asarray(Image.open(io.BytesIO(result.jpeg)).convert("L"), int)
    assert np.abs(shown[:, :, None] - 2 * np.arange(100)[None, :, None]).max() <= 4


# Not getrusage: its peak is that of the parent, where the parent was larger (Linux, execve).
MEASURE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from wit_builder.fetch.image import Picture, prepare
from wit_builder.sections import ImageSection
body = open(sys.argv[1], "rb").read()
with ThreadPoolExecutor(2) as threads:
    results = list(threads.map(lambda _: prepare(body, ImageSection()), range(3)))
assert all(isinstance(result, Picture) for result in results), results
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.parametrize(("depth", "colour"), [(8, 6), (16, 6), (16, 0)])
def test_a_picture_at_the_cap_fits(tmp_path: Path, depth, colour):
    """Two threads with the largest pictures that are decoded stay below a gigabyte together."""
    body = tmp_path / "body"
    body.write_bytes(blank_png(9_459, 9_459, depth, colour))
    command = [sys.executable, "-c", MEASURE, str(body)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1 << 20, f"{int(done.stdout) >> 10} MB"
