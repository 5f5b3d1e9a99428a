"""The one place that says whether a request may be made; every answer is a reason or permission.

Asked anew for every hop of a redirect. It checks, in this order: the URL itself (http or https, no
credentials), the block-lists, the host's addresses, robots.txt, and the domain's pace. Opt-outs
come with a response, so the client checks them, before it reads the body.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable

from yarl import URL

from wit_builder.sections import FetchSection
from wit_builder.tables import Reason
from wit_builder.web.addresses import Resolver, is_literal
from wit_builder.web.answer import Answer, Refusal
from wit_builder.web.blocklists import Blocklists
from wit_builder.web.domains import registrable
from wit_builder.web.notes import Notes
from wit_builder.web.pace import Pace
from wit_builder.web.robots import Robots

_MAX_HOST_CHARS = 253  # RFC 1035, section 2.3.4: 255 octets with lengths and root
_NUMERIC_END = re.compile(r"(^|\.)(0x[0-9a-f]*|[0-9]+)\.?$")


class Gate:
    """Says whether a URL may be asked for, and when.

    Args:
        fetch: limits per domain.
        resolver: whose addresses are connected to.
        ask_robots: asks for a robots.txt's URL through this gate, but for its rules.
        blocked: what must not be asked for.
        notes: what earlier workers learnt; ``save`` adds to them.
    """

    def __init__(
        self,
        fetch: FetchSection,
        resolver: Resolver,
        ask_robots: Callable[[URL], Awaitable[Answer]],
        blocked: Blocklists,
        notes: Notes,
    ) -> None:
        self._resolver = resolver
        self._blocked = blocked
        self._notes = notes
        self._robots = Robots(ask_robots, notes)
        self.pace = Pace(fetch, notes.pauses)

    async def refusal(self, url: URL, *, robots: bool = True) -> Refusal | None:
        """Return why the URL must not be asked for, or not now; None is permission.

        Args:
            url: one hop, parsed.
            robots: False for robots.txt itself, which nobody forbids.
        """
        found = self.refusal_unasked(url)
        if found is None:
            assert url.raw_host is not None
            addresses = await self._resolver.addresses(url.raw_host)
            found = addresses if isinstance(addresses, Refusal) else None
        if found is None and robots:
            found = await self._rules_refusal(url)
        return found

    def refusal_unasked(self, url: URL) -> Refusal | None:
        """Return why the URL must not be asked for, as far as nobody need be asked; or None."""
        found = form_refusal(url) or self._blocked.of_url(str(url))
        return found or self._resolver.literal_refusal(url.raw_host or "")

    async def _rules_refusal(self, url: URL) -> Refusal | None:
        rules = await self._robots.rules(url)
        if isinstance(rules, Refusal):
            return rules
        if rules.crawl_delay_s:
            self.pace.slow_down(domain_of(url), rules.crawl_delay_s)
        return rules.refusal(str(url))

    async def sitemaps(self, url: str) -> list[str]:
        """Return the sitemaps that the robots.txt of a URL's origin names, if it can be had.

        Args:
            url: any of the origin that may be asked for.
        """
        parsed = parse(url)
        if isinstance(parsed, Refusal) or await self.refusal(parsed, robots=False) is not None:
            return []
        rules = await self._robots.rules(parsed)
        return [] if isinstance(rules, Refusal) else rules.sitemaps

    def turn(self, url: URL) -> contextlib.AbstractAsyncContextManager[None]:
        """Return a context to make the request in: entered when it is the domain's turn.

        Raises:
            PausedError: on entering, if the domain is to be left alone for longer than we wait.
        """
        return self.pace.turn(domain_of(url))

    async def save(self) -> None:
        """Write down what a later worker must know: robots.txt files, and pauses.

        Raises:
            StorageError: disk full, no permission, bucket unreachable.
        """
        await asyncio.to_thread(self._notes.publish, self.pace.pauses())

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
        return Refusal(
            Reason.BAD_URL, f"malformed: {type(error).__name__}"
        )  # it may have a password
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
    if len(host.rstrip(".")) > _MAX_HOST_CHARS:
        return Refusal(Reason.BAD_URL, f"a host of more than {_MAX_HOST_CHARS} characters")
    if "%" in host:
        return Refusal(Reason.BAD_URL, "a host with a zone or an escape")
    if _NUMERIC_END.search(host) and not is_literal(host):
        # 2130706433, 0x7f.1 and 127.1 are spellings of 127.0.0.1 that only some parsers read.
        return Refusal(Reason.BAD_URL, "a numeric host that is no IP address")
    return None
