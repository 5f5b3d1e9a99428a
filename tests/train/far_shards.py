"""What the tests of reading blocks share: a data set on disk, and the same far away."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmarks.s3_proxy import Proxy
from wit_builder import storage
from wit_builder.shards.read import Dataset
from wit_train.source import Source


class Opened(Protocol):
    """Opens a source as its constructor does."""

    def __call__(self, dataset: Dataset, **options: Any) -> Source: ...


class Far(NamedTuple):
    """A data set in a bucket behind a proxy, and the same on disk."""

    dataset: Dataset
    proxy: Proxy
    local: Dataset

    def is_whole(self, source: Source) -> bool:
        """Return whether each block is what is on disk."""
        blocks = range(self.local.blocks.num_rows)
        return all(read(source, block) == self.local.block_bytes(block) for block in blocks)


def read(source: Source, block: int) -> bytes:
    """Return a block, read into a buffer that is longer."""
    length = source.dataset.blocks["length"][block].as_py()
    into = bytearray(length + 10)
    source.read(block, memoryview(into))
    assert not any(into[length:])
    return bytes(into[:length])


def is_whole(source: Source, blocks: int = 0) -> bool:
    """Return whether each block is what the plain reader of the same folder reads."""
    local = source.dataset
    return all(
        read(source, block) == local.block_bytes(block)
        for block in range(blocks or local.blocks.num_rows)
    )


def upload(folder: str, to: str) -> None:
    """Copy a data set into a bucket."""
    for file in Path(folder).iterdir():
        storage.publish_bytes(f"{to}/{file.name}", file.read_bytes())
