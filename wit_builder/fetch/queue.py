"""Which pair is asked for next: domains take turns, and one that must wait holds up no other."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable


class DomainQueue:
    """Hands out positions so that a domain has at most so many out at once.

    Args:
        positions: (position, registrable domain) in the order to keep within a domain.
        per_domain: handed out at once of one domain.
        ready_in_s: in how many seconds a domain may be asked again.
    """

    def __init__(
        self,
        positions: Iterable[tuple[int, str]],
        per_domain: int,
        ready_in_s: Callable[[str], float],
    ) -> None:
        self._waiting: dict[str, deque[int]] = {}
        for position, domain in positions:
            self._waiting.setdefault(domain, deque()).append(position)
        self._ready_in_s = ready_in_s
        self._order = itertools.count()
        # A token is a domain's right to one request: (not before, turn, domain).
        self._tokens: list[tuple[float, int, str]] = []
        for _, domain in itertools.product(range(per_domain), self._waiting):
            self._tokens.append((0.0, next(self._order), domain))
        self._changed = asyncio.Event()

    async def take(self) -> tuple[int, str] | None:
        """Return the next position and its domain, once it may be asked for; None at the end."""
        while self._waiting:
            now = asyncio.get_running_loop().time()
            if self._tokens and self._tokens[0][0] <= now:
                _, _, domain = heapq.heappop(self._tokens)
                taken = self._pop(domain, now)
                if taken is not None:
                    return taken, domain
                continue
            self._changed.clear()
            wait_s = self._tokens[0][0] - now if self._tokens else None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait_s)
        self._changed.set()
        return None

    def _pop(self, domain: str, now: float) -> int | None:
        """Return the domain's next position; without one the token goes, or waits for its time."""
        waiting = self._waiting.get(domain)
        if waiting is None:
            return None
        wait_s = self._ready_in_s(domain)
        if wait_s > 0:
            heapq.heappush(self._tokens, (now + wait_s, next(self._order), domain))
            return None
        position = waiting.popleft()
        if not waiting:
            del self._waiting[domain]
        return position

    def give_back(self, domain: str) -> None:
        """Return a domain's token once its request has ended."""
        if domain in self._waiting:
            now = asyncio.get_running_loop().time()
            heapq.heappush(self._tokens, (now, next(self._order), domain))
        self._changed.set()
