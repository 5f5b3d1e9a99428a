"""Pictures that a shard holds already: read from there, with nobody asked.

A pair's ``picture_at`` says ``PLACE@OFFSET+SIZE``. Pictures that lie close together are read at
once, for a read from afar waits as long as the transfer of a few megabytes takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import msgspec

from wit_builder import remote, storage
from wit_builder.errors import GoneError
from wit_builder.tables import Reason
from wit_builder.web.answer import Refusal

T = TypeVar("T")

READERS = 8
"""Reads under way at once; each holds at most ``_READ_BYTES``, or one larger picture."""

_READ_BYTES = 4 << 20
_GAP_BYTES = 256 << 10


class Picture(msgspec.Struct, frozen=True, order=True):
    """A picture in a shard, and its row in the unit's selection."""

    place: str
    offset: int
    size: int
    position: int

    @staticmethod
    def at(position: int, picture_at: str) -> Picture:
        """Return the picture that a row's ``picture_at`` means."""
        place, _, span = picture_at.rpartition("@")
        offset, _, size = span.partition("+")
        return Picture(place, int(offset), int(size), position)

    @property
    def end(self) -> int:
        """Offset after its last byte."""
        return self.offset + self.size


class Taken(NamedTuple):
    """What a shard gave for a row: the picture's bytes, or why there are none."""

    position: int
    body: bytes | Refusal


def reads(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    """Yield pictures to read at once: of one shard, in its order, close together."""
    together: list[Picture] = []
    for picture in sorted(pictures):
        if together and not _is_near(together, picture):
            yield together
            together = []
        together.append(picture)
    if together:
        yield together


def _is_near(together: list[Picture], picture: Picture) -> bool:
    first, last = together[0], together[-1]
    return (
        picture.place == first.place
        and picture.offset - last.end <= _GAP_BYTES
        and picture.end - first.offset <= _READ_BYTES
    )


class Shards:
    """Reads pictures from shards; what is learnt of a remote one holds for a unit's time.

    Args:
        max_bytes: of a picture; a larger one is not read.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._remote: dict[str, tuple[remote.Source, remote.About]] = {}

    async def take(self, pictures: list[Picture]) -> list[Taken]:
        """Return what a shard gives for some pictures of ``reads``.

        Where it has no such bytes, or is gone, they are ``picture_missing``.

        Raises:
            StorageError: it cannot be read for another reason, which may pass.
        """
        wanted = [picture for picture in pictures if picture.size <= self._max_bytes]
        start = min((picture.offset for picture in wanted), default=0)
        end = max((picture.end for picture in wanted), default=0)
        try:
            data = await self._read(pictures[0].place, start, end) if wanted else b""
        except GoneError:
            return [Taken(p.position, _missing(p, "the shard is gone")) for p in pictures]
        return [self._cut(picture, data, start) for picture in pictures]

    async def _read(self, place: str, start: int, end: int) -> bytes | bytearray:
        """Return the bytes of ``[start, end)``, fewer where the shard ends before."""
        if not storage.is_remote(place):
            return await asyncio.to_thread(storage.read_bytes, place, start, end)
        if place not in self._remote:
            source = remote.source(place)
            about = await _patiently(source, lambda: source.about(0), place)
            self._remote[place] = source, about
        source, about = self._remote[place]
        end = min(end, about.size)
        if start >= end:
            return b""
        return await _patiently(source, lambda: source.read(start, end, about), place)

    def _cut(self, picture: Picture, data: bytes | bytearray, start: int) -> Taken:
        if picture.size > self._max_bytes:
            detail = f"{picture.size} bytes in {storage.name_of(picture.place)}"
            return Taken(picture.position, Refusal(Reason.BODY_TOO_LARGE, detail))
        body = bytes(data[picture.offset - start : picture.end - start])
        if len(body) == picture.size:
            return Taken(picture.position, body)
        return Taken(picture.position, _missing(picture, "the shard is shorter than it was"))


async def _patiently(source: remote.Source, ask: Callable[[], Awaitable[T]], place: str) -> T:
    """Return what asking gives, in the end; it goes on on the loop of the place's file system."""
    asking = remote.patiently(ask, place)
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asking, source.loop))


def _missing(picture: Picture, why: str) -> Refusal:
    return Refusal(Reason.PICTURE_MISSING, f"{why}: {storage.name_of(picture.place)}")
