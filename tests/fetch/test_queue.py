"""Which pair is asked for next."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from wit_builder.fetch.queue import DomainQueue


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
        queue = DomainQueue(enumerate(domains), per_domain, lambda _: 0.0, open_domains)

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
        queue, order = DomainQueue(positions, 1, lambda _: 0.0, open_domains=2), []
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
        queue = DomainQueue(positions, 1, lambda domain: ready[domain])
        order = []
        while (found := await queue.take()) is not None:
            order.append(found[0])
            queue.give_back(found[1])
            if len(order) == 3:
                ready["slow"] = 0.0
        return order

    assert asyncio.run(go()) == [2, 3, 4, 0, 1]
