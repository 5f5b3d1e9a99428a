"""Answers to slow questions: asked once at a time, kept for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memory(Generic[K, V]):
    """Keeps the answer to each question until it expires; simultaneous askers share one asking.

    Args:
        ask: gives the answer and for how many seconds it holds; what it raises is not kept.
        most: entries kept; beyond that the oldest is forgotten.
        size: of an answer, in any unit.
        most_size: of all answers kept, or of one that is larger.
    """

    def __init__(
        self,
        ask: Callable[[K], Awaitable[tuple[V, float]]],
        most: int = 65_536,
        size: Callable[[V], int] = lambda _: 0,
        most_size: int = 0,
    ) -> None:
        self._ask = ask
        self._most = most
        self._size_of = size
        self._most_size = most_size
        self._size = 0
        self._kept: dict[K, tuple[V, float]] = {}
        self._asking: dict[K, asyncio.Task[V]] = {}

    async def get(self, key: K) -> V:
        """Return the answer, asked for if unknown or expired; a cancelled asker harms no other."""
        kept = self._kept.get(key)
        if kept is not None and asyncio.get_running_loop().time() < kept[1]:
            return kept[0]
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._answer(key))
            self._asking[key] = task
            task.add_done_callback(lambda ended: self._end(key, ended))
        return await asyncio.shield(task)

    async def _answer(self, key: K) -> V:
        value, holds_s = await self._ask(key)
        self._forget(key)
        self._kept[key] = (value, asyncio.get_running_loop().time() + holds_s)
        self._size += self._size_of(value)
        while len(self._kept) > self._most or (
            self._size > self._most_size and len(self._kept) > 1
        ):
            self._forget(next(iter(self._kept)))
        return value

    def _forget(self, key: K) -> None:
        if key in self._kept:
            self._size -= self._size_of(self._kept.pop(key)[0])

    def _end(self, key: K, task: asyncio.Task[V]) -> None:
        self._asking.pop(key, None)
        if not task.cancelled():
            task.exception()  # askers that waited have it; when all have left, nobody misses it

    async def close(self) -> None:
        """End what is still being asked, and forget the answers."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._kept.clear()
        self._size = 0
