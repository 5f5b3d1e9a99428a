"""Small data sets of shards, and a model small enough for any machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from wit_builder.shards.layout import Metadata, key_of
from wit_builder.shards.manifest import finish
from wit_builder.shards.write import Pair, write_shard

MakeShards = Callable[..., str]


def jpeg(number: int, side: int = 40) -> bytes:
    """Return a picture whose colours tell its number."""
    pixels = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
    pixels = cv2.resize(pixels, (side + 8, side), interpolation=cv2.INTER_NEAREST)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def pair(number: int, jpg: bytes | None = None) -> Pair:
    """Return a sample of that number."""
    metadata = Metadata(
        url=f"http://h.example/{number}.jpg",
        page_url=None,
        caption=f"picture number {number}",
        text_from="alt",
        width=48,
        height=40,
        original_width=48,
        original_height=40,
        sha256="0" * 64,
        queries=[],
        license=None,
        uid=hashlib.md5(str(number).encode()).hexdigest(),
    )
    return Pair(key_of(number), jpeg(number) if jpg is None else jpg, metadata)


@pytest.fixture(scope="session")
def make_shards(tmp_path_factory: pytest.TempPathFactory) -> MakeShards:
    """Give a function that writes a finished data set and returns its folder."""

    def make(
        samples: int,
        per_shard: int = 20,
        max_block_bytes: int = 16 << 10,
        jpgs: dict[int, bytes] | None = None,
    ) -> str:
        folder = str(tmp_path_factory.mktemp("shards"))
        starts = range(0, samples, per_shard)
        for shard, start in enumerate(starts):
            numbers = range(start, min(start + per_shard, samples))
            pairs = [pair(n, (jpgs or {}).get(n)) for n in numbers]
            write_shard(folder, shard, pairs, max_block_bytes)
        finish(folder, len(starts), generation="g0", recipe="0", max_block_bytes=max_block_bytes)
        return folder

    return make


@pytest.fixture(scope="session")
def shards(make_shards: MakeShards) -> str:
    """Return a data set of 70 samples in 4 shards."""
    return make_shards(70)


@pytest.fixture
def recipe_file(tmp_path: Path, shards: str) -> Path:
    """Return a recipe that trains the smallest model for ten steps."""
    place = tmp_path / "recipe.toml"
    place.write_text(
        f"""
steps = 10
[data]
shards = "{shards}"
batch_size = 8
lanes = 4
[data.augment]
jitter = 0.2
[model.config]
embed_dim = 16
[model.config.vision_cfg]
image_size = 32
patch_size = 16
width = 16
layers = 1
head_width = 8
[model.config.text_cfg]
context_length = 8
vocab_size = 49408
width = 16
heads = 2
layers = 1
[optimiser]
warmup_steps = 2
[log]
every_steps = 1
checkpoint_every_steps = 4
[pace]
compute_threads = 1
decode_threads = 1
"""
    )
    return place
