"""Fetched parts, and packages that offer filters."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from wit_builder import storage
from wit_builder.shards import tar
from wit_builder.tables import IMAGES

MakePart = Callable[..., str]
MakeFilter = Callable[..., None]

FILTER = """
    import numpy as np

    def brightness(scale=1.0):
        def judge(images, texts, rows):
            scores = [scale * float(image.mean()) for image in images]
            return {"mean": scores}, ["says so" if "bad" in text else None for text in texts]
        return judge
"""
"""Scores a picture by its brightness, and objects to texts with "bad" in them."""


def jpeg(grey: int, side: int = 16) -> bytes:
    """Return a picture of one brightness."""
    return bytes(cv2.imencode(".jpg", np.full((side, side + 8, 3), grey, np.uint8))[1])


def row(number: int, **changes: Any) -> dict[str, Any]:
    """Return a row of a fetched part, alive unless changed."""
    return {
        "uid": number.to_bytes(16, "big"),
        "url": f"http://h{number}.test/{number}.jpg",
        "text": f"picture {number}",
        "text_from": "alt",
        "archive": "test",
        "query_ids": [1],
        "drawn_by": [1],
        "key": f"{number:012d}",
        "outcome": "alive",
        "final_url": f"http://h{number}.test/{number}.jpg",
        "md5": f"{number:032x}",
        "sha256": f"{number:064x}",
        "phash": f"{number:016x}",
        "opt_outs": [],
    } | changes


@pytest.fixture
def make_part(tmp_path: Path) -> MakePart:
    """Write a part, and return its table's place: ``make_part(rows, pictures)``."""

    def make(rows: list[dict[str, Any]], pictures: dict[str, bytes], name: str = "00000") -> str:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        table = pa.Table.from_pylist(rows, schema=IMAGES.with_metadata({b"made by": b"tests"}))
        storage.write_parquet(str(folder / f"{name}.parquet"), table)
        members = [(f"{key}.{end}", d) for key, d in pictures.items() for end in ("jpg", "txt")]
        data = b"".join(
            tar.header(name, len(d)) + d.ljust(tar.padded(len(d)), b"\0") for name, d in members
        )
        (folder / f"{name}.tar").write_bytes(data + tar.TRAILER)
        return str(folder / f"{name}.parquet")

    return make


@pytest.fixture
def greys(make_part: MakePart) -> str:
    """A part of four pictures, from dark to bright, between them a dead row and a deferred one."""
    rows = [row(n) for n in range(6)]
    rows[1] |= {"key": "", "outcome": "dead", "reason": "http_4xx", "detail": "404"}
    rows[4] |= {"key": "", "outcome": "deferred", "reason": "rate_limited"}
    alive = {r["key"]: jpeg(40 * n) for n, r in enumerate(rows) if r["key"]}
    return make_part(rows, alive)


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeFilter:
    """Install a package with filters: ``offer("name = module:factory", code)``."""
    count = 0

    def install(*entries: str, code: str = FILTER, version: str = "1.0", package: str = "") -> None:
        nonlocal count
        count += 1
        package = package or f"filters{count}"
        site = tmp_path / f"site{count}"
        info = site / f"{package}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {package}\nVersion: {version}\n")
        lines = [entry.replace("MODULE", f"{tmp_path.name}_{count}") for entry in entries]
        (info / "entry_points.txt").write_text("[wit.filters]\n" + "\n".join(lines) + "\n")
        module = site / f"{tmp_path.name}_{count}.py"
        module.write_text(textwrap.dedent(code))
        monkeypatch.syspath_prepend(str(site))

    return install
