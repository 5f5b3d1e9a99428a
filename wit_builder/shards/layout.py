"""Names and constants of the shard format, and the structs of its two JSON documents.

The format itself is told, normatively, in ``shards/README.md``.
"""

from __future__ import annotations

import re

import msgspec

FORMAT = "wit-shards"
VERSION = 1
"""Raised when a reader of the last version would misread what is written now."""

MEMBERS = ("jpg", "txt", "json")
"""The members of every sample, in the order in which they stand in the tar."""

KEY_DIGITS = 9
MAX_SAMPLES = 10**KEY_DIGITS
MAX_BLOCK_BYTES = 4 << 20

MANIFEST = "manifest.parquet"
BLOCKS = "blocks.parquet"
DATASET = "dataset.json"
SIZES = "sizes.json"

_TAR = re.compile(r"\d{6,}\.tar")


class Metadata(msgspec.Struct, frozen=True):
    """What ``KEY.json`` says of a sample; its keys stand in this order."""

    url: str
    page_url: str | None
    caption: str
    text_from: str
    width: int
    height: int
    original_width: int
    original_height: int
    sha256: str
    """Hex digest of the picture as downloaded, before it was resized."""
    queries: list[str]
    """The queries that drew the pair, in list order."""
    license: str | None
    uid: str
    """32 hex digits."""


class Foreign(msgspec.Struct, frozen=True, kw_only=True):
    """What ``dataset.json`` says beside, where the shards are those of others (``wit index``)."""

    root: str
    """Absolute folder or URL that the shards' names in the manifest start from; empty: this one."""
    image: tuple[str, ...] = ("jpg", "jpeg", "png", "webp")
    """Endings of members that are pictures, the first that a sample has counting."""
    caption: tuple[str, ...] = ("txt",)
    """Endings of members that hold the caption, in the same way."""
    caption_key: str = ""
    """Empty: the member is the caption; else it is a JSON object, and this its key."""


class DatasetInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What ``dataset.json`` says: the whole data set in a few lines. No times.

    No places either, unless the shards are those of others.
    """

    format: str = FORMAT
    version: int = VERSION
    generation: str
    recipe: str
    """Digest of the resolved recipe that made it."""
    members: tuple[str, ...] = MEMBERS
    max_block_bytes: int
    samples: int
    shards: int
    blocks: int
    bytes: int
    """Sum of the sizes of the tars."""
    base: str
    """Digest of which sample stands where; the same in every revision."""
    digest: str
    """Digest of the manifest; another one after each removal."""
    foreign: Foreign | msgspec.UnsetType = msgspec.UNSET
    """Set for shards of others only, which have no samples tables."""

    @property
    def root(self) -> str:
        """Where the shards are, if not beside ``dataset.json``; else empty."""
        return "" if self.foreign is msgspec.UNSET else self.foreign.root


def key_of(position: int) -> str:
    """Return the key of the sample at a global position: nine digits."""
    assert 0 <= position < MAX_SAMPLES
    return f"{position:0{KEY_DIGITS}d}"


def is_key(text: str) -> bool:
    """Return whether a text is a key: nine digits."""
    return len(text) == KEY_DIGITS and text.isascii() and text.isdigit()


def tar_name(shard: int) -> str:
    """Return the file name of a shard: six digits and ``.tar``."""
    return f"{shard:06d}.tar"


def samples_name(tar: str) -> str:
    """Return the file name of a shard's samples table: the tar's, ending in ``.parquet``."""
    return tar.removesuffix(".tar") + ".parquet"


def is_tar_name(name: str) -> bool:
    """Return whether a file name is one that a shard can have."""
    return _TAR.fullmatch(name) is not None
