from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wit_builder import storage
from wit_builder.crawl import candidates, wat, wat_json
from wit_builder.crawl.candidates import Output
from wit_builder.crawl.json_strings import strings
from wit_builder.crawl.wat import WatJob
from wit_builder.errors import ArchiveError
from wit_builder.sections import WatSource
from wit_builder.tables import CANDIDATES
from wit_builder.units import Done

INFO = b"Software-Info: ia-web-commons.1.1\r\nExtracted-Date: Fri, 09 Feb 2024 10:14:59 GMT\r\n\r\n"
OLD_INFO = INFO.replace(b"09 Feb 2024", b"09 Sep 2014")


def record(payload: bytes, kind: str = "metadata", *, size_off: int = 0) -> bytes:
    head = [
        "WARC/1.0",
        f"WARC-Type: {kind}",
        "WARC-Date: 2024-02-01T00:00:00Z",
        "WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000000>",
        f"Content-Type: application/{'json' if kind == 'metadata' else 'warc-fields'}",
        f"Content-Length: {len(payload) + size_off}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + payload + b"\r\n\r\n"


def page(
    links: list[dict[str, Any]], *, url: str = "http://h.example/a/b.html", **more: Any
) -> dict[str, Any]:
    """Return what a WAT says of a page."""
    response = {
        "Response-Message": {"Status": more.get("status", "200"), "Version": "HTTP/1.1"},
        "Headers": more.get("headers", {"Content-Type": "text/html"}),
        "HTML-Metadata": {"Head": more.get("head", {"Title": "t"}), "Links": links},
    }
    if "html" in more:
        response["HTML-Metadata"] = more["html"]
    header = {
        "WARC-Type": "response",
        "WARC-Date": "2024-01-02T03:04:05Z",
        "WARC-Target-URI": url,
    }
    payload = {"HTTP-Response-Metadata": {k: v for k, v in response.items() if v is not None}}
    return {"Envelope": {"Payload-Metadata": payload, "WARC-Header-Metadata": header}}


def image(url: str | None, **texts: str) -> dict[str, str]:
    return {"path": "IMG@/src", **({} if url is None else {"url": url}), **texts}


def crawl(folder: Path, *pages: Any, info: bytes = INFO) -> tuple[Done, pa.Table, pa.Table]:
    """Return what a WAT file with these payloads gives; bytes are taken as they are."""
    payloads = [p if isinstance(p, bytes) else json.dumps(p).encode() for p in pages]
    members = [record(info, "warcinfo"), *map(record, payloads)]
    return crawl_bytes(folder, b"".join(gzip.compress(m, mtime=0) for m in members))


def crawl_bytes(folder: Path, data: bytes) -> tuple[Done, pa.Table, pa.Table]:
    place = folder / "x.wat.gz"
    place.write_bytes(data)
    job = WatJob(str(place), Output.of(str(folder / "g0"), "wat-00000"))
    done = wat.run(job)
    batches = storage.read_batches(job.output.candidates)
    found = pa.concat_tables([CANDIDATES.empty_table(), *batches])
    return done, found, pq.read_table(job.output.rejections)


def pairs(found: pa.Table) -> list[tuple[str, str, str]]:
    return list(zip(*(found[c].to_pylist() for c in ("url", "text", "text_from")), strict=True))


def reasons(rejected: pa.Table) -> list[tuple[str, str]]:
    return list(zip(*(rejected[c].to_pylist() for c in ("reason", "detail")), strict=True))


def test_a_page(tmp_path: Path) -> None:
    """Pictures come in the order of the page, alt before title, with all that is known of it."""
    links = [
        {"path": "A@/href", "url": "/x", "text": "a link"},
        image("c.jpg", alt=" two  words\n", title="more"),
        image("//i.example/d.png", alt="same", title="same"),
        image("/e.gif", title='"quoted" \\ \u2028 é 😀'),
        image("f.gif", alt="", title=" "),
        image("g.gif"),
        {"path": "IMG@/longdesc", "url": "/long", "alt": "not a picture"},
    ]
    done, found, rejected = crawl(tmp_path, page(links))
    assert pairs(found) == [
        ("http://h.example/a/c.jpg", "two words", "alt"),
        ("http://h.example/a/c.jpg", "more", "title"),
        ("http://i.example/d.png", "same", "alt"),
        ("http://h.example/e.gif", '"quoted" \\ é 😀', "title"),
    ]
    assert found["page_url"].unique().to_pylist() == ["http://h.example/a/b.html"]
    assert found["archive"].unique().to_pylist() == ["x.wat.gz"]
    assert str(found["found_at"][0]) == "2024-01-02 03:04:05+00:00"
    assert found["license"].null_count == found["picture_at"].null_count == 4
    assert done.counts == {"candidates": 4, "pages": 1, "rejected:no_text": 2}
    assert rejected.num_rows == 0


def test_escapes(tmp_path: Path) -> None:
    """JSON's escapes are undone, surrogate pairs too; what is wrong becomes U+FFFD."""
    raw = json.dumps(page([image("a.jpg", alt="SENTINEL")])).encode()
    good = raw.replace(b"SENTINEL", rb"\u00e9 \ud83d\ude00 <\/b> \"q\" \\ a\tb")
    bad = raw.replace(b"SENTINEL", b"x\\ud83d y\xff")
    _, found, _ = crawl(tmp_path, good, bad)
    assert found["text"].to_pylist() == [
        'é 😀 </b> "q" \\ a b',
        "x\N{REPLACEMENT CHARACTER} y\N{REPLACEMENT CHARACTER}",
    ]


def test_base(tmp_path: Path) -> None:
    """Addresses are relative to the page's base, itself relative to the page; a bad one is none."""
    for base, expected in (
        ("/other/", "http://h.example/other/c.jpg"),
        ("https://i.example/", "https://i.example/c.jpg"),
        ("javascript:x", "http://h.example/a/c.jpg"),
    ):
        _, found, _ = crawl(tmp_path, page([image("c.jpg", alt="x")], head={"Base": base}))
        assert found["url"].to_pylist() == [expected]


def test_character_references(tmp_path: Path) -> None:
    """They are undone where the extractor was one that left them, and not twice."""
    links = [image("c.jpg?a=1&amp;b=2", alt="Tom &amp; Jerry &quot;")]
    _, found, _ = crawl(tmp_path, page(links), info=OLD_INFO)
    assert pairs(found) == [("http://h.example/a/c.jpg?a=1&b=2", 'Tom & Jerry "', "alt")]
    _, found, _ = crawl(tmp_path, page([image("c.jpg", alt="write &amp; for and")]))
    assert found["text"].to_pylist() == ["write &amp; for and"]


@pytest.mark.parametrize("info", [b"", b"Extracted-Date: some day\r\n\r\n", b"\xff: x\r\n"])
def test_a_file_that_does_not_say_when_it_was_made(tmp_path: Path, info: bytes) -> None:
    """It is taken for one of today's, and its first record for no page."""
    _, found, rejected = crawl(tmp_path, page([image("c.jpg", alt="a &amp; b")]), info=info)
    assert found["text"].to_pylist() == ["a &amp; b"]
    assert rejected.num_rows == 0


@pytest.mark.parametrize(
    ("more", "reason", "detail"),
    [
        ({"headers": {"X-RoBoTs-Tag": "noai"}}, "opt_out_header", "noai"),
        ({"headers": {"tdm-reservation": "1"}}, "opt_out_header", "tdm-reservation"),
        ({"headers": {"Content-Usage": "train-ai=n"}}, "opt_out_header", "train-ai=n"),
        ({"headers": {"X-Robots-Tag": ["all", "noindex"]}}, "opt_out_header", "noindex"),
        ({"head": {"Metas": [{"name": "Robots", "content": "NOAI"}]}}, "opt_out_page", "noai"),
        ({"head": {"Metas": [{"content": "none", "name": " robots "}]}}, "opt_out_page", "none"),
        ({"head": {"Metas": [{"name": "wit-builder", "content": "noai"}]}}, "opt_out_page", "noai"),
        (
            {"head": {"Metas": [{"name": "tdm-reservation", "content": "1"}]}},
            "opt_out_page",
            "tdm-reservation",
        ),
    ],
)  # fmt: skip
def test_opt_outs(tmp_path: Path, more: dict[str, Any], reason: str, detail: str) -> None:
    """A page that opts out, in a header or a meta, gives nothing, and the reason is kept."""
    other = page([image("o.jpg", alt="other")], url="http://o.example/")
    done, found, rejected = crawl(tmp_path, page([image("c.jpg", alt="x")], **more), other)
    assert found["text"].to_pylist() == ["other"]
    assert reasons(rejected) == [(reason, detail)]
    assert rejected["url"].to_pylist() == ["http://h.example/a/b.html"]
    assert done.counts["pages"] == (2 if reason == "opt_out_page" else 1)


def test_a_meta_for_others_is_no_opt_out(tmp_path: Path) -> None:
    """What robots metas say beside opting out, and what other metas say, changes nothing."""
    metas = [
        {"name": "robots", "content": "index, follow"},
        {"name": "description", "content": "noai"},
        {"name": "otherbot", "content": "noindex"},
        {"property": "og:title", "content": "none"},
    ]
    _, found, _ = crawl(tmp_path, page([image("c.jpg", alt="x")], head={"Metas": metas}))
    assert found.num_rows == 1


def test_license(tmp_path: Path) -> None:
    """A link that says it is to the licence comes before one to Creative Commons."""
    by = "https://creativecommons.org/licenses/by/4.0/"
    said = {"path": "A@/href", "url": "/terms", "rel": "nofollow License"}
    plain = {"path": "A@/href", "url": by}
    about = {"path": "A@/href", "url": "https://www.creativecommons.org/about"}
    head = {"Link": [{"path": "LINK@/href", "url": "/head", "rel": "license"}]}
    for links, more, expected in (
        ([plain, said], {}, "http://h.example/terms"),
        ([about, plain], {}, by),
        ([about], {}, None),
        ([plain], {"head": head}, "http://h.example/head"),
    ):
        told: dict[str, Any] = {**more}
        _, found, _ = crawl(tmp_path, page([*links, image("c.jpg", alt="x")], **told))
        assert found["license"].to_pylist() == [expected]


def test_what_is_no_page(tmp_path: Path) -> None:
    """Requests are passed over; answers that are no success, or no HTML, are counted."""
    request: dict[str, Any] = {
        "Envelope": {"Payload-Metadata": {"HTTP-Request-Metadata": {"Headers": {}}}}
    }
    done, found, rejected = crawl(
        tmp_path,
        request,
        page([], status="404"),
        page([], status="503"),
        page([], status="301"),
        page([], html=None),
    )
    assert found.num_rows == done.counts["pages"] == 0
    assert reasons(rejected) == [("http_4xx", "404"), ("http_5xx", "503"), ("not_html", "")]


def test_bad_urls(tmp_path: Path) -> None:
    """Addresses that cannot be asked for are rejected with the reason; the page's own, too."""
    links = [
        image("data:image/gif;base64,xx", alt="1"),
        image("http://user:secret@i.example/a.jpg", alt="2"),
        image("ftp://i.example/a.jpg", alt="3"),
        image(None, alt="4"),
        image("good.jpg", alt="5"),
    ]
    _, found, rejected = crawl(
        tmp_path, page(links), page([image("x.jpg", alt="6")], url="dns:h.example")
    )
    assert found["text"].to_pylist() == ["5"]
    assert reasons(rejected) == [
        ("bad_url", "of the page: scheme dns"),
        ("bad_url", "data: URI"),
        ("bad_url", "credentials"),
        ("bad_url", "scheme ftp"),
        ("bad_url", "empty"),
    ]
    assert "secret" not in str(rejected.to_pylist())


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{",
        b"not json",
        b'{"Envelope": }',
        b'{"Envelope":{"Payload-Metadata":',
        b'{"a":1}}',
        b'{"a":1,}',
        b'{"a" 1}',
        b'{"a":[1,2}',
        b'["a"',
        b'{"a":"b}',
        b"[" * 100 + b"]" * 100,
        b"\0\0\0",
    ],
)
def test_invalid_json(tmp_path: Path, bad: bytes) -> None:
    """A record that is no JSON, or absurdly nested, is rejected and counted; the others stay."""
    good = page([image("c.jpg", alt="x")])
    _, found, rejected = crawl(tmp_path, good, bad, good)
    assert found.num_rows == 1
    assert reasons(rejected) == [("bad_record", "not JSON")]


def test_a_page_broken_in_its_links_gives_nothing(tmp_path: Path) -> None:
    """What stands before the place where a record's JSON breaks is not taken for the whole."""
    raw = json.dumps(page([image("c.jpg", alt="x"), image("d.jpg", alt="y")])).encode()
    _, found, rejected = crawl(tmp_path, raw[: raw.index(b"d.jpg")])
    assert found.num_rows == 0
    assert reasons(rejected) == [("bad_record", "not JSON")]


def test_a_file_of_empty_records(tmp_path: Path) -> None:
    """Each is no JSON, though there is nothing to go through."""
    _, found, rejected = crawl(tmp_path, b"", b"")
    assert found.num_rows == 0
    assert reasons(rejected) == [("bad_record", "not JSON")] * 2


def test_damage_in_the_middle(tmp_path: Path) -> None:
    """A garbage member and a record with a wrong length cost themselves alone."""
    payloads = [json.dumps(page([image(f"{n}.jpg", alt=f"text {n}")])).encode() for n in range(4)]
    members = [gzip.compress(record(p), mtime=0) for p in payloads]
    garbage = members[1][:40] + bytes(len(members[1]) - 40)
    liar = gzip.compress(record(payloads[2], size_off=-7), mtime=0)
    _, found, rejected = crawl_bytes(tmp_path, b"".join([members[0], garbage, liar, members[3]]))
    assert found["text"].to_pylist() == ["text 0", "text 3"]
    assert [reason for reason, _ in reasons(rejected)] == ["bad_record"] * 2


def test_repeats_are_counted(tmp_path: Path) -> None:
    """The same pair again is no candidate, and is counted."""
    done, found, _ = crawl(tmp_path, *[page([image("/c.jpg", alt="x")])] * 3)
    assert found.num_rows == 1
    assert done.counts["repeated"] == 2


def test_not_an_archive(tmp_path: Path) -> None:
    """A file without any WARC record is an error that names it."""
    with pytest.raises(ArchiveError, match=r"x\.wat\.gz"):
        crawl_bytes(tmp_path, b"<html>no such key</html>")


def test_a_real_file(common_crawl_dir: Path, tmp_path: Path) -> None:
    """A WAT file of Common Crawl gives what its page says, checked by hand against the JSON."""
    (place,) = common_crawl_dir.glob("*.wat")
    (piece,) = wat.pieces(WatSource(paths=[str(place)]))
    output = Output.of(str(tmp_path), "wat-00000")
    done = wat.run(piece.job(output))
    found = pa.concat_tables(storage.read_batches(output.candidates))
    photos = "http://0pointer.de/photos/galleries/Australia"
    assert pairs(found) == [
        (f"{photos}/lq/img-496.jpg", "496", "alt"),
        (f"{photos}/thumbs/img-495.jpg", "Previous", "alt"),
        (f"{photos}/thumbs/img-497.jpg", "Next", "alt"),
        (
            "http://creativecommons.org/images/public/somerights20.png",
            "Creative Commons License",
            "alt",
        ),
    ]
    assert found["license"].unique().to_pylist() == [
        "http://creativecommons.org/licenses/by-sa/3.0/"
    ]
    assert done.counts["pages"] == 1


# --- the walk, beside Python's own JSON reader ----------------------------------

TEXT = st.text(st.sampled_from('ab"\\/{}[],: \n\té😀\u2028'), max_size=8)
LINK = st.fixed_dictionaries(
    {"path": st.sampled_from(["IMG@/src", "A@/href", "IMG@/srcset"])},
    optional={"url": TEXT, "alt": TEXT, "title": TEXT, "text": TEXT, "extra": st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=5,
    )},
)  # fmt: skip
DOCUMENTS = st.lists(st.lists(LINK, max_size=4).map(page), min_size=1, max_size=4)


def shuffled(value: Any, order: Any) -> Any:
    """Return the value with the keys of every object in another order."""
    if isinstance(value, dict):
        keys = order.draw(st.permutations(list(value)))
        return {key: shuffled(value[key], order) for key in keys}
    return [shuffled(v, order) for v in value] if isinstance(value, list) else value


def images_of(document: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    html = document["Envelope"]["Payload-Metadata"]["HTTP-Response-Metadata"]["HTML-Metadata"]
    for link in html["Links"]:
        if link["path"] == "IMG@/src":
            yield link.get("url", ""), link.get("alt", ""), link.get("title", "")


@settings(max_examples=200)
@given(DOCUMENTS, st.data(), st.sampled_from([{}, {"indent": 1}, {"separators": (",", ":")}]))
def test_the_walk_finds_what_a_json_reader_finds(
    documents: list[dict[str, Any]], data: Any, style: dict[str, Any]
) -> None:
    """Whatever the order of keys, white space, escapes and nesting: the same pictures."""
    escaped = data.draw(st.booleans())
    raw = [json.dumps(shuffled(d, data), ensure_ascii=escaped, **style).encode() for d in documents]
    joined = np.frombuffer(b"".join(raw), np.uint8)
    found = wat_json.scan(joined, np.cumsum([0, *map(len, raw)]))
    assert found.records[:, wat_json.VALID].all()
    columns = [
        strings(joined, found.pictures[:, c : c + 2]).to_pylist()
        for c in (wat_json.HREF, wat_json.ALT, wat_json.TITLE)
    ]
    expected = [(n, *texts) for n, d in enumerate(documents) for texts in images_of(d)]
    assert list(zip(found.pictures[:, 0].tolist(), *columns, strict=True)) == expected


@settings(max_examples=300)
@given(DOCUMENTS, st.data())
def test_what_is_told_valid_is_valid(documents: list[dict[str, Any]], data: Any) -> None:
    """A byte lost, added or changed never makes the walk read beyond a record, or fail."""
    raw = bytearray(json.dumps(documents[0]).encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    match data.draw(st.integers(0, 2)):
        case 0:
            del raw[at]
        case 1:
            raw.insert(at, data.draw(st.sampled_from(b'"\\{}[],:x ')))
        case _:
            raw[at] = data.draw(st.integers(0, 255))
    joined = np.frombuffer(bytes(raw) + b'"}]' * 40, np.uint8)
    found = wat_json.scan(joined, np.array([0, len(raw)]))
    assert found.pictures[:, 1:].max(initial=0) <= len(raw)
    try:
        json.loads(raw)
    except ValueError:
        return  # the walk passes over some details, such as how a number is written
    assert found.records[0, wat_json.VALID]


def test_long_addresses_of_a_page_are_written_in_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a page says of itself is written with each picture, so that is what bounds a batch."""
    monkeypatch.setattr(candidates, "BATCH_CHARS", 20_000)
    url = "http://h.example/" + "a" * 3000 + "/"
    pictures = [image(f"{n}.jpg", alt=f"text {n}") for n in range(40)]
    _, found, _ = crawl(tmp_path, page(pictures, url=url))
    assert found["url"].to_pylist() == [f"{url}{n}.jpg" for n in range(40)]
    batches = list(storage.read_batches(str(tmp_path / "g0/candidates/wat-00000.arrow")))
    assert max(batch.num_rows for batch in batches) < 5


def test_no_secret_of_a_page_is_kept(tmp_path: Path) -> None:
    """A page whose URL has credentials gives nothing, even with a base, and they are not told."""
    url = "http://user:SECRET@h.example/"
    picture = [image("a.jpg", alt="x")]
    _, found, rejected = crawl(
        tmp_path,
        page(picture, url=url, head={"Base": "http://b.example/"}),
        page(picture, url=url, headers={"X-Robots-Tag": "noai"}),
        page(picture, url=url, status="404"),
    )
    assert found.num_rows == 0
    assert sorted(r for r, _ in reasons(rejected)) == ["bad_url", "http_4xx", "opt_out_header"]
    assert "SECRET" not in str(rejected.to_pylist())
