"""What a URL of a site gave: from the visit's frontier where it has it, else from the web.

Rows come in the order in which they are asked for, whatever the order of answers: a window of
requests is under way, and only its head is waited for. In that order they are published, too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

import wit_builder
from wit_builder.crawl import visited
from wit_builder.crawl.frontier import Kind, Row, Taken, Visit
from wit_builder.crawl.sitemap import MAX_BYTES
from wit_builder.crawl.urls import BadUrlError, resolve
from wit_builder.crawl.visited import Site
from wit_builder.sections import FetchSection
from wit_builder.tables import Reason
from wit_builder.web.answer import Answer
from wit_builder.web.blocklists import Blocklists
from wit_builder.web.client import Client
from wit_builder.web.optouts import forbids_following

NOT_MODIFIED = 304
"""The status that says so."""

_STILL_SO = {None, Reason.NOT_HTML.value}
"""What a page stays that did not change."""


class Limits(msgspec.Struct, frozen=True):
    """How a site is asked: the recipe's limits, what must not be asked for, and by whom."""

    fetch: FetchSection
    max_html_bytes: int
    blocked: Blocklists
    agent: str


class Asked:
    """The rows of one visit, old and new.

    Args:
        site: what belongs to it.
        limits: of asking.
        visit: takes new rows.
        before: the visit before; None if this is the first.
        client: asks.
    """

    def __init__(
        self, site: Site, limits: Limits, visit: Visit, before: Visit | None, client: Client
    ) -> None:
        self._site, self._limits = site, limits
        self._visit, self._before, self._client = visit, before, client

    async def pages(self, urls: list[str], depth: int, take: Callable[[Row], None]) -> None:
        """Give the row of every page to ``take``, in order.

        Raises:
            StorageError: a part cannot be written, or this machine has no more sockets; in a group.
        """
        waiting: deque[Row | asyncio.Task[Taken]] = deque()
        async with asyncio.TaskGroup() as group:
            for url in urls:
                if len(waiting) == self._limits.fetch.concurrency:
                    take(await self._row(waiting.popleft()))
                kept = self._kept("page", url)
                waiting.append(kept or group.create_task(self._page(url, depth)))
            while waiting:
                take(await self._row(waiting.popleft()))

    async def sitemap(self, url: str) -> Row:
        """Return what a sitemap gave."""
        return self._kept("sitemap", url) or await self._new(self._sitemap(url))

    async def named_sitemaps(self, origin: str) -> list[str]:
        """Return the sitemaps that the robots.txt of an origin (``https://example.org``) names."""
        url = origin + "/robots.txt"
        row = self._kept("robots", url) or await self._new(self._robots(url))
        return row.sitemaps

    # --- what is kept ------------------------------------------------------

    def _kept(self, kind: Kind, url: str) -> Row | None:
        """Return the row of an earlier start of this visit, if it still holds."""
        row = self._visit.row(kind, url)
        return row if row is not None and self._holds(row) else None

    def _holds(self, row: Row) -> bool:
        """Return whether the row is what asking now would give, were the site as it was.

        It is not where the recipe has a host more now, or is to keep pages, or blocks more.
        """
        if row.reason == Reason.MOVED and self._site.has_host(row.final_url):
            return False
        is_read = row.kind == "page" and row.reason is None and not row.opt_outs
        if is_read and self._site.keeps_pages and row.warc_length is None:
            return False
        return not any(map(self._limits.blocked.of_url, (row.url, row.final_url)))

    def _known_before(self, kind: Kind, url: str) -> Row | None:
        """Return the row of the visit before, if a server may tell that it is true still."""
        row = self._before.row(kind, url) if self._before else None
        if row is None or row.reason not in _STILL_SO or not self._holds(row):
            return None
        return row if row.etag or row.last_modified else None

    # --- what is asked -----------------------------------------------------

    async def _page(self, url: str, depth: int) -> Taken:
        known = self._known_before("page", url)
        answer = await self._get("page", url, known)
        if known is None or answer.status != NOT_MODIFIED or answer.refusal is not None:
            return visited.of_page(url, depth, answer, self._site)
        record = None
        if self._site.keeps_pages and self._before is not None:
            record = await asyncio.to_thread(self._before.record, known)
        return Taken(_unchanged(known, depth, answer), record)

    async def _sitemap(self, url: str) -> Taken:
        known = self._known_before("sitemap", url)
        answer = await self._get("sitemap", url, known)
        if known is None or answer.status != NOT_MODIFIED or answer.refusal is not None:
            return Taken(visited.of_sitemap(url, answer, self._site))
        return Taken(_unchanged(known, 0, answer))

    async def _get(self, kind: Kind, url: str, known: Row | None) -> Answer:
        """Ask for what changed since a row was made; for all of it if there is none."""
        assert kind != "robots"
        most = MAX_BYTES if kind == "sitemap" else self._limits.max_html_bytes
        if known is not None:
            answer = await self._client.get(url, kind=kind, max_bytes=most, since=_since(known))
            if answer.status != NOT_MODIFIED or visited.address_of(answer) == known.final_url:
                return answer
            # it leads elsewhere now, and what was kept is not of that page
        return await self._client.get(url, kind=kind, max_bytes=most)

    async def _robots(self, url: str) -> Taken:
        named = []
        for address in await self._client.gate.sitemaps(url):
            try:
                named.append(resolve(address, url))
            except BadUrlError:
                continue
        row = Row(url=url, kind="robots", depth=0, asked_at=visited.now(), final_url=url)
        return Taken(msgspec.structs.replace(row, sitemaps=list(dict.fromkeys(named))))

    # --- what is written down ----------------------------------------------

    async def _row(self, row: Row | asyncio.Task[Taken]) -> Row:
        """Return a row; one that is new is written down with the next part."""
        if isinstance(row, Row):
            return row
        while not row.done():
            await asyncio.wait([row], timeout=self._due_in_s)
            await self._publish_if_due()
        taken = row.result()
        self._visit.add(taken)
        await self._publish_if_due()
        return taken.row

    async def _new(self, asking: Coroutine[Any, Any, Taken]) -> Row:
        async with asyncio.TaskGroup() as group:
            return await self._row(group.create_task(asking))

    async def _publish_if_due(self) -> None:
        if self._due_in_s == 0:
            await self.publish()

    @property
    def _due_in_s(self) -> float | None:
        return self._visit.due_in_s(self._limits.fetch.part_s)

    async def publish(self) -> None:
        """Write down what is new: rows, pages, and what the next worker must know of the domain.

        Raises:
            StorageError: disk full, no permission, bucket unreachable.
        """
        await asyncio.to_thread(self._visit.publish, self._about)
        await self._client.gate.save()

    @property
    def _about(self) -> dict[str, str]:
        return {
            "software": f"wit-builder/{wit_builder.__version__}",
            "format": "WARC File Format 1.1",
            "isPartOf": self._site.domain,
            "http-header-user-agent": self._limits.agent,
            "robots": "obey",
        }

    def forget(self) -> None:
        """Remove all rows of this visit, so that all is asked for again.

        Raises:
            StorageError: no permission, bucket unreachable.
        """
        self._visit.forget()


def _since(row: Row) -> dict[str, str]:
    headers = {"If-None-Match": row.etag, "If-Modified-Since": row.last_modified}
    return {name: value for name, value in headers.items() if value}


def _unchanged(row: Row, depth: int, answer: Answer) -> Row:
    """Return the row of a page that is as it was."""
    return msgspec.structs.replace(
        row,
        depth=depth,
        asked_at=visited.now(),
        status=answer.status,
        etag=visited.validator(answer.headers, "etag") or row.etag,
        last_modified=visited.validator(answer.headers, "last-modified") or row.last_modified,
        warc_offset=None,
        warc_length=None,
        links=[] if forbids_following(answer.head) else row.links,
    )
