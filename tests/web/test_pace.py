"""How often a domain is asked."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from wit_builder.sections import DomainSection, FetchSection
from wit_builder.tables import Reason
from wit_builder.web.pace import Pace, PausedError


def fetch(**limits: Any) -> FetchSection:
    """Return a section without an interval, if none is given."""
    return FetchSection(**{"per_domain_interval_s": 0.0, **limits})


class Clock:
    """A clock that moves when it is slept on, so that no test waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("wit_builder.web.pace._now", lambda: self.now)
        monkeypatch.setattr("wit_builder.web.pace.time.time", lambda: self.now)
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
    clock = Clock(monkeypatch)
    pace = Pace(fetch(per_domain_interval_s=2.0))
    assert asyncio.run(starts(pace, clock, "a.test", 3)) == [2.0, 4.0, 6.0]
    assert asyncio.run(starts(pace, clock, "b.test", 1)) == [0.0]


def test_a_full_interval_after_the_start(monkeypatch):
    """Nobody is asked before an interval has passed, for a worker before may have asked now."""
    clock = Clock(monkeypatch)
    pace = Pace(fetch(per_domain_interval_s=30.0))
    clock.now += 10.0
    assert asyncio.run(starts(pace, clock, "a.test", 2)) == [20.0, 50.0]


def test_what_differs_for_a_domain(monkeypatch):
    """A recipe's section for a domain beats what holds for all of them."""
    clock, own = Clock(monkeypatch), {"a.test": DomainSection(interval_s=1.0, concurrency=9)}
    pace = Pace(fetch(per_domain_interval_s=5.0, domains=own))
    assert asyncio.run(starts(pace, clock, "a.test", 2)) == [1.0, 2.0]
    assert (pace.concurrency("a.test"), pace.concurrency("b.test")) == (9, 4)


@pytest.mark.parametrize(("delay_s", "expected"), [(10.0, 10.0), (3600.0, 30.0), (1.0, 5.0)])
def test_crawl_delay(monkeypatch, delay_s, expected):
    """A Crawl-delay makes the interval longer, up to the recipe's cap, and never shorter."""
    clock = Clock(monkeypatch)
    pace = Pace(fetch(per_domain_interval_s=5.0, crawl_delay_cap_s=30.0))

    async def go() -> list[float]:
        pace.slow_down("a.test", delay_s)
        return await starts(pace, clock, "a.test", 2)

    assert asyncio.run(go()) == [expected, 2 * expected]


def test_pause(monkeypatch):
    """A pause within our patience is waited for, a longer one refused, and none is shortened."""
    clock = Clock(monkeypatch)
    pace = Pace(fetch(max_pause_s=10.0))

    async def go() -> None:
        pace.pause("a.test", 8.0)
        assert await starts(pace, clock, "a.test", 2) == [8.0, 8.0]
        pace.pause("a.test", 60.0)
        pace.pause("a.test", 1.0)
        with pytest.raises(PausedError, match="60 s") as paused:
            await starts(pace, clock, "a.test", 1)
        assert paused.value.reason is Reason.RATE_LIMITED

    asyncio.run(go())


def test_a_pause_of_no_given_length(monkeypatch):
    """Without a Retry-After the pause doubles with each refusal in a row, and a success ends it."""
    clock = Clock(monkeypatch)
    pace = Pace(fetch(max_pause_s=100.0))

    async def go() -> list[float]:
        found = []
        for _ in range(4):
            pace.pause("a.test", None)
            pace.pause("a.test", None)  # of a request that was under way at the same time
            found += await starts(pace, clock, "a.test", 1)
        pace.succeeded("a.test")
        pace.pause("a.test", None)
        return found + await starts(pace, clock, "a.test", 1)

    assert asyncio.run(go()) == [1.0, 2.0, 4.0, 8.0, 1.0]


def test_circuit_breaker(monkeypatch):
    """After some failures in a row a domain is left alone, longer each time that the next fails."""
    clock = Clock(monkeypatch)
    pace = Pace(fetch(breaker_failures=3, breaker_pause_s=60.0, max_pause_s=120.0))

    async def go() -> None:
        pace.failed("a.test")
        pace.failed("a.test")
        pace.succeeded("a.test")
        pace.failed("a.test")
        pace.failed("a.test")
        assert await starts(pace, clock, "a.test", 1) == [0.0]
        pace.failed("a.test")
        assert await starts(pace, clock, "a.test", 1) == [60.0]
        pace.failed("a.test")
        assert await starts(pace, clock, "a.test", 1) == [120.0]
        pace.failed("a.test")
        with pytest.raises(PausedError) as paused:
            await starts(pace, clock, "a.test", 1)
        assert paused.value.reason is Reason.DOMAIN_DOWN
        assert await starts(pace, clock, "b.test", 1) == [0.0]

    asyncio.run(go())


def test_pauses_outlive_a_worker(monkeypatch):
    """A pause that is not over holds for the worker after, with the failures that led to it."""
    clock = Clock(monkeypatch)

    async def go() -> None:
        before = Pace(fetch(breaker_failures=1, breaker_pause_s=60.0))
        before.pause("a.test", 50.0)
        before.failed("b.test")
        before.pause("c.test", 1.0)
        clock.now += 2.0
        pauses = before.pauses()
        assert [(p.domain, p.in_a_row, p.reason) for p in pauses] == [
            ("a.test", 1, Reason.RATE_LIMITED),
            ("b.test", 1, Reason.DOMAIN_DOWN),
        ]
        after = Pace(fetch(), pauses)
        assert await starts(after, clock, "a.test", 1) == [pytest.approx(48.0)]

    asyncio.run(go())


def test_concurrency():
    """No more than so many requests of a domain are under way at once."""
    under_way, most = [0], [0]

    async def one(pace: Pace) -> None:
        async with pace.turn("a.test"):
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
            await asyncio.sleep(0)
            under_way[0] -= 1

    async def go() -> None:
        pace = Pace(fetch(per_domain_concurrency=3))
        await asyncio.gather(*(one(pace) for _ in range(20)))

    asyncio.run(go())
    assert most == [3]


def test_failures_under_way_open_the_breaker_once(monkeypatch):
    """However many requests were under way when it opened, the next pause is twice as long."""
    clock = Clock(monkeypatch)
    pace = Pace(fetch(breaker_failures=2, breaker_pause_s=10.0, max_pause_s=500.0))

    async def go() -> list[float]:
        found = []
        for _ in range(3):
            for _ in range(8):
                pace.failed("a.test")
            found += await starts(pace, clock, "a.test", 1)
        return found

    assert asyncio.run(go()) == [10.0, 20.0, 40.0]


def test_a_domain_that_always_wants_a_short_pause(monkeypatch):
    """A domain whose short pauses in a row add up to more than we wait is left for later."""
    clock = Clock(monkeypatch)
    pace = Pace(fetch(max_pause_s=10.0))

    async def go() -> None:
        for _ in range(10):
            pace.pause("a.test", 1.0)
            assert await starts(pace, clock, "a.test", 1) == [1.0]
        pace.pause("a.test", 1.0)
        with pytest.raises(PausedError):
            await starts(pace, clock, "a.test", 1)

    asyncio.run(go())


def test_slow_connections_do_not_leave_together(monkeypatch):
    """Requests that were all connecting for long are sent an interval apart."""
    clock = Clock(monkeypatch)
    pace = Pace(fetch(per_domain_interval_s=1.0))

    async def go() -> list[float]:
        turns = await starts(pace, clock, "a.test", 3)
        began = clock.now - turns[-1]
        clock.now += 10.0
        sent = []
        for turn in turns:
            await pace.connected("a.test", began + turn)
            sent.append(clock.now)
        return [later - earlier for earlier, later in pairwise(sent)]

    assert asyncio.run(go()) == [1.0, 1.0]
