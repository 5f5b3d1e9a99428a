from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wit_builder import storage
from wit_builder.crawl import archives, candidates, records
from wit_builder.crawl.archives import ArchiveJob
from wit_builder.crawl.candidates import Output
from wit_builder.errors import ArchiveError, GoneError, StorageError
from wit_builder.hashing import pair_uid
from wit_builder.ranges import open_ranges
from wit_builder.sections import WarcSource
from wit_builder.tables import CANDIDATES, REJECTIONS
from wit_builder.units import Done


def record(number: int, body: bytes | None = None, **changes: Any) -> bytes:
    """Return a response record, not compressed; ``size_off`` makes its length a lie."""
    default = f"<img src=/{number}.jpg alt='picture {number}'>".encode() + b"<p>fill" * 300
    lines = [
        f"HTTP/1.1 {changes.get('status', '200 OK')}",
        *changes.get("http", ["Content-Type: text/html"]),
    ]
    block = "\r\n".join([*lines, "", ""]).encode() + (default if body is None else body)
    head = [
        "WARC/1.0",
        f"WARC-Type: {changes.get('kind', 'response')}",
        f"WARC-Target-URI: {changes.get('url', f'http://h.example/{number}')}",
        "WARC-Date: 2024-05-06T07:08:09Z",
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012d}>",
        "Content-Type: application/http; msgtype=response",
        f"Content-Length: {len(block) + changes.get('size_off', 0)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + block + b"\r\n\r\n"


def member(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def crawl(
    folder: Path, data: bytes, max_html_bytes: int = 1 << 20
) -> tuple[Done, pa.Table, pa.Table]:
    place = folder / "x.warc.gz"
    place.write_bytes(data)
    job = ArchiveJob(str(place), max_html_bytes, Output.of(str(folder / "g0"), "warc-00000"))
    done = archives.run(job)
    found = pa.concat_tables(
        [CANDIDATES.empty_table(), *storage.read_batches(job.output.candidates)]
    )
    return done, found, pq.read_table(job.output.rejections)


def texts(table: pa.Table) -> list[int]:
    return [int(text.split()[1]) for text in table["text"].to_pylist()]


@pytest.mark.parametrize(
    "pack",
    [
        pytest.param(lambda records: b"".join(map(member, records)), id="gzip-a-record"),
        pytest.param(b"".join, id="plain"),
        pytest.param(lambda records: member(b"".join(records)), id="one-gzip-stream"),
    ],
)
def test_every_page_is_read(tmp_path: Path, pack: Callable[[list[bytes]], bytes]) -> None:
    """A WARC gives its pages' candidates, however it is compressed."""
    records = [
        record(0, kind="warcinfo"),
        *(record(n) for n in range(1, 5)),
        record(9, kind="request"),
    ]
    done, found, rejected = crawl(tmp_path, pack(records))
    assert texts(found) == [1, 2, 3, 4]
    assert rejected.num_rows == 0
    assert done.counts == {"pages": 4, "candidates": 4}
    assert found.schema.equals(CANDIDATES)
    row = found.to_pylist()[0]
    assert row["url"] == "http://h.example/1.jpg"
    assert row["uid"] == pair_uid("http://h.example/1.jpg", "picture 1")
    assert (row["page_url"], row["archive"]) == ("http://h.example/1", "x.warc.gz")
    assert row["found_at"].isoformat() == "2024-05-06T07:08:09+00:00"


GOOD = [record(n) for n in range(5)]
TOO_LONG = record(2, size_off=9000)
TOO_SHORT = record(2, size_off=-900)
FLAWS = {
    "garbage-member": [
        *map(member, GOOD[:2]),
        b"\x00\x1f\x8b\x08garbage" * 50,
        *map(member, GOOD[3:]),
    ],
    "truncated-member": [*map(member, GOOD[:2]), member(GOOD[2])[:90], *map(member, GOOD[3:])],
    "flipped-bytes": [
        *map(member, GOOD[:2]),
        member(GOOD[2])[:60] + b"\xff" * 40,
        *map(member, GOOD[3:]),
    ],
    "wrong-checksum": [
        *map(member, GOOD[:2]),
        member(GOOD[2])[:-8] + b"checksum",
        *map(member, GOOD[3:]),
    ],
    "length-too-long": [*map(member, GOOD[:2]), member(TOO_LONG), *map(member, GOOD[3:])],
    "length-too-short": [*map(member, GOOD[:2]), member(TOO_SHORT), *map(member, GOOD[3:])],
    "length-too-long-plain": [*GOOD[:2], TOO_LONG, *GOOD[3:]],
    "length-too-short-plain": [*GOOD[:2], TOO_SHORT, *GOOD[3:]],
    "length-beyond-the-end": [
        *map(member, GOOD[:2]),
        member(record(2, size_off=10**9)),
        *map(member, GOOD[3:]),
    ],
    "not-a-record": [
        *map(member, GOOD[:2]),
        member(b"<html>no record</html>"),
        *map(member, GOOD[3:]),
    ],
    "http-garbage": [
        *map(member, GOOD[:2]),
        member(record(2, status="\x00", http=[])),
        *map(member, GOOD[3:]),
    ],
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_broken_record_is_rejected_and_the_others_kept(tmp_path: Path, flaw: str) -> None:
    """Whatever is wrong with one record, it alone is lost, and counted once."""
    done, found, rejected = crawl(tmp_path, b"".join(FLAWS[flaw]))
    assert texts(found) == [0, 1, 3, 4]
    assert rejected["reason"].to_pylist() == ["bad_record"]
    assert done.counts["rejected:bad_record"] == 1


@pytest.mark.parametrize("cut", [5, 100, 250])
def test_a_truncated_file_keeps_what_is_whole(tmp_path: Path, cut: int) -> None:
    """A file cut off in its last record gives all others."""
    data = b"".join(map(member, GOOD))
    assert len(member(GOOD[4])) > cut
    _, found, rejected = crawl(tmp_path, data[:-cut])
    assert texts(found) == [0, 1, 2, 3]
    assert rejected["reason"].to_pylist() == ["bad_record"]


def test_garbage_before_the_first_record(tmp_path: Path) -> None:
    """A file that begins with something else is read from its first record on."""
    _, found, rejected = crawl(tmp_path, b"garbage" * 99 + b"".join(map(member, GOOD)))
    assert texts(found) == [0, 1, 2, 3, 4]
    assert rejected["reason"].to_pylist() == ["bad_record"]


@pytest.mark.parametrize("data", [b"", b"<html></html>" * 99, member(b"<html></html>" * 99)])
def test_not_a_warc(tmp_path: Path, data: bytes) -> None:
    """A file without any WARC record is an error that names it, and leaves nothing behind."""
    with pytest.raises(ArchiveError, match=r"not a WARC file .*x\.warc\.gz"):
        crawl(tmp_path, data)
    assert not [p for p in (tmp_path / "g0").rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"http": ["Content-Type: image/png"]}, "not_html", id="picture"),
        pytest.param({"http": []}, "not_html", id="no-content-type"),
        pytest.param({"status": "404 Not Found"}, "http_4xx", id="404"),
        pytest.param({"status": "503 No"}, "http_5xx", id="503"),
        pytest.param(
            {"http": ["Content-Type: text/html", "X-Robots-Tag: noai"]}, "opt_out_header", id="noai"
        ),
        pytest.param(
            {"http": ["content-type: text/html", "tdm-reservation: 1"]}, "opt_out_header", id="tdm"
        ),
        pytest.param({"body": b"<meta name=robots content=noindex>"}, "opt_out_page", id="noindex"),
        pytest.param({"body": b"x" * 20_000}, "too_large_html", id="too-large"),
        pytest.param({"body": b"<div>" * 120_000}, "too_large_html", id="too-large-nested"),
        pytest.param({"body": b"<img src=data:x alt=x>"}, "bad_url", id="data-uri"),
        pytest.param({"url": "http://user:secret@h.example/"}, "bad_url", id="credentials"),
        pytest.param(
            {"http": ["Content-Type: text/html", "Content-Encoding: gzip"], "body": b"no gzip"},
            "bad_record",
            id="not-gzip",
        ),
        pytest.param(
            {"http": ["Content-Type: text/html", "Content-Encoding: x"]},
            "bad_record",
            id="unknown-coding",
        ),
    ],
)
def test_rejections(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    """A page that gives nothing is a rejection with its reason; none tells a secret."""
    data = member(record(1)) + member(record(2, **changes))
    done, found, rejected = crawl(tmp_path, data, max_html_bytes=10_000)
    assert texts(found) == [1]
    assert rejected["reason"].to_pylist() == [reason]
    assert rejected.schema.equals(REJECTIONS)
    assert done.counts[f"rejected:{reason}"] == 1
    assert "secret" not in str(rejected.to_pylist())


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("Content-Encoding: gzip", member(b"<img src=/1.jpg alt='picture 1'>")),
        ("Transfer-Encoding: chunked", b"20\r\n<img src=/1.jpg alt='picture 1'>\r\n0\r\n\r\n"),
    ],
)
def test_kept_encodings_are_undone(tmp_path: Path, coding: str, body: bytes) -> None:
    """A body that the archive kept encoded is decoded."""
    _, found, _ = crawl(tmp_path, member(record(1, body, http=["Content-Type: text/html", coding])))
    assert texts(found) == [1]


def test_a_decompression_bomb_is_too_large(tmp_path: Path) -> None:
    """A body that inflates beyond the cap is rejected without being inflated whole."""
    http = ["Content-Type: text/html", "Content-Encoding: gzip"]
    data = member(record(1, member(b" " * 50_000_000), http=http))
    _, _, rejected = crawl(tmp_path, data)
    assert rejected["reason"].to_pylist() == ["too_large_html"]


def test_redirects_are_no_rejections(tmp_path: Path) -> None:
    """A redirect is neither a page nor a rejection."""
    done, _, _ = crawl(tmp_path, member(record(1, status="301 Moved")))
    assert done.counts == {"pages": 0, "candidates": 0}


def test_a_pair_comes_once(tmp_path: Path) -> None:
    """The same picture with the same text is one candidate, the first; another text is another."""
    bodies = [b"<img src=/a alt='p 1'>" * 3, b"<img src=/a alt='p 1'>", b"<img src=/a alt='p 2'>"]
    done, found, _ = crawl(tmp_path, b"".join(member(record(n, b)) for n, b in enumerate(bodies)))
    assert texts(found) == [1, 2]
    assert found["page_url"].to_pylist() == ["http://h.example/0", "http://h.example/2"]
    assert done.counts["repeated"] == 3


def test_same_bytes_in_bounded_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are the same bytes each time; no record batch grows beyond its bound."""
    monkeypatch.setattr(candidates, "BATCH_ROWS", 2)
    data = b"".join(map(member, GOOD))
    first, _, _ = crawl(tmp_path, data)
    second, _, _ = crawl(tmp_path, data)
    assert first == second
    batches = storage.read_batches(str(tmp_path / "g0/candidates/warc-00000.arrow"))
    assert [b.num_rows for b in batches] == [2, 2, 1]


def test_a_page_that_is_all_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's pictures are written in several batches if their texts are too much for one."""
    monkeypatch.setattr(candidates, "BATCH_CHARS", 1000)
    pictures = "".join(f"<img src={n}.jpg>" for n in range(50))
    body = f"<figure>{pictures}<figcaption>{'long ' * 60}</figcaption></figure>".encode()
    _, found, _ = crawl(tmp_path, member(record(0, body)) + member(record(99)))
    assert found.num_rows == 51
    assert len(set(found["url"].to_pylist())) == 51
    assert found["page_url"].to_pylist() == ["http://h.example/0"] * 50 + ["http://h.example/99"]
    batches = storage.read_batches(str(tmp_path / "g0/candidates/warc-00000.arrow"))
    assert max(batch.num_rows for batch in batches) < 10


def test_pieces(tmp_path: Path) -> None:
    """Each file that the paths name or match is a piece; a missing one is an error."""
    for name in ("b.warc.gz", "a.warc.gz"):
        (tmp_path / name).write_bytes(member(GOOD[0]))
    paths = [str(tmp_path / "*.warc.gz"), str(tmp_path / "b.warc.gz")]  # one is named twice
    found = archives.pieces(WarcSource(paths=paths), 100)
    assert [Path(piece.key).name for piece in found] == ["a.warc.gz", "b.warc.gz"]
    job = found[0].job(Output.of("ROOT/g0", "warc-00000"))
    assert job.output.candidates == "ROOT/g0/candidates/warc-00000.arrow"
    with pytest.raises(StorageError):
        archives.pieces(WarcSource(paths=[str(tmp_path / "none.warc.gz")]), 100)


def test_what_storage_cannot_read_is_no_bad_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that fails ends the unit with an error; nothing is taken for broken or done."""

    def failing(url: str) -> Any:
        stream = open_ranges(url)
        calls = iter([True, True, True])

        class Failing:
            seek, tell, close = stream.seek, stream.tell, stream.close

            def read(self, size: int = -1) -> bytes:
                if next(calls, False):
                    return stream.read(size)
                raise ConnectionResetError("connection reset")

        return contextlib.closing(Failing())

    monkeypatch.setattr(records, "open_ranges", failing)
    with pytest.raises(StorageError, match="reset"):
        crawl(tmp_path, b"".join(map(member, GOOD)))


def test_an_archive_that_vanishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before the file was gone is kept, and that it is gone is counted."""
    data = b"".join(map(member, GOOD))
    cut = data.index(member(GOOD[2])) + 10

    def vanishing(url: str) -> Any:
        stream = open_ranges(url)

        class Vanishing:
            seek, tell, close = stream.seek, stream.tell, stream.close

            def read(self, size: int = -1) -> bytes:
                if stream.tell() >= cut:
                    raise GoneError("cannot read: no such file", where=url)
                return stream.read(min(size, cut - stream.tell()))

        return contextlib.closing(Vanishing())

    monkeypatch.setattr(records, "open_ranges", vanishing)
    done, found, rejected = crawl(tmp_path, data)
    assert found["text"].to_pylist() == ["picture 0"]
    assert rejected["reason"].to_pylist() == ["archive_missing"]
    assert done.counts["rejected:archive_missing"] == 1


def test_an_archive_that_was_never_there(tmp_path: Path) -> None:
    """A file that is not there is a counted rejection: a listing may name a few such."""
    job = ArchiveJob(str(tmp_path / "none.warc.gz"), 100, Output.of(str(tmp_path), "warc-00000"))
    done = archives.run(job)
    assert done.counts == {"candidates": 0, "pages": 0, "rejected:archive_missing": 1}
    (row,) = pq.read_table(job.output.rejections).to_pylist()
    assert row["url"] == job.place


def test_a_file_of_another_kind_is_an_error(tmp_path: Path) -> None:
    """A file without any response, such as a WAT, is not taken for an archive without pages."""
    metadata = record(0, b"{}", kind="metadata")
    with pytest.raises(ArchiveError, match=r"without a record .*'wat'"):
        crawl(tmp_path, member(metadata) + member(metadata))


def test_a_page_unpacked_by_its_archive(tmp_path: Path) -> None:
    """A page that is plain, though its header still says gzip, is read; old crawls have such."""
    headers = ["Content-Type: text/html", "Content-Encoding: gzip"]
    body = b"<!DOCTYPE html><img src=a.jpg alt=plain>"
    _, found, rejected = crawl(tmp_path, member(record(0, body, http=headers)) + member(record(1)))
    assert found["text"].to_pylist() == ["plain", "picture 1"]
    assert rejected.num_rows == 0
