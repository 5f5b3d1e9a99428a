"""How often a domain is asked."""

from __future__ import annotations

import asyncio

import pytest

from wit_builder.web.pace import Pace, PausedError


class Clock:
    """A clock that moves when it is slept on, so that no test waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("wit_builder.web.pace._now", lambda: self.now)
        monkeypatch.setattr("wit_builder.web.pace.asyncio.sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds


async def starts(pace: Pace, clock: Clock, domain: str, count: int) -> list[float]:
    """Return when each of several requests could start, in seconds from now."""
    begun, found = clock.now, []
    for _ in range(count):
        async with pace.turn(domain):
            found.append(clock.now - begun)
    return found


def test_interval(monkeypatch):
    """Starts of one domain are an interval apart, another domain's are not held up."""
    clock, pace = Clock(monkeypatch), Pace(4, 2.0, 10.0)
    assert asyncio.run(starts(pace, clock, "a.test", 3)) == [0.0, 2.0, 4.0]
    assert asyncio.run(starts(pace, clock, "b.test", 1)) == [0.0]


def test_pause(monkeypatch):
    """A pause within our patience is waited for, a longer one refused, and none is shortened."""
    clock, pace = Clock(monkeypatch), Pace(4, 0.0, 10.0)

    async def go() -> None:
        pace.pause("a.test", 8.0)
        assert await starts(pace, clock, "a.test", 2) == [8.0, 8.0]
        pace.pause("a.test", 60.0)
        pace.pause("a.test", 1.0)
        with pytest.raises(PausedError, match="60 s"):
            await starts(pace, clock, "a.test", 1)

    asyncio.run(go())


def test_concurrency():
    """No more than so many requests of a domain are under way at once."""
    pace, under_way, most = Pace(3, 0.0, 1.0), [0], [0]

    async def one() -> None:
        async with pace.turn("a.test"):
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
            await asyncio.sleep(0)
            under_way[0] -= 1

    async def go() -> None:
        await asyncio.gather(*(one() for _ in range(20)))

    asyncio.run(go())
    assert most == [3]
