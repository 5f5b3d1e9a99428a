"""Archives as streams: the file's bytes, whatever the network does, or an error that says why."""

from __future__ import annotations

import asyncio
import gzip
import io
import random
from collections.abc import Iterator
from pathlib import Path

import fsspec.asyn
import pytest
from fastwarc.warc import ArchiveIterator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import range_server
from tests.range_server import OPENING, Fault, RangeServer, status
from wit_builder import ranges, remote, storage
from wit_builder.errors import GoneError, StorageError
from wit_builder.web.agent import user_agent

BLOCK = 1000
DATA = random.Random(4).randbytes(10 * BLOCK + 17)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once."""
    monkeypatch.setattr(remote, "FIRST_DELAY_S", 0)


@pytest.fixture
def server() -> Iterator[RangeServer]:
    """A server of the data that does nothing wrong yet."""
    with RangeServer(DATA) as running:
        yield running


@pytest.fixture(params=["local", "http", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The data on disk, on a web server, and on a real S3 server."""
    if request.param == "http":
        return str(request.getfixturevalue("server").url)
    folder = str(request.getfixturevalue("s3_folder") if request.param == "s3" else tmp_path)
    return storage.publish_bytes(storage.join(folder, "data"), DATA).url


def open_small(url: str, ahead: int = 2) -> ranges.RangeStream:
    return ranges.open_ranges(url, block_bytes=BLOCK, ahead=ahead)


def requests_under_way() -> int:
    """Return how many tasks fsspec's event loop has, beside the one that counts."""

    async def count() -> int:
        return len(asyncio.all_tasks()) - 1

    return asyncio.run_coroutine_threadsafe(count(), fsspec.asyn.get_loop()).result()


def test_a_file_is_read_from_any_place(place: str) -> None:
    """Bytes, size and positions are those of the file, wherever it is."""
    with open_small(place) as stream:
        assert stream.size == len(DATA)
        assert stream.read(10) == DATA[:10]
        assert stream.seek(-7, io.SEEK_END) == len(DATA) - 7
        assert stream.read() == DATA[-7:]
        assert stream.read(1) == b""
        assert stream.seek(2500) == 2500
        assert stream.read(3000) == DATA[2500:5500]
        assert stream.tell() == 5500
        stream.seek(0)
        assert stream.read() == DATA


def test_an_empty_file_is_an_empty_stream(
    server: RangeServer, tmp_path: Path, s3_folder: str
) -> None:
    """A file without bytes has no range, and is no error."""
    server.data = b""
    folders = [str(tmp_path), s3_folder]
    places = [storage.publish_bytes(storage.join(f, "e"), b"").url for f in folders]
    for url in (*places, server.url):
        with open_small(url) as stream:
            assert (stream.size, stream.read(), stream.seek(5), stream.read(1)) == (0, b"", 5, b"")


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The place of the data on a server of the whole module."""
    with RangeServer(DATA) as running:
        yield running.url


PLACES = st.integers(0, len(DATA) + 10)
READS = st.tuples(st.just("read"), st.integers(-1, 2 * BLOCK))
SEEKS = st.tuples(st.just("seek"), PLACES)
STEPS = st.tuples(st.just("step"), st.integers(-BLOCK, 3 * BLOCK))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    block_bytes=st.integers(300, len(DATA) + 1),
    ahead=st.integers(0, 4),
    moves=st.lists(READS | SEEKS | STEPS, max_size=12),
)
def test_reads_and_seeks_give_what_a_file_in_memory_gives(
    served: str, block_bytes: int, ahead: int, moves: list[tuple[str, int]]
) -> None:
    """Whatever is read in whatever order, it is the file's, and no more blocks are held."""
    model = io.BytesIO(DATA)
    with ranges.open_ranges(served, block_bytes=block_bytes, ahead=ahead) as stream:
        for kind, size in moves:
            if kind == "read":
                assert stream.read(size) == model.read(size)
            else:
                to = size if kind == "seek" else max(0, model.tell() + size)
                assert stream.seek(to) == model.seek(to)
            assert stream.tell() == model.tell()
            assert held(stream) <= ahead + 2


def held(stream: ranges.RangeStream) -> int:
    assert isinstance(stream.raw, ranges._Remote)
    return len(stream.raw._blocks._held)


def test_blocks_are_asked_for_once_and_a_few_ahead(server: RangeServer) -> None:
    """Reading in order asks for every block once; a seek among held blocks asks for none."""
    with open_small(server.url) as stream:
        stream.read(1)
        assert held(stream) == 3
        stream.seek(2 * BLOCK + 1)
        stream.seek(1)
        assert stream.read() == DATA[1:]
    starts = [start for start, end in server.asked if end > 1]
    assert sorted(starts) == list(range(0, len(DATA), BLOCK))


def test_a_far_seek_lets_go_of_what_was_read_ahead(server: RangeServer) -> None:
    """What lies elsewhere is neither held nor waited for."""
    server.faults = {BLOCK: [range_server.silence], 2 * BLOCK: [range_server.silence]}
    with open_small(server.url) as stream:
        assert stream.read(BLOCK) == DATA[:BLOCK]
        stream.seek(8 * BLOCK)
        assert stream.read(5) == DATA[8 * BLOCK : 8 * BLOCK + 5]
        assert held(stream) == 3


def test_nothing_runs_after_closing(server: RangeServer) -> None:
    """Requests that were under way have ended when close returns, and closing again is fine."""
    server.faults = {BLOCK: [range_server.silence], 2 * BLOCK: [range_server.silence]}
    stream = open_small(server.url)
    assert stream.read(BLOCK) == DATA[:BLOCK]
    assert requests_under_way() > 0
    stream.close()
    assert requests_under_way() == 0
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        stream.read(1)


PASSING: dict[str, Fault] = {
    "reset": range_server.reset_mid_body,
    "closed": range_server.closed_mid_body,
    "no answer": range_server.closed_before_the_head,
    "shorter range": range_server.shorter_range,
    "another range": range_server.another_range,
    "body too short": range_server.body_shorter_than_its_range,
    "body too long": range_server.body_longer_than_its_range,
    "partial without a range": range_server.partial_without_a_range,
    **{str(code): status(code) for code in (408, 429, 500, 502, 503)},
}


@pytest.mark.parametrize("name", PASSING)
def test_a_range_that_fails_in_passing_is_asked_for_again(server: RangeServer, name: str) -> None:
    """The bytes are right in the end, and what did not fail is not asked for again."""
    failing = [PASSING[name]] * (remote.TRIES - 1)
    server.faults = {OPENING: [status(503)], 3 * BLOCK: failing}
    with open_small(server.url) as stream:
        assert stream.read() == DATA
    blocks = [start // BLOCK for start, end in server.asked if end > 1]
    assert {b: blocks.count(b) for b in blocks if blocks.count(b) > 1} == {3: remote.TRIES}


@pytest.mark.parametrize("name", ["reset", "closed", "shorter range", "body too short"])
def test_an_object_whose_range_breaks_off_is_asked_for_again(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A bucket's client leaves it to us to ask again for a body that breaks off."""
    keys = {"key": "a", "secret": "b", "endpoint_url": server.endpoint}
    bucket = fsspec.filesystem("s3", **keys, skip_instance_cache=True)
    monkeypatch.setattr(storage, "filesystem", lambda _: (bucket, "bucket/archive.gz"))
    server.faults = {3 * BLOCK: [PASSING[name]] * (remote.TRIES - 1)}
    with open_small("s3://bucket/archive.gz") as stream:
        assert stream.read() == DATA
    assert server.asked.count((3 * BLOCK, 4 * BLOCK)) == remote.TRIES


@pytest.mark.parametrize("name", PASSING)
def test_a_range_that_keeps_failing_is_an_error_with_its_byte(
    server: RangeServer, name: str
) -> None:
    """What was before it is read; then every read says place, byte, tries and cause."""
    server.faults = {3 * BLOCK: [PASSING[name]] * 2 * remote.TRIES}
    with open_small(server.url) as stream:
        assert stream.read(3 * BLOCK) == DATA[: 3 * BLOCK]
        for _ in range(2):
            with pytest.raises(StorageError, match=r"tried 6 times: .*\.gz, byte 3000\] ->"):
                stream.read(1)


def test_a_server_that_is_down_is_an_error_when_opening() -> None:
    """Nobody listens: the error names the place and the tries."""
    with RangeServer(DATA) as server:
        url = server.url
    with pytest.raises(StorageError, match=r"tried 6 times: Cannot connect .*\.gz\] ->"):
        open_small(url)


@pytest.mark.parametrize("code", [404, 410])
def test_a_file_that_vanishes_is_gone_for_good(server: RangeServer, code: int) -> None:
    """What is not there any more is not asked for again, and the error says where it ended."""
    server.faults = {4 * BLOCK: [status(code)]}
    with open_small(server.url) as stream:
        assert stream.read(4 * BLOCK) == DATA[: 4 * BLOCK]
        with pytest.raises(GoneError, match=r"no such file .*byte 4000\] ->"):
            stream.read(1)
    server.faults = {OPENING: [status(code)]}
    with pytest.raises(GoneError, match=r"no such file .*archive\.gz\] ->"):
        open_small(server.url)


LASTING: dict[str, Fault] = {
    "permission denied": status(403),
    "answered 400": status(400),
    "answered 416": status(416),
    "does not serve ranges": range_server.whole_file,
    "does not serve ranges of": range_server.whole_file_without_a_length,
}


@pytest.mark.parametrize("said", LASTING)
def test_what_asking_again_cannot_mend_is_asked_once(server: RangeServer, said: str) -> None:
    """A refusal on the way is an error at once, and no other bytes are taken for the range's."""
    server.faults = {4 * BLOCK: [LASTING[said]]}
    with open_small(server.url, ahead=0) as stream:
        assert stream.read(4 * BLOCK) == DATA[: 4 * BLOCK]
        with pytest.raises(StorageError, match=f"{said}.*->"):
            stream.read(1)
    assert server.asked[-1] == (4 * BLOCK, 5 * BLOCK)
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (range_server.whole_file, "does not serve ranges"),
        (range_server.whole_file_without_a_length, "does not tell the size"),
        (range_server.range_of_unknown_size, "does not tell the size"),
        (status(403), "permission denied"),
    ],
)
def test_a_server_that_cannot_be_read_from_says_so_when_opening(
    server: RangeServer, fault: Fault, said: str
) -> None:
    """The error comes before anything is read, and says what to do instead."""
    server.faults = {OPENING: [fault]}
    with pytest.raises(StorageError, match=rf"{said}.*archive\.gz\] ->"):
        open_small(server.url)
    assert len(server.asked) == 1


def test_a_small_file_needs_no_ranges(server: RangeServer) -> None:
    """A server without ranges may serve what fits into one block."""
    server.faults = dict.fromkeys((OPENING, 0), [range_server.whole_file] * 2)
    with ranges.open_ranges(server.url, block_bytes=len(DATA)) as stream:
        assert stream.read() == DATA


@pytest.mark.parametrize("change", ["size", "etag"])
def test_a_file_that_changes_while_it_is_read_is_an_error(server: RangeServer, change: str) -> None:
    """Bytes of two files are never mixed."""
    with open_small(server.url, ahead=0) as stream:
        assert stream.read(BLOCK) == DATA[:BLOCK]
        if change == "size":
            server.data += b"more"
        else:
            server.headers["ETag"] = '"two"'
        with pytest.raises(StorageError, match=r"has changed .*byte 1000\] ->"):
            stream.read(1)


def test_servers_that_disagree_on_the_etag_only_serve_one_file(server: RangeServer) -> None:
    """Some build it of what differs from machine to machine; the date then tells."""
    server.headers["Last-Modified"] = "Wed, 01 May 2024 12:00:00 GMT"
    with open_small(server.url, ahead=0) as stream:
        assert stream.read(BLOCK) == DATA[:BLOCK]
        server.headers["ETag"] = '"two"'
        assert stream.read() == DATA[BLOCK:]


def test_a_file_is_not_decompressed_on_the_way(server: RangeServer) -> None:
    """A server that calls the compression of a .gz file an encoding still gives that file."""
    server.data = gzip.compress(DATA, mtime=0)
    server.headers["Content-Encoding"] = "gzip"
    with open_small(server.url) as stream:
        assert stream.read() == server.data


def test_we_say_who_we_are(server: RangeServer) -> None:
    """The user agent is the one of the crawl."""
    with open_small(server.url) as stream:
        stream.read()
    assert server.agents == {user_agent("", loopback_only=True)}


def test_a_signed_url_is_refused_and_its_signature_not_repeated() -> None:
    """No secret of a URL comes into a message."""
    with pytest.raises(StorageError) as caught:
        open_small("https://host.test/x.gz?X-Amz-Signature=hush")
    assert "hush" not in str(caught.value)


def test_what_is_not_there_is_gone(tmp_path: Path, s3_folder: str) -> None:
    """A missing file is named, local or in a bucket; a folder is none."""
    for folder in (str(tmp_path), s3_folder):
        with pytest.raises(GoneError, match=r"no such file .*nothing\.gz\] ->"):
            open_small(storage.join(folder, "nothing.gz"))
        storage.publish_bytes(storage.join(folder, "a", "b"), b"1")
        with pytest.raises(StorageError, match="a folder stands"):
            open_small(storage.join(folder, "a"))


@pytest.mark.s3
def test_an_object_that_vanishes_or_changes_while_it_is_read_is_an_error(s3_folder: str) -> None:
    """Neither silence nor bytes of another object: an error with the byte."""
    url = storage.join(s3_folder, "x")
    storage.publish_bytes(url, DATA)
    with open_small(url, ahead=0) as stream:
        assert stream.read(BLOCK) == DATA[:BLOCK]
        storage.publish_bytes(url, DATA[::-1])
        with pytest.raises(StorageError, match=r"has changed .*byte 1000\] ->"):
            stream.read(1)
    with open_small(url, ahead=0) as stream:
        assert stream.read(BLOCK) == DATA[::-1][:BLOCK]
        storage.remove(url)
        with pytest.raises(GoneError, match=r"no such file .*byte 1000\] ->"):
            stream.read(1)


def record(number: int) -> bytes:
    body = random.Random(number).randbytes(700)
    head = (
        "WARC/1.1\r\nWARC-Type: resource\r\nContent-Type: text/plain\r\n"
        f"WARC-Record-ID: <urn:uuid:{number:032x}>\r\nWARC-Target-URI: http://a.test/{number}\r\n"
        f"WARC-Date: 2024-05-01T12:00:00Z\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


@pytest.mark.parametrize("kind", ["warc.gz", "warc"])
def test_fastwarc_and_gzip_read_through_it(server: RangeServer, kind: str) -> None:
    """An archive over many blocks, one of which breaks off, gives its records."""
    records = [record(number) for number in range(50)]
    members = [gzip.compress(r, mtime=0) if kind == "warc.gz" else r for r in records]
    server.data = b"".join(members)
    server.faults = {5 * BLOCK: [range_server.reset_mid_body]}
    with open_small(server.url) as stream:
        read = [(r.record_id, r.reader.read()) for r in ArchiveIterator(stream)]
        wanted = [random.Random(number).randbytes(700) for number in range(50)]
        assert [body for _, body in read] == wanted
        stream.seek(0)
        if kind == "warc.gz":
            with gzip.GzipFile(fileobj=stream) as unpacked:
                assert unpacked.read() == b"".join(records)
