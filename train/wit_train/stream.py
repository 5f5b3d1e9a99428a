"""Batches of a data set of shards, in the order of ``blocks``: from any step on, for any rank.

::

    for batch in Stream("s3://bucket/data/shards", batch_size=1024, start_step=300):
        batch.images, batch.tokens

Threads read blocks ahead into shared memory, and processes decode them there into batches. None of
them, and nothing here, imports torch, open_clip or webdataset.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack
from os import PathLike
from typing import NamedTuple, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from wit_builder.errors import TrainingError
from wit_builder.shards.layout import Foreign
from wit_builder.shards.read import Dataset
from wit_train.arena import Area, BatchSlots, BlockSlots
from wit_train.blocks import Layout, Order, Part
from wit_train.cache import Cache
from wit_train.decode import Augment
from wit_train.driver import Ahead, Driver, Made, Rank
from wit_train.pool import Decoding
from wit_train.reading import Blocks
from wit_train.seeds import I64
from wit_train.source import Source
from wit_train.tokens import Clean
from wit_train.worker import Settings

_FOREIGN_WINDOW = 8
"""Blocks whose samples are permuted together where shards are not uniform samples themselves."""

_MAX_CHUNK_ROWS = 64
"""Some 20 ms of decoding; handing them to a process takes a hundredth of that."""

_CHUNKS_PER_WORKER = 4
"""At least, of a batch: so that all processes are busy till its end."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch's pictures and texts look like.

    Attributes:
        image_size: side of the pictures, pixels.
        context_length: tokens of a text.
        augment: what happens to pictures in training; None: evaluation's centre crop.
        clean: how texts are cleaned, by open_clip's name for it.
    """

    image_size: int = 224
    context_length: int = 77
    augment: Augment | None = Augment()
    clean: Clean = "lower"


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How far and how hard a stream works ahead; changes nothing in what it yields.

    Attributes:
        workers: decode processes; 0: the calling process decodes; None: this process's share of
            the cores (torchrun's ``LOCAL_WORLD_SIZE`` says how many share them).
        steps_ahead: batches being made while the caller uses one.
        readers: blocks that are read at once.
        deadline_s: a range that cannot be read for so long ends the stream.
        cache: on local disk, for blocks of remote shards.
    """

    workers: int | None = None
    steps_ahead: int = 2
    readers: int = 16
    deadline_s: float = 300.0
    cache: Cache | None = None


class Batch(NamedTuple):
    """One rank's part of a step.

    The arrays are the caller's: their memory is used again once nothing refers to it.

    Attributes:
        step: its number.
        images: uint8 [B, H, W, 3], red green blue.
        tokens: int32 [B, T].
        sample_ids: int64 [B], the slots' positions in the data set, or, of a mixture, in all of its
            data sets one after the other; -1 where a row is padding.
        valid: bool [B]; false where the row is padding, all zero, at the end of a finite stream.
        substituted: how many slots hold another sample, theirs being removed or unusable.
    """

    step: int
    images: npt.NDArray[np.uint8]
    tokens: npt.NDArray[np.int32]
    sample_ids: I64
    valid: npt.NDArray[np.bool_]
    substituted: int


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream has done since iteration began.

    Attributes:
        batches, images: given to the caller.
        substituted: of the images.
        waited_s: seconds that the caller waited for batches.
        bytes_read, retries: bytes of blocks; ranges asked for again.
        read_s: seconds that all readers took together.
        decode_s: seconds that all decode processes took together.
        workers, readers: how many there are of them.
        memory_bytes: shared memory that blocks and batches may take.
    """

    batches: int = 0
    images: int = 0
    substituted: int = 0
    waited_s: float = 0.0
    bytes_read: int = 0
    retries: int = 0
    read_s: float = 0.0
    decode_s: float = 0.0
    workers: int = 0
    readers: int = 0
    memory_bytes: int = 0


class Stream:
    """An iterable of batches: endless in training, each sample once with ``epochs=1``.

    Attributes:
        datasets: the opened data sets.
        order: which sample when.
        start_step: the first step of the next iteration.
        look: of pictures and texts.
        stats: of the last iteration. Each begins at ``start_step`` again.
    """

    def __init__(
        self,
        data: str | PathLike[str] | Dataset | Mapping[str, int],
        *,
        batch_size: int,
        world_size: int = 1,
        rank: int = 0,
        start_step: int = 0,
        layout: Layout | None = None,
        look: Look | None = None,
        pace: Pace | None = None,
    ) -> None:
        """Open the data; nothing is read ahead before iteration begins.

        Args:
            data: folder of a finished data set, local or remote; one that is open; or a mixture:
                folders with their numbers of lanes, in an order that matters.
            batch_size: of all ranks together.
            world_size: how many processes share each batch; must divide the lanes.
            rank: of this process, from 0.
            start_step: where to begin; resuming is beginning at the next step.
            layout: lanes, seed, and the rest of what decides the order.
            look: of the pictures and texts.
            pace: processes, threads and read-ahead.

        Raises:
            TrainingError: the numbers do not fit each other or the data.
            ShardFormatError: not a finished data set.
            StorageError: it cannot be read.
        """
        mixture = list(data.items()) if isinstance(data, Mapping) else [(data, 0)]
        self.datasets = [_opened(place) for place, _ in mixture]
        lanes = [share for _, share in mixture]
        parts = [_part(*pair) for pair in zip(self.datasets, lanes, strict=True)]
        self.order = Order(parts, batch_size, layout or Layout())
        self.look, self.pace = look or Look(), pace or Pace()
        self.stats = Stats()
        self.start_step, self._ranks = start_step, (rank, world_size)
        self._lanes = self.order.shares(rank, world_size)
        self._rows = batch_size // world_size
        _check(self.look, self.pace, start_step)

    @property
    def base(self) -> str:
        """Which samples there are and where: a digest that outlives removals and moves."""
        return "+".join(dataset.info.base for dataset in self.datasets)

    @property
    def revision(self) -> int:
        """How many times samples were removed from a shard, over all shards."""
        return sum(dataset.revision for dataset in self.datasets)

    @property
    def steps(self) -> int | None:
        """How many steps a finite stream has in all; None for an endless one."""
        return self.order.steps

    @property
    def memory_bytes(self) -> int:
        """Shared memory that blocks and batches may take, batches that the caller keeps aside.

        Blocks take more only where a single step needs more of them at once. Each has as much room
        as the largest: of that, only what is written to takes memory.
        """
        # beside those made ahead: the caller's, the one before it, and the one to be made next
        batches = (self.pace.steps_ahead + 3) * self._batch_bytes
        return self._block_slots * self._block_bytes + batches

    @property
    def _block_slots(self) -> int:
        """Two windows a lane, the one in use and the one to come; or all blocks there are."""
        windows = (
            2 * (s.end - s.first) * self.order.parts[s.part].window_blocks for s in self._lanes
        )
        return min(sum(windows), sum(dataset.info.blocks for dataset in self.datasets))

    @property
    def _block_bytes(self) -> int:
        return BlockSlots.slot_bytes(self._most("length"), self._most("samples"))

    @property
    def _batch_bytes(self) -> int:
        return BatchSlots.slot_bytes(self._rows, self.look.image_size, self.look.context_length)

    def _most(self, column: str) -> int:
        return max(int(dataset.blocks[column].to_numpy().max()) for dataset in self.datasets)

    def __iter__(self) -> Generator[Batch]:
        """Yield this rank's batches from the start step on.

        Raises:
            ShardFormatError: a block is damaged, or has no sample that decodes.
            StorageError: a shard cannot be read.
            TrainingError: decode processes cannot do their work.
        """
        with ExitStack() as stack:
            areas = (
                Area.create("wit-blocks", self._block_bytes),
                Area.create("wit-batches", self._batch_bytes),
            )
            for area in areas:
                stack.callback(area.close)
            workers = self._workers()
            decoding = Decoding(self._settings(areas), areas, workers)
            stack.callback(decoding.close)
            blocks = Blocks(self._sources(), self._block_layout(areas[0]), self._block_slots)
            stack.callback(blocks.close)
            ahead = Ahead(self.pace.steps_ahead, self._chunk_rows(workers))
            rank = Rank(self.start_step, *self._ranks)
            driver = Driver(self.order, rank, blocks, self._batch_layout(areas[1]), ahead)
            stack.callback(driver.close)
            blocks.start(self.pace.readers, driver.wake)
            driver.start(decoding)
            self.stats = Stats(
                workers=workers, readers=self.pace.readers, memory_bytes=self.memory_bytes
            )
            while (made := self._next(driver, blocks)) is not None:
                yield Batch(made.step, *made.filled, made.sample_ids, made.valid, made.substituted)

    def _next(self, driver: Driver, blocks: Blocks) -> Made | None:
        """Return the next step, and count it."""
        began = time.perf_counter()
        made, was = driver.next(), self.stats
        waited_s = was.waited_s + time.perf_counter() - began
        self.stats = msgspec.structs.replace(
            was,
            batches=was.batches + (made is not None),
            images=was.images + (int(made.valid.sum()) if made else 0),
            substituted=was.substituted + (made.substituted if made else 0),
            waited_s=waited_s,
            bytes_read=blocks.bytes_read,
            retries=blocks.retries,
            read_s=blocks.read_s,
            decode_s=driver.decode_s,
        )
        return made

    def _sources(self) -> list[Source]:
        pace = self.pace
        return [Source(d, deadline_s=pace.deadline_s, cache=pace.cache) for d in self.datasets]

    def _block_layout(self, area: Area) -> BlockSlots:
        return BlockSlots(area, self._most("length"))

    def _batch_layout(self, area: Area) -> BatchSlots:
        return BatchSlots(area, self._rows, self.look.image_size, self.look.context_length)

    def _settings(self, areas: tuple[Area, Area]) -> Settings:
        return Settings(
            image_size=self.look.image_size,
            context_length=self.look.context_length,
            clean=self.look.clean,
            augment=self.look.augment,
            seed=self.order.layout.seed,
            rows=self._rows,
            max_block_bytes=self._most("length"),
            block_slot_bytes=areas[0].slot_bytes,
            batch_slot_bytes=areas[1].slot_bytes,
            foreign=[_foreign(dataset) for dataset in self.datasets],
        )

    def _workers(self) -> int:
        if self.pace.workers is not None:
            return self.pace.workers
        beside = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # set by torchrun
        return max(1, len(os.sched_getaffinity(0)) // beside)

    def _chunk_rows(self, workers: int) -> int:
        fair = -(-self._rows // (_CHUNKS_PER_WORKER * max(1, workers)))
        return min(_MAX_CHUNK_ROWS, fair)


def _check(look: Look, pace: Pace, start_step: int) -> None:
    """Refuse numbers that nothing could be made with.

    Raises:
        TrainingError: one is too small, or a cleaning is unknown.
    """
    numbers = {
        "start_step": (start_step, 0),
        "image_size": (look.image_size, 1),
        "context_length": (look.context_length, 3),
        "workers": (0 if pace.workers is None else pace.workers, 0),
        "readers": (pace.readers, 1),
        "steps_ahead": (pace.steps_ahead, 0),
    }
    for name, (number, least) in numbers.items():
        if number < least:
            raise TrainingError(f"{number} is too little", where=name, fix=f"at least {least}")
    if look.clean not in get_args(Clean):
        fix = f"one of {', '.join(get_args(Clean))}"
        raise TrainingError(f"no cleaning is called {look.clean!r}", where="clean", fix=fix)


def _opened(data: str | PathLike[str] | Dataset) -> Dataset:
    return data if isinstance(data, Dataset) else Dataset.open(os.fspath(data))


def _part(dataset: Dataset, lanes: int) -> Part:
    window = _FOREIGN_WINDOW if _foreign(dataset) else 1
    return Part(dataset.blocks["samples"].to_numpy(), lanes, window)


def _foreign(dataset: Dataset) -> Foreign | None:
    foreign = dataset.info.foreign
    return None if foreign is msgspec.UNSET else foreign
