"""What a stream makes of shards that are not what they should be."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from tests.train.conftest import MakeShards, jpeg, pair
from wit_builder import storage
from wit_builder.errors import ShardFormatError, StorageError, TrainingError, WitError
from wit_builder.shards.layout import key_of
from wit_builder.shards.manifest import finish
from wit_builder.shards.write import Pair, write_shard
from wit_train.blocks import Layout
from wit_train.stream import Batch, Look, Pace, Stream

ONCE = Layout(lanes=1, shuffle=False, epochs=1)


def whole(shards: str) -> list[Batch]:
    look, pace = Look(image_size=32, context_length=77, augment=None), Pace(workers=0)
    return list(Stream(shards, batch_size=8, layout=ONCE, look=look, pace=pace))


def encoded(mode: str) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(jpeg(3))).convert(mode).save(out, "JPEG", quality=95)
    return out.getvalue()


def test_grey_and_cmyk_pictures_are_pictures(make_shards: MakeShards):
    """A grey JPEG gives three equal channels, a CMYK one its colours; neither is substituted."""
    batch = whole(make_shards(8, jpgs={0: encoded("RGB"), 1: encoded("CMYK"), 2: encoded("L")}))[0]
    assert batch.substituted == 0
    rgb, cmyk, grey = batch.images[:3].astype(int)
    assert np.abs(rgb - cmyk).mean() < 8
    assert (grey == grey[:, :, :1]).all()


def test_a_caption_of_100_kb_is_cut_to_its_tokens(tmp_path: Path):
    """It fills its row and no other, and takes no part of the picture's place."""
    pairs = [pair(0), pair(1), pair(2)]
    metadata = msgspec.structs.replace(pairs[1].metadata, caption="word " * 20_000)
    pairs[1] = Pair(key_of(1), pairs[1].jpg, metadata)
    write_shard(str(tmp_path), 0, pairs, 4 << 20)
    finish(str(tmp_path), 1, generation="g0", recipe="0", max_block_bytes=4 << 20)
    (batch,) = whole(str(tmp_path))
    assert (batch.tokens[1] > 0).all()
    assert (batch.tokens[[0, 2], 5:] == 0).all()
    assert batch.substituted == 0


def cut_short(tar: Path) -> None:
    tar.write_bytes(tar.read_bytes()[:5000])


def flipped(tar: Path) -> None:
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)


def replaced(tar: Path) -> None:
    shutil.copy(tar.with_name("000001.tar"), tar)


def zeroed(tar: Path) -> None:
    tar.write_bytes(bytes(tar.stat().st_size))


def missing(tar: Path) -> None:
    tar.unlink()


@pytest.mark.parametrize("flaw", [cut_short, flipped, replaced, zeroed, missing])
def test_a_shard_that_is_not_what_the_tables_say_stops_the_stream(make_shards: MakeShards, flaw):
    """The error names the shard, and what to do."""
    shards = make_shards(40)
    flaw(Path(shards) / "000000.tar")
    with pytest.raises((ShardFormatError, StorageError), match=r"000000\.tar.*->"):
        whole(shards)


def of_another(shards: Path, other: Path) -> None:
    shutil.copy(other / "manifest.parquet", shards)


def blocks_of_another(shards: Path, other: Path) -> None:
    shutil.copy(other / "blocks.parquet", shards)


def all_tables_of_another(shards: Path, other: Path) -> None:
    for name in ("manifest.parquet", "blocks.parquet", "dataset.json"):
        shutil.copy(other / name, shards)


@pytest.mark.parametrize("flaw", [of_another, blocks_of_another, all_tables_of_another])
def test_tables_of_another_data_set_are_refused(make_shards: MakeShards, flaw):
    """Where they disagree, when the data set is opened; else at the first block."""
    shards, other = make_shards(40), make_shards(44, per_shard=22)
    flaw(Path(shards), Path(other))
    with pytest.raises(WitError, match=r"->"):
        whole(shards)


@pytest.mark.parametrize(
    ("batch_size", "layout", "world_size", "said"),
    [
        (80, Layout(lanes=4), 1, "fewer than"),
        (10, Layout(lanes=4), 1, "do not divide"),
        (12, Layout(lanes=4), 3, "cannot share"),
    ],
    ids=["samples fewer than a batch", "lanes not dividing the batch", "ranks not dividing lanes"],
)
def test_numbers_that_do_not_fit_are_refused(
    shards: str, batch_size: int, layout: Layout, world_size: int, said: str
):
    """Before anything is read, with what would fit."""
    with pytest.raises(TrainingError, match=rf"{said}.*->"):
        Stream(shards, batch_size=batch_size, layout=layout, world_size=world_size)


@pytest.mark.s3
def test_a_bucket_that_goes_in_mid_run_stops_the_stream(s3_endpoint: str, make_shards: MakeShards):
    """At once: the error names the shard, and what was read before is yielded."""
    del s3_endpoint
    fs, _ = storage.filesystem("s3://going")
    fs.mkdir("going")
    fs.put(make_shards(80, max_block_bytes=1) + "/", "going/shards/", recursive=True)
    pace = Pace(workers=0, steps_ahead=0)
    stream = Stream(
        "s3://going/shards", batch_size=4, layout=ONCE, look=Look(image_size=32), pace=pace
    )
    batches = iter(stream)
    steps = [next(batches).step]
    fs.rm("going", recursive=True)
    gone = r"(no such shard|bucket is gone).*\.tar.*->"  # its objects go first, then itself
    with pytest.raises(StorageError, match=gone):  # noqa: PT012 - what came before is looked at
        while True:
            steps.append(next(batches).step)
    assert steps == list(range(len(steps)))
    assert len(steps) < 20
