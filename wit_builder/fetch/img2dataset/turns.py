"""What img2dataset's requests keep to: turns of domains, as ``web.pace`` gives them, for threads.

And how a request ends that gives no body, in words that go through img2dataset's table.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import msgspec

from wit_builder.tables import Reason

_NO_ANSWER = {Reason.DNS_FAILED, Reason.CONNECT_FAILED, Reason.DEADLINE, Reason.HTTP_5XX}


class Limit(msgspec.Struct, frozen=True):
    """How one registrable domain is asked: requests at once, and seconds between two starts."""

    concurrency: int
    interval_s: float


class Manners(msgspec.Struct, frozen=True, kw_only=True):
    """What the transport keeps to; the keys of ``sections.FetchSection`` mean what they mean there.

    Attributes:
        agent: the user agent.
        domains: limits of every registrable domain that will be asked.
        max_pixels: of a picture's header; a larger one is not given to be decoded.
        loopback: host pattern -> ``127.0.0.1:PORT``; for tests and the demo only.
        notes: path of the file of ``transport.Note`` lines.
    """

    agent: str
    domains: dict[str, Limit]
    deadline_s: float
    max_body_bytes: int
    max_pause_s: float
    breaker_failures: int
    breaker_pause_s: float
    max_pixels: int
    loopback: dict[str, str]
    notes: str = ""


class Ended(msgspec.Struct, frozen=True):
    """Why a URL gave no body.

    ``reason`` is None where a redirect leads ``onward``, or where the ``fault`` is this machine's.
    ``pause_s`` is how long the server wants to be left alone.
    """

    reason: Reason | None
    detail: str = ""
    status: int | None = None
    opt_outs: list[str] = []
    onward: str = ""
    pause_s: float | None = None
    fault: str = ""


class EndedError(Exception):
    """Carries an ``Ended`` through img2dataset: its text is the JSON of it."""

    def __init__(self, ended: Ended) -> None:
        super().__init__(msgspec.json.encode(ended).decode())
        self.ended = ended


def ended(message: str) -> Ended | None:
    """Return what the text of an ``EndedError`` carries; None of any other text."""
    try:
        return msgspec.json.decode(message, type=Ended)
    except msgspec.DecodeError:
        return None


def refused(reason: Reason, detail: str, status: int | None = None) -> EndedError:
    """Return the end of a request for a reason."""
    return EndedError(Ended(reason, detail, status))


class Domain:
    """One domain's turns. Times are those of the monotonic clock."""

    def __init__(self, manners: Manners, limit: Limit) -> None:
        self._manners, self._limit = manners, limit
        self._room = threading.Semaphore(limit.concurrency)
        self._lock = threading.Lock()
        self._next_at = time.monotonic() + limit.interval_s
        self._paused_until = 0.0
        self._reason = Reason.RATE_LIMITED
        self._failures = 0

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the domain's turn.

        Raises:
            EndedError: it is to be left alone for longer than we wait.
        """
        with self._room:
            while (wait_s := self._claim()) > 0:
                time.sleep(wait_s)
            yield

    def _claim(self) -> float:
        """Take the turn and return 0, or return the seconds to wait."""
        with self._lock:
            now = time.monotonic()
            pause_s = self._paused_until - now
            if pause_s > self._manners.max_pause_s:
                raise refused(self._reason, f"paused for another {pause_s:.0f} s")
            wait_s = max(pause_s, self._next_at - now)
            if wait_s <= 0:
                self._next_at = now + self._limit.interval_s
            return wait_s

    def heed(self, ended: Ended | None) -> None:
        """Take note of how a request ended; None: with a body."""
        with self._lock:
            if ended is not None and ended.reason is Reason.RATE_LIMITED:
                self._failures += 1
                doubled_s = 2.0 ** min(self._failures - 1, 10)
                self._pause(doubled_s if ended.pause_s is None else ended.pause_s, ended.reason)
            elif ended is not None and ended.reason in _NO_ANSWER:
                self._failures += 1
                beyond = self._failures - self._manners.breaker_failures
                if beyond >= 0 and self._paused_until <= time.monotonic():
                    doubled_s = self._manners.breaker_pause_s * 2.0 ** min(beyond, 10)
                    self._pause(doubled_s, Reason.DOMAIN_DOWN)
            else:
                self._failures = 0

    def _pause(self, seconds: float, reason: Reason) -> None:
        until = time.monotonic() + seconds
        if until > self._paused_until:
            self._paused_until, self._reason = until, reason
