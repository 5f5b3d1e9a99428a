"""Small data sets of shards, and a model small enough for any machine."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import s3fs

from benchmarks.s3_proxy import Proxy
from tests.train.far_shards import Far, Opened, upload
from wit_builder.shards.layout import Metadata, key_of
from wit_builder.shards.manifest import finish
from wit_builder.shards.read import Dataset
from wit_builder.shards.write import Pair, write_shard
from wit_train.source import Source

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
    return _recipe_file(tmp_path, shards)


@pytest.fixture(scope="module")
def recipe_file_of_a_module(tmp_path_factory: pytest.TempPathFactory, shards: str) -> Path:
    """Return the same recipe for all tests of a module."""
    return _recipe_file(tmp_path_factory.mktemp("recipe"), shards)


def _recipe_file(folder: Path, shards: str) -> Path:
    place = folder / "recipe.toml"
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
workers = 0
"""
    )
    return place


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Give a function that opens a source, which is closed in the end."""
    with contextlib.ExitStack() as stack:

        def open_source(dataset: Dataset, **options: Any) -> Source:
            return stack.enter_context(contextlib.closing(Source(dataset, **options)))

        yield open_source


@pytest.fixture
def fresh_clients() -> Iterator[None]:
    """Have s3fs look at the environment anew: it keeps its clients."""
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def far(
    request: pytest.FixtureRequest,
    s3_endpoint: str,
    s3_folder: str,
    shards: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Far]:
    """Give a data set in a bucket, and the proxy that it is asked through."""
    upload(shards, s3_folder)
    request.getfixturevalue("fresh_clients")
    with Proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield Far(Dataset.open(s3_folder), proxy, Dataset.open(shards))
