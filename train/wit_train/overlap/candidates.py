"""Which training pictures may be the same as a test picture: those of the nearest hashes.

Legend: Q hashes that ask, M pairs of a test and a training picture.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wit_builder.ahead import mapped
from wit_builder.errors import TrainingError
from wit_train.decode import pixels
from wit_train.evaluate.item import Item
from wit_train.overlap.nearest import allowed, near
from wit_train.overlap.sources import Part, Training
from wit_train.overlap.variants import NOTHING, U64, Asking, asking

I64 = npt.NDArray[np.int64]

_READERS = 16
_BATCH = 256
_ASKED = 1 << 16
"""Hashes that ask at once: half a MiB, which stays in the second cache."""

_HELD = 1 << 20
"""Pairs that are held before those beyond ``most`` are let go; 48 MiB, and twice that meanwhile."""


class Questions(NamedTuple):
    """What a test set asks by.

    Attributes:
        hash_Q: uint64, by test picture.
        sure_Q: uint64, the bits of each that are compared.
        index_Q: int64, the test picture of each.
        variant_Q: uint8, its variant.
        asking: of the test pictures that ask, by index: name, and hash of the whole.
        left_out: pictures that do not ask, by reason.
    """

    hash_Q: U64
    sure_Q: U64
    index_Q: I64
    variant_Q: npt.NDArray[np.uint8]
    asking: dict[int, tuple[str, int]]
    left_out: dict[str, int]


class Pairs(NamedTuple):
    """Pairs of near hashes, by test picture, the nearest first; int64 all.

    Attributes:
        index_M: of the test picture.
        bits_M: that differ, at least over the variants.
        variant_M: of the test picture, which is that near.
        part_M, row_M: the training picture.
        hash_M: its hash, the same 64 bits.
    """

    index_M: I64
    bits_M: I64
    variant_M: I64
    part_M: I64
    row_M: I64
    hash_M: I64


NONE = Pairs(*(np.empty(0, np.int64) for _ in Pairs._fields))


class Found(NamedTuple):
    """What a search found: pairs, pictures searched by what they are, test pictures cut short."""

    pairs: Pairs
    counts: Counter[str]
    crowded: set[int]


def questions(items: Iterable[Item], place: str) -> Questions:
    """Return the hashes of a test set; its pictures are in memory a few at a time.

    Raises:
        TrainingError: the set is empty.
        StorageError: a picture cannot be read.
    """
    asked, indices, names = list[Asking](), list[int](), dict[int, tuple[str, int]]()
    left_out = Counter[str]()
    for item, found in _hashed(items):
        if found is None or not len(found.hash_V):
            left_out["do not decode" if found is None else "one brightness"] += 1
            continue
        asked.append(found)
        indices.append(item.index)
        names[item.index] = item.name, int(found.hash_V[0])
    if not (indices or left_out):
        raise TrainingError("the test set has no picture", where=place, fix="name another one")
    hash_Q, sure_Q, variant_Q = map(np.concatenate, zip(NOTHING, *asked, strict=True))
    index_Q = np.repeat(np.array(indices, np.int64), [len(each.hash_V) for each in asked])
    return Questions(hash_Q, sure_Q, index_Q, variant_Q, names, dict(left_out))


def _hashed(items: Iterable[Item]) -> Iterator[tuple[Item, Asking | None]]:
    def hashed(item: Item) -> Asking | None:
        picture = pixels(item.read())
        return None if picture is None else asking(picture)

    stream = iter(items)
    with ThreadPoolExecutor(_READERS) as pool:
        while batch := list(islice(stream, _BATCH)):
            yield from zip(batch, pool.map(hashed, batch), strict=True)


def search(
    asked: Questions, training: Training, *, distance: int, most: int, told: Callable[[str], None]
) -> Found:
    """Return the pairs whose hashes differ in few bits.

    Memory: a part of the training pictures a thread, ``most`` pairs a test picture, and in a part
    where many are near 1 KiB for each of the 65,536 hashes that ask at once.

    Args:
        asked: by what to look.
        training: where.
        distance: most bits of 64 that may differ (``nearest.allowed``).
        most: training pictures of a test picture at most; the nearest are kept.
        told: is told how it gets on.

    Raises:
        StorageError: the hashes cannot be read.
    """

    def searched(number: int) -> tuple[Part, list[Pairs]]:
        part = training.part(number)
        return part, list(_pairs(asked, most_Q, part, number, most))

    most_Q = allowed(asked.sure_Q, distance)
    counts, held, crowded = Counter[str](), [NONE], set[int]()
    threads = len(os.sched_getaffinity(0))
    for number, (part, pairs) in enumerate(mapped(searched, range(training.parts), threads), 1):
        counts.update(part.counts)
        held += pairs
        if sum(len(p.index_M) for p in held) > _HELD:
            held = [_nearest(held, most, crowded)]
        if number % max(1, training.parts // 20) == 0:
            told(f"searched {number} of {training.parts} parts, {counts['hashed']:,} hashes")
    return Found(_nearest(held, most, crowded), counts, crowded)


def _pairs(
    asked: Questions, most_Q: npt.NDArray[np.uint8], part: Part, number: int, most: int
) -> Iterator[Pairs]:
    """Yield the pairs of a part, piece by piece of what is asked.

    One more than ``most`` of a test picture in each, at most: a hash that thousands share, such as
    a logo's, does not fill the memory, and that there are more still shows.
    """
    for start in range(0, len(asked.hash_Q), _ASKED):
        some = slice(start, start + _ASKED)
        found = near(part.hash_N, asked.hash_Q[some], asked.sure_Q[some], most_Q[some], most + 1)
        if not len(found.query_M):
            continue
        query_M = found.query_M + start
        pairs = Pairs(
            asked.index_Q[query_M],
            found.bits_M.astype(np.int64),
            asked.variant_Q[query_M].astype(np.int64),
            np.full(len(query_M), number, np.int64),
            part.row_N[found.hash_M],
            part.hash_N[found.hash_M].view(np.int64),
        )
        yield _nearest([pairs], most + 1, set())


def _plainest(pairs: Pairs) -> Pairs:
    """Return every pair once, by its nearest variant; of several, by the plainest one."""
    order = np.lexsort((pairs.variant_M, pairs.bits_M, pairs.row_M, pairs.part_M, pairs.index_M))
    ordered = _taken(pairs, order)
    same = np.ones(len(order), np.bool_)
    same[:1] = False
    for column in (ordered.index_M, ordered.part_M, ordered.row_M):
        same[1:] &= column[1:] == column[:-1]
    return _taken(ordered, np.flatnonzero(~same))


def _nearest(held: Sequence[Pairs], most: int, crowded: set[int]) -> Pairs:
    """Return the nearest pairs of each test picture; those that had more are added to a set.

    Ties are for the earlier part and row, so the order of arrival does not show.
    """
    joined = Pairs(*(np.concatenate(columns) for columns in zip(*held, strict=True)))
    pairs = _plainest(joined)
    order = np.lexsort((pairs.row_M, pairs.part_M, pairs.bits_M, pairs.index_M))
    ordered = _taken(pairs, order)
    starts = np.flatnonzero(np.diff(ordered.index_M, prepend=-1))
    lengths = np.diff(np.append(starts, len(order)))
    rank_M = np.arange(len(order)) - np.repeat(starts, lengths)
    crowded.update(ordered.index_M[starts[lengths > most]].tolist())
    return _taken(ordered, np.flatnonzero(rank_M < most))


def _taken(pairs: Pairs, rows: I64) -> Pairs:
    return Pairs(*(column[rows] for column in pairs))
