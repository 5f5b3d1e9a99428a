"""Whether two pictures of near hashes are the same: by their pixels, then by their embeddings.

Both are measured on what both pictures show (``alignment``). The pixels are the first judge, since
they cost less, and need no model; the embedding is the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec

from wit_builder import storage
from wit_builder.ahead import mapped
from wit_builder.shards.read import Dataset
from wit_train.embedding import Embedding
from wit_train.evaluate.item import TestSet
from wit_train.overlap.alignment import Aligned, aligned, shrunk
from wit_train.overlap.sources import Place
from wit_train.overlap.threshold import cosines_of
from wit_train.overlap.variants import VARIANTS
from wit_train.resize import Pixels

_BATCH = 64
"""Pairs at once: as many pictures of each side are in memory, encoded, and decoded and shrunk."""

_READERS = 8
"""Pictures that are decoded at once, at their full size."""


class Pair(NamedTuple):
    """A test picture and a training picture whose hashes are near.

    Attributes:
        test: index of the test picture.
        data: number of the data set.
        place: of the training picture in it.
        bits: by which the hashes differ.
        variant: number of the variant that is that near.
        phash: of the training picture.
    """

    test: int
    data: int
    place: Place
    bits: int
    variant: int
    phash: int


class Told(NamedTuple):
    """What a training picture's JSON says; none where it does not."""

    uid: str | None = None
    url: str | None = None
    sha256: str | None = None


class Likeness(NamedTuple):
    """How alike the pictures of a pair are; None where that was not asked, or one does not decode.

    Attributes:
        correlation: of the pixels of what both show (``alignment``).
        cosine: of its embeddings; only of pairs whose pixels correlate.
    """

    correlation: float | None = None
    cosine: float | None = None


def likenesses(
    embedding: Embedding,
    test: TestSet,
    datasets: Sequence[Dataset],
    pairs: Sequence[Pair],
    least_correlation: float,
) -> Iterator[Likeness]:
    """Yield how alike every pair is, in order. Memory is a batch of pairs; a batch reads once.

    Raises:
        StorageError: a picture cannot be read.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(pairs), _BATCH):
            batch = pairs[start : start + _BATCH]
            encoded = test.pictures(sorted({pair.test for pair in batch}))
            tests = dict(zip(encoded, pool.map(shrunk, encoded.values()), strict=True))
            trained = _read_pictures(datasets, batch)
            both = pool.map(lambda p: _aligned(p, tests, trained), batch)  # noqa: B023 - used here
            yield from _likenesses(embedding, list(both), least_correlation)


def _aligned(
    pair: Pair,
    tests: dict[int, Pixels | None],
    trained: dict[tuple[int, Place], Pixels | None],
) -> Aligned | None:
    test, training = tests.get(pair.test), trained[pair.data, pair.place]
    if test is None or training is None:
        return None
    return aligned(VARIANTS[pair.variant], test, training)


def _likenesses(
    embedding: Embedding, found: Sequence[Aligned | None], least_correlation: float
) -> Iterator[Likeness]:
    asked = [both for both in found if both and both.correlation >= least_correlation]
    cosines = iter(cosines_of(embedding, asked).tolist())
    for both in found:
        if both is None:
            yield Likeness()
        elif both.correlation < least_correlation:
            yield Likeness(both.correlation)
        else:
            yield Likeness(both.correlation, next(cosines))


def _read_pictures(
    datasets: Sequence[Dataset], pairs: Sequence[Pair]
) -> dict[tuple[int, Place], Pixels | None]:
    """Return the training pictures of some pairs, decoded; None where one does not decode."""
    wanted = sorted({(pair.data, pair.place) for pair in pairs}, key=_in_order)
    read = mapped(lambda at: shrunk(_member(datasets, *at, "picture")), wanted, _READERS)
    return dict(zip(wanted, read, strict=True))


def picture_bytes(datasets: Sequence[Dataset], pair: Pair) -> bytes:
    """Return the training picture of a pair as its shard has it."""
    return _member(datasets, pair.data, pair.place, "picture")


def told_of(datasets: Sequence[Dataset], pairs: Sequence[Pair]) -> dict[tuple[int, Place], Told]:
    """Return what the shards tell of the training pictures of some pairs.

    Raises:
        StorageError: it cannot be read.
    """
    wanted = sorted({(pair.data, pair.place) for pair in pairs}, key=_in_order)
    read = mapped(lambda at: _told(_member(datasets, *at, "told"), at[1]), wanted, _READERS)
    return dict(zip(wanted, read, strict=True))


def _in_order(at: tuple[int, Place]) -> tuple[int, str, int]:
    return at[0], at[1].shard, at[1].picture[0]


def _member(datasets: Sequence[Dataset], data: int, place: Place, member: str) -> bytes:
    offset, size = place.picture if member == "picture" else place.told
    if not size:
        return b""
    root = datasets[data].info.root or datasets[data].url
    return storage.read_bytes(storage.join(root, place.shard), offset, offset + size)


def _told(body: bytes, place: Place) -> Told:
    """Return what is in a JSON of ours, or of img2dataset's; anything else tells nothing."""
    own = place.uid.hex() if place.uid else None
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Told(own)
    if not isinstance(found, dict):
        return Told(own)
    text = {name: v for name in Told._fields if isinstance(v := found.get(name), str)}
    return Told(own or text.get("uid"), text.get("url"), text.get("sha256"))
