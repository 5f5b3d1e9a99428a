"""Pictures that decode, and those that do not."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.foreign_tar import jpeg
from wit_builder.shards.decodable import OWN, complaint
from wit_builder.shards.layout import Metadata
from wit_builder.shards.manifest import finish
from wit_builder.shards.verify import verify
from wit_builder.shards.write import Pair, write_shard


def encoded(kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_whole_picture_is_let_pass(kind: str) -> None:
    """Of any format, unless only some are allowed."""
    assert complaint(encoded(kind)) == ""
    assert (complaint(encoded(kind), OWN) == "") == (kind == "JPEG")


@pytest.mark.parametrize(
    "picture",
    [b"", b"no picture", jpeg(1)[:-100], jpeg(1)[:30], encoded("PNG")[:-30], encoded("WEBP")[:-9]],
    ids=["nothing", "text", "cut-jpeg", "header-only", "cut-png", "cut-webp"],
)
def test_a_broken_picture_is_told_in_a_line(picture: bytes) -> None:
    """OpenCV would fill up some of them with grey."""
    said = complaint(picture)
    assert said.startswith("does not decode: ")
    assert "\n" not in said


def test_verify_decodes_our_own_pictures_on_request(tmp_path: Path) -> None:
    """A picture that was packed broken is named by tar, member and byte."""
    pairs = [
        Pair(
            f"{n:09d}",
            picture,
            Metadata("u", None, "c", "alt", 1, 1, 1, 1, "", [], None, f"{n:032x}"),
        )
        for n, picture in enumerate([jpeg(0), jpeg(1)[:-100], jpeg(2)])
    ]
    write_shard(str(tmp_path), 0, pairs, 4096)
    finish(str(tmp_path), 1, generation="g0", recipe="r", max_block_bytes=4096)
    assert verify(str(tmp_path)).ok
    (fault,) = verify(str(tmp_path), decode=True).faults
    assert (fault.file, fault.member) == ("000000.tar", "000000001.jpg")
    assert fault.offset > 512
