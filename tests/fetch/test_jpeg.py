"""Scans that are left out of a progressive JPEG."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.fetch.test_image_peer import photograph
from tests.mock_web import encoded
from wit_builder.fetch.image import Picture, Unusable, prepare
from wit_builder.fetch.jpeg import coarse
from wit_builder.sections import ImageSection
from wit_builder.tables import Reason

SECTION = ImageSection()


def progressive(width: int, height: int, **options: object) -> bytes:
    """Return a progressive JPEG of a photograph."""
    return encoded(photograph(width, height), "JPEG", progressive=True, **options)


def scans(body: bytes) -> list[tuple[int, int]]:
    """Return the first coefficient, and the last bits not told, of scans of one component."""
    starts = [at for at in range(len(body)) if body[at : at + 5] == b"\xff\xda\x00\x08\x01"]
    return [(body[at + 7], body[at + 9]) for at in starts]


@pytest.mark.parametrize(("loss", "left"), [(0, [2, 33, 16]), (2, [2, 33]), (4, [2]), (99, [2])])
def test_brightness_is_told_as_finely_as_asked(loss, left):
    """Of the scans of brightness there remain those that take more than the loss away."""
    bits = [bits for low, bits in scans(coarse(progressive(64, 64), 1.0, loss)) if low]
    assert [b for b in dict.fromkeys(bits) if b in {2, 33, 16}][: len(left)] == left


@pytest.mark.parametrize("quality", [50, 75, 85, 95])
@pytest.mark.parametrize(("size", "least"), [((900, 700), 42), ((2000, 1500), 45)])
def test_what_is_left_out_does_not_show(quality, size, least, monkeypatch):
    """Photographs decoded at reduced size differ by little from those of all scans."""
    body = progressive(*size, quality=quality)
    less, every = (_prepared(body, monkeypatch, leave_out=flag) for flag in (True, False))
    assert cv2.PSNR(less, every) > least


def _prepared(body: bytes, monkeypatch: pytest.MonkeyPatch, *, leave_out: bool) -> np.ndarray:
    with monkeypatch.context() as patch:
        if not leave_out:
            patch.setattr("wit_builder.fetch.jpeg.coarse", lambda body, *_: body)
        result = prepare(body, SECTION)
    assert isinstance(result, Picture)
    return np.asarray(Image.open(io.BytesIO(result.jpeg)))


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 3}, {"subsampling": 0}])
def test_the_rest_is_whole(options):
    """What is left is a file that decodes, much shorter, of which nothing more can go."""
    body = progressive(700, 500, quality=95, **options)
    rest = coarse(body, 1.0, 4.0)
    assert len(rest) < 0.7 * len(body)
    Image.open(io.BytesIO(rest)).load()
    assert coarse(rest, 1.0, 4.0) == rest


def test_one_cut_short_is_told_wherever():
    """A file that does not reach its end comes back as it is, and is found damaged."""
    body = progressive(700, 600)
    for end in (len(body) - 1, len(body) - 2, len(body) // 2, len(body) // 5, 700):
        assert coarse(body[:end], 1.0, 99.0) == body[:end]
        result = prepare(body[:end], SECTION)
        assert isinstance(result, Unusable)
        assert result.reason is Reason.IMAGE_TRUNCATED


def test_any_damage_is_survived():
    """A file damaged anywhere gives a file, never an error."""
    body = progressive(24, 24)
    for at in range(2, len(body)):
        for value in (0x00, 0xC2, 0xDA, 0xFF):
            assert coarse(body[:at] + bytes([value]) + body[at + 1 :], 1.0, 99.0)


def test_others_stay():
    """A JPEG that is not progressive, and one in grey without refinement, come back as they are."""
    image = photograph(100, 80)
    for body in (encoded(image, "JPEG"), encoded(image.convert("CMYK"), "JPEG")):
        assert coarse(body, 1.0, 99.0) == body
