"""What processes that were killed left in a run's folder.

``sweep`` removes files that were not published yet. ``remove`` removes what units of another recipe
published before they were killed, without a marker: nobody would know of such files, yet they would
be read where a folder is read by its names: by the report, and by whoever takes all tars of
``shards``. Markers tell of everything else.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from pathlib import Path

from wit_builder import storage
from wit_builder.units import Marker

_OURS = {
    "matched": re.compile(r"\d+\.parquet"),
    "rejected": re.compile(r"[\w-]+\.parquet"),
    "kept": re.compile(r"\d+\.parquet"),
    "selected": re.compile(r"\d+\.parquet"),
    "judged": re.compile(r"\d+-\d+\.parquet"),
    "images": re.compile(r"\d+-\d+\.(tar|parquet)"),
    "shards": re.compile(r"\d{6,}\.(tar|parquet)"),
}
"""How units name their files; whatever else lies there was put there by the user."""


def remove(place: str, markers: Iterable[Marker]) -> None:
    """Remove from a generation's folder what none of the markers, all there are, tells of.

    Raises:
        StorageError: no permission, bucket unreachable.
    """
    generation = storage.name_of(place)
    standing = {output.url for marker in markers for output in marker.outputs}
    rounds = {url.split("/")[2] for url in standing if url.startswith(f"{generation}/selected/")}
    asked = [f"{kind}/{r}" for kind in ("selected", "images", "judged") for r in sorted(rounds)]
    for folder in ["matched", "kept", "rejected", "shards", *asked]:
        ours = _OURS[folder.partition("/")[0]]
        for name in storage.sizes(storage.join(place, folder)):
            if ours.fullmatch(name) and f"{generation}/{folder}/{name}" not in standing:
                storage.remove(storage.join(place, folder, name))


def sweep(root: str) -> int:
    """Remove parts that dead processes of this host left unpublished; return how many."""
    folder = Path(storage.filesystem(root)[1])
    if storage.is_remote(root) or not folder.is_dir():
        return 0
    host = re.escape(socket.gethostname())
    pattern = re.compile(rf"\..+\.{host}\.(\d+)\.part")
    swept = 0
    for path in folder.rglob(".*.part"):
        match = pattern.fullmatch(path.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            path.unlink(missing_ok=True)
            swept += 1
    return swept
