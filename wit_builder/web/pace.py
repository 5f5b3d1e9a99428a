"""How often a registrable domain is asked: at once, apart, and not while it wants a pause."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class PausedError(Exception):
    """The domain asked us to wait longer than we can."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the domain asked for a pause of {seconds:.0f} s")


class _Domain:
    """One domain's turn-taking. Times are those of the event loop."""

    def __init__(self, concurrency: int) -> None:
        self.room = asyncio.Semaphore(concurrency)
        self.next_at = 0.0
        self.paused_until = 0.0


class Pace:
    """Gives turns to requests, per registrable domain.

    Args:
        concurrency: requests of a domain under way at once.
        interval_s: at least this long between the starts of two.
        patience_s: a pause that lasts longer is not waited for.
    """

    def __init__(self, concurrency: int, interval_s: float, patience_s: float) -> None:
        self._concurrency = concurrency
        self._interval_s = interval_s
        self._patience_s = patience_s
        self._domains: dict[str, _Domain] = {}

    @contextlib.asynccontextmanager
    async def turn(self, domain: str) -> AsyncIterator[None]:
        """Wait for the domain's turn, and hold it while the request is under way.

        Raises:
            PausedError: the domain is paused beyond our patience; nothing must be sent.
        """
        state = self._state(domain)
        async with state.room:
            while (wait_s := self._wait_s(state)) > 0:  # noqa: ASYNC110 - it is time we wait for
                await asyncio.sleep(wait_s)
            state.next_at = _now() + self._interval_s
            yield

    def _wait_s(self, state: _Domain) -> float:
        pause_s = state.paused_until - _now()
        if pause_s > self._patience_s:
            raise PausedError(pause_s)
        return max(pause_s, state.next_at - _now())

    def ready_in_s(self, domain: str) -> float:
        """Return in how many seconds a turn can begin; 0 when paused beyond patience."""
        try:
            return max(0.0, self._wait_s(self._state(domain)))
        except PausedError:
            return 0.0

    def pause(self, domain: str, seconds: float) -> None:
        """Let nobody ask the domain for so long (``Retry-After``); never shortens a pause."""
        state = self._state(domain)
        state.paused_until = max(state.paused_until, _now() + seconds)

    def _state(self, domain: str) -> _Domain:
        return self._domains.setdefault(domain, _Domain(self._concurrency))


def _now() -> float:
    return asyncio.get_running_loop().time()
