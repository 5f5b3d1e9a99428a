"""A crawl of a site reads its sitemaps."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mock_web import MockWeb, Reply
from tests.site_crawls import crawl, frontier, page, small_site
from wit_builder.crawl import site, visited


@pytest.fixture
def web() -> Iterator[MockWeb]:
    with MockWeb() as running:
        running.pages = small_site()
        yield running


def sitemap(*urls: str) -> bytes:
    return (
        b"<urlset>"
        + b"".join(f"<url><loc>{url}</loc></url>".encode() for url in urls)
        + b"</urlset>"
    )


def index(*urls: str) -> bytes:
    entries = b"".join(f"<sitemap><loc>{url}</loc></sitemap>".encode() for url in urls)
    return b"<sitemapindex>" + entries + b"</sitemapindex>"


def xml(body: bytes, **headers: str) -> Reply:
    return 200, {"Content-Type": "application/xml", **headers}, body


def test_sitemaps_that_robots_txt_names(web: MockWeb, tmp_path: Path) -> None:
    """Their pages come after the seeds' links, in their order, within the hosts, at depth 1."""
    web.pages = {
        "a.test/": page(0, "/1"),
        "a.test/robots.txt": (
            200, {}, b"Sitemap: /index.xml\nSitemap: http://b.test/x\nSitemap: http://a.test/map.txt"
        ),
        "a.test/index.xml": xml(
            index("http://maps.a.test/m.xml.gz", "/broken.xml"), **{"X-Robots-Tag": "noindex"}
        ),
        "maps.a.test/m.xml.gz": (200, {}, gzip.compress(sitemap("http://a.test/2", "http://b.test/9"))),
        "a.test/broken.xml": xml(sitemap("http://a.test/3", "http://a.test/1")[:-9] + b"&"),
        "a.test/map.txt": (200, {}, b"http://a.test/4\nhttp://maps.a.test/5\n"),
        **{f"a.test/{n}": page(n, f"/{n}/deep") for n in range(1, 5)},
        **{f"a.test/{n}/deep": page(n * 10) for n in range(1, 5)},
    }  # fmt: skip
    done, found = crawl(web, tmp_path, sitemaps=True, max_depth=1)
    order = [0, 1, 4, 2, 3]  # sitemaps of an index come after those beside it
    assert found["text"].to_pylist() == [f"picture {n}" for n in order]
    assert done.counts == {
        "candidates": 5, "pages": 5, "sitemaps": 4, "rejected:bad_record": 1, "rejected:moved": 1,
    }  # fmt: skip
    assert not web.asked("b.test")
    depths = dict(
        zip(*(frontier(tmp_path)[name].to_pylist() for name in ("url", "depth")), strict=True)
    )
    assert depths["http://a.test/4"] == 1


def test_a_sitemap_that_nobody_names(web: MockWeb, tmp_path: Path) -> None:
    """Where robots.txt names none, /sitemap.xml is; that there is none is no loss."""
    done, _ = crawl(web, tmp_path / "a", sitemaps=True)
    assert web.asked(path="/sitemap.xml")
    assert "rejected:http_4xx" not in done.counts
    web.pages["/sitemap.xml"] = xml(sitemap("http://a.test/hidden"))
    web.pages["/hidden"] = page(99)
    done, found = crawl(web, tmp_path / "b", sitemaps=True)
    assert done.counts["sitemaps"] == 1
    assert "picture 99" in found["text"].to_pylist()


def test_sitemaps_are_visited_again_too(web: MockWeb, tmp_path: Path) -> None:
    """One that did not change keeps its pages; a new one is read."""
    web.pages["/robots.txt"] = (200, {}, b"Sitemap: http://a.test/s.xml")
    web.pages["/s.xml"] = xml(sitemap("http://a.test/hidden"), ETag='"s"')
    web.pages["/hidden"] = page(99)
    crawl(web, tmp_path, sitemaps=True)
    done, found = crawl(web, tmp_path, sitemaps=True, visit=2)
    assert "picture 99" in found["text"].to_pylist()
    rows = {row["url"]: row for row in frontier(tmp_path).to_pylist()}  # of the later visit
    assert rows["http://a.test/s.xml"]["status"] == 304
    assert done.counts["sitemaps"] == 1


def test_sitemaps_without_end(web: MockWeb, tmp_path: Path) -> None:
    """Indices that lead round in circles, or ever deeper, end; no more is read than is needed."""
    web.pages["/sitemap.xml"] = xml(index("/sitemap.xml", "/i/1"))
    web.pages |= {f"/i/{n}": xml(index(f"/i/{n + 1}")) for n in range(1, 9)}
    done, _ = crawl(web, tmp_path / "a", sitemaps=True)
    assert not web.asked(path="/i/3")
    assert done.counts["rejected:bad_record"] == 1
    web.log.clear()
    crawl(web, tmp_path / "b", sitemaps=True, max_pages=5)
    assert not web.asked(path="/sitemap.xml")
    crawl(web, tmp_path / "c", sitemaps=True, max_depth=0)
    assert not web.asked(path="/sitemap.xml")


def test_too_many_sitemaps(web: MockWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many are read of a domain; that there were more is told once."""
    monkeypatch.setattr(site, "_MAX_SITEMAPS", 3)
    web.pages["/sitemap.xml"] = xml(index(*(f"/m{n}.xml" for n in range(9))))
    web.pages |= {f"/m{n}.xml": xml(sitemap(f"/hidden{n}")) for n in range(9)}
    web.pages |= {f"/hidden{n}": page(100 + n) for n in range(9)}
    done, _ = crawl(web, tmp_path, sitemaps=True)
    assert len([path for _, path in web.asked() if path.startswith("/m")]) == 2
    assert (done.counts["sitemaps"], done.counts["rejected:body_too_large"]) == (3, 1)


def test_a_sitemap_too_large(web: MockWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file that unpacks to more than the protocol's limit is not unpacked."""
    monkeypatch.setattr(visited, "MAX_BYTES", 10_000)
    web.pages["/robots.txt"] = (200, {}, b"Sitemap: http://a.test/bomb.gz")
    web.pages["/bomb.gz"] = (200, {}, gzip.compress(sitemap("/hidden") + b" " * 100_000))
    done, _ = crawl(web, tmp_path, sitemaps=True)
    assert done.counts["rejected:body_too_large"] == 1
    assert not web.asked(path="/hidden")
