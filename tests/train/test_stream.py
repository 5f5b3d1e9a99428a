"""The stream: batches from shards."""

from __future__ import annotations

import hashlib
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.train.conftest import MakeShards
from wit_builder.errors import ShardFormatError, StorageError, TrainingError
from wit_builder.shards import removal
from wit_train.blocks import Layout
from wit_train.stream import Batch, Look, Pace, Stream
from wit_train.tokens import Tokenizer

LOOK = Look(image_size=32, context_length=8)
ONCE = Layout(lanes=1, shuffle=False, epochs=1)
HERE = Pace(workers=0)


def first(shards: str | dict[str, int], count: int, **options: object) -> list[Batch]:
    layout = options.pop("layout", Layout(lanes=4, seed=5))
    options.setdefault("pace", HERE)
    stream = Stream(shards, batch_size=8, layout=layout, look=LOOK, **options)  # type: ignore[arg-type]
    return [batch for batch, _ in zip(stream, range(count), strict=False)]


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a.images, b.images)
        and np.array_equal(a.tokens, b.tokens)
        and np.array_equal(a.sample_ids, b.sample_ids)
        for a, b in zip(one, other, strict=True)
    )


def test_a_finite_stream_yields_every_sample_once_with_its_own_caption(shards: str):
    """Evaluation sees all samples in order, each with its text; the last batch is padded."""
    batches = first(shards, 99, layout=ONCE)
    assert np.concatenate([b.sample_ids for b in batches]).tolist() == [*range(70), -1, -1]
    expected = Tokenizer(8)([f"picture number {i}" for i in range(70)])
    np.testing.assert_array_equal(np.concatenate([b.tokens[b.valid] for b in batches]), expected)
    assert [int(b.valid.sum()) for b in batches] == [8] * 8 + [6]
    assert not batches[-1].images[6:].any()
    assert not batches[-1].tokens[6:].any()


def test_resuming_at_a_step_gives_the_same_batches_whatever_the_processes(shards: str):
    """Steps 5 to 11 are the same, read on from 0 or begun at 5, in this process or in three."""
    whole = first(shards, 12)
    rest = first(shards, 7, start_step=5, pace=Pace(workers=3, steps_ahead=4, readers=2))
    assert same(whole[5:], rest)
    assert [b.step for b in rest] == list(range(5, 12))


def test_ranks_share_the_batch_of_one(shards: str):
    """Two ranks' images, one after the other, are a single rank's."""
    whole = first(shards, 10)
    ranks = [first(shards, 10, rank=r, world_size=2) for r in (0, 1)]
    for batch, left, right in zip(whole, *ranks, strict=True):
        assert np.array_equal(batch.images, np.concatenate([left.images, right.images]))
        assert np.array_equal(batch.sample_ids, np.concatenate([left.sample_ids, right.sample_ids]))


def test_a_sample_that_does_not_decode_is_replaced_by_the_next_of_its_block(make_shards):
    """Its slot stays, with the next picture and that one's caption, and it is counted."""
    shards = make_shards(8, jpgs={2: b"not a picture", 7: b"nor is this"}, max_block_bytes=1 << 20)
    (batch,) = first(shards, 1, layout=ONCE)
    assert batch.substituted == 2
    assert batch.sample_ids.tolist() == list(range(8))
    expected = Tokenizer(8)([f"picture number {i}" for i in (0, 1, 3, 3, 4, 5, 6, 0)])
    np.testing.assert_array_equal(batch.tokens, expected)


def test_a_block_without_any_picture_stops_the_stream(make_shards):
    """Nothing to put in the slot: the error names shard and offset."""
    shards = make_shards(8, jpgs=dict.fromkeys(range(8), b"no"))
    with pytest.raises(ShardFormatError, match=r"decodes \[.*000000\.tar byte \d+"):
        first(shards, 1)


def uids_of(*positions: int) -> pa.Array:
    found = [hashlib.md5(str(n).encode()).digest() for n in positions]
    return pa.array(found, pa.binary(16))


def test_a_removal_changes_only_the_slots_of_what_was_removed(make_shards):
    """All other slots hold the same pictures and texts; these hold the next of their block."""
    shards = make_shards(70)
    before = first(shards, 20)
    gone = [3, 4, 30, 69]
    removal.remove(shards, uids_of(*gone))
    after = first(shards, 20)
    assert [b.sample_ids.tolist() for b in after] == [b.sample_ids.tolist() for b in before]
    for old, new in zip(before, after, strict=True):
        replaced = np.isin(new.sample_ids, gone)
        assert new.substituted == replaced.sum()
        assert np.array_equal(old.images[~replaced], new.images[~replaced])
        assert np.array_equal(old.tokens[~replaced], new.tokens[~replaced])
        assert not (old.tokens[replaced] == new.tokens[replaced]).all(axis=1).any()
    assert sum(b.substituted for b in after) > 0


def test_a_block_of_which_all_was_removed_is_filled_by_the_next(make_shards):
    """Training goes on: its slots hold samples of the next block that has any left."""
    shards = make_shards(12, per_shard=4, max_block_bytes=1)  # a block a sample
    removal.remove(shards, uids_of(2, 3, 11))
    batches = first(shards, 2, layout=ONCE)
    expected = Tokenizer(8)([f"picture number {i}" for i in (0, 1, 4, 4, 4, 5, 6, 7, 8, 9, 10, 0)])
    tokens = np.concatenate([b.tokens[b.valid] for b in batches])
    np.testing.assert_array_equal(tokens, expected)
    assert [b.substituted for b in batches] == [2, 1]


def test_a_data_set_of_which_all_was_removed_stops_the_stream(make_shards):
    """There is nothing to put in any slot."""
    shards = make_shards(8, max_block_bytes=1)
    removal.remove(shards, uids_of(*range(8)))
    with pytest.raises(ShardFormatError, match="no sample of the data set"):
        first(shards, 1)


def test_a_removal_under_way_does_not_stop_a_stream(make_shards):
    """What was opened before reads shards of the next revision, and leaves out what is gone."""
    shards = make_shards(40, max_block_bytes=1)
    pace = Pace(workers=0, steps_ahead=0)  # so that no more than two steps are read ahead
    batches = iter(Stream(shards, batch_size=4, layout=ONCE, look=LOOK, pace=pace))
    assert next(batches).substituted == 0
    removal.remove(shards, uids_of(33, 34))
    assert [batch.substituted for batch in batches] == [0, 0, 0, 0, 0, 0, 0, 2, 0]


def test_a_flipped_byte_stops_the_stream_naming_shard_and_offset(make_shards):
    """A block is read twice, then refused."""
    shards = make_shards(16)
    tar = Path(shards) / "000000.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    with pytest.raises(ShardFormatError, match=r"000000\.tar byte 0"):
        first(shards, 4)


def test_a_rank_outside_the_world_is_refused(shards: str):
    """Ranks count from 0."""
    with pytest.raises(TrainingError, match="rank 2 of 2"):
        Stream(shards, batch_size=8, rank=2, world_size=2)


def test_batches_that_are_kept_keep_their_content(shards: str):
    """Memory of a batch is used again only when nothing refers to it."""
    kept = first(shards, 30)
    copies = [b.images.copy() for b in first(shards, 30)]
    assert all(np.array_equal(b.images, copy) for b, copy in zip(kept, copies, strict=True))


def test_batches_that_are_let_go_are_used_again(shards: str):
    """A long run needs the memory of a few batches, a slice of one keeps all of it."""
    stream = Stream(shards, batch_size=8, layout=Layout(lanes=4), look=LOOK, pace=HERE)
    places, slices = set(), []
    for batch, number in zip(stream, range(40), strict=False):
        places.add(batch.images.ctypes.data)
        if number % 10 == 0:
            slices.append((batch.images[3:4], batch.images[3:4].copy()))
    assert len(places) < 12
    assert all(np.array_equal(part, copy) for part, copy in slices)


def test_a_mixture_gives_each_data_set_its_rows(make_shards: MakeShards):
    """Lanes are shares of every batch, in the order of the data sets; ids count through."""
    one, other = make_shards(30), make_shards(50)
    mixture, layout = {one: 1, other: 3}, Layout(seed=1)
    batches = first(mixture, 25, layout=layout)
    ids = np.stack([b.sample_ids for b in batches])
    assert (ids[:, :2] < 30).all()
    assert (ids[:, 2:] >= 30).all()
    assert (np.bincount(ids.ravel(), minlength=80)[30:] == 3).all()
    assert Stream(mixture, batch_size=8).order.samples == 80
    halves = [first(mixture, 25, layout=layout, rank=r, world_size=2) for r in (0, 1)]
    for batch, left, right in zip(batches, *halves, strict=True):
        assert np.array_equal(batch.images, np.concatenate([left.images, right.images]))


def test_more_blocks_than_planned_for_are_read_where_a_step_needs_them(make_shards: MakeShards):
    """Blocks of one sample, many of them a step: memory grows to what a step needs."""
    shards = make_shards(64, max_block_bytes=1)
    batches = first(shards, 2, layout=Layout(lanes=1, shuffle=False, epochs=1))
    assert np.concatenate([b.sample_ids for b in batches]).tolist() == list(range(16))


def decode_processes(parent: int) -> list[int]:
    """Return the decode processes of a process."""
    children = Path(f"/proc/{parent}/task").glob("*/children")
    found = [int(pid) for place in children for pid in place.read_text().split()]
    return [p for p in found if b"wit_train.worker" in Path(f"/proc/{p}/cmdline").read_bytes()]


def test_a_decode_process_that_is_killed_is_replaced(shards: str):
    """Its tasks are done by another: the batches are the same."""
    expected = first(shards, 30)
    stream = Stream(
        shards, batch_size=8, layout=Layout(lanes=4, seed=5), look=LOOK, pace=Pace(workers=2)
    )
    got = []
    for number, batch in zip(range(30), stream, strict=False):
        got.append(batch)
        if number in (3, 17):
            os.kill(decode_processes(os.getpid())[0], signal.SIGKILL)
    assert same(got, expected)


def test_decode_processes_that_cannot_live_end_the_stream(
    shards: str, monkeypatch: pytest.MonkeyPatch
):
    """Not started over and over: the error says what they ended with."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(TrainingError, match="status 1"):
        first(shards, 1, pace=Pace(workers=1))


def test_decode_processes_end_with_the_iteration(shards: str):
    """Closing the iterator, or dropping it, leaves no process behind."""
    batches = iter(Stream(shards, batch_size=8, look=LOOK, pace=Pace(workers=2)))
    next(batches)
    assert len(decode_processes(os.getpid())) == 2
    batches.close()
    assert decode_processes(os.getpid()) == []


def test_decode_processes_end_when_their_parent_is_killed(shards: str):
    """Their pipe closes, and they hold no memory any more."""
    code = (
        "import sys, time; from wit_train.stream import Stream, Look, Pace\n"
        f"stream = Stream({shards!r}, batch_size=8, pace=Pace(workers=1))\n"
        "batches = iter(stream); next(batches)\n"
        "print('ready', flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        (worker,) = decode_processes(parent.pid)
        ended = os.pidfd_open(worker)
        parent.kill()
    with selectors.DefaultSelector() as selector:
        selector.register(ended, selectors.EVENT_READ)
        assert selector.select(30)
    os.close(ended)


@pytest.mark.parametrize(
    ("look", "pace", "said"),
    [
        (Look(image_size=0), Pace(), "image_size"),
        (Look(context_length=2), Pace(), "context_length"),
        (Look(clean="no such"), Pace(), "no such"),  # type: ignore[arg-type]
        (Look(), Pace(workers=-1), "workers"),
        (Look(), Pace(readers=0), "readers"),
        (Look(), Pace(steps_ahead=-1), "steps_ahead"),
    ],
)
def test_settings_that_nothing_can_be_made_with_are_refused(
    shards: str, look: Look, pace: Pace, said: str
):
    """When the stream is opened, with what is wrong."""
    with pytest.raises(TrainingError, match=rf"{said}.*->"):
        Stream(shards, batch_size=8, look=look, pace=pace)


def test_two_iterations_at_once_do_not_disturb_each_other(shards: str):
    """Each begins at the start step and has the same batches."""
    stream = Stream(shards, batch_size=8, layout=Layout(lanes=4, seed=5), look=LOOK, pace=HERE)
    pairs = [pair for pair, _ in zip(zip(stream, stream, strict=True), range(20), strict=False)]
    assert same([one for one, _ in pairs], first(shards, 20))
    assert same([other for _, other in pairs], first(shards, 20))


def test_few_descriptors_are_enough(make_shards: MakeShards):
    """However many slots there are, and batches that are kept: 100 stand for 1024 in earnest."""
    shards = make_shards(256, per_shard=64, max_block_bytes=1)
    code = (
        "import resource; from wit_train.blocks import Layout\n"
        "from wit_train.stream import Stream, Look, Pace\n"
        f"stream = Stream({shards!r}, batch_size=128, layout=Layout(lanes=128),\n"
        "    look=Look(image_size=32), pace=Pace(workers=1))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\n"
        "assert len([batch for batch, _ in zip(stream, range(60))]) == 60"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_block_that_cannot_be_read_ends_the_stream_where_it_is_needed(make_shards: MakeShards):
    """Steps before it are yielded, though its read failed long before."""
    shards = make_shards(40, max_block_bytes=1)
    (Path(shards) / "000001.tar").unlink()  # the samples from 20 on
    stream = Stream(shards, batch_size=4, layout=ONCE, look=LOOK, pace=Pace(workers=0))
    got = []
    batches = iter(stream)
    with pytest.raises(StorageError, match=r"000001\.tar"):  # noqa: PT012 - what came before counts
        while True:
            got.append(next(batches).step)
    assert got[:2] == [0, 1]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of threads
def test_closing_does_not_wait_for_processes_that_others_keep_alive(shards: str):
    """A process that was forked holds the pipes of decode processes: they are told to end."""
    batches = iter(Stream(shards, batch_size=8, look=LOOK, pace=Pace(workers=1)))
    next(batches)
    gate, hold = os.pipe()
    if (child := os.fork()) == 0:  # it does nothing but hold what it was given
        os.close(hold)
        os.read(gate, 1)
        os._exit(0)
    workers = decode_processes(os.getpid())
    batches.close()
    ended = [not Path(f"/proc/{pid}").exists() for pid in workers]
    os.close(hold)
    os.waitpid(child, 0)
    assert ended == [True]


def test_the_stream_imports_neither_torch_nor_open_clip_nor_webdataset(shards: str):
    """A loader process starts in a second: the heavy packages stay out, even after a batch."""
    code = (
        "import sys; from wit_train.stream import Stream, Look, Pace; import wit_train.worker\n"
        "look, pace = Look(image_size=32), Pace(workers=0)\n"
        f"next(iter(Stream({shards!r}, batch_size=8, look=look, pace=pace)))\n"
        "bad = {'torch', 'torchvision', 'open_clip', 'webdataset'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
