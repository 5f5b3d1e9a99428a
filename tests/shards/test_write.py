from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wit_builder import storage
from wit_builder.errors import ShardFormatError
from wit_builder.shards import tar
from wit_builder.shards.layout import Metadata, key_of
from wit_builder.shards.manifest import finish
from wit_builder.shards.read import Dataset
from wit_builder.shards.verify import verify
from wit_builder.shards.write import Pair, Written, write_shard

_TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
_SIZE = st.integers(1, 9999)
_METADATA = st.builds(
    Metadata,
    url=_TEXT,
    page_url=st.none() | _TEXT,
    caption=_TEXT,
    text_from=st.sampled_from(["alt", "title"]),
    width=_SIZE,
    height=_SIZE,
    original_width=_SIZE,
    original_height=_SIZE,
    sha256=st.just("ab" * 32),
    queries=st.lists(_TEXT, max_size=3),
    license=st.none() | _TEXT,
    uid=st.binary(min_size=16, max_size=16).map(bytes.hex),
)
_PICTURE = st.binary(min_size=1, max_size=3000).filter(any)
_CONTENT = st.lists(st.tuples(_PICTURE, _METADATA), max_size=12)


def _pairs(content: list[tuple[bytes, Metadata]], first: int = 0) -> list[Pair]:
    return [Pair(key_of(first + i), jpg, data) for i, (jpg, data) in enumerate(content)]


def _metadata(caption: str = "a dog") -> Metadata:
    url = "http://a.example/b.jpg"
    return Metadata(url, None, caption, "alt", 8, 8, 9, 9, "ab" * 32, ["dog"], None, "00" * 16)


def _write(folder: Path, pairs: list[Pair], max_block_bytes: int = 8192) -> Written:
    return write_shard(str(folder), 0, pairs, max_block_bytes)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=_CONTENT, max_block_bytes=st.integers(1, 20_000))
def test_write_then_read_is_identity(
    tmp_path: Path, content: list[tuple[bytes, Metadata]], max_block_bytes: int
) -> None:
    """Whatever is written comes back: keys, pictures, captions and metadata; and it verifies."""
    pairs = _pairs(content)
    _write(tmp_path, pairs, max_block_bytes)
    finish(str(tmp_path), 1, generation="g0", recipe="r", max_block_bytes=max_block_bytes)
    samples = list(Dataset.open(str(tmp_path)).samples(0))
    assert [s.key for s in samples] == [p.key for p in pairs]
    for sample, pair in zip(samples, pairs, strict=True):
        assert list(sample.members) == ["jpg", "txt", "json"]
        assert sample.members["jpg"] == pair.jpg
        assert sample.members["txt"].decode() == pair.metadata.caption
        assert msgspec.json.decode(sample.members["json"], type=Metadata) == pair.metadata
    assert verify(str(tmp_path)).faults == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=_CONTENT, max_block_bytes=st.integers(1, 20_000))
def test_blocks_cover_the_tar_without_gaps(
    tmp_path: Path, content: list[tuple[bytes, Metadata]], max_block_bytes: int
) -> None:
    """Blocks join up from byte 0 to the trailer, are as long as the cap allows, and hash right."""
    record = _write(tmp_path, _pairs(content), max_block_bytes).record
    data = (tmp_path / "000000.tar").read_bytes()
    ends = [0, *np.cumsum([b.length for b in record.blocks]).tolist()]
    assert [b.offset for b in record.blocks] == ends[:-1]
    assert data[ends[-1] :] == tar.TRAILER
    assert sum(b.samples for b in record.blocks) == len(content)
    assert all(b.length <= max_block_bytes or b.samples == 1 for b in record.blocks)
    for block, following in pairwise(record.blocks):
        first_sample = list(tar.members(data[following.offset : -len(tar.TRAILER)]))[:3]
        assert block.length + first_sample[-1].end > max_block_bytes
    for block in record.blocks:
        body = data[block.offset : block.offset + block.length]
        assert xxhash.xxh3_64_intdigest(body) == block.xxh3


def test_the_same_pairs_give_the_same_bytes(tmp_path: Path) -> None:
    """Writing twice publishes files of equal digests, and no file tells where it was written."""
    pairs = _pairs([(b"\xff\xd8 one", _metadata()), (b"\xff\xd8 two", _metadata("a cat"))])
    digests = [[o.xxh3 for o in _write(tmp_path / n, pairs).outputs] for n in ("a", "b")]
    assert digests[0] == digests[1]
    assert str(tmp_path).encode() not in (tmp_path / "a" / "000000.parquet").read_bytes()


def test_metadata_keys_stand_in_the_order_of_the_format(tmp_path: Path) -> None:
    """KEY.json is compact UTF-8 with its keys in one fixed order."""
    _write(tmp_path, _pairs([(b"\xff\xd8", _metadata("un café"))]))
    data = (tmp_path / "000000.tar").read_bytes()
    member = list(tar.members(data))[2]
    assert data[member.offset : member.offset + member.size].decode() == (
        '{"url":"http://a.example/b.jpg","page_url":null,"caption":"un café","text_from":"alt",'
        '"width":8,"height":8,"original_width":9,"original_height":9,"sha256":"'
        + "ab" * 32
        + '","queries":["dog"],"license":null,"uid":"'
        + "00" * 16
        + '"}'
    )


def test_samples_table_tells_where_every_member_is(tmp_path: Path) -> None:
    """Offset, size and digest in the samples table lead to each member's bytes."""
    _write(
        tmp_path, _pairs([(b"\xff\xd8 one", _metadata()), (b"\xff\xd8 two", _metadata("a cat"))])
    )
    data = (tmp_path / "000000.tar").read_bytes()
    row = storage.read_parquet(str(tmp_path / "000000.parquet")).to_pylist()[1]
    for extension, body in (("jpg", b"\xff\xd8 two"), ("txt", b"a cat")):
        place = row[extension]
        assert data[place["offset"] : place["offset"] + place["size"]] == body
        assert place["xxh3"] == xxhash.xxh3_64_intdigest(body)


def test_an_empty_shard_is_a_shard(tmp_path: Path) -> None:
    """A shard without samples is a tar of two zero blocks, without blocks."""
    record = _write(tmp_path, []).record
    assert (record.samples, record.blocks) == (0, [])
    assert (tmp_path / "000000.tar").read_bytes() == tar.TRAILER


def test_keys_must_ascend(tmp_path: Path) -> None:
    """Keys out of order are refused, and nothing is published."""
    pair = Pair(key_of(3), b"\xff\xd8", _metadata())
    with pytest.raises(ShardFormatError, match="ascend"):
        _write(tmp_path, [pair, pair])
    assert list(tmp_path.iterdir()) == []


def test_an_empty_picture_is_refused(tmp_path: Path) -> None:
    """A picture of no bytes is refused: it could not be told from a removed one."""
    with pytest.raises(ShardFormatError, match="empty picture"):
        _write(tmp_path, [Pair(key_of(0), b"", _metadata())])
