"""Memory that requests share: who wants to hold more than is left waits until others are done."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

FREE_BYTES = 256 << 10
"""What a request holds without asking: most pictures, or the first part of others."""


class Room:
    """Bytes that may be held at once.

    Args:
        size_bytes: in all, beside what every request holds freely; who is alone may hold more.
    """

    def __init__(self, size_bytes: int) -> None:
        self._left = self._size = size_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def hold(self) -> Hold:
        """Return a hold of nothing yet."""
        return Hold(self)

    async def take(self, size: int) -> None:
        """Take bytes, in the order of asking, as soon as there is room."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove((size, turn))
                self._serve()
            else:  # it was served just then
                self.give(size)
            raise

    def give(self, size: int) -> None:
        """Give bytes back."""
        self._left += size
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if size > self._left and self._left < self._size:
                return
            self._waiting.popleft()
            self._left -= size
            turn.set_result(None)


class Hold:
    """What one request holds of a room.

    Attributes:
        size: bytes, beside those held freely.
        limit: the deadline to put off while waiting for room, which is no server's fault.
        waited_s: how long that took, in all.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self.size = 0
        self.limit: asyncio.Timeout | None = None
        self.waited_s = 0.0

    async def grow(self, size: int) -> None:
        """Hold so many bytes in all, once there is room."""
        wanted = max(0, size - FREE_BYTES) - self.size
        if wanted > 0:
            async with self.unhurried():
                await self._room.take(wanted)
            self.size += wanted

    @contextlib.asynccontextmanager
    async def unhurried(self) -> AsyncIterator[None]:
        """Put the deadline off by what is waited for meanwhile, which is no server's fault."""
        due_at = self.limit.when() if self.limit else None
        if self.limit:
            self.limit.reschedule(None)
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        yield
        waited_s = loop.time() - began_at
        self.waited_s += waited_s
        if self.limit and due_at is not None:
            self.limit.reschedule(due_at + waited_s)

    def shrink(self, size: int = 0) -> None:
        """Hold no more than so many bytes in all."""
        beyond = self.size - max(0, size - FREE_BYTES)
        if beyond > 0:
            self.size -= beyond
            self._room.give(beyond)
