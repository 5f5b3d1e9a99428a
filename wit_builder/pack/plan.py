"""Which shard a pair goes to, and which key it gets: decided by a hash, before any shard is made.

A pair's *place* is ``xxh64(uid)`` seeded with ``label_seed(seed, "pack")``. Of n shards, shard s
holds the places in [s * 2**64 / n, (s + 1) * 2**64 / n), so that every shard is a uniform sample of
the data set; shard sizes vary by about the square root of the mean. Pairs stand in the order of
(place, uid), and the key is the pair's position in that order over all shards.

A shard is thus a range of places, and so is a run of shards. Where there are too many shards for
every map unit to write a slice for each, pairs go by two exchanges: first to *coarse* buckets, runs
of about the square root of all shards, and each of those to its shards (``Ways``). Which way a pair
went does not show in its shard.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder.errors import ShardFormatError
from wit_builder.hashing import U64, hash_column, label_seed
from wit_builder.shards.layout import MAX_SAMPLES

UNIT_BYTES = 2 << 30
"""Bytes of pictures that a map unit takes, and not much more; local disk has to hold them twice."""

MAX_SLICES = 1_000_000
"""Pairs of map unit and shard above which pairs go by two exchanges."""


class Plan(msgspec.Struct, frozen=True):
    """How many pairs each shard will hold."""

    samples: list[int]
    first: int = 0
    """Pairs of earlier generations, whose keys come before."""

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return len(self.samples)

    @property
    def first_keys(self) -> list[int]:
        """The position of each shard's first sample in the whole data set."""
        return list(accumulate(self.samples, initial=self.first))[:-1]


class Ways(msgspec.Struct, frozen=True):
    """How pairs get to their shards.

    Attributes:
        shards: how many there are.
        span: shards of a coarse bucket (the last may have fewer); 1: there is one exchange only.
    """

    shards: int
    span: int = 1

    @staticmethod
    def of(units: int, shards: int) -> Ways:
        """Return the ways from so many map units to so many shards."""
        is_short = units * shards <= MAX_SLICES
        return Ways(shards, 1 if is_short else max(1, math.isqrt(shards)))

    @property
    def buckets(self) -> int:
        """How many buckets the first exchange has."""
        return -(-self.shards // self.span)

    @property
    def is_one(self) -> bool:
        """Whether the buckets of the first exchange are the shards."""
        return self.span == 1

    def first(self, place: U64) -> npt.NDArray[np.int64]:
        """Return the bucket of each place in the first exchange."""
        return shard_of(place, self.shards) // self.span

    def second(self, place: U64) -> npt.NDArray[np.int64]:
        """Return the bucket of each place in the second exchange, of its coarse bucket's shards."""
        return shard_of(place, self.shards) % self.span


def grouped(sizes: Sequence[float]) -> Iterator[range]:
    """Yield runs of neighbours of ``UNIT_BYTES`` at most, or of one that is larger alone."""
    start, size = 0, 0.0
    for number, added in enumerate(sizes):
        if number > start and size + added > UNIT_BYTES:
            yield range(start, number)
            start, size = number, 0.0
        size += added
    if sizes:
        yield range(start, len(sizes))


def plan(
    kept: Iterable[pa.ChunkedArray], total: int, seed: int, samples_per_shard: int, first: int = 0
) -> Plan:
    """Return how the kept pairs are shared out; order of rows does not matter.

    Args:
        kept: uids of the pairs, unique, in any number of columns.
        total: how many there are.
        seed: the run's seed.
        samples_per_shard: wanted on average; ceil(pairs / that) shards are made.
        first: pairs that earlier generations have.

    Raises:
        ShardFormatError: more pairs than nine digits can number.
    """
    if first + total > MAX_SAMPLES:
        raise ShardFormatError(
            f"{first + total} pairs are more than keys of nine digits can number",
            fix="lower balance.cap_per_query, or build several data sets",
        )
    shards = -(-total // samples_per_shard)
    if not shards:
        return Plan([], first)
    counts = np.zeros(shards, np.int64)
    for chunk in (chunk for column in kept for chunk in column.chunks):
        counts += np.bincount(shard_of(places(chunk, seed), shards), minlength=shards)
    return Plan(counts.tolist(), first)


def places(uids: pa.Array | pa.ChunkedArray, seed: int) -> U64:
    """Return the place of every pair: a 64-bit hash of its uid, keyed by the seed."""
    return hash_column(uids, label_seed(seed, "pack"))


def shard_of(place: U64, shards: int) -> npt.NDArray[np.int64]:
    """Return floor(place * shards / 2**64), exactly, for fewer than 2**32 shards."""
    n, low_bits = np.uint64(shards), np.uint64(32)
    high, low = place >> low_bits, place & np.uint64(0xFFFFFFFF)
    return ((high * n + ((low * n) >> low_bits)) >> low_bits).astype(np.int64)
