"""What a crawl leaves on disk is enough: to go on after a kill, to visit again, to replay.

The crawled site has pages that are asked for again by their ``ETag`` or ``Last-Modified``.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from fastwarc.warc import ArchiveIterator

from tests.mock_web import MockWeb, Page, Reply, redirect, silence
from wit_builder import storage
from wit_builder.crawl import archives, site
from wit_builder.crawl.candidates import Output
from wit_builder.sections import FetchSection, SiteSource, WarcSource
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


@pytest.fixture
def web() -> Iterator[MockWeb]:
    with MockWeb() as running:
        running.pages = small_site()
        yield running


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


# --- a kill ---------------------------------------------------------------

_CHILD = """
import sys, msgspec
from wit_builder.crawl import site
site.run(msgspec.json.decode(sys.stdin.buffer.read(), type=site.SiteJob))
"""


@contextlib.contextmanager
def started(job: site.SiteJob) -> Iterator[subprocess.Popen[bytes]]:
    """Crawl in a process of its own, which is killed in the end if it is still there."""
    with subprocess.Popen([sys.executable, "-c", _CHILD], stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(msgspec.json.encode(job))
        child.stdin.close()
        try:
            yield child
        finally:
            child.kill()


def wait_for(child: subprocess.Popen[bytes], root: Path, rows: int) -> None:
    """Return once so many rows are published; fail if the crawl ends before."""
    while len(frontier(root)) < rows:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.02)
            pytest.fail("the crawl ended")


def test_a_killed_crawl_goes_on(web: MockWeb, tmp_path: Path) -> None:
    """After SIGKILL only what no part has is asked for, and the candidates are those of one go."""
    stuck = 17
    _, whole = crawl(web, tmp_path / "whole")
    healthy = web.pages[f"/{stuck}"]
    web.pages[f"/{stuck}"] = silence
    web.log.clear()
    root = tmp_path / "killed"
    with started(job_of(web, root)) as child:
        wait_for(child, root, stuck)  # the seed, and what stands before the page that hangs
        os.kill(child.pid, signal.SIGKILL)
    published = frontier(root)["url"].to_pylist()
    assert f"http://a.test/{stuck}" not in published
    assert not (root / "g0").exists() or not list((root / "g0").rglob("*.arrow"))
    web.pages[f"/{stuck}"] = healthy
    web.log.clear()
    done, found = crawl(web, root)
    assert sorted(asked_for(web)) == sorted(
        {f"http://a.test{path}" for path in web.pages} - set(published)
    )
    assert found.equals(whole)
    assert done.counts == {"candidates": PAGES, "pages": PAGES}


def test_kills_again_and_again(web: MockWeb, tmp_path: Path) -> None:
    """However often it is killed, no page that a part has is asked for again."""
    _, whole = crawl(web, tmp_path / "whole")
    root = tmp_path / "killed"
    web.log.clear()
    twice: Counter[str] = Counter()
    for rows in (3, 14):
        before = set(frontier(root)["url"].to_pylist())
        web.log.clear()
        with started(job_of(web, root)) as child:
            with contextlib.suppress(pytest.fail.Exception):  # it was faster than we are
                wait_for(child, root, max(rows, len(before) + 1))
            child.kill()
        twice.update(url for url in asked_for(web) if url in before)
    _, found = crawl(web, root)
    assert not twice
    assert found.equals(whole)


def test_done_again_asks_for_nothing(web: MockWeb, tmp_path: Path) -> None:
    """Should a unit be done anew, as when its output was removed, its visit has all it needs."""
    first = crawl(web, tmp_path, sitemaps=True)
    web.log.clear()
    assert crawl(web, tmp_path, sitemaps=True)[1].equals(first[1])
    assert web.log == []


def test_more_pages_of_the_same_visit(web: MockWeb, tmp_path: Path) -> None:
    """A larger limit asks for what is missing only."""
    crawl(web, tmp_path, max_pages=5)
    web.log.clear()
    _, found = crawl(web, tmp_path, max_pages=8)
    assert len(asked_for(web)) == 3
    assert found.num_rows == 8
    web.log.clear()
    _, found = crawl(web, tmp_path)
    assert len(asked_for(web)) == 16
    assert found.num_rows == PAGES


def test_a_host_that_becomes_a_seed(web: MockWeb, tmp_path: Path) -> None:
    """A page that led off the seeds' hosts is asked for again once its host is one of them."""
    web.pages = {"a.test/": page(0, "/away"), "a.test/away": redirect("http://www.a.test/1")}
    web.pages["www.a.test/1"] = page(1)
    done, found = crawl(web, tmp_path)
    assert (done.counts["left the site"], found.num_rows) == (1, 1)
    asking = SiteSource(seeds=[SEED, "http://www.a.test/1"], sitemaps=False)
    (piece,) = site.pieces(asking, FETCH, HTML_BYTES, web.loopback)
    done = site.run(piece.job(Output.of(str(tmp_path / "g0"), "site-00000")))
    assert done.counts == {"candidates": 2, "pages": 3, "repeated": 1}


@pytest.mark.s3
def test_in_a_bucket(web: MockWeb, s3_folder: str) -> None:
    """A run in a bucket has its frontier there."""
    first = crawl(web, s3_folder, warc=True)
    web.log.clear()
    assert crawl(web, s3_folder, warc=True)[1].equals(first[1])
    assert not asked_for(web)


# --- a later visit --------------------------------------------------------


def change(web: MockWeb) -> None:
    """Change a page, remove one, add one, and let one forget its opt-in."""
    web.pages["/2"] = page(102, "/13", "/new", ETag='W/"2b"')
    del web.pages["/3"]
    web.pages["/new"] = page(200)
    web.pages["/4"] = page(4, "/15", ETag='W/"4"', **{"X-Robots-Tag": "noai"})


@pytest.mark.parametrize("warc", [False, True])
def test_a_later_visit_asks_for_changes(web: MockWeb, tmp_path: Path, *, warc: bool) -> None:
    """It asks with what servers said of each page; one that did not change keeps what it had."""
    first, _ = crawl(web, tmp_path, warc=warc)
    assert first.counts["pages"] == PAGES
    change(web)
    web.log.clear()
    web.headers.clear()
    done, found = crawl(web, tmp_path, visit=2, warc=warc)
    conditional = [h for h in web.headers if {"if-none-match", "if-modified-since"} & set(h)]
    assert len(conditional) == 22  # all but the new page; robots.txt is known still
    assert len(asked_for(web)) == PAGES + 1 - 2  # below the removed page and the one that opts out
    assert done.counts["unchanged"] == 19
    assert found["text"].to_pylist() == crawl(web, tmp_path / "anew")[1]["text"].to_pylist()


def test_a_visit_of_a_visit(web: MockWeb, tmp_path: Path) -> None:
    """What a visit found unchanged is known to the next; the numbers need not follow."""
    _, first = crawl(web, tmp_path)
    crawl(web, tmp_path, visit=2)
    web.log.clear()
    done, found = crawl(web, tmp_path, visit=7)
    assert done.counts["unchanged"] == PAGES
    assert found.equals(first)
    assert len(asked_for(web)) == PAGES


def test_a_page_that_leads_elsewhere_now(web: MockWeb, tmp_path: Path) -> None:
    """A 304 from another address says nothing of the page that was kept: that one is read."""
    crawl(web, tmp_path)
    web.pages["/2"] = redirect("/moved")
    web.pages["/moved"] = page(102, ETag='W/"2"')
    _, found = crawl(web, tmp_path, visit=2)
    assert "picture 102" in found["text"].to_pylist()
    assert "picture 2" not in found["text"].to_pylist()


def test_a_304_that_nobody_asked_for(web: MockWeb, tmp_path: Path) -> None:
    """It is a refusal, not an empty page."""
    web.pages["/1"] = (304, {}, b"")
    done, found = crawl(web, tmp_path)
    assert done.counts["rejected:redirect_loop"] == 1
    assert "picture 1" not in found["text"].to_pylist()


def test_headers_of_odd_bytes(web: MockWeb, tmp_path: Path) -> None:
    """A validator that cannot be sent is none; a type that cannot be stored is told as it can."""
    web.pages["/1"] = page(1, ETag='"\u00e4"')
    web.pages["/2"] = (200, {"Content-Type": "\u00e4"}, b"")
    crawl(web, tmp_path, warc=True)
    rows = {row["url"]: row for row in frontier(tmp_path).to_pylist()}
    assert rows["http://a.test/1"]["etag"] is None
    assert rows["http://a.test/2"]["reason"] == "not_html"


# --- sitemaps -------------------------------------------------------------


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


# --- WARC files -----------------------------------------------------------

SAME = ["uid", "url", "text", "text_from", "page_url", "license"]


def replayed(root: Path, pattern: str) -> pa.Table:
    """Return the candidates of a crawl's WARC files."""
    source = WarcSource(paths=[str(root / "sites" / "*" / pattern)])
    tables = []
    for number, piece in enumerate(archives.pieces(source, HTML_BYTES)):
        output = Output.of(str(root / "again"), f"warc-{number:05d}")
        done = archives.run(piece.job(output))
        assert not [name for name in done.counts if name.startswith("rejected")]
        tables.append(candidates(output))
    return pa.concat_tables(tables).combine_chunks()


def test_a_crawl_is_replayed(web: MockWeb, tmp_path: Path) -> None:
    """WARC files of a crawl give its candidates, in its order, of what did not opt out."""
    web.pages["/1"] = page(1, **{"Content-Type": "text/html; charset=iso-8859-1"})
    body = "<base href=/x/><a rel=license href=https://creativecommons.org/licenses/by/4.0/></a>"
    body += "<figure><img src=p.jpg alt='süß'><figcaption>Ein Bild</figcaption></figure>"
    encoded = gzip.compress(body.encode("latin-1"))
    headers = {"Content-Type": "text/html; charset=iso-8859-1", "Content-Encoding": "gzip"}
    web.pages["/2"] = (200, headers, encoded)
    web.pages["/3"] = page(3, **{"X-Robots-Tag": "noai"})
    web.pages["/5"] = (
        200,
        {"Content-Type": "text/html"},
        b"<meta name=robots content=noai><img src=/s.jpg alt=secret>",
    )
    web.pages["/6"] = redirect("/17")
    web.pages["/7"] = (200, {"Content-Type": "image/png"}, b"")
    _, found = crawl(web, tmp_path, warc=True)
    assert "süß" in found["text"].to_pylist()
    once = replayed(tmp_path, "*.warc.gz")
    assert once.select(SAME).equals(found.select(SAME))
    stored = b"".join(gzip.decompress(p.read_bytes()) for p in (tmp_path / "sites").rglob("*.gz"))
    assert b"secret" not in stored


def test_warc_files_are_whole(web: MockWeb, tmp_path: Path) -> None:
    """Each file says what made it, and its digests are right."""
    crawl(web, tmp_path, warc=True)
    kinds: Counter[str] = Counter()
    for path in sorted((tmp_path / "sites").rglob("*.warc.gz")):
        records = ArchiveIterator(io.BytesIO(path.read_bytes()), parse_http=False)
        for number, record in enumerate(records):
            kinds[record.headers["WARC-Type"]] += 1
            assert (record.headers["WARC-Type"] == "warcinfo") == (number == 0)
            assert record.verify_block_digest()
    assert kinds["response"] == PAGES


def test_a_later_visit_is_replayed_alone(web: MockWeb, tmp_path: Path) -> None:
    """Its files have the pages that did not change, too: as they were captured."""
    crawl(web, tmp_path, warc=True)
    change(web)
    _, found = crawl(web, tmp_path, visit=2, warc=True)
    assert replayed(tmp_path, "a.test-002-*.warc.gz").select(SAME).equals(found.select(SAME))


def test_pages_to_be_kept_from_now_on(web: MockWeb, tmp_path: Path) -> None:
    """What was read without being kept is asked for again, whole, once it is to be kept."""
    crawl(web, tmp_path)
    web.log.clear()
    _, found = crawl(web, tmp_path, visit=2, warc=True)
    assert len(asked_for(web)) == PAGES
    assert replayed(tmp_path, "*.warc.gz").select(SAME).equals(found.select(SAME))


def test_pieces_of_visits() -> None:
    """The last visit is the piece; the earlier ones are known with it, by keys of their own."""
    source = SiteSource(seeds=[SEED, "http://b.test/"], visit=3)
    found = site.pieces(source, FETCH, HTML_BYTES, {})
    assert [piece.key for piece in found] == ["a.test, visit 3", "b.test, visit 3"]
    assert [earlier.key for earlier in found[0].earlier] == ["a.test", "a.test, visit 2"]
    assert {piece.origin for piece in found} == {"a.test", "b.test"}
    (first, _) = site.pieces(msgspec.structs.replace(source, visit=1), FETCH, HTML_BYTES, {})
    assert found[0].earlier[0].inputs == first.inputs
