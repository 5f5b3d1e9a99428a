"""The bytes of blocks: one range read each, checked, from wherever the shards lie.

A read that fails is made again until a deadline, if the reason may pass. Bytes that are not those
of the block table are read once more, for the fault may have been the connection's.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import xxhash

from wit_builder import storage
from wit_builder.errors import ShardFormatError, StorageError
from wit_builder.shards.read import Dataset
from wit_train.cache import Cache
from wit_train.places import PassingError, Place, may_pass, place_for, root_of

STALL_S = 20.0
"""How long a connection may deliver nothing before the range is asked for anew."""

_FIRST_WAIT_S = 0.2
"""The longest wait before the second try; before each further one twice as long."""

_LONGEST_WAIT_S = 10.0

_AT_ONCE = 3
"""How many tries may follow each other without a wait, where the reason needs none."""

T = TypeVar("T")


def place_of(dataset: Dataset, block: int) -> str:
    """Return where a block is, in words: its shard's place and the byte offset in it."""
    shard, offset = (dataset.blocks[name][block].as_py() for name in ("shard", "offset"))
    return f"{storage.redact(dataset.shard_url(shard))} byte {offset}"


class Source:
    """Blocks of a data set; any number of threads may read at once.

    Attributes:
        bytes_read: of blocks that came from where the shards lie, not from the cache.
        retries: reads that were made again.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        deadline_s: float = 300.0,
        cache: Cache | None = None,
        stall_s: float = STALL_S,
    ) -> None:
        """Open nothing yet.

        Args:
            dataset: whose blocks.
            deadline_s: how long one read may go on failing.
            cache: where blocks are kept on local disk.
            stall_s: how long a connection may deliver nothing.
        """
        self.dataset = dataset
        self.bytes_read = self.retries = 0
        self._deadline_s, self._stall_s, self._cache = deadline_s, min(stall_s, deadline_s), cache
        columns = ("shard", "offset", "length", "xxh3")
        self._table = tuple(dataset.blocks[name].to_numpy() for name in columns)
        self._revised = dict[int, int]()
        self._places = dict[str, Place]()
        self._lock, self._closed = threading.RLock(), threading.Event()  # a collector may close us

    def read(self, block: int, into: memoryview) -> None:
        """Fill the first bytes of ``into`` with a block; they have its digest.

        Raises:
            ShardFormatError: the bytes are not those of the block table, read twice. A block that
                was revised since the data set was opened is accepted (shards/README.md).
            StorageError: the shard is not there, or could not be read until the deadline.
        """
        digest, view = int(self._table[3][block]), into[: int(self._table[2][block])]
        if self._cached(block, view, digest):
            return
        found = self._digest(block, view)
        if found not in {digest, self._revised.get(block)}:
            self._counted(retries=1)
            self._place(block).renew()
            found = self._digest(block, view)
        if found == digest:
            if self._cache:
                self._cache.write(self._name(block), view)
        elif found is None or not self._is_revised(block, found):
            raise self._damaged(block, found)

    def close(self) -> None:
        """Stop: whoever reads gets an error soon."""
        self._closed.set()
        with self._lock:
            places = list(self._places.values())
        for place in places:
            place.close()

    def _cached(self, block: int, view: memoryview, digest: int) -> bool:
        """Return whether the cache had the block, which is in the view then."""
        if self._cache is None or not self._cache.read(self._name(block), view):
            return False
        if xxhash.xxh3_64_intdigest(view) == digest:
            return True
        self._cache.drop(self._name(block))
        return False

    def _name(self, block: int) -> tuple[str, str]:
        """Return the block's name in the cache: of the data set, and in it."""
        return self.dataset.info.base[:32], f"{block:09d}-{int(self._table[3][block]):016x}"

    def _digest(self, block: int, view: memoryview) -> int | None:
        """Read a block; return its bytes' digest, or None if the shard ends before the block."""
        url, offset = self.dataset.shard_url(int(self._table[0][block])), int(self._table[1][block])
        read = self._place(block).read
        count = self._patiently(lambda until: read(url, offset, view, until), block)
        self._counted(bytes_read=count)
        return xxhash.xxh3_64_intdigest(view) if count == len(view) else None

    def _place(self, block: int) -> Place:
        """Return what reads the block's shard."""
        url = self.dataset.shard_url(int(self._table[0][block]))
        with self._lock:
            if (root := root_of(url)) not in self._places:
                self._places[root] = place_for(url, self._stall_s)
            return self._places[root]

    def _is_revised(self, block: int, digest: int) -> bool:
        """Return whether samples have been removed from the block since the data set was opened."""
        if self._revised.get(block) == digest:
            return True

        def ask(until: float) -> bool:
            del until
            try:
                return self.dataset.is_revised(block, digest)
            except StorageError as error:
                if may_pass(error):
                    raise PassingError(error.what) from error
                raise

        if self._patiently(ask, block):
            self._revised[block] = digest
        return block in self._revised

    def _patiently(self, ask: Callable[[float], T], block: int) -> T:
        """Return what asking gives, in the end; in between, wait, ever longer."""
        tried, why = 0, "it takes too long"
        until = time.monotonic() + self._deadline_s
        while True:
            if self._closed.is_set():
                raise StorageError("the stream was closed", where=place_of(self.dataset, block))
            try:
                return ask(until)
            except PassingError as error:
                why, at_once, asked_s = str(error) or why, error.at_once, error.wait_s
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise StorageError(
                    f"cannot read for {self._deadline_s:g} s: {why}",
                    where=place_of(self.dataset, block),
                    fix="check the network and the server; then start again from a checkpoint",
                )
            self._counted(retries=1)
            tried += 1
            if not at_once or tried > _AT_ONCE:
                self._closed.wait(min(left_s, max(asked_s, _wait_s(tried))))

    def _damaged(self, block: int, found: int | None) -> ShardFormatError:
        what = f"block {block} is not what the block table says, read twice"
        if found is None:
            what = f"block {block} is beyond the end of its shard, which was cut short"
        return ShardFormatError(
            what,
            where=place_of(self.dataset, block),
            fix="the shard is damaged, was replaced after the tables were written, or they are of "
            "another data set: run `wit verify`; copy or pack it again",
        )

    def _counted(self, *, bytes_read: int = 0, retries: int = 0) -> None:
        with self._lock:
            self.bytes_read += bytes_read
            self.retries += retries


def _wait_s(tried: int) -> float:
    """Return how long to wait: doubling, random, so that many readers do not come back at once."""
    return min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(tried - 1, 20)) * random.uniform(0.5, 1)
