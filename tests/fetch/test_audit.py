"""The audit: a build against a web of many hosts, judged by that web's log alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest

from tests.mock_web import MockWeb, Page, jpeg, picture_reply, redirect
from wit_builder import pipeline, storage, units
from wit_builder.fetch.route import domains
from wit_builder.runners import LocalPool
from wit_builder.sections import (
    BalanceSection,
    CrawlSection,
    DomainSection,
    FetchSection,
    ImageSection,
    MatchSection,
    QueriesSection,
    Recipe,
    TablesSource,
)
from wit_builder.tables import Reason

DOMAINS = 20
WITH_WWW = 10
"""Domains of which a second host, ``www``, has pictures, too."""
PICTURES = 6
"""Pictures of each host."""
INTERVAL_S = 0.15
SLOWER_S = 0.4
RETRIES = 2
SLACK_S = 0.4
"""A request may reach the server so much later than it began, beside the server's own lag."""

FORBIDDING = "User-agent: *\nDisallow: /private/\nDisallow: /*.gif$\n"
ROBOTS: dict[str, Page] = {
    **{f"d{n:02d}.test": (200, {}, FORBIDDING.encode()) for n in range(0, DOMAINS, 2)},
    "www.d08.test": (200, {}, FORBIDDING.encode()),
    "d03.test": (200, {}, f"User-agent: *\nCrawl-delay: {SLOWER_S}\n".encode()),
    "d05.test": redirect("/rules"),
    "d06.test": (500, {}, b""),
    "www.d07.test": (429, {"Retry-After": "0"}, b""),
}
CLOSED = {"d06.test", "www.d07.test"}
"""Hosts whose robots.txt cannot be had now."""
INTERVALS = {"d03.test": SLOWER_S, "d04.test": SLOWER_S}
"""What two domains ask for: one by robots.txt, one by the recipe."""
PAUSE_S = 2.0
PAUSED, SHUT = "d15.test", "d16.test"
"""Domains that say when to come back: soon, and much later."""


def hosts() -> list[str]:
    plain = [f"d{n:02d}.test" for n in range(DOMAINS)]
    return plain + [f"www.{name}" for name in plain[:WITH_WWW]]


def filled(web: MockWeb) -> list[str]:
    """Fill a web with hosts, and return the URLs of its pictures, forbidden ones among them."""
    web.pages |= {f"{host}/robots.txt": page for host, page in ROBOTS.items()}
    web.pages["d05.test/rules"] = (200, {}, FORBIDDING.encode())
    urls = []
    for number, host in enumerate(hosts()):
        for nth in range(PICTURES):
            web.pages[f"{host}/{nth}.jpg"] = picture_reply(jpeg(80, 60, seed=10 * number + nth))
            urls.append(f"http://{host}/{nth}.jpg")
        urls += [f"http://{host}/private/1.jpg", f"http://{host}/moving.gif"]
    moves = {
        "d02.test/within": "http://www.d02.test/0.jpg",
        "www.d08.test/forbidden": "http://d08.test/private/2.jpg",
        "d09.test/away": "http://d10.test/1.jpg?moved",
        "d11.test/away": "http://d12.test/on",
        "d12.test/on": "http://d13.test/on",
        "d13.test/on": "http://d03.test/2.jpg?moved",
        "d13.test/forbidden": "http://d14.test/private/3.jpg",
        "d14.test/closed": "http://d06.test/3.jpg?moved",
        "d17.test/ring": "http://d18.test/ring",
        "d18.test/ring": "http://d17.test/ring",
    }
    web.pages |= {place: redirect(to) for place, to in moves.items()}
    web.pages |= {f"{to[7:]}": picture_reply(jpeg(90, 60, 7)) for to in moves.values() if "?" in to}
    web.then[f"{PAUSED}/3.jpg"] = [(429, {"Retry-After": f"{PAUSE_S:.0f}"}, b"")]
    web.pages[f"{SHUT}/2.jpg"] = (503, {"Retry-After": "3600"}, b"")
    web.pages["d19.test/0.jpg"] = (500, {}, b"")
    return [*urls, *(f"http://{place}" for place in moves)]


class Request(NamedTuple):
    """A line of the log: when it came, and what for."""

    at: float
    host: str
    path: str
    domain: str


class Audit(NamedTuple):
    """The log, what the build says, and the latest that the server itself was."""

    log: list[Request]
    rows: list[dict[str, object]]
    urls: list[str]
    lag_s: float

    def of_domain(self) -> dict[str, list[Request]]:
        found: dict[str, list[Request]] = defaultdict(list)
        for request in self.log:
            found[request.domain].append(request)
        return found


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audit]:
    """Build from a list of pictures, as far as fetching, with two workers and four buckets."""
    folder = tmp_path_factory.mktemp("audit")
    with MockWeb() as web:
        urls = filled(web)
        texts = [f"a picture of a tree, number {n}" for n in range(len(urls))]
        storage.write_parquet(str(folder / "list.parquet"), pa.table({"url": urls, "text": texts}))
        (folder / "queries.txt").write_text("tree\n")
        run = units.Run(str(folder / "run"), LocalPool(2))
        try:
            pipeline.Build(recipe(folder), run, web.loopback)("fetch")
        finally:
            run.runner.close()
        names = domains(pa.chunked_array([[f"http://{host}/" for host, _ in web.log]]))
        log = [
            Request(at, host, path, domain)
            for at, (host, path), domain in zip(web.at, web.log, names.to_pylist(), strict=True)
        ]
        lag_s = web.lag_s
    parts = sorted((folder / "run" / "g0" / "images").rglob("*.parquet"))
    rows = [row for part in parts for row in storage.read_parquet(str(part)).to_pylist()]
    yield Audit(log, rows, urls, lag_s)


def recipe(folder: Path) -> Recipe:
    return Recipe(
        buckets=4,
        queries=QueriesSection(numbers=0, custom=[str(folder / "queries.txt")]),
        crawl=CrawlSection(sources=[TablesSource(paths=[str(folder / "list.parquet")])]),
        match=MatchSection(languages=[]),
        balance=BalanceSection(rounds=2),
        fetch=FetchSection(
            retries=RETRIES,
            deadline_s=10.0,
            per_domain_concurrency=2,
            per_domain_interval_s=INTERVAL_S,
            max_pause_s=10.0,
            domains={"d04.test": DomainSection(interval_s=SLOWER_S)},
        ),
        image=ImageSection(size_px=32),
    )
