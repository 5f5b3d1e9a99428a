"""Answers that are kept for a while."""

from __future__ import annotations

import asyncio

import pytest

from wit_builder.web.memory import Memory


def test_asked_once_and_kept():
    """Simultaneous and later askers share one asking, until its answer expires."""
    asked: list[str] = []

    async def ask(key: str) -> tuple[str, float]:
        asked.append(key)
        await asyncio.sleep(0)
        return key.upper(), 0.0 if key == "brief" else 100.0

    async def go() -> None:
        memory = Memory(ask)
        assert await asyncio.gather(*(memory.get("a") for _ in range(5))) == ["A"] * 5
        assert [await memory.get(key) for key in ("a", "brief", "brief")] == ["A", "BRIEF", "BRIEF"]

    asyncio.run(go())
    assert asked == ["a", "brief", "brief"]


def test_oldest_is_forgotten():
    """Memory is bounded."""
    asked: list[int] = []

    async def ask(key: int) -> tuple[int, float]:
        asked.append(key)
        return key, 100.0

    async def go() -> None:
        memory = Memory(ask, most=2)
        for key in (1, 2, 3, 3, 1):
            await memory.get(key)

    asyncio.run(go())
    assert asked == [1, 2, 3, 1]


def test_errors_are_not_kept():
    """What asking raises reaches every asker, and the next one asks again."""
    outcomes: list[tuple[str, float] | Exception] = [ValueError("no"), ("yes", 1.0)]

    async def ask(_: str) -> tuple[str, float]:
        await asyncio.sleep(0)
        found = outcomes.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def go() -> None:
        memory = Memory(ask)
        both = await asyncio.gather(memory.get("a"), memory.get("a"), return_exceptions=True)
        assert [type(e) for e in both] == [ValueError, ValueError]
        assert await memory.get("a") == "yes"

    asyncio.run(go())


def test_a_cancelled_asker_harms_no_other():
    """One asker's deadline does not take the answer from another."""
    release = asyncio.Event()

    async def ask(_: str) -> tuple[str, float]:
        await release.wait()
        return "yes", 1.0

    async def go() -> None:
        memory = Memory(ask)
        first, second = (asyncio.create_task(memory.get("a")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        release.set()
        assert await second == "yes"
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(go())
