"""Which pair is asked for next."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from wit_builder.fetch.queue import DomainQueue


def one(_: str) -> int:
    """Return how many requests of any domain may be under way."""
    return 1


@given(
    domains=st.lists(st.sampled_from("abc"), max_size=30),
    per_domain=st.integers(1, 3),
    workers=st.integers(1, 5),
    open_domains=st.integers(1, 3),
)
def test_every_position_once_and_within_limits(domains, per_domain, workers, open_domains):
    """Each position is handed out once, a domain's in order, never more at once than allowed."""
    out = dict.fromkeys("abc", 0)
    taken: list[tuple[int, str]] = []

    async def go() -> None:
        queue = DomainQueue(enumerate(domains), lambda _: per_domain, lambda _: 0.0, open_domains)

        async def work() -> None:
            while (found := await queue.take()) is not None:
                taken.append(found)
                out[found[1]] += 1
                assert out[found[1]] <= per_domain
                await asyncio.sleep(0)
                out[found[1]] -= 1
                queue.give_back(found[1])

        await asyncio.gather(*(work() for _ in range(workers)))

    asyncio.run(go())
    assert sorted(taken) == list(enumerate(domains))
    for domain in "abc":
        positions = [p for p, d in taken if d == domain]
        assert positions == sorted(positions)


def test_few_domains_are_open_at_once():
    """Of many domains only so many are taken turns with, the largest first; all are served."""
    positions = list(enumerate("abcbcdbcde"))

    async def go() -> list[str]:
        queue, order = DomainQueue(positions, one, lambda _: 0.0, open_domains=2), []
        while (found := await queue.take()) is not None:
            order.append(found[1])
            queue.give_back(found[1])
        return order

    order = asyncio.run(go())
    assert sorted(order) == sorted(domain for _, domain in positions)
    assert order[:4] == ["b", "c", "b", "c"]
    unfinished = [{d for d in order[:i] if d in order[i:]} for i in range(len(order))]
    assert max(map(len, unfinished)) <= 2


def test_a_domain_that_must_wait_holds_up_no_other():
    """While one domain waits for its interval, others are handed out."""
    ready = {"slow": 0.02, "fast": 0.0}
    positions = [(0, "slow"), (1, "slow"), (2, "fast"), (3, "fast"), (4, "fast")]

    async def go() -> list[int]:
        queue = DomainQueue(positions, one, lambda domain: ready[domain])
        order = []
        while (found := await queue.take()) is not None:
            order.append(found[0])
            queue.give_back(found[1])
            if len(order) == 3:
                ready["slow"] = 0.0
        return order

    assert asyncio.run(go()) == [2, 3, 4, 0, 1]


def test_what_is_put_back_comes_again_after_its_time():
    """A position that is to be asked for again waits its time, others of its domain do not."""
    positions = [(0, "a"), (1, "a"), (2, "b")]

    async def go() -> list[int]:
        queue, order = DomainQueue(positions, one, lambda _: 0.0), []
        while (found := await queue.take()) is not None:
            position, domain = found
            order.append(position)
            if order == [0]:
                queue.put_back(position, domain, 0.02)
            else:
                queue.give_back(domain)
        return order

    assert asyncio.run(go()) == [0, 2, 0, 1]


def test_the_last_one_may_be_put_back():
    """A position that is put back when nothing else is left is handed out once more."""

    async def go() -> list[int]:
        queue, order = DomainQueue([(0, "a")], one, lambda _: 0.0), []
        while (found := await queue.take()) is not None:
            order.append(found[0])
            if len(order) == 1:
                queue.put_back(*found, 0.0)
            else:
                queue.give_back(found[1])
        return order

    assert asyncio.run(go()) == [0, 0]
