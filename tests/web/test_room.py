"""Memory that requests share."""

from __future__ import annotations

import asyncio

import pytest

from wit_builder.web.room import FREE_BYTES, Room

MEGABYTE = 1 << 20


def free(size: int) -> int:
    """Return a body's size that takes so much of a room."""
    return FREE_BYTES + size


def test_small_bodies_ask_nobody():
    """What every request holds freely takes no room."""

    async def go() -> None:
        holds = [Room(1).hold() for _ in range(9)]
        for hold in holds:
            await hold.grow(FREE_BYTES)
            assert hold.size == 0

    asyncio.run(go())


def test_who_finds_no_room_waits_in_turn():
    """Bodies are read in the order of asking, as soon as others are done; none overtakes."""

    async def go() -> None:
        room, served = Room(10 * MEGABYTE), []

        async def read(name: str, size: int, done: asyncio.Event) -> None:
            hold = room.hold()
            await hold.grow(free(size))
            served.append(name)
            await done.wait()
            hold.shrink()

        events = {name: asyncio.Event() for name in "abc"}
        sizes = {"a": 8 * MEGABYTE, "b": 4 * MEGABYTE, "c": MEGABYTE}
        tasks = [asyncio.create_task(read(n, sizes[n], events[n])) for n in "abc"]
        for _ in range(5):
            await asyncio.sleep(0)
        assert served == ["a"]
        events["a"].set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert served == ["a", "b", "c"]
        events["b"].set()
        events["c"].set()
        await asyncio.gather(*tasks)

    asyncio.run(go())


def test_one_that_is_larger_than_the_room():
    """A body larger than all the room is read when nobody else holds any."""

    async def go() -> None:
        hold = Room(MEGABYTE).hold()
        await hold.grow(free(50 * MEGABYTE))
        assert hold.size == 50 * MEGABYTE

    asyncio.run(go())


def test_a_cancelled_request_holds_nothing():
    """Whoever is cancelled while waiting leaves the room to others."""

    async def go() -> None:
        room = Room(MEGABYTE)
        first, second, third = room.hold(), room.hold(), room.hold()
        await first.grow(free(MEGABYTE))
        waiting = asyncio.create_task(second.grow(free(MEGABYTE)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        first.shrink()
        await third.grow(free(MEGABYTE))
        assert (second.size, third.size) == (0, MEGABYTE)

    asyncio.run(go())


def test_waiting_is_not_in_the_deadline():
    """The deadline of a request moves by as long as it waited for room."""

    async def go() -> None:
        room = Room(MEGABYTE)
        first, second = room.hold(), room.hold()
        await first.grow(free(MEGABYTE))
        async with asyncio.timeout(0.05) as limit:
            second.limit = limit
            loop = asyncio.get_running_loop()
            loop.call_soon(lambda: loop.call_later(0.1, first.shrink))  # once the second waits
            await second.grow(free(MEGABYTE))
            assert not limit.expired()
        assert second.waited_s >= 0.1

    asyncio.run(go())
