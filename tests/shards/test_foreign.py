"""Walking tars that others wrote."""

from __future__ import annotations

import io
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.foreign_tar import tar_of
from wit_builder.shards import foreign
from wit_builder.shards.foreign import Fault
from wit_builder.shards.tar import BLOCK, Member, header

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
THREE = [("a.jpg", b"A" * 700), ("a.txt", b"a cat"), ("b.jpg", b"B" * 1500)]


def walked(data: bytes) -> list[Member | Fault]:
    return list(foreign.walk(io.BytesIO(data), len(data)))


def members(data: bytes) -> list[Member]:
    return [found for found in walked(data) if isinstance(found, Member)]


def contents(data: bytes) -> list[tuple[str, bytes]]:
    return [(m.name, data[m.offset : m.offset + m.size]) for m in members(data)]


def faults(data: bytes) -> list[tuple[str, int]]:
    return [(f.what, f.offset) for f in walked(data) if isinstance(f, Fault)]


names = st.text("abcdefgh/._é\u4e00", min_size=1, max_size=300).filter(
    lambda name: not name.endswith("/") and tarfile.TarInfo(name).name == name
)


@given(
    st.lists(st.tuples(names, st.binary(max_size=1200)), max_size=6),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_what_python_writes(members_put_in, form):
    """Names and bytes of any members that tarfile writes, long names included, come back."""
    data = tar_of(members_put_in, form)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar]
    assert members(data) == expected
    assert contents(data) == members_put_in
    assert faults(data) == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_long_name_in_folders(form):
    """A name of more than 100 characters is whole, in the prefix or in an extension header."""
    name = "folder/" * 20 + "a.jpg"
    assert contents(tar_of([(name, b"x")], form)) == [(name, b"x")]


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_gnu_tar_writes(tmp_path, form):
    """The files of every format of GNU tar are found; folders and links among them are not."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for name in ["000.jpg", "deep/001.jpg"]:
        (folder / name).write_bytes(name.encode())
    (folder / "link.jpg").symlink_to("000.jpg")
    (folder / "zz.jpg").hardlink_to(folder / "000.jpg")
    out = tmp_path / "out.tar"
    subprocess.run(
        ["tar", f"--format={form}", "--sort=name", "-cf", str(out), "-C", str(folder), "."],
        check=True,
    )
    found = contents(out.read_bytes())
    assert found == [("./000.jpg", b"000.jpg"), ("./deep/001.jpg", b"deep/001.jpg")]
    assert faults(out.read_bytes()) == []


def with_header(**fields: tuple[int, bytes]) -> bytes:
    """Return a header with some fields replaced, its checksum right."""
    head = bytearray(header("a.jpg", 5))
    for at, value in fields.values():
        head[at : at + len(value)] = value
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def test_a_size_in_base_256():
    """GNU tar's way of writing sizes of 8 GiB and more is read, for small sizes as well."""
    head = with_header(size=(124, b"\x80" + (5).to_bytes(11, "big")))
    data = head + b"hello".ljust(BLOCK, b"\0") + bytes(1024)
    assert contents(data) == [("a.jpg", b"hello")]


@pytest.mark.parametrize(
    "size", [b"\xff" * 12, b"00000z00000\0", b"\x80" + b"\x7f" * 11, b"77777777777\0"]
)
def test_an_impossible_size(size):
    """A size that is negative, unreadable or beyond the end costs that entry only."""
    data = with_header(size=(124, size)) + tar_of(THREE)
    assert contents(data) == THREE
    assert len(faults(data)) == 1


def test_a_checksum_of_signed_bytes():
    """Headers of old tars that added bytes up as signed ones are sound."""
    head = bytearray(header("a.jpg", 5))
    head[:6] = "é.jpg".encode()
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(b - 256 * (b >> 7) for b in head)
    data = bytes(head) + b"hello".ljust(BLOCK, b"\0") + bytes(1024)
    assert contents(data) == [("é.jpg", b"hello")]


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_bad_checksum(broken):
    """A header whose checksum is wrong costs its own member; the others are found."""
    data = bytearray(tar_of(THREE))
    at = walked(bytes(data))[broken].offset - BLOCK
    data[at + 3] ^= 1
    assert contents(bytes(data)) == THREE[:broken] + THREE[broken + 1 :]
    assert faults(bytes(data)) == [("no sound header", at)]


@given(st.integers(0, len(tar_of(THREE)) - 1), st.binary(min_size=1, max_size=2000))
def test_garbage(at, garbage):
    """Garbage over any part of a tar costs nothing that it does not touch."""
    whole = tar_of(THREE)
    data = whole[:at] + garbage + whole[at + len(garbage) :]
    found = members(data)
    for member in members(whole):
        if not at < member.end or not at + len(garbage) > member.offset - BLOCK:
            assert member in found


@given(st.integers(0, len(tar_of(THREE))))
def test_cut_short(size):
    """Of a tar that is cut short, every whole member is found, and the cut is told of."""
    whole = tar_of(THREE)
    data = whole[:size]
    assert members(data) == [m for m in members(whole) if m.offset + m.size <= size]
    end = max(m.end for m in members(whole))
    assert len(faults(data)) == (size < end + BLOCK)


def test_concatenated_tars():
    """All of several tars in one file are read; that one ended before is told of."""
    data = tar_of(THREE) + tar_of([("c.jpg", b"C")])
    assert contents(data) == [*THREE, ("c.jpg", b"C")]
    assert [what for what, _ in faults(data)] == ["zeros, and entries behind them"]


def test_a_broken_pax_header():
    """Unreadable PAX records are told of; the member after them has its short name."""
    data = bytearray(tar_of([("n" * 150 + ".jpg", b"x")], tarfile.PAX_FORMAT))
    data[BLOCK : BLOCK + 3] = b"zzz"
    assert faults(bytes(data)) == [("a PAX header with unreadable records", 0)]
    assert members(bytes(data)) == [("n" * 100, 3 * BLOCK, 1)]


def test_a_huge_extension_header():
    """An extension header is not read into memory whatever its size."""
    big = 2 << 20
    head = with_header(kind=(156, b"L"), size=(124, b"%011o\0" % big))
    data = head + b"n" * big + tar_of(THREE)
    assert contents(data) == THREE
    assert faults(data) == [(f"an extension header of {big} bytes", 0)]


def test_not_a_tar():
    """What is no tar has one fault, at its beginning."""
    assert faults(b"<html>" * 1000) == [("no sound header", 0)]
    assert faults(b"") == [("the end is missing: cut short between two entries", 0)]


def test_an_empty_tar():
    """A tar with nothing in it has neither members nor faults."""
    assert walked(tar_of([])) == []
