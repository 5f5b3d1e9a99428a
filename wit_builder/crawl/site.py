"""Candidates from a live crawl: breadth first from seeds, within their hosts.

A level is asked for as a whole, and read in the order in which its pages were found, so that a
site that does not change gives the same candidates in the same order, however its answers arrive.
Robots rules and header opt-outs are the client's to obey, page opt-outs the reader's; the links of
a page that opts out are not followed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from functools import partial
from urllib.parse import urlsplit

import msgspec

from wit_builder.crawl.candidates import Collector, Output, Piece, Source, collecting, done
from wit_builder.crawl.records import HTML
from wit_builder.crawl.urls import BadUrlError, normalise
from wit_builder.errors import ArchiveError, RecipeError
from wit_builder.sections import FetchSection, SiteSource
from wit_builder.storage import Published
from wit_builder.tables import Reason
from wit_builder.units import Done
from wit_builder.web.answer import Answer
from wit_builder.web.client import Client
from wit_builder.web.domains import registrable


class SiteJob(msgspec.Struct, frozen=True):
    """The seeds of one registrable domain, how far to go, how to ask, and where candidates go.

    ``loopback`` maps host patterns to ``address:port`` of this machine, for tests and the demo.
    """

    seeds: list[str]
    max_depth: int
    max_pages: int
    max_html_bytes: int
    fetch: FetchSection
    loopback: dict[str, str]
    output: Output


def pieces(
    source: SiteSource, fetch: FetchSection, max_html_bytes: int, loopback: dict[str, str]
) -> list[Piece]:
    """Return a piece for every registrable domain among the seeds.

    One worker owns a domain, so its limits hold. ``max_pages`` holds for each.

    Raises:
        RecipeError: a seed is not a URL that can be crawled.
    """
    by_domain: dict[str, list[str]] = {}
    for seed in source.seeds:
        url = _seed(seed)
        by_domain.setdefault(registrable(urlsplit(url).hostname or ""), []).append(url)
    depth, pages = source.max_depth, source.max_pages
    made = []
    for domain, seeds in by_domain.items():
        job = partial(SiteJob, seeds, depth, pages, max_html_bytes, fetch, loopback)
        made.append(Piece("site", domain, [*seeds, f"{depth}:{pages}"], job))
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
    """Write the candidates of one domain's pages.

    Counts ``pages``, ``candidates``, ``repeated`` and ``rejected:REASON``.

    Raises:
        ArchiveError: no seed could be reached.
        StorageError: the output cannot be written.
    """
    published: list[Published] = []
    with collecting(job.output, published) as collector:
        asyncio.run(_crawl(job, collector))
    return done(collector, published)


_UNREACHED = {
    Reason.DNS_FAILED,
    Reason.CONNECT_FAILED,
    Reason.TLS_FAILED,
    Reason.DEADLINE,
    Reason.HTTP_5XX,
    Reason.ROBOTS_UNREACHABLE,
    Reason.RATE_LIMITED,
}


async def _crawl(job: SiteJob, collector: Collector) -> None:
    hosts = {urlsplit(seed).netloc for seed in job.seeds}
    level = list(dict.fromkeys(job.seeds))
    known = set(level)
    left = job.max_pages
    async with Client(job.fetch, loopback=job.loopback) as client:
        for depth in range(job.max_depth + 1):
            level, left = level[:left], left - len(level[:left])
            wanted = depth < job.max_depth and left > 0
            following: dict[str, None] = {}  # never more than can still be asked for
            unreached: list[str] = []
            async for url, answer in _ask(client, level, job):
                if answer.refusal and answer.refusal.reason in _UNREACHED:
                    unreached.append(f"{url} ({answer.refusal.reason})")
                for link in _read(url, answer, collector, hosts, links=wanted):
                    if len(following) == left:
                        break
                    if link not in known and urlsplit(link).netloc in hosts:
                        following[link] = None
            if depth == 0 and len(unreached) == len(level):
                # done with nothing would be done for good; an error is tried again next time
                raise ArchiveError(
                    "no seed of the site could be reached",
                    where=unreached[0],
                    fix="check the seeds and the network, then start again",
                )
            level = list(following)
            known.update(level)


async def _ask(client: Client, urls: list[str], job: SiteJob) -> AsyncIterator[tuple[str, Answer]]:
    """Yield URLs with their answers, in order; in flight and held are what the recipe allows."""
    for at in range(0, len(urls), job.fetch.concurrency):
        some = urls[at : at + job.fetch.concurrency]
        asked = (client.get(url, kind="page", max_bytes=job.max_html_bytes) for url in some)
        for pair in zip(some, await asyncio.gather(*asked), strict=True):
            yield pair


def _read(
    url: str, answer: Answer, collector: Collector, hosts: Iterable[str], *, links: bool
) -> list[str]:
    """Take one page's candidates; return its links."""
    if answer.refusal is not None or answer.body is None:
        refusal = answer.refusal
        assert refusal is not None
        reason = (
            Reason.TOO_LARGE_HTML if refusal.reason is Reason.BODY_TOO_LARGE else refusal.reason
        )
        collector.reject(reason, refusal.detail, url)
        return []
    kind = answer.headers.get("content-type", "")
    if not HTML.match(kind.strip()):
        collector.reject(Reason.NOT_HTML, kind[:100], url)
        return []
    try:
        page_url = normalise(answer.final_url)
    except BadUrlError as error:
        collector.reject(Reason.BAD_URL, f"of the page: {error}", None)
        return []
    host = urlsplit(page_url).netloc
    if host not in hosts:
        collector.counts["left the site"] += 1
        return []
    return collector.add_html(answer.body, charset_of(kind), Source(page_url, host), links=links)


def charset_of(content_type: str) -> str | None:
    """Return the charset parameter of a ``Content-Type`` value."""
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip("\"'") or None
    return None
