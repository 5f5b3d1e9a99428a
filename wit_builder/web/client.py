"""Asking the web: one session, one deadline, capped bodies, and every end has a reason.

What an end means for the next request stands in ``answer.KIND_OF``. Redirects are followed by hand,
``fetch.max_redirects`` hops at most, each a new question to the gate. One to another registrable
domain ends as ``moved``: that domain's owner has to ask. Only a robots.txt is followed there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import SimpleNamespace, TracebackType
from typing import Literal, Self

import aiohttp
from msgspec import structs
from yarl import URL

from wit_builder.hashing import label_seed
from wit_builder.sections import FetchSection
from wit_builder.tables import Reason
from wit_builder.web import body
from wit_builder.web.addresses import Lookup, Loopback, Resolver
from wit_builder.web.agent import user_agent
from wit_builder.web.answer import KIND_OF, Answer, Kind, Refusal
from wit_builder.web.blocklists import NOTHING_BLOCKED, Blocklists
from wit_builder.web.failures import refusal_of, words_of
from wit_builder.web.gate import Gate, domain_of, parse
from wit_builder.web.notes import Notes
from wit_builder.web.optouts import opt_outs
from wit_builder.web.pace import PausedError
from wit_builder.web.retry_after import retry_after_s
from wit_builder.web.robots import MAX_BYTES as MAX_ROBOTS_BYTES
from wit_builder.web.room import FREE_BYTES, Hold, Room

What = Literal["image", "page", "sitemap", "robots"]

_ACCEPT: dict[What, dict[str, str]] = {
    # Pictures are compressed already; asking for them as they are keeps digests meaningful.
    "image": {"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
    "page": {"Accept": "text/html,application/xhtml+xml", "Accept-Encoding": "gzip, deflate"},
    # No opt-outs: a sitemap's "noindex" is about the file, not about the pages that it names.
    "sitemap": {"Accept": "application/xml,text/xml,*/*;q=0.5", "Accept-Encoding": "gzip, deflate"},
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
_SOON_S = 0.1
_DRAINED_BYTES = 1 << 14
_NO_ANSWER = {Reason.CONNECT_FAILED, Reason.TLS_FAILED, Reason.DEADLINE, Reason.HTTP_5XX}
"""What makes the circuit breaker open when it happens in a row."""


class Asking:
    """One URL being asked for, in one try or several.

    Attributes:
        url: as it was found.
        what: it is asked for as.
        max_bytes: cap on the body.
        redirects: that led to ``url``; they count.
        since: headers that make the request conditional.
        left_s: the time that servers still have.
        tries: so far.
        turn_at: when the turn of its last request began, by ``time.monotonic``.
        patient: wait for the first turn; else ``NotYetError`` tells when it comes.
        status: of the last response, in any try.
        hold: of the memory that the body takes; whoever is done with the body lets it shrink.
    """

    def __init__(self, url: str, what: What, max_bytes: int, left_s: float, hold: Hold) -> None:
        self.url = url
        self.what: What = what
        self.max_bytes = max_bytes
        self.left_s = left_s
        self.hold = hold
        self.redirects = 0
        self.since: dict[str, str] = {}
        self.tries = 0
        self.turn_at = 0.0
        self.patient = True
        self.status: int | None = None


class NotYetError(Exception):
    """It is not a domain's turn yet; nothing was sent."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"its turn comes in {seconds:.1f} s")
        self.seconds = seconds


class Client:
    """Asks for URLs, politely; use as ``async with Client(...) as client``.

    Args:
        fetch: the recipe's limits, and the contact.
        loopback: host pattern -> ``address:port`` of this machine; for tests and the demo only.
        seed: of the jitter between retries.
        lookup: name -> addresses, instead of the system's resolver.
        blocked: what must not be asked for.
        notes: robots.txt files and pauses that outlive this client.

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
        blocked: Blocklists = NOTHING_BLOCKED,
        notes: Notes | None = None,
    ) -> None:
        self._fetch = fetch
        self._seed = seed
        mapped = Loopback(loopback or {})
        mapped_only = bool(mapped) and not fetch.contact
        self._agent = user_agent(fetch.contact, loopback_only=mapped_only)
        self._resolver = Resolver(mapped, mapped_only=mapped_only, lookup=lookup)
        self._room = Room(fetch.max_held_bytes)
        self.gate = Gate(fetch, self._resolver, self._get_robots, blocked, notes or Notes())

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            use_dns_cache=False,  # the resolver keeps its own, checked answers
            socket_factory=self._resolver.make_socket,
            limit=0,  # who calls us bounds what is in flight
            keepalive_timeout=_KEEPALIVE_S,
        )
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_create_end.append(self._connected)
        tracing.on_request_headers_sent.append(self._sent)
        self._session = aiohttp.ClientSession(
            connector=connector,
            trace_configs=[tracing],
            auto_decompress=False,  # see body.py
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            read_bufsize=FREE_BYTES // 2,  # a socket with twice as much unread is stopped
            headers={"User-Agent": self._agent},
        )
        # Else it would ask again by itself, at once, when a kept connection is closed under it.
        self._session._retry_connection = False  # noqa: SLF001 - there is no public way
        return self

    async def _connected(self, _: object, context: SimpleNamespace, __: object) -> None:
        """Keep the interval where connecting took long."""
        url, asking = context.trace_request_ctx
        async with asking.hold.unhurried():
            await self.gate.pace.connected(domain_of(url), asking.turn_at)

    async def _sent(self, _: object, context: SimpleNamespace, __: object) -> None:
        """Count the interval from when a request left: a busy event loop may take its time."""
        url, _ = context.trace_request_ctx
        self.gate.pace.sent(domain_of(url))

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
        self,
        url: str,
        *,
        kind: Literal["image", "page", "sitemap"],
        max_bytes: int | None = None,
        since: dict[str, str] | None = None,
    ) -> Answer:
        """Return what came of asking for a URL, in as many tries as it takes.

        The deadline (``fetch.deadline_s``) bounds the time that servers have in all: every redirect
        and retry of this URL together, by the wall clock. Waiting for a domain's turn is not in it.

        Args:
            url: as found on a page.
            kind: decides what is accepted and which opt-outs count.
            max_bytes: cap on the body; by default ``fetch.max_body_bytes``.
            since: headers that make the request conditional (``If-None-Match``,
                ``If-Modified-Since``); a 304 then has neither body nor refusal.

        Raises:
            StorageError: this machine ran out of sockets or memory.
        """
        asking = self.begin(url, kind, max_bytes)
        asking.since = since or {}
        return await self._finish(asking)

    async def _get_robots(self, url: URL) -> Answer:
        most = MAX_ROBOTS_BYTES + 1  # a byte more tells the reader that there is more
        return await self._finish(self.begin(str(url), "robots", most))

    async def _finish(self, asking: Asking) -> Answer:
        try:
            answer = await self.attempt(asking)
            while (wait_s := self.again_in_s(asking, answer)) is not None:
                await asyncio.sleep(wait_s)
                answer = await self.attempt(asking)
            return answer
        finally:
            asking.hold.shrink()

    def begin(self, url: str, what: What, max_bytes: int | None = None) -> Asking:
        """Return a URL to be asked for by ``attempt``."""
        most = max_bytes or self._fetch.max_body_bytes
        return Asking(url, what, most, self._fetch.deadline_s, self._room.hold())

    def again_in_s(self, asking: Asking, answer: Answer) -> float | None:
        """Return in how many seconds another attempt is worth while; None where none is.

        It is 0.5, 1, 2, ... times a jitter in [0.5, 1.5) that seed and URL decide.
        """
        if asking.tries > self._fetch.retries or asking.left_s <= 0:
            return None
        if not _worth_retrying(answer.refusal):
            return None
        jitter = label_seed(self._seed, f"{asking.tries - 1} {asking.url}") / 2**64
        return float(_BACKOFF_S * 2.0 ** (asking.tries - 1) * (0.5 + jitter))

    async def attempt(self, asking: Asking) -> Answer:
        """Return the end of one chain of redirects; the gate is asked at each hop.

        The body's memory is held (``asking.hold``) until somebody lets it go.

        Raises:
            NotYetError: robots.txt was asked for just now, or asks for a longer interval; the first
                request's turn is not soon, and ``asking.patient`` is false. It is no attempt.
            StorageError: this machine ran out of sockets or memory.
        """
        answer = await self._follow(asking)
        asking.tries += 1
        asking.hold.shrink(len(answer.body or b""))
        return answer

    async def _follow(self, asking: Asking) -> Answer:
        parsed = parse(asking.url)
        if isinstance(parsed, Refusal):
            return Answer(asking.url, refusal=parsed)
        url, home, status = parsed, domain_of(parsed), None
        for redirects in range(asking.redirects, self._fetch.max_redirects + 1):
            refusal = await self.gate.refusal(url, robots=asking.what != "robots")
            if refusal is not None:
                return _refused(url, status, redirects, refusal)
            wait_s = self.gate.pace.ready_in_s(home)
            if wait_s > _SOON_S and not asking.patient and redirects == asking.redirects:
                raise NotYetError(wait_s)
            answer, onward = await self._hop(url, asking)
            status = answer.status or status
            if onward is None:
                return structs.replace(answer, status=status, redirects=redirects)
            following = _joined(url, onward)
            if isinstance(following, Refusal):
                return _refused(url, status, redirects, following)
            if redirects == self._fetch.max_redirects:
                break
            if asking.what != "robots" and domain_of(following) != home:
                refusal = self.gate.refusal_unasked(following) or Refusal(Reason.MOVED, final=True)
                return _refused(following, status, redirects + 1, refusal)
            url = following
        refusal = Refusal(Reason.REDIRECT_LOOP, f"more than {self._fetch.max_redirects} redirects")
        return _refused(url, status, redirects, refusal)

    async def _hop(self, url: URL, asking: Asking) -> tuple[Answer, str | None]:
        """Make one request in its domain's turn; return its answer, and where it sends us on to."""
        onward = None
        try:
            async with self.gate.turn(url):
                answer, onward = await self._in_turn(url, asking)
        except PausedError as error:
            refusal = Refusal(error.reason, str(error), final=True)
            return Answer(str(url), asking.status, refusal=refusal), None
        asking.status = answer.status or asking.status
        self._tell_pace(url, answer)
        return answer, onward

    async def _in_turn(self, url: URL, asking: Asking) -> tuple[Answer, str | None]:
        if asking.left_s <= 0:
            return Answer(str(url), refusal=self._too_late()), None
        asking.turn_at = time.monotonic()
        try:
            async with asyncio.timeout(asking.left_s) as limit:
                asking.hold.limit = limit
                return await self._request(url, asking)
        except TimeoutError:
            refusal = self._too_late()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            refusal = refusal_of(error)
        finally:
            waited_s, asking.hold.waited_s = asking.hold.waited_s, 0.0
            asking.left_s -= time.monotonic() - asking.turn_at - waited_s
        return Answer(str(url), refusal=refusal), None

    def _tell_pace(self, url: URL, answer: Answer) -> None:
        """Let the circuit breaker know how it went; a 429 or 503 has had its pause already."""
        reason = answer.refusal.reason if answer.refusal else None
        if reason in _NO_ANSWER:
            self.gate.pace.failed(domain_of(url))
        elif reason is not Reason.RATE_LIMITED:
            self.gate.pace.succeeded(domain_of(url))

    def _too_late(self) -> Refusal:
        return Refusal(Reason.DEADLINE, f"beyond {self._fetch.deadline_s:g} s")

    async def _request(self, url: URL, ask: Asking) -> tuple[Answer, str | None]:
        headers = _ACCEPT[ask.what] | ask.since
        asked = self._session.get(
            url, headers=headers, allow_redirects=False, trace_request_ctx=(url, ask)
        )
        async with asked as response:
            # Leaving this context closes a connection whose body was not read to its end.
            try:
                return await self._response(url, response, ask)
            except (aiohttp.ClientError, OSError) as error:
                refusal = Refusal(Reason.BODY_INCOMPLETE, words_of(error))
                return Answer(str(url), response.status, refusal=refusal), None

    async def _response(
        self, url: URL, response: aiohttp.ClientResponse, ask: Asking
    ) -> tuple[Answer, str | None]:
        status = response.status
        onward = response.headers.get("Location") if status in _REDIRECTS else None
        if onward is not None or status >= 400:
            await _drain(response)
        seen = opt_outs(response.headers.items()) if ask.what in _OPT_OUT else []
        if onward is not None and not seen:
            return Answer(str(url), status), onward
        if status == 304 and ask.since and not seen:
            return Answer(str(url), status, headers=_kept(response), head=_head(response)), None
        refusal = self._status_refusal(url, response)
        if seen and status < 400:
            refusal = Refusal(_OPT_OUT[ask.what], ", ".join(seen))
        content: bytes | Refusal = refusal or await body.read(
            response, ask.max_bytes, ask.hold, cut=ask.what == "robots"
        )
        answer = Answer(
            str(url),
            status,
            headers=_kept(response),
            head=_head(response) if ask.what == "page" else [],
            body=content if isinstance(content, bytes) else None,
            refusal=content if isinstance(content, Refusal) else None,
            opt_outs=seen,
        )
        return answer, None

    def _status_refusal(self, url: URL, response: aiohttp.ClientResponse) -> Refusal | None:
        """Return what a status refuses; a pause the server asks for holds for its domain."""
        status = response.status
        if status < 300 and status != 206:
            return None
        pause_s = retry_after_s(response.headers.get("Retry-After", ""))
        if status == 429 or (status == 503 and pause_s is not None):
            self.gate.pace.pause(domain_of(url), pause_s)
            return Refusal(Reason.RATE_LIMITED, str(status))
        if status >= 500:
            return Refusal(Reason.HTTP_5XX, str(status))
        if status >= 400:
            return Refusal(Reason.HTTP_4XX, str(status))
        if status >= 300:
            return Refusal(Reason.REDIRECT_LOOP, f"{status} that leads nowhere")
        return Refusal(Reason.BODY_INCOMPLETE, "206 to a request for the whole", final=True)


def _refused(url: URL, status: int | None, redirects: int, refusal: Refusal) -> Answer:
    """Return the answer for a URL that was not asked for."""
    if "@" in url.raw_authority:
        url = url.with_user(None)  # somebody's password goes into no table
    return Answer(str(url), status, redirects, refusal=refusal)


def _joined(url: URL, onward: str) -> URL | Refusal:
    following = parse(onward)
    if isinstance(following, Refusal):
        return following
    try:
        return url.join(following)
    except ValueError as error:
        return Refusal(Reason.BAD_URL, str(error))


def _kept(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {h: response.headers[h] for h in _OF_INTEREST if h in response.headers}


def _head(response: aiohttp.ClientResponse) -> list[tuple[str, str]]:
    return list(response.headers.items())


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read a short body that nobody wants, so that its connection can serve the next request."""
    if (response.content_length or 0) <= _DRAINED_BYTES and "Content-Length" in response.headers:
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            await response.read()


def _worth_retrying(refusal: Refusal | None) -> bool:
    if refusal is None or refusal.final:
        return False
    # It is asked again after its pause, where that is short enough (pace says).
    return KIND_OF[refusal.reason] is Kind.TRANSIENT or refusal.reason is Reason.RATE_LIMITED
