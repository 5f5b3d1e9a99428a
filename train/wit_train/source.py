"""The samples of blocks: one range read each, checked, and kept while in use."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

from wit_builder.errors import ShardFormatError
from wit_builder.shards.read import Dataset, Sample, samples_in


def read_block(dataset: Dataset, block: int) -> list[Sample]:
    """Return a block's samples, in their order.

    Bytes that do not have the block table's digest are read once more, because the fault may have
    been the connection's.

    Raises:
        ShardFormatError: damaged, or not the samples the block table announces; names shard and
            offset.
        StorageError: the shard cannot be read.
    """
    try:
        data = dataset.block_bytes(block)
    except ShardFormatError:
        data = dataset.block_bytes(block)
    samples = list(samples_in(data))
    expected = dataset.blocks["samples"][block].as_py()
    if len(samples) != expected:
        raise ShardFormatError(
            f"block {block} has {len(samples)} samples where the block table says {expected}",
            where=place_of(dataset, block),
            fix="run `wit verify` on the shards",
        )
    return samples


def place_of(dataset: Dataset, block: int) -> str:
    """Return where a block is, in words: its shard's place and the byte offset in it."""
    shard, offset = (dataset.blocks[name][block].as_py() for name in ("shard", "offset"))
    return f"{dataset.shard_url(shard)} byte {offset}"


class Source:
    """Blocks of a data set, read by threads of its own; the last ``keep`` used stay in memory."""

    def __init__(self, dataset: Dataset, keep: int, threads: int = 4) -> None:
        """Start no thread yet: the first ``block`` does."""
        self.dataset = dataset
        self._keep = keep
        self._kept: OrderedDict[int, Future[list[Sample]]] = OrderedDict()
        self._spare: tuple[int, list[Sample]] = -1, []
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="wit-read")

    def block(self, block: int) -> Future[list[Sample]]:
        """Return the samples of a block, which are being read from now on. Not thread-safe."""
        future = self._kept.get(block)
        if future is None:
            future = self._kept[block] = self._pool.submit(read_block, self.dataset, block)
        self._kept.move_to_end(block)
        while len(self._kept) > self._keep:
            self._kept.popitem(last=False)
        return future

    def spare(self, block: int) -> list[Sample]:
        """Return the samples of a block that fills another's slots; the last one is kept as well.

        Thread-safe: all threads that fill slots of a removed block want the same one.

        Raises:
            ShardFormatError, StorageError: as ``read_block``.
        """
        with self._lock:
            if self._spare[0] != block:
                self._spare = block, read_block(self.dataset, block)
            return self._spare[1]

    def close(self) -> None:
        """Stop reading."""
        self._pool.shutdown(wait=True, cancel_futures=True)
