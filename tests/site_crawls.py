"""Crawls of a small site on loopback, whose pages have an ``ETag`` or a ``Last-Modified``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.mock_web import MockWeb, Page, Reply
from wit_builder import storage
from wit_builder.crawl import site
from wit_builder.crawl.candidates import Output
from wit_builder.sections import FetchSection, SiteSource
from wit_builder.tables import CANDIDATES
from wit_builder.units import Done

SEED = "http://a.test/"
FETCH = FetchSection(retries=0, per_domain_concurrency=3, per_domain_interval_s=0.0, part_s=0.05)
HTML_BYTES = 1 << 20


def page(number: int, *links: str, **headers: str) -> Reply:
    html = f"<img src=/{number}.jpg alt='picture {number}'>"
    html += "".join(f"<a href={link}>x</a>" for link in links)
    return 200, {"Content-Type": "text/html", **headers}, html.encode()


PAGES = 24


def small_site() -> dict[str, Page]:
    """Return a site: a seed with links to 11 pages, each with one to a page of 12 others."""
    made: dict[str, Page] = {"/": page(0, *(f"/{n}" for n in range(1, 12)), ETag='"seed"')}
    made |= {f"/{n}": page(n, f"/{n + 11}", "/23", ETag=f'W/"{n}"') for n in range(1, 12)}
    date = "Mon, 01 Jan 2024 00:00:00 GMT"
    return made | {f"/{n}": page(n, "/", **{"Last-Modified": date}) for n in range(12, PAGES)}


def job_of(web: MockWeb, root: Path | str, **source: Any) -> site.SiteJob:
    asking = SiteSource(seeds=[SEED], **{"sitemaps": False, **source})
    (piece,) = site.pieces(asking, FETCH, HTML_BYTES, web.loopback)
    job = piece.job(Output.of(storage.join(str(root), "g0"), "site-00000"))
    assert isinstance(job, site.SiteJob)
    return job


def crawl(web: MockWeb, root: Path | str, **source: Any) -> tuple[Done, pa.Table]:
    job = job_of(web, root, **source)
    done = site.run(job)
    return done, candidates(job.output)


def candidates(output: Output) -> pa.Table:
    return pa.concat_tables(
        [CANDIDATES.empty_table(), *storage.read_batches(output.candidates)]
    ).combine_chunks()


def frontier(root: Path) -> pa.Table:
    parts = [
        storage.read_parquet(str(p)) for p in sorted((root / "sites" / "a.test").glob("*.parquet"))
    ]
    return pa.concat_tables(parts).combine_chunks() if parts else pa.table({"url": []})


def asked_for(web: MockWeb) -> list[str]:
    return [f"http://{host}{path}" for host, path in web.asked()]


def change(web: MockWeb) -> None:
    """Change a page, remove one, add one, and let one forget its opt-in."""
    web.pages["/2"] = page(102, "/13", "/new", ETag='W/"2b"')
    del web.pages["/3"]
    web.pages["/new"] = page(200)
    web.pages["/4"] = page(4, "/15", ETag='W/"4"', **{"X-Robots-Tag": "noai"})
