from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.mock_web import MockWeb, Reply, redirect
from wit_builder import storage
from wit_builder.crawl import site, visited
from wit_builder.crawl.candidates import Output
from wit_builder.errors import ArchiveError, RecipeError
from wit_builder.sections import BlockSection, FetchSection, SiteSource
from wit_builder.tables import CANDIDATES
from wit_builder.units import Done

FETCH = FetchSection(retries=0, per_domain_interval_s=0.0)


@pytest.fixture
def web() -> Iterator[MockWeb]:
    with MockWeb() as running:
        yield running


def page(html: str, **headers: str) -> Reply:
    return 200, {"Content-Type": "text/html; charset=utf-8", **headers}, html.encode()


def picture(name: str) -> str:
    return f"<img src=/{name}.jpg alt='{name}'>"


def crawl(
    web: MockWeb, folder: Path, seeds: list[str], **source: Any
) -> tuple[Done, pa.Table, list[tuple[str, str]]]:
    asking = SiteSource(seeds=seeds, **{"sitemaps": False, **source})
    (piece,) = site.pieces(asking, FETCH, 1 << 20, web.loopback)
    output = Output.of(str(folder / "g0"), "site-00000")
    done = site.run(piece.job(output))
    found = pa.concat_tables([CANDIDATES.empty_table(), *storage.read_batches(output.candidates)])
    rejected = pq.read_table(output.rejections)
    pairs = zip(rejected["reason"].to_pylist(), rejected["url"].to_pylist(), strict=True)
    return done, found, list(pairs)


def test_breadth_first_within_the_hosts(web: MockWeb, tmp_path: Path) -> None:
    """Pages are read level by level in the order of their links; other hosts are left alone."""
    web.pages = {
        "a.test/": page(
            f"{picture('0')}<a href=/y>y</a><a href=/x>x</a><a href=http://b.test/>b</a>"
        ),
        "a.test/x": page(f"{picture('2')}<a href=/z>z</a>"),
        "a.test/y": page(f"{picture('1')}<a href=/>back</a>"),
        "a.test/z": page(picture("3")),
    }
    done, found, rejected = crawl(web, tmp_path, ["http://a.test/"])
    assert found["text"].to_pylist() == ["0", "1", "2", "3"]
    assert found["found_at"].null_count == 4
    assert set(found["archive"].to_pylist()) == {"a.test"}
    assert rejected == []
    assert not web.asked("b.test")
    assert done.counts == {"candidates": 4, "pages": 4}


def test_a_static_site_gives_the_same_bytes(web: MockWeb, tmp_path: Path) -> None:
    """Crawling a site again that did not change publishes the same bytes."""
    links = "".join(f"<a href=/{n}>{n}</a>" for n in range(30))
    web.pages = {"/": page(links), **{f"/{n}": page(picture(str(n))) for n in range(30)}}
    first, *_ = crawl(web, tmp_path / "a", ["http://a.test/"])
    second, *_ = crawl(web, tmp_path / "b", ["http://a.test/"])
    assert first.counts == second.counts
    assert [(o.size_bytes, o.xxh3) for o in first.outputs] == [
        (o.size_bytes, o.xxh3) for o in second.outputs
    ]


def test_depth_and_pages_are_bounded(web: MockWeb, tmp_path: Path) -> None:
    """No page beyond ``max_depth`` links or after ``max_pages`` pages is asked for."""
    web.pages = {f"/{n}": page(f"{picture(str(n))}<a href=/{n + 1}>x</a>") for n in range(9)}
    crawl(web, tmp_path / "a", ["http://a.test/0"], max_depth=2)
    assert [path for _, path in web.asked()] == ["/0", "/1", "/2"]
    web.log.clear()
    crawl(web, tmp_path / "b", ["http://a.test/0"], max_depth=9, max_pages=4)
    assert [path for _, path in web.asked()] == ["/0", "/1", "/2", "/3"]


def test_links_beyond_the_last_page_are_not_kept(web: MockWeb, tmp_path: Path) -> None:
    """Of a page with endless links those are asked for, in order, that ``max_pages`` leaves."""
    web.pages = {"/": page(picture("0") + "".join(f"<a href=/{n}>x</a>" for n in range(50)))}
    crawl(web, tmp_path, ["http://a.test/"], max_pages=3)
    assert sorted(path for _, path in web.asked()) == ["/", "/0", "/1"]


def test_refusals_are_rejections(web: MockWeb, tmp_path: Path) -> None:
    """What robots.txt, a header or a page forbids gives nothing, and is counted by reason."""
    web.pages = {
        "/robots.txt": (200, {}, b"User-agent: *\nDisallow: /private"),
        "/": page(
            picture("0")
            + "".join(f"<a href=/{n}>" for n in ("private", "noai", "meta", "gone", "pdf"))
        ),
        "/private": page(picture("1")),
        "/noai": page(picture("2"), **{"X-Robots-Tag": "noai"}),
        "/meta": page(f"<meta name=robots content=noai>{picture('3')}<a href=/hidden>"),
        "/hidden": page(picture("4")),
        "/pdf": (200, {"Content-Type": "application/pdf"}, b"%PDF"),
    }
    _, found, rejected = crawl(web, tmp_path, ["http://a.test/"])
    assert found["text"].to_pylist() == ["0"]
    assert rejected == [
        ("robots_disallowed", "http://a.test/private"),
        ("opt_out_header", "http://a.test/noai"),
        ("opt_out_page", "http://a.test/meta"),
        ("http_4xx", "http://a.test/gone"),
        ("not_html", "http://a.test/pdf"),
    ]
    assert not web.asked(path="/private")
    assert not web.asked(path="/hidden")


def test_a_redirect_counts_where_it_leads(web: MockWeb, tmp_path: Path) -> None:
    """A page reached by a redirect has its final URL; one that leaves the site gives nothing."""
    web.pages = {
        "a.test/": page("<a href=/old>1</a><a href=/away>2</a>"),
        "a.test/old": redirect("/new/"),
        "a.test/new/": page("<img src=x.jpg alt=x>"),
        "a.test/away": redirect("http://b.test/"),
        "b.test/": page(picture("b")),
    }
    done, found, _ = crawl(web, tmp_path, ["http://a.test/"])
    assert found["url"].to_pylist() == ["http://a.test/new/x.jpg"]
    assert found["page_url"].to_pylist() == ["http://a.test/new/"]
    assert done.counts["left the site"] == 1


def test_a_piece_is_a_registrable_domain() -> None:
    """Seeds of one registrable domain are one piece, so that its limits hold."""
    seeds = ["http://x.example.com/", "http://example.org/", "http://y.example.com/"]
    pieces = site.pieces(SiteSource(seeds=seeds), FetchSection(), 100, {})
    jobs = [piece.job(Output.of("ROOT/g0", "site-00000")) for piece in pieces]
    assert [piece.key for piece in pieces] == ["example.com", "example.org"]
    assert [job.seeds for job in jobs] == [[seeds[0], seeds[2]], [seeds[1]]]


def test_an_impossible_seed_is_an_error() -> None:
    """A seed that is not an http URL is refused with its fix, before anything is asked."""
    with pytest.raises(RecipeError, match="a seed cannot be crawled: scheme ftp"):
        site.pieces(SiteSource(seeds=["ftp://a.test/"]), FetchSection(), 1, {})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text/html; charset=utf-8", "utf-8"),
        ('text/html;CHARSET="Shift_JIS"', "Shift_JIS"),
        ("text/html; boundary=x; charset=", None),
        ("text/html", None),
    ],
)
def test_charset_of(value: str, expected: str | None) -> None:
    """The charset is the parameter of that name, unquoted."""
    assert visited.charset_of(value) == expected


def test_a_site_that_cannot_be_reached_is_not_done(web: MockWeb, tmp_path: Path) -> None:
    """A host that is down gives an error that names it, and nothing is published."""
    web.pages = {"a.test/robots.txt": (503, {}, b"")}
    with pytest.raises(ArchiveError, match=r"no seed .*a\.test/ \(robots_unreachable\)"):
        crawl(web, tmp_path, ["http://a.test/"])
    assert not list(tmp_path.rglob("*.arrow"))
    del web.pages["a.test/robots.txt"]
    for folder in tmp_path.rglob("notes"):  # where it says for how long that file need not be asked
        shutil.rmtree(folder)
    web.pages["a.test/"] = page(picture("0"))
    assert crawl(web, tmp_path, ["http://a.test/"])[0].counts["candidates"] == 1


def test_a_site_that_is_elsewhere_is_not_done(web: MockWeb, tmp_path: Path) -> None:
    """Seeds that all lead off their hosts give an error that says where to."""
    web.pages = {"a.test/": redirect("http://www.a.test/"), "www.a.test/": page(picture("0"))}
    with pytest.raises(ArchiveError, match=r"elsewhere.*leads to http://www\.a\.test/"):
        crawl(web, tmp_path, ["http://a.test/"])
    web.pages["a.test/"] = redirect("http://b.test/")
    with pytest.raises(ArchiveError, match=r"elsewhere.*leads to http://b\.test/"):
        crawl(web, tmp_path, ["http://a.test/"])
    assert not web.asked("b.test")


def test_links_not_to_be_followed(web: MockWeb, tmp_path: Path) -> None:
    """``nofollow`` is honoured on a link, in a page's meta, and in its header."""
    web.pages = {
        "/": page(
            "<a href=/meta>m</a><a href=/header>h</a><a rel='ugc NoFollow' href=/link>l</a>"
            "<a href=/other rel=noopener>o</a>"
        ),
        "/meta": page(f"<meta name=robots content=nofollow>{picture('1')}<a href=/x>x</a>"),
        "/header": page(
            f"{picture('2')}<a href=/y>y</a>",
            **{"X-Robots-Tag": "otherbot: all, wit-builder: nofollow"},
        ),
        "/other": page(picture("3")),
    }
    _, found, _ = crawl(web, tmp_path, ["http://a.test/"])
    assert found["text"].to_pylist() == ["1", "2", "3"]
    assert sorted(path for _, path in web.asked()) == ["/", "/header", "/meta", "/other"]


def test_what_is_blocked_is_not_asked_for(web: MockWeb, tmp_path: Path) -> None:
    """A page on a block-list is a rejection; so it is if a part has it from before."""
    web.pages = {"/": page(f"{picture('0')}<a href=/x>x</a>"), "/x": page(picture("1"))}
    _, found, _ = crawl(web, tmp_path, ["http://a.test/"])
    assert found["text"].to_pylist() == ["0", "1"]
    (tmp_path / "urls.txt").write_text("http://a.test/x\n")
    source = SiteSource(seeds=["http://a.test/"], sitemaps=False)
    block = BlockSection(urls=[str(tmp_path / "urls.txt")])
    web.log.clear()
    (piece,) = site.pieces(source, FETCH, 1 << 20, web.loopback, block)
    done = site.run(piece.job(Output.of(str(tmp_path / "g0"), "site-00000")))
    assert done.counts == {"candidates": 1, "pages": 1, "rejected:blocked": 1}
    assert not web.asked()
