"""A crawl of a site can be replayed from the WARC files that it leaves."""

from __future__ import annotations

import gzip
import io
from collections import Counter
from pathlib import Path

import pyarrow as pa
from fastwarc.warc import ArchiveIterator

from tests.mock_web import MockWeb, redirect
from tests.site_crawls import (
    HTML_BYTES,
    PAGES,
    asked_for,
    candidates,
    change,
    crawl,
    page,
)
from wit_builder.crawl import archives
from wit_builder.crawl.candidates import Output
from wit_builder.sections import WarcSource

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
