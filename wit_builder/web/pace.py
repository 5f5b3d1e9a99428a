"""How often a registrable domain is asked: at once, apart, and not while it wants or needs a pause.

A domain is left alone for as long as it asks for (``Retry-After``), and, by a circuit breaker, when
it does not answer any more. A pause up to ``fetch.max_pause_s`` is waited for; what would have to
wait longer is deferred.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable

import msgspec

from wit_builder.sections import DomainSection, FetchSection
from wit_builder.tables import Reason

_now = time.monotonic
_LONGEST_PAUSE_S = 7 * 86_400.0
"""Of a ``Retry-After``: a server that says a year means that it does not want us now."""


class PausedError(Exception):
    """A domain is to be left alone for longer than we wait; nothing must be sent."""

    def __init__(self, reason: Reason, seconds: float) -> None:
        super().__init__(f"paused for another {seconds:.0f} s")
        self.reason = reason


class Pause(msgspec.Struct, frozen=True):
    """A pause that must outlive this worker.

    Attributes:
        domain: the registrable domain.
        until: in seconds since the epoch.
        in_a_row: how many it had without an answer in between.
        reason: ``rate_limited`` or ``domain_down``.
    """

    domain: str
    until: float
    in_a_row: int
    reason: Reason


class _Domain:
    """One domain's turn-taking. Times are of ``time.monotonic``."""

    def __init__(self, concurrency: int, interval_s: float, last_at: float) -> None:
        self.room = asyncio.Semaphore(concurrency)
        self.interval_s = interval_s
        self.last_at = last_at
        self.paused_until = 0.0
        self.reason = Reason.RATE_LIMITED
        self.failures = 0
        self.pauses = 0
        self.paused_s = 0.0

    @property
    def next_at(self) -> float:
        return self.last_at + self.interval_s

    @property
    def is_paused(self) -> bool:
        return self.paused_until > _now()

    def pause(self, seconds: float, reason: Reason) -> None:
        until = _now() + min(seconds, _LONGEST_PAUSE_S)
        if until > self.paused_until:
            self.paused_until, self.reason = until, reason


class Pace:
    """Gives turns to requests, per registrable domain.

    A domain's first turn comes a full interval after this was made, because nobody knows when a
    worker before this one asked last.

    Args:
        fetch: limits for all domains and for some.
        pauses: those that earlier workers left.
    """

    def __init__(self, fetch: FetchSection, pauses: Iterable[Pause] = ()) -> None:
        self._fetch = fetch
        self._domains: dict[str, _Domain] = {}
        self._began_at = _now()
        for pause in pauses:
            state = self._state(pause.domain)
            state.pauses = pause.in_a_row
            if pause.reason is Reason.DOMAIN_DOWN:
                state.failures = fetch.breaker_failures - 1
            state.pause(pause.until - time.time(), pause.reason)

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
            state.last_at = _now()
            yield

    def _wait_s(self, state: _Domain) -> float:
        now = _now()
        pause_s = state.paused_until - now
        if pause_s > self._fetch.max_pause_s:
            raise PausedError(state.reason, pause_s)
        return max(pause_s, state.next_at - now)

    async def connected(self, domain: str, turn_at: float) -> None:
        """Wait until a request may be sent whose turn began a while ago: connecting took its time.

        Else all that were connecting to a slow server would be sent together.
        """
        state = self._state(domain)
        if turn_at + state.interval_s <= _now():  # others may have had their turns meanwhile
            state.last_at = max(_now(), state.next_at)
            await asyncio.sleep(state.last_at - _now())

    def sent(self, domain: str) -> None:
        """Count the interval from now: a request has just left."""
        state = self._state(domain)
        state.last_at = max(state.last_at, _now())

    def ready_in_s(self, domain: str) -> float:
        """Return in how many seconds a turn can begin; 0 when paused beyond patience."""
        try:
            return max(0.0, self._wait_s(self._state(domain)))
        except PausedError:
            return 0.0

    def concurrency(self, domain: str) -> int:
        """Return how many requests to a domain may be under way at once."""
        own = self._fetch.domains.get(domain, DomainSection()).concurrency
        return own or self._fetch.per_domain_concurrency

    def interval_s(self, domain: str) -> float:
        """Return how many seconds must lie between the starts of two requests to a domain."""
        return self._state(domain).interval_s

    def slow_down(self, domain: str, delay_s: float) -> None:
        """Keep so many seconds between two requests (``Crawl-delay``), up to the recipe's cap."""
        state = self._state(domain)
        state.interval_s = max(state.interval_s, min(delay_s, self._fetch.crawl_delay_cap_s))

    def pause(self, domain: str, seconds: float | None) -> None:
        """Let nobody ask the domain for so long (``Retry-After``); never shortens a pause.

        Without a number it is one second, and twice as long each time it happens in a row. A domain
        whose pauses in a row are longer together than we wait is not asked any more.
        """
        state = self._state(domain)
        if seconds is None and state.is_paused:
            return  # it was under way when the pause began
        told_s = 2.0 ** min(state.pauses, 10) if seconds is None else seconds
        if not state.is_paused:
            state.pauses += 1
            state.paused_s += told_s
        if state.paused_s > self._fetch.max_pause_s:
            told_s = max(told_s, 2 * self._fetch.max_pause_s)
        state.pause(told_s, Reason.RATE_LIMITED)

    def failed(self, domain: str) -> None:
        """Take note of a request that got no answer; after some in a row the breaker opens.

        When its pause is over, the next failure opens it again. What fails during a pause was under
        way before, and says nothing new.
        """
        state = self._state(domain)
        if state.is_paused:
            return
        state.failures += 1
        if state.failures >= self._fetch.breaker_failures:
            state.failures -= 1
            pause_s = self._fetch.breaker_pause_s * 2.0 ** min(state.pauses, 10)
            state.pauses += 1
            state.pause(pause_s, Reason.DOMAIN_DOWN)

    def succeeded(self, domain: str) -> None:
        """Take note of an answer: whatever failed before is forgiven."""
        state = self._state(domain)
        state.failures, state.pauses, state.paused_s = 0, 0, 0.0

    def pauses(self) -> list[Pause]:
        """Return the pauses that are not over."""
        now, clock = _now(), time.time()
        return [
            Pause(name, clock + state.paused_until - now, state.pauses, state.reason)
            for name, state in self._domains.items()
            if state.paused_until > now
        ]

    def _state(self, domain: str) -> _Domain:
        state = self._domains.get(domain)
        if state is None:
            state = _Domain(
                self.concurrency(domain), interval_s(self._fetch, domain), self._began_at
            )
            self._domains[domain] = state
        return state


def interval_s(fetch: FetchSection, domain: str) -> float:
    """Return the seconds that a recipe sets between two requests to a domain."""
    own = fetch.domains.get(domain, DomainSection()).interval_s
    return fetch.per_domain_interval_s if own is None else own
