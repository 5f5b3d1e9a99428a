"""Parts of a multistream dump have each page once; what is broken is named by its byte."""

from __future__ import annotations

import bz2
import functools
import http.server
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.errors import QueryListError
from wit_builder.queries import streams
from wit_builder.queries.streams import Part, parts
from wit_builder.queries.wikipedia import Dump

HEAD = '<mediawiki xml:lang="en"><siteinfo><namespaces/></siteinfo>\n'
PAGE = "<page><title>{0}</title><ns>0</ns><revision><text>{1}</text></revision></page>\n"


def multistream(folder: Path, pages: int, per_stream: int, tail: str = "</mediawiki>") -> str:
    """Write a multistream dump of pages 0, 1, 2 ...; return its place."""
    texts = [HEAD]
    numbers = list(range(pages))
    for first in range(0, pages, per_stream):
        some = numbers[first : first + per_stream]
        texts.append("".join(PAGE.format(k, f"word{k} " * (k % 40)) for k in some))
    data = b"".join(bz2.compress(text.encode()) for text in [*texts, tail])
    place = folder / "enwiki-multistream.xml.bz2"
    place.write_bytes(data)
    return str(place)


def titles(place: str, part_bytes: int) -> list[list[str]]:
    """Return the titles that each part has."""
    return [[page.title for page in Dump(part)] for part in parts(place, part_bytes)]


@given(st.integers(1, 60), st.integers(1, 20), st.integers(64, 3000))
def test_every_page_is_in_one_part(tmp_path_factory, pages, per_stream, part_bytes):
    """However a multistream dump is cut, its parts have every page once, in order."""
    place = multistream(tmp_path_factory.mktemp("dump"), pages, per_stream)
    found = titles(place, part_bytes)
    assert [title for part in found for title in part] == [str(k) for k in range(pages)]


def test_a_large_dump_has_several_parts(tmp_path):
    """A multistream dump is several units of work, and the file of its index none."""
    place = multistream(tmp_path, 200, 10)
    assert sum(1 for part in titles(place, 1000) if part) > 3
    assert streams.is_index("enwiki-20260101-pages-articles-multistream-index.txt.bz2")
    assert streams.is_index(
        "s3://b/enwiki-latest-pages-articles-multistream-index1.txt-p1p41242.bz2"
    )
    assert not streams.is_index("enwiki-20260101-pages-articles-multistream.xml.bz2")
    assert not streams.is_index("enwiki-20260101-pages-articles1.xml-p1p41242.bz2")


def test_other_dumps_have_one_part(tmp_path):
    """A dump of one stream, or of streams that are not cut between pages, is one part."""
    whole = (HEAD + "".join(PAGE.format(k, "x") for k in range(99)) + "</mediawiki>").encode()
    (tmp_path / "one.xml.bz2").write_bytes(bz2.compress(whole))
    halves = bz2.compress(whole[:3000]) + bz2.compress(whole[3000:])
    (tmp_path / "two.xml.bz2").write_bytes(halves)
    for name in ("one.xml.bz2", "two.xml.bz2"):
        place = str(tmp_path / name)
        assert parts(place, 64) == [Part(place)]
        assert len(titles(place, 64)[0]) == 99


def test_unknown_kind(tmp_path):
    """A file of another kind is refused before anything is read."""
    with pytest.raises(QueryListError, match=r"unknown kind.*dump\.7z.*\.xml\.bz2"):
        parts(str(tmp_path / "dump.7z"))


def test_missing(tmp_path):
    """A missing dump is named with the recipe key to correct."""
    with pytest.raises(QueryListError, match=r"no such file.*queries\.wikipedia\.dumps"):
        parts(str(tmp_path / "none.xml.bz2"))


@pytest.mark.parametrize("cut", ["within a stream", "between streams"])
def test_cut_short(tmp_path, cut):
    """A multistream dump that ends too early is an error, also where a stream happens to end."""
    place = Path(multistream(tmp_path, 100, 10))
    data = place.read_bytes()
    starts = [at for at in range(len(data)) if data[at : at + 10] == b"BZh91AY&SY"]
    place.write_bytes(data[: starts[7] + (20 if cut == "within a stream" else 0)])
    for part_bytes in (1000, 1 << 20, starts[7] - 5):
        with pytest.raises(QueryListError, match=r"cut short|no element found"):
            titles(str(place), part_bytes)


def test_cut_short_at_an_empty_stream(tmp_path):
    """An empty stream where one part ends hides from no part that the rest is missing."""
    place = Path(multistream(tmp_path, 30, 10, tail=""))
    for after in (b"", bz2.compress(b"</mediawiki>")):
        data = place.read_bytes()
        whole = data + after
        place.write_bytes(whole)
        for part_bytes in range(len(data) - 20, len(data) + 3):
            if after:
                assert len([t for part in titles(str(place), part_bytes) for t in part]) == 30
            else:
                with pytest.raises(QueryListError, match="no element found"):
                    titles(str(place), part_bytes)


def test_damaged_border(tmp_path):
    """A stream whose beginning is damaged is not skipped, wherever the parts are cut."""
    place = Path(multistream(tmp_path, 100, 10))
    data = bytearray(place.read_bytes())
    starts = [at for at in range(len(data)) if data[at : at + 10] == b"BZh91AY&SY"]
    data[starts[4] + 5] ^= 0xFF
    place.write_bytes(data)
    for part_bytes in (starts[4], starts[4] - 1, starts[4] + 1, 1 << 20):
        with pytest.raises(QueryListError, match=r"enwiki-multistream\.xml\.bz2, before byte"):
            titles(str(place), part_bytes)


def test_rubbish_after_the_end(tmp_path):
    """Bytes after the last stream are an error, not ignored."""
    place = Path(multistream(tmp_path, 10, 5))
    place.write_bytes(place.read_bytes() + b"rubbish")
    with pytest.raises(QueryListError, match="cannot be decompressed"):
        titles(str(place), 1 << 20)


class Ranges(http.server.SimpleHTTPRequestHandler):
    """A web server that gives parts of files, as those of dumps do."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer with the bytes asked for."""
        data = Path(self.translate_path(self.path)).read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = 0, len(data) - 1
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or last), last)
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(data[first : last + 1])


def test_over_http(tmp_path):
    """A dump on a web server is read in parts, as one on disk."""
    place = multistream(tmp_path, 200, 10)
    handler = functools.partial(Ranges, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            remote = f"http://127.0.0.1:{server.server_port}/{Path(place).name}"
            assert titles(remote, 1000) == titles(place, 1000)
            assert len(titles(remote, 1000)) > 3
        finally:
            server.shutdown()
