"""Features of a test set's pictures, batch by batch: pictures are decoded ahead in threads.

Legend: B batch, N pictures, D embedding, F features before the projection.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from wit_builder import storage
from wit_builder.errors import TrainingError
from wit_train import decode
from wit_train.embedding import Embedding, Prepared
from wit_train.evaluate.sets import Item, TestSet
from wit_train.ranks import Ranks

_ON_CPU, _ON_GPU = 64, 256
"""Pictures of a batch."""

_AHEAD = 2
"""Batches that are decoded or read while one is computed."""

_READERS = 16
"""Threads for pictures: most of what they do is waiting, or lets others work meanwhile."""


UNDECODABLE = "does not decode"
"""Why a picture is left out."""


class Faults:
    """Pictures that do not decode, with their places in the set."""

    def __init__(self) -> None:
        self.found = list[tuple[int, str]]()

    def add(self, item: Item) -> None:
        """Count a picture."""
        self.found.append((item.index, item.name))


class Collected(NamedTuple):
    """A whole test set, in its order.

    Attributes:
        index_N: int64, positions in the test set.
        target_N: int64, classes; -1 where there is none.
        names: of the pictures.
        texts: captions of each.
        image_ND: features, float32: normalised, or [N, F] before the projection.
        left_out: pictures that are not here, by reason.
        undecodable: names of those that do not decode; counted in ``left_out``, too.
    """

    index_N: npt.NDArray[np.int64]
    target_N: npt.NDArray[np.int64]
    names: list[str]
    texts: list[tuple[str, ...]]
    image_ND: npt.NDArray[np.float32]
    left_out: dict[str, int]
    undecodable: list[str]


class Seen(NamedTuple):
    """A batch of pictures that decoded.

    Attributes:
        index_B: int64, positions in the test set.
        target_B: int64, classes; -1 where there is none.
        names: of the pictures.
        texts: captions of each.
        image_BD: features, float32: normalised, or [B, F] before the projection.
    """

    index_B: npt.NDArray[np.int64]
    target_B: npt.NDArray[np.int64]
    names: list[str]
    texts: list[tuple[str, ...]]
    image_BD: torch.Tensor


def collected(
    embedding: Embedding, test: TestSet, ranks: Ranks, *, unprojected: bool = False
) -> Collected:
    """Return the features of a whole set; every rank must ask.

    They are in memory together: 4 D bytes a picture, twice while they are put in order, and once
    more for each way between ranks.

    Returns:
        The same on every rank.

    Raises:
        TrainingError: no picture can be measured.
        StorageError, ShardFormatError: the set cannot be read.
    """
    faults = Faults()
    own = [
        batch._replace(image_BD=batch.image_BD.cpu())
        for batch in seen(
            embedding, test.items(ranks.rank, ranks.world_size), faults, unprojected=unprojected
        )
    ]
    shares = ranks.gathered((own, dict(test.left_out), faults.found))
    batches = [batch for share in shares for batch in share[0]]
    left_out, undecodable = together([share[1:] for share in shares])
    refuse_nothing(sum(len(batch.names) for batch in batches), test)
    index_N = np.concatenate([batch.index_B for batch in batches])
    order = np.argsort(index_N)
    image_ND = np.empty((len(order), batches[0].image_BD.shape[1]), np.float32)
    row_N, done = np.argsort(order), 0
    for batch in batches:
        image_ND[row_N[done : done + len(batch.names)]] = batch.image_BD.numpy()
        done += len(batch.names)
    names = [name for batch in batches for name in batch.names]
    texts = [captions for batch in batches for captions in batch.texts]
    return Collected(
        index_N[order],
        np.concatenate([batch.target_B for batch in batches])[order],
        [names[i] for i in order],
        [texts[i] for i in order],
        image_ND,
        left_out,
        undecodable,
    )


def together(
    shares: Iterable[tuple[dict[str, int], list[tuple[int, str]]]],
) -> tuple[dict[str, int], list[str]]:
    """Return how many pictures all ranks left out, by reason, and the names that do not decode."""
    left_out, faults = Counter[str](), list[tuple[int, str]]()
    for counts, found in shares:
        left_out.update(counts)
        faults += found
    if faults:
        left_out[UNDECODABLE] += len(faults)
    return dict(sorted(left_out.items())), [name for _, name in sorted(faults)]


def refuse_nothing(pictures: int, test: TestSet) -> None:
    """Refuse a test set of which nothing can be measured.

    Raises:
        TrainingError: no pictures are left.
    """
    if not pictures:
        raise TrainingError(
            "no picture of the test set can be measured: none decodes, or none is of a class",
            where=storage.redact(test.place),
            fix="give JPEG or PNG files, of the classes that are named",
        )


def seen(
    embedding: Embedding, items: Iterable[Item], faults: Faults, *, unprojected: bool = False
) -> Iterator[Seen]:
    """Yield the features of all pictures, in their order, those aside that do not decode.

    Args:
        embedding: the model.
        items: what to look at; a few batches of them are in memory at once.
        faults: told of every picture that does not decode.
        unprojected: whether features are to be those before the tower's projection.

    Raises:
        StorageError: a picture cannot be read.
    """
    size = _ON_GPU if embedding.device.type == "cuda" else _ON_CPU
    encode = embedding.unprojected if unprojected else embedding.images

    def looked(batch: _Batch) -> tuple[Seen | None, list[Item]]:
        pictures = [(item, future.result()) for item, future in batch]
        usable = [(item, picture) for item, picture in pictures if picture is not None]
        failed = [item for item, picture in pictures if picture is None]
        if not usable:
            return None, failed
        found = Seen(
            np.array([item.index for item, _ in usable], np.int64),
            np.array([item.target for item, _ in usable], np.int64),
            [item.name for item, _ in usable],
            [item.texts for item, _ in usable],
            encode([picture for _, picture in usable]),
        )
        return found, failed

    with (
        ThreadPoolExecutor(max(_READERS, os.cpu_count() or 1)) as pool,
        contextlib.closing(_ahead(pool, embedding, iter(items), size)) as batches,
        contextlib.closing(embedding.at_once(looked, batches)) as found,
    ):
        for seen_of_batch, failed in found:
            for item in failed:
                faults.add(item)
            if seen_of_batch is not None:
                yield seen_of_batch


_Batch = list[tuple[Item, "Future[Prepared | None]"]]
"""Items with their pictures, which are on the way."""


def _ahead(
    pool: ThreadPoolExecutor, embedding: Embedding, items: Iterator[Item], size: int
) -> Generator[_Batch]:
    """Yield batches of items whose pictures are on the way, some batches behind the reading."""

    def prepared(item: Item) -> Prepared | None:
        picture = decode.pixels(item.read())
        return None if picture is None else embedding.prepared(picture)

    waiting = deque[_Batch]()
    try:
        while True:
            while len(waiting) <= _AHEAD:
                batch = [(item, pool.submit(prepared, item)) for item in islice(items, size)]
                if not batch:
                    break
                waiting.append(batch)
            if not waiting:
                return
            yield waiting.popleft()
    finally:
        for batch in waiting:
            for _, future in batch:
                future.cancel()
