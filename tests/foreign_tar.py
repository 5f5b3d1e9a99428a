"""Tars as others write them, and samples to put in."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any


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
