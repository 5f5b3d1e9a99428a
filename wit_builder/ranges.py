"""Archives of many gigabytes, local or remote, each as one seekable stream of bytes.

A remote file is read in blocks, some of them ahead of the reader, each by a range request of its
own. A request that fails with what may pass is made again, block by block, so a connection that
breaks costs one block and not the archive. An answer is passed on only if it is the range that was
asked for, whole, of the file that was opened: a server that ignores ranges, and a file that changes
while it is read, are errors. A change goes unnoticed if neither size nor ETag show it; on the web
also if Last-Modified does not, for the servers behind one name may differ in a file's ETag.
"""

from __future__ import annotations

import asyncio
import io
import sys
from concurrent.futures import Future
from typing import Any

from wit_builder import remote, storage

_LOCAL_BUFFER_BYTES = 1 << 20
_REMOTE_BUFFER_BYTES = 256 << 10


class RangeStream(io.BufferedReader):
    """A file's bytes as an ordinary binary stream; its ``size`` is in bytes.

    Small reads are cheap. A read that failed fails again. Not to be shared by threads.
    """

    def __init__(self, raw: _Local | _Remote, buffer_bytes: int) -> None:
        super().__init__(raw, buffer_bytes)
        self.size = raw.size


def open_ranges(url: str, *, block_bytes: int = 8 << 20, ahead: int = 2) -> RangeStream:
    """Return a readable, seekable binary stream of a file, to be used as a context or closed.

    Remote, it holds at most ``ahead + 2`` blocks in memory: the one that is read, the one before,
    and those asked for. Seeking among them costs nothing; seeking elsewhere drops them. Closing
    ends all requests under way.

    Args:
        url: a local path, or a URL: ``https://``, ``http://``, ``s3://`` or another of fsspec's.
        block_bytes: bytes of one range request.
        ahead: blocks that are asked for beyond the one that is read.

    Raises:
        GoneError: the file is not there; or, of a read, not there any more.
        StorageError: no permission, no ranges, no size, changed since it was opened, or a range
            that failed ``remote.TRIES`` times; of a read, at which byte.
    """
    if not storage.is_remote(url):
        return RangeStream(_Local(url), _LOCAL_BUFFER_BYTES)
    source = remote.source(url)
    asking = remote.patiently(lambda: source.about(block_bytes), url)
    opening = asyncio.run_coroutine_threadsafe(asking, source.loop)
    try:
        about = opening.result()
    finally:
        opening.cancel()  # nothing, but when interrupted
    blocks = _Blocks(source, about, block_bytes, ahead)
    return RangeStream(_Remote(blocks), _REMOTE_BUFFER_BYTES)


class _Local(io.FileIO):
    """A local file, whose failures are storage errors."""

    def __init__(self, url: str) -> None:
        self._url = url
        with storage.translated(url, "read"):
            super().__init__(storage.filesystem(url)[1])
            self.size = self.seek(0, io.SEEK_END)
            self.seek(0)

    def readinto(self, into: Any, /) -> int | None:
        with storage.translated(self._url, "read"):
            return super().readinto(into)

    def readall(self) -> bytes:
        with storage.translated(self._url, "read"):
            return super().readall()


class _Remote(io.RawIOBase):
    """A remote file's bytes, out of its blocks."""

    def __init__(self, blocks: _Blocks) -> None:
        self._blocks, self._at = blocks, 0
        self.size = blocks.about.size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, at: int, whence: int = io.SEEK_SET, /) -> int:
        at += {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if at < 0:
            raise ValueError(f"negative seek position {at}")
        self._at = at
        return at

    def readinto(self, into: Any, /) -> int:
        if self._at >= self.size:
            return 0
        index, inside = divmod(self._at, self._blocks.block_bytes)
        with memoryview(into).cast("B") as target, memoryview(self._blocks.get(index)) as block:
            count = min(len(target), len(block) - inside)
            target[:count] = block[inside : inside + count]
        self._at += count
        return count

    def close(self) -> None:
        if not self.closed:
            self._blocks.stop()
        super().close()


class _Blocks:
    """The blocks of a remote file that are held or on their way."""

    def __init__(
        self, source: remote.Source, about: remote.About, block_bytes: int, ahead: int
    ) -> None:
        self.about, self.block_bytes = about, block_bytes
        self._source, self._ahead = source, ahead
        self._held: dict[int, Future[bytes | bytearray]] = {}
        self._running: set[asyncio.Task[Any]] = set()

    def get(self, index: int) -> bytes | bytearray:
        """Return a block; those after it are asked for, and those out of reach are let go.

        Raises:
            StorageError: it cannot be read.
        """
        last = (self.about.size - 1) // self.block_bytes
        wanted = range(index, min(index + self._ahead, last) + 1)
        for held in [i for i in self._held if i not in wanted and i != index - 1]:
            self._held.pop(held).cancel()
        for i in wanted:
            if i not in self._held:
                self._held[i] = asyncio.run_coroutine_threadsafe(self._fetch(i), self._source.loop)
        return self._held[index].result()

    async def _fetch(self, index: int) -> bytes | bytearray:
        start = index * self.block_bytes
        end = min(start + self.block_bytes, self.about.size)
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            return await remote.patiently(
                lambda: self._source.read(start, end, self.about),
                f"{self._source.url}, byte {start}",
            )
        finally:
            self._running.discard(task)

    def stop(self) -> None:
        """End all that is on its way; return when it has ended."""
        for future in self._held.values():
            future.cancel()
        self._held.clear()
        if _may_wait_for(self._source.loop):
            asyncio.run_coroutine_threadsafe(self._ended(), self._source.loop).result()

    async def _ended(self) -> None:
        await asyncio.gather(*self._running, return_exceptions=True)


def _may_wait_for(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether the loop runs, and elsewhere: a forgotten stream is closed from anywhere."""
    if sys.is_finalizing():
        return False
    try:
        return asyncio.get_running_loop() is not loop
    except RuntimeError:
        return True
