from __future__ import annotations

import html
import io
import itertools
import json
import zlib
from collections import Counter

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from selectolax.lexbor import LexborHTMLParser

from benchmarks import web_corpus
from benchmarks.web_metadata import Member, Record, compact, describe, html_metadata


@pytest.fixture(scope="session")
def warc(data_dir, tmp_path_factory):
    """A WARC of all pages and more, and what is said of it."""
    place = tmp_path_factory.mktemp("corpus") / "corpus.warc.gz"
    return place, web_corpus.write(place, data_dir, 78, "warc")


@pytest.fixture(scope="session")
def wat(data_dir, tmp_path_factory):
    """The WAT of some hundred pages."""
    place = tmp_path_factory.mktemp("corpus") / "corpus.warc.wat.gz"
    return place, web_corpus.write(place, data_dir, 12, "wat")


def _records(stream):
    """Yield each record's header, as pairs, and its block."""
    for record in ArchiveIterator(stream, parse_http=False, record_types=WarcRecordType.any_type):
        yield list(record.headers), record.reader.read()


@pytest.fixture(scope="session")
def real(common_crawl_dir):
    """What the real WAT says, by id of the record it speaks of, and the real WARC's records."""
    warc, wat, _ = (path.read_bytes() for path in sorted(common_crawl_dir.iterdir()))
    said = {dict(h).get("WARC-Refers-To"): block for h, block in _records(io.BytesIO(wat))}
    said.pop(None)  # its own first record
    records = [Record(fields, block) for fields, block in _records(io.BytesIO(warc))]
    return said, {dict(r.fields)["WARC-Record-ID"]: r for r in records}


def _ours(record, theirs):
    """Return what we say of a record, as JSON, the place being the one that the real WAT tells."""
    told = theirs["Container"]
    place = Member(
        told["Filename"], int(told["Offset"]), int(told["Gzip-Metadata"]["Deflate-Length"])
    )
    head, _, body = record.block.partition(b"\r\n\r\n")
    is_page = dict(record.fields)["WARC-Type"] == "response" and b"text/html" in head
    page = html_metadata(body.decode()) if is_page else None
    return json.loads(compact(describe(record, place, page)))


def _as_now(told):
    """Return what the extractor of 2014 said as today's says it: the known changes, and no more."""
    envelope = told["Envelope"]
    payload = envelope["Payload-Metadata"]
    envelope["Format"] = "WARC/1.0"
    for name in ("Actual-Content-Length", "Block-Digest"):
        payload[name] = envelope.pop(name)  # moved
    for name in ("HTTP-Request-Metadata", "HTTP-Response-Metadata"):
        if name in payload:  # renamed
            message = payload[name]
            message["Entity-Trailing-Slop-Length"] = message.pop("Entity-Trailing-Slop-Bytes")
    if payload.pop("Headers-Corrupt", None):  # it could not read the last line of a warcinfo
        payload["Trailing-Slop-Length"] = "4"
        about = "http://bibnum.bnf.fr/WARC/WARC_ISO_28500_version1_latestdraft.pdf"
        payload["WARC-Info-Metadata"]["conformsTo"] = about
    page = payload.get("HTTP-Response-Metadata", {}).get("HTML-Metadata", {})
    for link in [*page.get("Links", []), *page.get("Head", {}).get("Link", [])]:
        for key, value in link.items():
            link[key] = html.unescape(value)  # it left references as they stood
    return told


def test_it_tells_of_real_pages_what_the_real_wat_tells(real):
    """Structure, names and values are those of Common Crawl's WAT of the same WARC."""
    said, records = real
    assert len(said) == 8
    for record_id, block in said.items():
        theirs = json.loads(block)
        ours = _ours(records[record_id], theirs)
        message = ours["Envelope"]["Payload-Metadata"].get("HTTP-Response-Metadata", {})
        for link in message.get("HTML-Metadata", {}).get("Links", []):
            link.pop("rel", None)  # not told of links in 2014
        assert ours == _as_now(theirs)


def test_keys_stand_in_the_order_of_todays_extractor(wat):
    """It is the order in which the extractor finds things out, as in all WATs since August 2019."""
    with wat[0].open("rb") as stream:
        told = [json.loads(block) for _, block in itertools.islice(_records(stream), 1, 30)]
    response = next(
        t for t in told if "HTTP-Response-Metadata" in t["Envelope"]["Payload-Metadata"]
    )
    container, envelope = response["Container"], response["Envelope"]
    payload = envelope["Payload-Metadata"]
    message = payload["HTTP-Response-Metadata"]
    assert list(response) == ["Container", "Envelope"]
    assert list(container) == ["Filename", "Compressed", "Offset", "Gzip-Metadata"]
    assert list(envelope)[:2] == ["Payload-Metadata", "Format"]
    assert list(envelope)[2:] == ["WARC-Header-Length", "WARC-Header-Metadata"]
    assert list(payload)[:2] == ["Actual-Content-Type", "HTTP-Response-Metadata"]
    assert list(message)[:3] == ["Response-Message", "Headers-Length", "Headers"]
    assert list(message)[3:5] == ["HTML-Metadata", "Entity-Length"]
    links = message["HTML-Metadata"]["Links"]
    picture = next(link for link in links if link["path"] == "IMG@/src" and "alt" in link)
    assert list(picture)[:3] == ["path", "url", "alt"]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a/b</c>", '"a/b<\\/c>"'),
        ('"\\\n\t\x01', r'"\"\\\n\t\u0001"'),
        ("ä\u2028💡\x7f", '"ä\u2028💡\x7f"'),
    ],
)
def test_strings_are_escaped_as_the_extractor_does(value, written):
    """Quotes, backslashes, control characters, and a slash after a less-than sign; no more."""
    assert compact({"k": value}) == f'{{"k":{written}}}'


@pytest.mark.parametrize(
    ("page", "links"),
    [
        ('<img src=a alt="x &amp; y" title=t>', [("IMG@/src", "a", "x & y", "t")]),
        ("<IMG SRC='a' ALT>", [("IMG@/src", "a")]),
        ('<img alt="" src="">', [("IMG@/src", "", "")]),
        ('<img data-src="a" srcset="b 2x" alt=c>', []),
        ('<img src="data:image/gif;base64,AA">', [("IMG@/src", "data:image/gif;base64,")]),
        ('<!-- <img src=a> --><script>"<img src=b>"</script><style>c</style>', []),
        ("<noscript><img src=a></noscript>", [("IMG@/src", "a")]),
        ('<video poster=a src="b>c">', [("VIDEO@/src", "b>c"), ("VIDEO@/poster", "a")]),
        ('<a rel="it"s" href=a><img src=b></a>', [("IMG@/src", "b"), ("A@/href", "a", "it")]),
        ("a < b <img src=a", []),
        ("<td background=a>", [("TD@/background", "a")]),
        ("<style>b { background: url('a') }</style>", [("STYLE/#text", "a")]),
    ],
)
def test_links_of_a_page(page, links):
    """Attributes that the extractor knows are told, of all tags that are tags."""
    found = html_metadata(page).get("Links", [])
    assert [tuple(link.values()) for link in found] == links


def test_text_of_a_link():
    """It is what stands between its tags, white space collapsed, 128 characters at most."""
    page = "<a href=a> b <p>c</p>d<b>e</b>&nbsp;f </a><a href=g></a><a name=h>i</a>"
    links = html_metadata(page + f"<a href=j>{'k' * 200}</a>")["Links"]
    assert [link.get("text") for link in links] == ["b c de f", None, "k" * 128]


def test_head_of_a_page():
    """Title, base, metas of two attributes at least, links, scripts, and the language."""
    head = html_metadata(
        '<html lang=fr><title> a\nb </title><base href="/c/"><meta charset=utf-8>'
        '<meta property="og:image" content=d><link rel=license href=e><script src=f></script>'
    )["Head"]
    assert head == {
        "Metas": [
            {"name": "HTML@/lang", "content": "fr"},
            {"content": "d", "property": "og:image"},
        ],
        "Title": "a b",
        "Base": "/c/",
        "Link": [{"path": "LINK@/href", "url": "e", "rel": "license"}],
        "Scripts": [{"path": "SCRIPT@/src", "url": "f"}],
    }


def test_pictures_are_those_of_a_parser(data_dir):
    """Of the real pages, all but one or two have the pictures that an HTML parser finds."""
    other = 0
    for page in web_corpus.load(data_dir)[::4]:
        text = page.body.decode(page.charset or "utf-8", "replace")
        links = html_metadata(text).get("Links", [])
        parsed = [node.attributes.get("src") for node in LexborHTMLParser(text).css("img[src]")]
        told = [link["url"] for link in links if link["path"] == "IMG@/src"]
        other += Counter(told) != Counter(map(_without_data, parsed))
    assert other <= 1


def _without_data(url):
    return url[: url.index(",") + 1] if url and url.startswith("data:") else url or ""


def test_each_record_is_a_gzip_member(warc):
    """A page is a request, a response and a metadata record, after the archive's own."""
    data, kinds = warc[0].read_bytes(), []
    while data:
        unpacker = zlib.decompressobj(wbits=31)
        record = unpacker.decompress(data)
        data = unpacker.unused_data
        assert record.endswith(b"\r\n\r\n")
        kinds.append(record.partition(b"\r\n")[2].partition(b"\r\n")[0])
    assert kinds[0] == b"WARC-Type: warcinfo"
    of_page = [b"WARC-Type: request", b"WARC-Type: response", b"WARC-Type: metadata"]
    assert kinds[1:] == of_page * warc[1].pages


def test_responses_are_whole(warc):
    """Lengths and digests are right, no address is there twice, and bodies have their charset."""
    urls, size = set(), 0
    with warc[0].open("rb") as stream:
        for record in ArchiveIterator(stream, parse_http=False):
            if record.record_type != WarcRecordType.response:
                continue
            assert record.verify_block_digest(consume=False)
            record.parse_http()
            assert record.verify_payload_digest(consume=False)
            body = record.reader.read()
            assert record.http_headers["Content-Length"] == str(len(body))
            if charset := record.http_charset:
                body.decode(charset)
            urls.add(record.headers["WARC-Target-URI"])
            size += len(body)
    assert len(urls) == warc[1].pages > 944
    assert size == pytest.approx(warc[1].html_bytes, rel=0.01)
    assert 78e6 <= warc[1].raw_bytes < 80e6


def test_a_wat_has_what_its_warc_has(warc, wat):
    """Record for record, it speaks of what stands in the WARC of as many pages."""
    with warc[0].open("rb") as stream:
        there = [_named(fields) for fields, _ in _records(stream)]
    with wat[0].open("rb") as stream:
        told = [json.loads(block) for _, block in itertools.islice(_records(stream), 1, None)]
    said = [_named(t["Envelope"]["WARC-Header-Metadata"].items()) for t in told]
    shorter = min(len(there), len(said))
    assert shorter > 900
    assert said[:shorter] == there[:shorter]


def _named(fields):
    fields = dict(fields)
    return fields["WARC-Record-ID"], fields.get("WARC-Target-URI"), fields["Content-Length"]


@pytest.mark.parametrize("kind", ["warc", "wat"])
def test_the_same_bytes_again(kind, data_dir, tmp_path):
    """A smaller archive is how a larger one begins; both appear whole."""
    small, large = tmp_path / "small.gz", tmp_path / "large.gz"
    web_corpus.write(small, data_dir, 1, kind)
    web_corpus.write(large, data_dir, 2, kind)
    assert large.read_bytes().startswith(small.read_bytes())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["large.gz", "small.gz"]


def test_copies_live_on_hosts_of_their_own():
    """Hosts of all addresses change, with a scheme or without; the rest of the page stays."""
    page = b'<a href="//a.b/"><img src="http://c.d/e?f=g://h" alt="i//j"><img src="k">'
    moved = b'<a href="//c7.a.b/"><img src="http://c7.c.d/e?f=g://c7.h" alt="i//j"><img src="k">'
    assert web_corpus.moved(page, 7) == moved
    assert web_corpus.moved(page, 0) == page
