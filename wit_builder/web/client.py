"""Asking the web: one session, one deadline, capped bodies, and every end has a reason.

What an end means for the next request stands in ``answer.KIND_OF``. Redirects are followed by hand,
``fetch.max_redirects`` hops at most, each a new question to the gate; today also to another
registrable domain, whose own pace is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import errno
import ssl
import time
from types import TracebackType
from typing import Literal, Self

import aiohttp
from yarl import URL

from wit_builder.errors import StorageError
from wit_builder.hashing import label_seed
from wit_builder.sections import FetchSection
from wit_builder.tables import Reason
from wit_builder.web import body
from wit_builder.web.addresses import AddressRefusedError, Lookup, Loopback, Resolver
from wit_builder.web.agent import user_agent
from wit_builder.web.answer import KIND_OF, Answer, Kind, Refusal
from wit_builder.web.gate import Gate, parse
from wit_builder.web.optouts import opt_outs
from wit_builder.web.pace import PausedError
from wit_builder.web.robots import MAX_BYTES as MAX_ROBOTS_BYTES

What = Literal["image", "page", "robots"]

_ACCEPT: dict[What, dict[str, str]] = {
    # Pictures are compressed already; asking for them as they are keeps digests meaningful.
    "image": {"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
    "page": {"Accept": "text/html,application/xhtml+xml", "Accept-Encoding": "gzip, deflate"},
    "robots": {"Accept": "text/plain", "Accept-Encoding": "gzip, deflate"},
}
_OPT_OUT: dict[What, Reason] = {
    "image": Reason.OPT_OUT_IMAGE,
    "page": Reason.OPT_OUT_HEADER,
}
_OF_INTEREST = ("content-type", "last-modified", "etag", "link")
_REDIRECTS = {301, 302, 303, 307, 308}
_KEEPALIVE_S = 5.0  # idle connections count as open files
_BACKOFF_S = 0.5
_DRAINED_BYTES = 1 << 14
_RATE_LIMITED_PAUSE_S = 1.0  # for a 429 that does not say how long
_OUR_OWN_FAULT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class _Ask:
    """One URL being asked for: what for, how much of it, and the time servers still have."""

    def __init__(self, what: What, max_bytes: int, left_s: float) -> None:
        self.what: What = what
        self.max_bytes = max_bytes
        self.left_s = left_s


class Client:
    """Asks for URLs, politely; use as ``async with Client(...) as client``.

    Args:
        fetch: the recipe's limits, and the contact.
        loopback: host pattern -> ``address:port`` of this machine; for tests and the demo only.
        seed: of the jitter between retries.
        lookup: name -> addresses, instead of the system's resolver.

    Raises:
        RecipeError: no contact is set and hosts other than mapped ones could be asked.
    """

    def __init__(
        self,
        fetch: FetchSection,
        *,
        loopback: dict[str, str] | None = None,
        seed: int = 0,
        lookup: Lookup | None = None,
    ) -> None:
        self._fetch = fetch
        self._seed = seed
        mapped = Loopback(loopback or {})
        self._mapped_only = bool(mapped) and not fetch.contact
        self._agent = user_agent(fetch.contact, loopback_only=self._mapped_only)
        self._resolver = Resolver(mapped, mapped_only=self._mapped_only, lookup=lookup)
        self.gate = Gate(fetch, self._resolver, self._get_robots)

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            use_dns_cache=False,  # the resolver keeps its own, checked answers
            socket_factory=self._resolver.make_socket,
            limit=0,  # who calls us bounds what is in flight
            keepalive_timeout=_KEEPALIVE_S,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,  # see body.py
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            headers={"User-Agent": self._agent},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.gate.close()
        await self._session.close()
        await self._resolver.close()

    async def get(
        self, url: str, *, kind: Literal["image", "page"], max_bytes: int | None = None
    ) -> Answer:
        """Return what came of asking for a URL.

        The deadline (``fetch.deadline_s``) bounds the time that servers have in all: every redirect
        and retry of this URL together, by the wall clock. Waiting for a domain's turn is not in it.

        Args:
            url: as found on a page.
            kind: decides what is accepted and which opt-outs count.
            max_bytes: cap on the body; by default ``fetch.max_body_bytes``.

        Raises:
            StorageError: this machine ran out of sockets or memory.
        """
        parsed = parse(url)
        if isinstance(parsed, Refusal):
            return Answer(url, refusal=parsed)
        return await self._attempts(
            parsed, _Ask(kind, max_bytes or self._fetch.max_body_bytes, self._fetch.deadline_s)
        )

    async def _get_robots(self, url: URL) -> Answer:
        most = MAX_ROBOTS_BYTES + 1  # a byte more tells the reader that there is more
        return await self._attempts(url, _Ask("robots", most, self._fetch.deadline_s))

    async def _attempts(self, url: URL, ask: _Ask) -> Answer:
        """Follow the URL until it ends in something that a retry would not change."""
        for attempt in range(self._fetch.retries):
            answer = await self._follow(url, ask)
            if not _worth_retrying(answer.refusal) or ask.left_s <= 0:
                return answer
            await asyncio.sleep(self._backoff_s(url, attempt))
        return await self._follow(url, ask)

    def _backoff_s(self, url: URL, attempt: int) -> float:
        """Return 0.5, 1, 2, ... seconds, times a jitter in [0.5, 1.5) that seed and URL decide."""
        jitter = label_seed(self._seed, f"{attempt} {url}") / 2**64
        return _BACKOFF_S * 2.0**attempt * (0.5 + jitter)

    async def _follow(self, url: URL, ask: _Ask) -> Answer:
        """Return the end of a chain of redirects; the gate is asked at each hop."""
        answer = Answer(str(url))
        for _ in range(self._fetch.max_redirects + 1):
            refusal = await self.gate.refusal(url, robots=ask.what != "robots")
            if refusal is not None:
                if refusal.reason is Reason.CREDENTIALS_IN_URL:
                    url = url.with_user(None)  # somebody's password goes into no table
                return Answer(str(url), answer.status, refusal=refusal)
            answer, onward = await self._hop(url, ask)
            if onward is None:
                return answer
            following = parse(onward)
            if isinstance(following, Refusal):
                return Answer(str(url), answer.status, refusal=following)
            try:
                url = url.join(following)
            except ValueError as error:
                return Answer(str(url), answer.status, refusal=Refusal(Reason.BAD_URL, str(error)))
        refusal = Refusal(Reason.REDIRECT_LOOP, f"more than {self._fetch.max_redirects} redirects")
        return Answer(str(url), answer.status, refusal=refusal)

    async def _hop(self, url: URL, ask: _Ask) -> tuple[Answer, str | None]:
        """Make one request in its domain's turn; return its answer, and where it sends us on to."""
        try:
            async with self.gate.turn(url):
                if ask.left_s <= 0:
                    return Answer(str(url), refusal=self._too_late()), None
                started = time.monotonic()
                try:
                    async with asyncio.timeout(ask.left_s):
                        return await self._request(url, ask)
                finally:
                    ask.left_s -= time.monotonic() - started
        except PausedError as error:
            refusal = Refusal(Reason.RATE_LIMITED, str(error), final=True)
        except TimeoutError:
            refusal = self._too_late()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            refusal = _failure(error)
        return Answer(str(url), refusal=refusal), None

    def _too_late(self) -> Refusal:
        return Refusal(Reason.DEADLINE, f"beyond {self._fetch.deadline_s:g} s")

    async def _request(self, url: URL, ask: _Ask) -> tuple[Answer, str | None]:
        headers = _ACCEPT[ask.what]
        async with self._session.get(url, headers=headers, allow_redirects=False) as response:
            # Leaving this context closes a connection whose body was not read to its end.
            try:
                return await self._response(url, response, ask)
            except (aiohttp.ClientError, OSError) as error:
                refusal = Refusal(Reason.BODY_INCOMPLETE, _text(error))
                return Answer(str(url), response.status, refusal=refusal), None

    async def _response(
        self, url: URL, response: aiohttp.ClientResponse, ask: _Ask
    ) -> tuple[Answer, str | None]:
        status = response.status
        onward = response.headers.get("Location") if status in _REDIRECTS else None
        if onward is not None or status >= 400:
            await _drain(response)
        seen = opt_outs(response.headers.items()) if ask.what in _OPT_OUT else []
        if onward is not None and not seen:
            return Answer(str(url), status), onward
        refusal = self._status_refusal(url, response)
        if seen and status < 400:
            refusal = Refusal(_OPT_OUT[ask.what], ", ".join(seen))
        content: bytes | Refusal = refusal or await body.read(
            response, ask.max_bytes, cut=ask.what == "robots"
        )
        kept = {h: response.headers[h] for h in _OF_INTEREST if h in response.headers}
        answer = Answer(
            str(url),
            status,
            kept,
            content if isinstance(content, bytes) else None,
            content if isinstance(content, Refusal) else None,
            seen,
        )
        return answer, None

    def _status_refusal(self, url: URL, response: aiohttp.ClientResponse) -> Refusal | None:
        """Return what a status refuses; a pause the server asks for holds for its domain."""
        status = response.status
        pause_s = _retry_after_s(response.headers.get("Retry-After", ""))
        if status == 429 or (status == 503 and pause_s is not None):
            self.gate.pause(url, _RATE_LIMITED_PAUSE_S if pause_s is None else pause_s)
            return Refusal(Reason.RATE_LIMITED, str(status))
        if status >= 500:
            return Refusal(Reason.HTTP_5XX, str(status))
        if status >= 400:
            return Refusal(Reason.HTTP_4XX, str(status))
        if status >= 300:
            return Refusal(Reason.REDIRECT_LOOP, f"{status} that leads nowhere")
        if status == 206:
            return Refusal(Reason.BODY_INCOMPLETE, "206 to a request for the whole", final=True)
        return None


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read a short body that nobody wants, so that its connection can serve the next request."""
    if (response.content_length or 0) <= _DRAINED_BYTES and "Content-Length" in response.headers:
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            await response.read()


def _worth_retrying(refusal: Refusal | None) -> bool:
    if refusal is None or refusal.final:
        return False
    # It is asked again after its pause, where that is short enough (pace.turn says).
    return KIND_OF[refusal.reason] is Kind.TRANSIENT or refusal.reason is Reason.RATE_LIMITED


def _retry_after_s(value: str) -> float | None:
    """Return the seconds a ``Retry-After`` asks for, in either of its forms; None without one."""
    if value.strip().isdecimal():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # a year or zone of twenty digits
        return None
    return max(0.0, when.timestamp() - time.time())


def _failure(error: Exception) -> Refusal:
    """Return the reason for a request that got no response.

    Raises:
        StorageError: the fault is this machine's.
    """
    causes = [error, getattr(error, "os_error", None), error.__cause__]
    if any(isinstance(c, OSError) and c.errno in _OUR_OWN_FAULT for c in causes):
        raise StorageError(
            f"this machine has no room for another connection: {_text(error)}",
            where="fetch.concurrency",
            fix="lower it, or raise the limit on open files (ulimit -n)",
        ) from error
    if any(isinstance(c, AddressRefusedError) for c in causes):
        return Refusal(Reason.PRIVATE_ADDRESS, _text(error))
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Refusal(Reason.DNS_FAILED, _text(error))
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError | ssl.CertificateError):
        return Refusal(Reason.TLS_FAILED, _text(error))
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return Refusal(Reason.BAD_URL, _text(error))
    return Refusal(Reason.CONNECT_FAILED, _text(error))


def _text(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
