"""Candidates from a live crawl: breadth first from seeds and sitemaps, within the seeds' hosts.

What a level asks for is known before, and read in the order in which its pages were found, so that
a site that does not change gives the same candidates in the same order, however its answers arrive.
All that is read goes to the frontier on disk in that order, and a URL that a part has is not asked
for again (``frontier``). Robots rules and header opt-outs are the client's to obey, page opt-outs
and ``nofollow`` the reader's.

A later visit makes its requests conditional on what the visit before was told. A page that did not
change keeps what was found on it then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from functools import partial
from urllib.parse import urlsplit

import msgspec

from wit_builder import storage
from wit_builder.crawl import frontier, visited
from wit_builder.crawl.asked import NOT_MODIFIED, Asked, Limits
from wit_builder.crawl.candidates import Collector, Output, Piece, Source, collecting, done
from wit_builder.crawl.frontier import Row, Visit
from wit_builder.crawl.urls import BadUrlError, normalise
from wit_builder.crawl.visited import Site
from wit_builder.errors import ArchiveError, RecipeError
from wit_builder.recipe import digest
from wit_builder.sections import BlockSection, FetchSection, SiteSource
from wit_builder.storage import Published
from wit_builder.tables import FORMAT_VERSION, REMOVED_TABLE, Reason
from wit_builder.units import Done
from wit_builder.web.agent import user_agent
from wit_builder.web.blocklists import Blocklists
from wit_builder.web.client import Client
from wit_builder.web.domains import registrable
from wit_builder.web.notes import Notes

NOTHING_BLOCKED = BlockSection()
"""No list."""

_MAX_SITEMAPS = 200
"""Files that are read for one domain; all but the greatest sites have fewer."""
_MAX_INDEX_DEPTH = 2
"""Indices of indices, which the protocol does not have, are followed; theirs in turn are not."""


class SiteJob(msgspec.Struct, frozen=True):
    """One visit of one registrable domain, how to ask, and where candidates go.

    Attributes:
        seeds: of the domain.
        source: the recipe's section; its other seeds are other jobs'.
        visit: which one this is, at most ``source.visit``.
        max_html_bytes: larger pages are rejected unread.
        fetch: how to ask.
        block: what must not be asked for.
        loopback: host pattern -> ``address:port`` of this machine, for tests and the demo only.
        output: where candidates and rejections go, and the run's folder.
    """

    seeds: list[str]
    source: SiteSource
    visit: int
    max_html_bytes: int
    fetch: FetchSection
    block: BlockSection
    loopback: dict[str, str]
    output: Output


def pieces(
    source: SiteSource,
    fetch: FetchSection,
    max_html_bytes: int,
    loopback: dict[str, str],
    block: BlockSection = NOTHING_BLOCKED,
) -> list[Piece]:
    """Return a piece for every registrable domain among the seeds: the last visit of it.

    One worker owns a domain, so its limits hold. ``max_pages`` holds for each.

    Raises:
        RecipeError: a seed is not a URL that can be crawled.
    """
    by_domain: dict[str, list[str]] = {}
    for seed in dict.fromkeys(map(_seed, source.seeds)):
        by_domain.setdefault(registrable(urlsplit(seed).hostname or ""), []).append(seed)
    made = []
    for domain, seeds in by_domain.items():
        visits: list[Piece] = []
        for visit in range(1, source.visit + 1):
            job = partial(SiteJob, seeds, source, visit, max_html_bytes, fetch, block, loopback)
            key = domain if visit == 1 else f"{domain}, visit {visit}"
            asked = [*seeds, f"{source.max_depth}:{source.max_pages}:{source.sitemaps}:{visit}"]
            visits.append(Piece("site", key, asked, job, tuple(visits)))
        made.append(visits[-1])
    return made


def _seed(url: str) -> str:
    try:
        return normalise(url)
    except BadUrlError as error:
        raise RecipeError(
            f"a seed cannot be crawled: {error}",
            where="crawl.sources seeds",
            fix="give URLs such as https://example.org/",
        ) from error


def run(job: SiteJob) -> Done:
    """Write the candidates of one visit of a domain; what a killed one asked is not asked again.

    Counts ``pages``, ``candidates``, ``repeated``, ``unchanged`` (since the visit before), ``left
    the site``, ``sitemaps`` and ``rejected:REASON``.

    Raises:
        ArchiveError: no seed could be reached, or all lead elsewhere.
        RecipeError: no contact is set for the live web, or a block-list cannot be read.
        StorageError: the frontier or the output cannot be written.
    """
    published: list[Published] = []
    with collecting(job.output, published) as collector:
        try:
            asyncio.run(_crawl(job, collector))
        except BaseExceptionGroup as group:
            raise _first(group) from group
    return done(collector, published)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


_UNREACHED = {
    Reason.DNS_FAILED,
    Reason.CONNECT_FAILED,
    Reason.TLS_FAILED,
    Reason.DEADLINE,
    Reason.HTTP_5XX,
    Reason.ROBOTS_UNREACHABLE,
    Reason.RATE_LIMITED,
    Reason.DOMAIN_DOWN,
    Reason.MOVED,
}
"""Ends that a seed must not have: done with nothing would be done for good."""


async def _crawl(job: SiteJob, collector: Collector) -> None:
    root = job.output.root
    removed = storage.join(root, REMOVED_TABLE)
    blocked = Blocklists.load(job.block, removed if storage.exists(removed) else None)
    domain = registrable(urlsplit(job.seeds[0]).hostname or "")
    hosts = frozenset(urlsplit(seed).netloc for seed in job.seeds)
    site = Site(domain, hosts, job.source.warc)
    folder = frontier.folder_of(storage.join(root, "sites"), domain)
    made_by = digest([FORMAT_VERSION, job.max_html_bytes, job.fetch.max_redirects])
    last = frontier.last_before(folder, job.visit)
    limits = Limits(job.fetch, job.max_html_bytes, blocked, _agent(job))
    notes = Notes(storage.join(folder, "notes"))
    async with Client(job.fetch, loopback=job.loopback, blocked=blocked, notes=notes) as client:
        visit = Visit(folder, job.visit, made_by)
        before = None if last is None else Visit(folder, last, made_by)
        asked = Asked(site, limits, visit, before, client)
        await _Crawl(job, site, asked, collector).finish()


def _agent(job: SiteJob) -> str:
    contact = job.fetch.contact
    return user_agent(contact, loopback_only=bool(job.loopback) and not contact)


class _Crawl:
    """One visit: what is known of the site, and how much may still be asked for."""

    def __init__(self, job: SiteJob, site: Site, asked: Asked, collector: Collector) -> None:
        self._job, self._site, self._asked, self._collector = job, site, asked, collector
        self._left = job.source.max_pages
        self._known: set[str] = set()
        self._following: dict[str, None] = {}  # never more than can still be asked for
        self._unreached: list[Row] = []
        self._sitemaps: set[str] = set()

    async def finish(self) -> None:
        """Collect all pages, level by level; ask for those that no part has."""
        level = self._job.seeds
        for depth in range(self._job.source.max_depth + 1):
            level = level[: self._left]
            self._left -= len(level)
            self._known.update(level)
            self._following = {}
            await self._asked.pages(level, depth, self._take if depth else self._take_seed)
            if depth == 0:
                self._refuse_unreached(level)
                await self._read_sitemaps()
            level = list(self._following)
        await self._asked.publish()

    def _take_seed(self, row: Row) -> None:
        if row.reason in _UNREACHED:
            self._unreached.append(row)
        self._take(row)

    def _take(self, row: Row) -> None:
        """Take one page's candidates and links."""
        if row.reason == Reason.MOVED:
            self._collector.counts["left the site"] += 1
        elif row.reason is not None:
            self._collector.reject(Reason(row.reason), row.detail or "", row.url)
        else:
            if row.status == NOT_MODIFIED:
                self._collector.counts["unchanged"] += 1
            host = urlsplit(row.final_url).netloc
            self._collector.add_page(visited.page_of(row), Source(row.final_url, host))
        self._follow(row.links)

    def _follow(self, links: Iterable[str]) -> None:
        """Take links for the next level."""
        for link in links:
            if len(self._following) == self._left:
                break
            if link not in self._known and self._site.has_host(link):
                self._following[link] = None

    def _refuse_unreached(self, seeds: list[str]) -> None:
        """Stop if no seed could be reached, or all lead elsewhere; the next start asks them again.

        Raises:
            ArchiveError: so it is.
        """
        if len(self._unreached) < len(seeds):
            return
        self._asked.forget()
        first = self._unreached[0]
        if first.reason == Reason.MOVED:
            raise ArchiveError(
                "the site is elsewhere",
                where=f"{first.url} leads to {first.final_url}",
                fix="name that as a seed",
            )
        raise ArchiveError(
            "no seed of the site could be reached",
            where=f"{first.url} ({first.reason})",
            fix="check the seeds and the network, then start again",
        )

    async def _read_sitemaps(self) -> None:
        """Take the pages that sitemaps name as if the seeds linked to them, after those."""
        source = self._job.source
        if not source.sitemaps or source.max_depth == 0:
            return
        parts = map(urlsplit, self._job.seeds)
        for origin in dict.fromkeys(f"{part.scheme}://{part.netloc}" for part in parts):
            named = await self._asked.named_sitemaps(origin)
            await self._follow_sitemaps(named or [origin + "/sitemap.xml"], is_guess=not named)

    async def _follow_sitemaps(self, urls: list[str], *, is_guess: bool) -> None:
        """Take the pages that sitemaps name, and sitemaps that they name in turn, in that order."""
        waiting = deque((url, 0) for url in urls)
        while waiting and len(self._following) < self._left:
            url, depth = waiting.popleft()
            if url in self._sitemaps:
                continue
            if len(self._sitemaps) == _MAX_SITEMAPS:
                self._collector.reject(Reason.BODY_TOO_LARGE, f"beyond {_MAX_SITEMAPS} files", url)
                return
            self._sitemaps.add(url)
            row = await self._sitemap(url, is_guess=is_guess)
            self._follow(row.links if row else [])
            deeper = row.sitemaps if row else []
            if deeper and depth == _MAX_INDEX_DEPTH:
                self._collector.reject(Reason.BAD_RECORD, "an index of indices of indices", url)
                continue
            waiting.extend((named, depth + 1) for named in deeper)

    async def _sitemap(self, url: str, *, is_guess: bool) -> Row | None:
        """Return what a sitemap gave; None if it is another domain's, whose owner we are not."""
        if not self._site.has(url):
            self._collector.reject(Reason.MOVED, "a sitemap of another domain", url)
            return None
        row = await self._asked.sitemap(url)
        has_some = bool(row.links or row.sitemaps)
        if row.reason and (has_some or not is_guess):  # nobody said that there is one
            self._collector.reject(Reason(row.reason), row.detail or "", url)
        if has_some:
            self._collector.counts["sitemaps"] += 1
        return row
