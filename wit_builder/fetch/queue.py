"""Which pair is asked for next: domains take turns, and one that must wait holds up no other."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable

_OPEN_DOMAINS = 4096
"""Domains taken turns with; fewer than the client remembers robots.txt files and addresses of, or
every turn would ask for them anew."""


class DomainQueue:
    """Hands out positions so that a domain has at most so many out at once.

    Args:
        positions: (position, registrable domain) in the order to keep within a domain.
        per_domain: how many are handed out at once of a domain.
        ready_in_s: in how many seconds a domain may be asked again.
        open_domains: how many domains take turns; the next begins when one has none left.
    """

    def __init__(
        self,
        positions: Iterable[tuple[int, str]],
        per_domain: Callable[[str], int],
        ready_in_s: Callable[[str], float],
        open_domains: int = _OPEN_DOMAINS,
    ) -> None:
        self._waiting: dict[str, deque[int]] = {}
        for position, domain in positions:
            self._waiting.setdefault(domain, deque()).append(position)
        # The largest take longest, so they begin first.
        self._unopened = iter(sorted(self._waiting, key=lambda name: -len(self._waiting[name])))
        self._per_domain = per_domain
        self._ready_in_s = ready_in_s
        self._order = itertools.count()
        # A token is a domain's right to one request: (not before, turn, domain, position if it is
        # for one that was put back).
        self._tokens: list[tuple[float, tuple[int, int], str, int | None]] = []
        self._returned = 0  # positions that were put back and wait for their time
        self._changed = asyncio.Event()
        self._next = asyncio.Lock()  # of who waits for a token; others wait for this
        for _ in range(open_domains):
            self._open_domain()

    def _open_domain(self) -> None:
        """Give the next domain its tokens, if there is one: all domains' first come first."""
        domain = next(self._unopened, None)
        if domain is not None:
            for nth in range(self._per_domain(domain)):
                heapq.heappush(self._tokens, (0.0, (nth, next(self._order)), domain, None))
            self._changed.set()

    async def take(self) -> tuple[int, str] | None:
        """Return the next position and its domain, once it may be asked for; None at the end."""
        async with self._next:  # or all who wait would wake up for every token
            while self._waiting or self._returned:
                now = asyncio.get_running_loop().time()
                if self._tokens and self._tokens[0][0] <= now:
                    _, _, domain, position = heapq.heappop(self._tokens)
                    taken = self._pop(domain, position, now)
                    if taken is not None:
                        return taken, domain
                    continue
                self._changed.clear()
                wait_s = self._tokens[0][0] - now if self._tokens else None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):  # in Python 3.11 wait_for makes a task
                        await self._changed.wait()
        return None

    def _pop(self, domain: str, returned: int | None, now: float) -> int | None:
        """Return the domain's next position; without one the token goes, or waits for its time."""
        waiting = self._waiting.get(domain)
        if waiting is None and returned is None:
            return None
        wait_s = self._ready_in_s(domain)
        if wait_s > 0:
            self._push(now + wait_s, domain, returned)
            return None
        if returned is not None or waiting is None:
            self._returned -= 1
            return returned
        position = waiting.popleft()
        if not waiting:
            del self._waiting[domain]
            self._open_domain()
        return position

    def give_back(self, domain: str) -> None:
        """Return a domain's token once its request has ended."""
        if domain in self._waiting:
            now = asyncio.get_running_loop().time()
            self._push(now, domain)
        self._changed.set()

    def put_back(self, position: int, domain: str, wait_s: float) -> None:
        """Return a position that is to be asked for again, after so many seconds, and its token."""
        self._returned += 1
        self._push(asyncio.get_running_loop().time() + wait_s, domain, position)
        self._changed.set()

    def _push(self, not_before: float, domain: str, position: int | None = None) -> None:
        heapq.heappush(self._tokens, (not_before, (0, next(self._order)), domain, position))
