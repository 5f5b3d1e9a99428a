"""The audit: a build against a web of many hosts, judged by that web's log alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

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
PICTURES = 5
"""Pictures of each host."""
INTERVAL_S = 0.15
SLOWER_S = 0.4
RETRIES = 2
SLACK_S = 0.4
"""A request may reach the server so much later than it began, beside the server's own lag."""

FORBIDDING = b"User-agent: *\nDisallow: /private/\nDisallow: /*.gif$\n"
ROBOTS: dict[str, Page] = {
    **{f"d{n:02d}.test": (200, {}, FORBIDDING) for n in range(0, DOMAINS, 2)},
    "www.d08.test": (200, {}, FORBIDDING),
    "d13.test": (200, {}, f"User-agent: *\nCrawl-delay: {SLOWER_S}\n".encode()),
    "d05.test": redirect("/rules"),
    "d06.test": (500, {}, b""),
    "www.d07.test": (429, {"Retry-After": "0"}, b""),
}
CLOSED = {"d06.test", "www.d07.test"}
"""Hosts whose robots.txt cannot be had now."""
INTERVALS = {"d13.test": SLOWER_S, "d12.test": SLOWER_S}
"""What two domains ask for: one by robots.txt, one by the recipe."""
PAUSE_S = 2.0
PAUSED, SHUT = "d15.test", "d16.test"
"""Domains that say when to come back: soon, and much later."""
MOVES = {
    "d02.test/within": "http://www.d02.test/0.jpg",
    "www.d08.test/forbidden": "http://d08.test/private/2.jpg",
    "d09.test/away": "http://d10.test/1.jpg?moved",
    "d11.test/far": "http://d12.test/further",
    "d12.test/further": "http://d13.test/on",
    "d13.test/on": "http://d03.test/2.jpg?moved",
    "d13.test/forbidden": "http://d14.test/private/3.jpg",
    "d14.test/closed": "http://d06.test/3.jpg?moved",
    "d17.test/ring": "http://d18.test/ring",
    "d18.test/ring": "http://d17.test/ring",
}
ENDS = {
    "http://d02.test/within": None,
    "http://www.d08.test/forbidden": Reason.ROBOTS_DISALLOWED,
    "http://d09.test/away": None,
    "http://d11.test/far": None,
    "http://d13.test/forbidden": Reason.ROBOTS_DISALLOWED,
    "http://d14.test/closed": Reason.ROBOTS_UNREACHABLE,
    "http://d17.test/ring": Reason.REDIRECT_LOOP,
}
"""What becomes of the pairs that redirects lead on."""


def hosts() -> list[str]:
    plain = [f"d{n:02d}.test" for n in range(DOMAINS)]
    return plain + [f"www.{name}" for name in plain[:WITH_WWW]]


def filled(web: MockWeb) -> list[str]:
    """Fill a web with hosts, and return the URLs of its pictures, forbidden ones among them."""
    web.pages |= {f"{host}/robots.txt": page for host, page in ROBOTS.items()}
    web.pages["d05.test/rules"] = (200, {}, FORBIDDING)
    urls = []
    for number, host in enumerate(hosts()):
        for nth in range(PICTURES):
            web.pages[f"{host}/{nth}.jpg"] = picture_reply(jpeg(80, 60, seed=10 * number + nth))
            urls.append(f"http://{host}/{nth}.jpg")
        urls += [f"http://{host}/private/1.jpg", f"http://{host}/moving.gif"]
    web.pages |= {place: redirect(to) for place, to in MOVES.items()}
    moved = [to for to in MOVES.values() if "?" in to]
    web.pages |= {to.removeprefix("http://"): picture_reply(jpeg(90, 60)) for to in moved}
    web.then[f"{PAUSED}/3.jpg"] = [(429, {"Retry-After": f"{PAUSE_S:.0f}"}, b"")]
    web.pages[f"{SHUT}/2.jpg"] = (503, {"Retry-After": "3600"}, b"")
    web.pages["d19.test/0.jpg"] = (500, {}, b"")
    return [*urls, *ENDS]


class Request(NamedTuple):
    """A line of the log: when it came, and what for."""

    at: float
    host: str
    path: str
    domain: str


class Audit(NamedTuple):
    """The log, what the build says, and the latest that the server itself was."""

    log: list[Request]
    rows: list[dict[str, Any]]
    urls: list[str]
    lag_s: float

    def of_domain(self) -> dict[str, list[Request]]:
        found: dict[str, list[Request]] = defaultdict(list)
        for request in self.log:
            found[request.domain].append(request)
        return found


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Audit:
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
    return Audit(log, rows, urls, lag_s)


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
            domains={"d12.test": DomainSection(interval_s=SLOWER_S)},
        ),
        image=ImageSection(size_px=32),
    )


def forbidden(host: str, path: str) -> bool:
    """Return whether a host's robots.txt says no, as read by another program than ours: this."""
    page = ROBOTS.get(host)
    forbidding = host == "d05.test" or (isinstance(page, tuple) and page[2] == FORBIDDING)
    return forbidding and (path.startswith("/private/") or path.endswith(".gif"))


def test_nothing_forbidden_was_asked_for(audit: Audit) -> None:
    """No URL that its origin's robots.txt disallows was requested, by whatever way it was found."""
    assert [r for r in audit.log if forbidden(r.host, r.path)] == []
    places = [url.removeprefix("http://").partition("/") for url in audit.urls]
    expected = {f"http://{host}/{path}" for host, _, path in places if forbidden(host, f"/{path}")}
    expected |= {url for url, reason in ENDS.items() if reason is Reason.ROBOTS_DISALLOWED}
    refused = {row["url"] for row in audit.rows if row["reason"] == Reason.ROBOTS_DISALLOWED}
    assert refused == expected
    assert {"/private/1.jpg", "/moving.gif"} <= {request.path for request in audit.log}


def test_nothing_was_asked_for_without_rules(audit: Audit) -> None:
    """Where robots.txt could not be had, nothing else was requested; those pairs are deferred."""
    assert {r.path for r in audit.log if r.host in CLOSED} == {"/robots.txt"}
    closed = [row for row in audit.rows if row["reason"] == Reason.ROBOTS_UNREACHABLE]
    assert {row["outcome"] for row in closed} == {"deferred"}
    assert len({row["url"] for row in closed}) == len(CLOSED) * (PICTURES + 2) + 1


def test_robots_were_asked_for_first_and_once(audit: Audit) -> None:
    """Each origin's robots.txt is its first request, and the only such but for retries."""
    first = {request.host: request.path for request in reversed(audit.log)}
    assert first == dict.fromkeys(hosts(), "/robots.txt")
    asked = Counter(request.host for request in audit.log if request.path == "/robots.txt")
    expected = {host: 1 + RETRIES if host in CLOSED else 1 for host in hosts()}
    assert asked == expected
    assert [r.path for r in audit.log].count("/rules") == 1


def test_no_url_was_asked_for_too_often(audit: Audit) -> None:
    """No URL was requested more than once and the retries, in all rounds together."""
    asked = Counter(f"http://{request.host}{request.path}" for request in audit.log)
    assert max(asked.values()) <= 1 + RETRIES
    again = {url for url, times in asked.items() if times > 1 and not url.endswith("/robots.txt")}
    assert again == {
        "http://www.d02.test/0.jpg",  # for its own sake, and redirected to
        "http://d14.test/closed",  # deferred by where it leads to, so the second round asks anew
        f"http://{PAUSED}/3.jpg",
        "http://d19.test/0.jpg",
        "http://d17.test/ring",
        "http://d18.test/ring",
    }


def test_no_domain_was_over_its_limit(audit: Audit) -> None:
    """Any n requests of a registrable domain, all its hosts and passes together, took their time.

    A request may be late for the server, so what is measured is how many there were in a span.
    """
    slack_s = SLACK_S + audit.lag_s
    for domain, requests in audit.of_domain().items():
        interval_s = INTERVALS.get(domain, INTERVAL_S)
        for nth, before in enumerate(requests):
            for between, after in enumerate(requests[nth + 1 :], 1):
                assert after.at - before.at >= between * interval_s - slack_s, (
                    domain,
                    before,
                    after,
                )
    longest = max((len(requests) - 1) * INTERVAL_S for requests in audit.of_domain().values())
    assert longest > 3 * SLACK_S


def test_pauses_were_respected(audit: Audit) -> None:
    """After a Retry-After nothing of that domain came before its time, in any round."""
    for domain, path, pause_s in ((PAUSED, "/3.jpg", PAUSE_S), (SHUT, "/2.jpg", 3600.0)):
        requests = audit.of_domain()[domain]
        told_at = next(request.at for request in requests if request.path == path)
        under_way_s = PAUSE_S / 2 + audit.lag_s  # that of requests which began before the answer
        since = [r.at - told_at for r in requests if r.at - told_at > under_way_s]
        assert all(seconds >= pause_s for seconds in since)
        assert bool(since) is (domain == PAUSED)


def test_every_pair_came_to_its_end(audit: Audit) -> None:
    """Every pair has a last row, and no pair more than one that is alive or dead."""
    assert {row["url"] for row in audit.rows} == set(audit.urls)
    settled = [row for row in audit.rows if row["outcome"] in {"alive", "dead"}]
    assert len({row["uid"] for row in settled}) == len(settled)
    left = {row["url"] for row in audit.rows} - {row["url"] for row in settled}
    late = {row["url"] for row in audit.rows if row["outcome"] == "deferred"}
    assert left == late - {row["url"] for row in settled}
    last = {row["url"]: row["reason"] for row in audit.rows if row["outcome"] != "moved"}
    assert {url: last[url] for url in ENDS} == ENDS
