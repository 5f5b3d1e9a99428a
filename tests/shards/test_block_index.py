"""Where a block's pictures and captions are."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.foreign_tar import sample, tar_of, with_times
from wit_builder import storage
from wit_builder.errors import ShardFormatError
from wit_builder.shards import block_index, foreign
from wit_builder.shards.block_index import REMOVED, caption_of, index
from wit_builder.shards.layout import Foreign
from wit_builder.shards.read import Dataset

PLAIN = Foreign(root="")
FORMS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def pairs(data: bytes, foreign: Foreign | None) -> list[tuple[bytes, bytes]]:
    rows = index(memoryview(data), foreign).tolist()
    return [(data[a : a + max(b, 0)], data[c : c + d]) for a, b, c, d in rows]


def test_our_own_samples_are_found(sample_set: Path) -> None:
    """Of every block of a packed data set, pictures and captions are those of its samples."""
    data = Dataset.open(str(sample_set))
    found = [p for block in range(data.info.blocks) for p in pairs(data.block_bytes(block), None)]
    samples = [s for shard in range(data.info.shards) for s in data.samples(shard)]
    assert found == [(s.members["jpg"], s.members["txt"]) for s in samples]


def test_a_removed_sample_is_told(sample_set: Path) -> None:
    """A picture of zero bytes has size -1; its neighbours are as they were."""
    block = bytearray(Dataset.open(str(sample_set)).block_bytes(0))
    before = index(block, None)
    at, size, *_ = before[1].tolist()
    block[at : at + size] = bytes(size)
    after = index(block, None)
    assert after[1, 1] == REMOVED
    before[1, 1] = REMOVED
    assert (after == before).all()


@pytest.mark.parametrize("cut", [100, 700, -512])
def test_our_own_block_that_is_not_whole_is_refused(sample_set: Path, cut: int) -> None:
    """Bytes that are no whole samples are an error, not a wrong place."""
    with pytest.raises(ShardFormatError, match="not whole samples"):
        index(Dataset.open(str(sample_set)).block_bytes(0)[:cut], None)


def test_an_empty_block_has_no_samples() -> None:
    """No bytes, no rows, and still four columns."""
    assert index(b"", None).shape == index(b"", PLAIN).shape == (0, 4)


@pytest.mark.parametrize("form", FORMS)
def test_samples_of_others_are_found(form: int) -> None:
    """In any dialect, whatever the order of members, and past what is no sample's."""
    data = tar_of(
        [
            ("README", b"no dot, no sample"),
            ("./a/0.txt", b"zero"),
            ("./a/0.JPG", b"0" * 600),
            ("./a/1.jpg", b"no caption"),
            ("./a/2.txt", b"no picture"),
            ("./a/3.jpg", b""),
            ("./a/3.txt", b"empty picture"),
            ("__meta.jpg", b"x"),
            ("__meta.txt", b"x"),
            ("b/4.cls", b"7"),
            ("b/4.png", b"4"),
            ("b/4.txt", b"four"),
        ],
        form,
    )
    assert pairs(data, PLAIN) == [(b"0" * 600, b"zero"), (b"4", b"four")]


def test_the_first_ending_that_a_sample_has_counts() -> None:
    """Endings have an order of preference, and compound ones are endings of their own."""
    data = tar_of([("a.jpg", b"J"), ("a.small.png", b"S"), ("a.text", b"t"), ("a.txt", b"T")])
    asked = Foreign(root="", image=("small.png", "jpg"), caption=("txt", "text"))
    assert pairs(data, asked) == [(b"S", b"T")]


names = st.sampled_from(["a", "b", "c/d", "é", "n" * 120, "__x", "f" * 90 + "/" + "g" * 20])
endings = st.sampled_from(["jpg", "txt", "json", "JPG", "seg.png"])
members = st.lists(
    st.tuples(st.builds("{}.{}".format, names, endings), st.binary(max_size=1100)), max_size=12
)


@given(members, st.sampled_from([*FORMS, None]), st.data())
def test_the_quick_way_is_the_long_one(
    put_in: list[tuple[str, bytes]], form: int | None, draw: st.DataObject
) -> None:
    """Where the quick reader of headers answers at all, it answers as the tolerant one does."""
    put_in = [(n, d) for n, d in put_in if form != tarfile.USTAR_FORMAT or len(n) < 100]
    whole = with_times(put_in) if form is None else tar_of(put_in, form)
    data = bytearray(whole[: len(whole) - draw.draw(st.sampled_from([0, 512, 1024, 9728]))])
    for at in (
        draw.draw(st.lists(st.integers(0, max(len(data) - 1, 0)), max_size=2)) if data else ()
    ):
        data[at] ^= draw.draw(st.sampled_from([1, 0x10, 0x80]))
    quick = block_index._usual(memoryview(data))
    walked = foreign.entries(io.BytesIO(data), len(data))
    if quick is not None:
        assert quick == [e for e in walked if not isinstance(e, foreign.Fault)]


def test_the_quick_way_is_taken() -> None:
    """It answers for what webdataset and img2dataset write."""
    parts = sample("000", b"J", "text", url="u")
    for data in (with_times(parts), tar_of(parts)):
        end = max(e[1].end for e in foreign.entries(io.BytesIO(data), len(data)) if e)  # type: ignore[union-attr]
        assert block_index._usual(memoryview(data)[:end]) is not None


CAPTIONS = {
    "text": (b"a cat", "", "a cat"),
    "not UTF-8": (b"caf\xe9", "", "caf\ufffd"),
    "JSON": (b'{"t": "a cat", "n": NaN}', "t", "a cat"),
    "JSON without the key": (b'{"u": "a cat"}', "t", ""),
    "JSON of a number": (b'{"t": 3}', "t", ""),
    "a list": (b"[1]", "t", ""),
    "broken JSON": (b'{"t": "a', "t", ""),
    "nested without end": (b"[" * 100_000, "t", ""),
}


@pytest.mark.parametrize(("data", "key", "text"), CAPTIONS.values(), ids=CAPTIONS.keys())
def test_captions(data: bytes, key: str, text: str) -> None:
    """Text is decoded come what may; JSON without a caption gives none."""
    assert caption_of(memoryview(data), Foreign(root="", caption_key=key)) == text


def test_captions_of_our_own_are_text() -> None:
    """Without an account of others' members the bytes are the caption."""
    assert caption_of(b"{}", None) == "{}"


def test_it_is_light_to_import() -> None:
    """Processes that decode need not load Arrow, file systems or kernels for it."""
    code = (
        "import sys, wit_builder.shards.block_index;"
        "print([m for m in ('pyarrow', 'fsspec', 'numba', 'aiohttp', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_its_places_are_those_of_the_samples_table(sample_set: Path) -> None:
    """What streams go by is what verify goes by."""
    data = Dataset.open(str(sample_set))
    first = data.blocks.slice(0, 1).to_pylist()[0]
    table = storage.read_parquet(data.samples_url(0)).slice(0, first["samples"]).to_pylist()
    expected = [
        [r["jpg"]["offset"], r["jpg"]["size"], r["txt"]["offset"], r["txt"]["size"]] for r in table
    ]
    assert index(data.block_bytes(0), None).tolist() == expected
