"""Tars as others write them, and samples to put in."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def tar_of(members: Iterable[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """Return a tar of such members, by Python's own writer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sample(key: str, jpg: bytes, text: str | None, **metadata: Any) -> list[tuple[str, bytes]]:
    """Return the members of a sample, in img2dataset's order."""
    made = [(f"{key}.jpg", jpg)]
    if metadata:
        made.append((f"{key}.json", json.dumps(metadata).encode()))
    return made if text is None else [*made, (f"{key}.txt", text.encode())]


def write(path: Path, *samples: Iterable[tuple[str, bytes]]) -> str:
    """Write a shard of such samples; return its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_of([member for one in samples for member in one]))
    return str(path)


def jpeg(number: int, side: int = 16) -> bytes:
    """Return a small picture, another one for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def shard(path: Path, numbers: range, form: int = tarfile.PAX_FORMAT) -> Path:
    """Write a shard as img2dataset does: jpg, json and txt of so many samples."""
    parts = [
        sample(f"{n:09d}", jpeg(n), f"caption {n}", caption=f"told {n}", status="success")
        for n in numbers
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_of([member for part in parts for member in part], form))
    return path


def with_times(members: list[tuple[str, bytes]]) -> bytes:
    """Return a tar with fractions of seconds in its times, as webdataset's writer makes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number, (name, data) in enumerate(members):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5 + number
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
