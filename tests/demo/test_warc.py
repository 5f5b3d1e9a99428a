from __future__ import annotations

from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecordType

from wit_builder.demo import site, warc


def test_the_archive_is_the_same_bytes_every_time(plan, tmp_path):
    """Two writings, wherever they go, are equal; the files share the pages."""
    one = warc.write_warcs(str(tmp_path / "one"), plan)
    other = warc.write_warcs(str(tmp_path / "other"), plan)
    assert [Path(p).name for p in one] == ["demo-00000.warc.gz", "demo-00001.warc.gz"]
    assert [Path(p).read_bytes() for p in one] == [Path(p).read_bytes() for p in other]


def test_the_archive_has_the_pages_of_its_half_of_the_web(plan, tmp_path):
    """A WARC reader finds each archived page once, as it would be served."""
    found = {}
    for place in warc.write_warcs(str(tmp_path), plan, files=3):
        with Path(place).open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
                assert record.http_headers is not None
                kind = record.http_headers.get("Content-Type") or ""
                if record.http_headers.status_code == 200 and kind.startswith("text/html"):
                    found[record.headers["WARC-Target-URI"]] = record.reader.read()
    archived = {u: p for u, p in plan.pages.items() if p.host in site.archived_hosts()}
    assert found == {url: page.html() for url, page in archived.items()}
