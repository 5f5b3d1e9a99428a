"""The one place that says whether a request may be made; every answer is a reason or permission.

Asked anew for every hop of a redirect. It checks, in this order: the URL itself (http or https, no
credentials), the host's addresses, robots.txt, and the domain's pace. Opt-outs come with a
response, so the client checks them, before it reads the body.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable

from yarl import URL

from wit_builder.sections import FetchSection
from wit_builder.tables import Reason
from wit_builder.web.addresses import Resolver, is_literal
from wit_builder.web.answer import Answer, Refusal
from wit_builder.web.domains import registrable
from wit_builder.web.pace import Pace
from wit_builder.web.robots import Robots

_NUMERIC_END = re.compile(r"(^|\.)(0x[0-9a-f]*|[0-9]+)\.?$")


class Gate:
    """Says whether a URL may be asked for, and when.

    Args:
        fetch: limits per domain.
        resolver: whose addresses are connected to.
        ask_robots: asks for a robots.txt's URL through this gate, but for its rules.
    """

    def __init__(
        self,
        fetch: FetchSection,
        resolver: Resolver,
        ask_robots: Callable[[URL], Awaitable[Answer]],
    ) -> None:
        self._resolver = resolver
        self._robots = Robots(ask_robots)
        self.pace = Pace(
            fetch.per_domain_concurrency, fetch.per_domain_interval_s, fetch.deadline_s
        )

    async def refusal(self, url: URL, *, robots: bool = True) -> Refusal | None:
        """Return why the URL must not be asked for, or not now; None is permission.

        Args:
            url: one hop, parsed.
            robots: False for robots.txt itself, which nobody forbids.
        """
        found = form_refusal(url)
        if found is None:
            assert url.raw_host is not None
            addresses = await self._resolver.addresses(url.raw_host)
            found = addresses if isinstance(addresses, Refusal) else None
        if found is None and robots:
            found = await self._robots.refusal(url)
        return found

    def turn(self, url: URL) -> contextlib.AbstractAsyncContextManager[None]:
        """Return a context to make the request in: entered when it is the domain's turn.

        Raises:
            PausedError: on entering, if the domain asked for a pause beyond the deadline.
        """
        return self.pace.turn(domain_of(url))

    def pause(self, url: URL, seconds: float) -> None:
        """Let nobody ask the URL's domain for so long."""
        self.pace.pause(domain_of(url), seconds)

    async def close(self) -> None:
        """End what is still being asked for."""
        await self._robots.close()


def domain_of(url: URL) -> str:
    """Return the registrable domain of a URL's host."""
    return registrable(url.raw_host or "")


def parse(url: str) -> URL | Refusal:
    """Return a URL parsed and without its fragment, or why it cannot be one."""
    try:
        parsed = URL(url.strip()).with_fragment(None)
    except (ValueError, TypeError) as error:
        return Refusal(Reason.BAD_URL, str(error)[:200])
    return parsed


def form_refusal(url: URL) -> Refusal | None:
    """Return why a URL must not be asked for whatever its host resolves to, or None."""
    if url.scheme not in {"http", "https"}:
        return Refusal(Reason.SCHEME_REFUSED, url.scheme or "no scheme")
    if "@" in url.raw_authority:
        return Refusal(Reason.CREDENTIALS_IN_URL)
    host = (url.raw_host or "").lower()
    if not host:
        return Refusal(Reason.BAD_URL, "no host")
    if _NUMERIC_END.search(host) and not is_literal(host):
        # 2130706433, 0x7f.1 and 127.1 are spellings of 127.0.0.1 that only some parsers read.
        return Refusal(Reason.BAD_URL, "a numeric host that is no IP address")
    return None
