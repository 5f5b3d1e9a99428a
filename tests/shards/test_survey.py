"""One shard of others, read once."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from tests.foreign_tar import sample, tar_of, with_times
from wit_builder.errors import ShardFormatError, StorageError
from wit_builder.shards import survey as surveying
from wit_builder.shards.block_index import index
from wit_builder.shards.layout import MAX_BLOCK_BYTES, Foreign
from wit_builder.shards.survey import Survey, Tape, survey

PLAIN = Foreign(root="")


def surveyed(path: Path, data: bytes, foreign: Foreign = PLAIN) -> Survey:
    path.write_bytes(data)
    return survey(str(path), path.name, foreign)


def images(data: bytes, found: Survey, foreign: Foreign = PLAIN) -> list[bytes]:
    """Return the pictures of all blocks, which must be what the survey says they are."""
    out: list[bytes] = []
    for first, samples, offset, length, xxh3 in found.record.blocks:
        block = data[offset : offset + length]
        rows = index(block, foreign)
        assert (first, samples, xxh3) == (len(out), len(rows), xxhash.xxh3_64_intdigest(block))
        out += [block[at : at + size] for at, size in rows[:, :2].tolist()]
    assert len(out) == found.record.samples == found.counts["samples"]
    return out


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("survey") / "00000.tar"


def test_a_shard_is_surveyed(place: Path) -> None:
    """Size, SHA-256 and blocks are the file's; every sample is in a block, in order."""
    data = with_times([m for n in range(9) for m in sample(f"{n}", b"%d" % n * 600, "t", u=1)])
    found = surveyed(place, data)
    record = found.record
    assert (record.shard, record.bytes) == ("00000.tar", len(data))
    assert record.sha256 == hashlib.sha256(data).hexdigest()
    assert images(data, found) == [b"%d" % n * 600 for n in range(9)]
    assert (found.counts, found.faults) == ({"samples": 9}, [])


def test_blocks_are_as_full_as_they_can_be(place: Path) -> None:
    """A block is at most 4 MiB, and ends where the next sample would not fit."""
    data = tar_of([m for n in range(9) for m in sample(f"{n}", bytes([n]) * 1_500_000, "t")])
    found = surveyed(place, data)
    images(data, found)
    assert [b.samples for b in found.record.blocks] == [2, 2, 2, 2, 1]
    assert all(b.length <= MAX_BLOCK_BYTES for b in found.record.blocks)


def test_a_sample_longer_than_a_block_has_one_of_its_own(place: Path) -> None:
    """Up to 32 MiB; what is longer is left out and counted, with what comes before kept."""
    sides = [b"a" * 10, b"b" * (9 << 20), b"c" * (33 << 20), b"d" * 10]
    data = tar_of([m for n, side in enumerate(sides) for m in sample(f"{n}", side, "t")])
    found = surveyed(place, data)
    assert [len(i) for i in images(data, found)] == [10, 9 << 20, 10]
    assert found.counts == {"samples": 3, "too_long": 1}


def test_stray_files_are_in_nobodys_way(place: Path) -> None:
    """A large file between samples is in no block; a small one may be."""
    parts = [*sample("0", b"0", "t"), ("README", b"x"), *sample("1", b"1", "t")]
    parts += [("LICENCE", b"y" * (5 << 20)), *sample("2", b"2", "t")]
    data = tar_of(parts)
    found = surveyed(place, data)
    assert images(data, found) == [b"0", b"1", b"2"]
    assert [b.samples for b in found.record.blocks] == [2, 1]
    assert sum(b.length for b in found.record.blocks) < 1 << 20


def test_what_has_no_pair_is_left_out_and_counted(place: Path) -> None:
    """By what is missing; of members with one name, the first is taken."""
    parts = [*sample("0", b"0", "t"), ("1.txt", b"t"), ("2.jpg", b"2")]
    parts += [("3.jpg", b""), ("3.txt", b"")]
    parts += [("4.jpg", b"4"), ("4.jpg", b"again"), ("4.txt", b"t")]
    data = tar_of(parts)
    found = surveyed(place, data)
    assert images(data, found) == [b"0", b"4"]
    assert found.counts == {"samples": 2, "no_picture": 2, "no_caption": 1, "repeated": 1}
    assert found.endings == ["jpg", "txt"]


def test_captions_in_json_are_looked_at(place: Path) -> None:
    """Samples whose JSON has no caption keep their slots, and are counted."""
    asked = Foreign(root="", caption=("json",), caption_key="caption")
    parts = sample("0", b"0", None, caption="a") + sample("1", b"1", None, caption=None)
    data = tar_of([*parts, ("2.jpg", b"2"), ("2.json", b"{")])
    found = surveyed(place, data, asked)
    assert images(data, found, asked) == [b"0", b"1", b"2"]
    assert found.counts == {"samples": 3, "unreadable_captions": 2}


def test_a_damaged_header_costs_its_sample(place: Path) -> None:
    """The samples around it are kept, and its place is told."""
    data = bytearray(tar_of([m for n in range(3) for m in sample(f"{n}", b"%d" % n, "t")]))
    data[4 * 512 + 3] ^= 1  # the name of 1.jpg
    found = surveyed(place, bytes(data))
    assert images(bytes(data), found) == [b"0", b"2"]
    assert [(f.file, f.offset, f.what) for f in found.faults] == [
        ("00000.tar", 4 * 512, "no sound header")
    ]
    assert found.counts == {"samples": 2, "faults": 1, "no_picture": 1}


def test_a_shard_cut_short_gives_what_is_there(place: Path) -> None:
    """The samples before the cut are kept, and the cut is told."""
    data = tar_of([m for n in range(3) for m in sample(f"{n}", b"%d" % n * 2000, "t")])
    cut = data[: 2 * 3584 + 700]
    found = surveyed(place, cut)
    assert images(cut, found) == [b"0" * 2000, b"1" * 2000]
    assert found.counts["faults"] == 1


@pytest.mark.parametrize("data", [bytes(1024), bytes(10240), b""], ids=["end", "padded", "nothing"])
def test_an_empty_tar_has_no_samples(place: Path, data: bytes) -> None:
    """Some shards of a download are empty: they stay, without blocks."""
    found = surveyed(place, data)
    assert (found.record.samples, found.record.blocks) == (0, [])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(b"x" * 9999), r"compressed as a whole \(gzip\)"),
        (b"<html>403 Forbidden</html>" * 100, "no tar"),
    ],
    ids=["gzip", "a-page"],
)
def test_what_is_no_tar_is_refused(place: Path, data: bytes, words: str) -> None:
    """One line with the place and a fix."""
    with pytest.raises(ShardFormatError, match=words) as caught:
        surveyed(place, data)
    assert str(place) in str(caught.value)
    assert caught.value.fix


def test_a_shard_that_shrinks_meanwhile_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is then not the file."""
    place.write_bytes(tar_of(sample("0", b"0" * 3_000_000, "t")))
    monkeypatch.setattr(surveying, "refuse_compressed", lambda *_: place.write_bytes(b""))
    with pytest.raises(StorageError, match="changed while it was read"):
        survey(str(place), "x", PLAIN)


members = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d/e", "README"]),
        st.sampled_from([".jpg", ".txt", ".png", ".json", ""]),
        st.binary(max_size=1500),
    ),
    max_size=14,
)


@given(members, st.sampled_from(["webdataset", "gnu"]), st.data())
def test_whatever_is_in_a_tar_blocks_hold_what_is_said(
    place: Path, put_in: list[tuple[str, str, bytes]], writer: str, draw: st.DataObject
) -> None:
    """A block on its own gives the samples that the survey counted, wherever the tar is damaged."""
    parts = [(name + ending, body) for name, ending, body in put_in]
    data = bytearray(
        with_times(parts) if writer == "webdataset" else tar_of(parts, tarfile.GNU_FORMAT)
    )
    for at in draw.draw(st.lists(st.integers(0, len(data) - 1), max_size=4)):
        data[at] ^= draw.draw(st.integers(1, 255))
    data = data[: len(data) - draw.draw(st.sampled_from([0, 9216, 10239, 12000]))]
    try:
        found = surveyed(place, bytes(data))
    except ShardFormatError:
        return
    images(bytes(data), found)


@given(
    st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 90)), max_size=9)
)
def test_a_tape_gives_what_the_stream_has(data: bytes, steps: list[tuple[int, int]]) -> None:
    """Read in steps forward, over its chunks and within, bytes and digest are the stream's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surveying, "_CHUNK_BYTES", 16)
        patch.setattr(surveying, "_KEPT_CHUNKS", 2)
        tape, at = Tape(io.BytesIO(data)), 0
        for skip, size in steps:
            at += skip
            tape.seek(at)
            assert tape.read(size) == data[at : at + size]
            assert tape.part(at, at + size) == data[at : at + size]
        tape.wind()
    assert (tape.end, tape.sha256) == (len(data), hashlib.sha256(data).hexdigest())
