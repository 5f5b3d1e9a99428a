"""What an analysis leaves for machines: the table of pairs, and lists that keep them out.

``block/sha256.txt`` and ``block/phash.txt`` are block-lists of a recipe (``[block]``), so that the
next build leaves the pictures out; ``block/uid.txt`` is for ``wit remove --list``, which takes them
out of shards that are there. Nothing is listed that was not confirmed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa

from wit_builder import storage

TABLE, PAGE, BLOCK = "overlap.parquet", "overlap.html", "block"
NAMES = ("sha256", "phash", "uid")
"""Of the lists."""

PAIRS = pa.schema(
    [
        ("index", pa.int64()),  # of the test picture
        ("picture", pa.string()),  # how people find it
        ("data", pa.string()),  # the training data set
        ("shard", pa.string()),
        ("key", pa.string()),
        ("uid", pa.string()),  # 32 hex digits, of the training pair; null if unknown
        ("url", pa.string()),  # of the training picture; null unless confirmed and known
        ("sha256", pa.string()),  # likewise, of the picture as downloaded
        ("distance", pa.int32()),  # bits by which the hashes differ
        ("variant", pa.string()),  # of the test picture that is that near
        ("correlation", pa.float32()),  # of the pixels; null where one does not decode
        ("cosine", pa.float32()),  # of the embeddings; null where the pixels do not correlate
        ("confirmed", pa.bool_()),  # whether both are high enough
        ("phash", pa.string()),  # of the test picture, 16 hex digits
        ("training_phash", pa.string()),
    ]
)
"""A row a candidate: by test picture, the nearest first."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_UID = re.compile(r"[0-9a-f]{32}")


class Listed(NamedTuple):
    """How many lines each list has, and the confirmed training pictures without a sha256."""

    sha256: int
    phash: int
    uid: int
    nameless: int


def write(folder: str, pairs: pa.Table) -> Listed:
    """Publish the table and the lists of an analysis.

    Args:
        folder: of the analysis.
        pairs: of ``PAIRS``.

    Raises:
        StorageError: something cannot be written.
    """
    storage.write_parquet(storage.join(folder, TABLE), pairs)
    confirmed = pairs.filter(pairs["confirmed"])
    hashes = [*_texts(confirmed, "phash"), *_texts(confirmed, "training_phash")]
    digests = [d for d in _texts(confirmed, "sha256") if _is_digest(d)]
    uids = [f"uid {uid}" for uid in _texts(confirmed, "uid") if _UID.fullmatch(uid)]
    return Listed(
        _publish(folder, "sha256", digests),
        _publish(folder, "phash", hashes),
        _publish(folder, "uid", uids),
        len({tuple(row.values()) for row in _nameless(confirmed)}),
    )


def _texts(pairs: pa.Table, column: str) -> Iterable[str]:
    return (text for text in pairs[column].to_pylist() if text)


def _is_digest(text: str) -> bool:
    return _SHA256.fullmatch(text) is not None and text.strip("0") != ""


def _nameless(confirmed: pa.Table) -> Sequence[dict[str, str]]:
    rows = confirmed.select(["data", "shard", "key", "sha256"]).to_pylist()
    return [row for row in rows if not (row["sha256"] and _is_digest(row["sha256"]))]


def _publish(folder: str, name: str, lines: Iterable[str]) -> int:
    """Publish a list, each line once, in order; it is there even when it is empty."""
    unique = sorted(set(lines))
    text = "".join(f"{line}\n" for line in unique)
    storage.publish_bytes(storage.join(folder, BLOCK, f"{name}.txt"), text.encode())
    return len(unique)
