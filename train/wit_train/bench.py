"""``wit stream bench``: how fast shards stream on this machine, and what holds them back.

Loaded by the ``wit`` program when it is asked for; torch is not imported.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec
from cyclopts import App, Parameter, validators

if TYPE_CHECKING:  # numpy and OpenCV are imported when a command runs
    from collections.abc import Iterator

    from wit_train.cache import Cache
    from wit_train.stream import Batch, Stats, Stream

stream = App(name="stream", help="Look at the stream that feeds training.")

_BUSY = 0.85
"""Of its time: a part that is busy for so much of it is what holds the stream back."""

_Natural = Annotated[int, Parameter(validator=validators.Number(gte=0))]
_Positive = Annotated[int, Parameter(validator=validators.Number(gte=1))]
_Seconds = Annotated[float, Parameter(validator=validators.Number(gte=0))]


@Parameter(name="*")
@dataclass(frozen=True)
class Load:
    """What is asked of the stream.

    Attributes:
        batch_size: Of all ranks together.
        lanes: As in training; 0: the greatest common divisor of the batch size and 256.
        world_size: How many ranks share each batch.
        rank: Which of them this is, from 0.
        start_step: Where to begin.
        image_size: Side of the pictures, pixels.
        step_s: Seconds that your own step takes: so long after each batch none is asked for.
    """

    batch_size: _Positive = 1024
    lanes: _Natural = 0
    world_size: _Positive = 1
    rank: _Natural = 0
    start_step: _Natural = 0
    image_size: _Positive = 224
    step_s: _Seconds = 0.0


@Parameter(name="*")
@dataclass(frozen=True)
class Means:
    """What the stream may use.

    Attributes:
        workers: Decode processes; by default one a core.
        readers: Blocks that are read at once.
        cache: Folder on local disk that keeps blocks of remote shards.
        cache_gb: Its limit, GB.
    """

    workers: _Natural | None = None
    readers: _Positive = 16
    cache: str = ""
    cache_gb: Annotated[float, Parameter(validator=validators.Number(gt=0))] = 100.0


@Parameter(name="*")
@dataclass(frozen=True)
class Length:
    """How long to measure.

    Attributes:
        seconds: At least so long, after the first batches.
        batches: Exactly so many instead.
    """

    seconds: _Seconds = 20.0
    batches: _Positive | None = None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, after the batches that had been made ahead.

    Attributes:
        batches, images: taken by this rank.
        seconds: that it took.
        first_batch_s: from opening the data set to its first batch.
        images_per_s: of this rank.
        mb_per_s: read from the shards, 10^6 bytes.
        waiting: share of the time that the caller waited for a batch.
        decoding: share of their time that the decode processes were busy.
        reading: share of their time that the readers were waiting for bytes.
        retries: ranges asked for again.
        substituted: slots that hold another sample, theirs being removed or unusable.
        workers, readers: how many there are of them.
        memory_bytes: shared memory that blocks and batches may take.
        verdict: what holds it back, and what to change.
    """

    batches: int
    images: int
    seconds: float
    first_batch_s: float
    images_per_s: float
    mb_per_s: float
    waiting: float
    decoding: float
    reading: float
    retries: int
    substituted: int
    workers: int
    readers: int
    memory_bytes: int
    verdict: str


@stream.command
def bench(
    url: str,
    *,
    load: Load = Load(),
    means: Means = Means(),
    length: Length = Length(),
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Stream shards as training would, and say how fast it is and what holds it back.

    Args:
        url: Folder of a finished data set, local or remote.
        load: see ``Load``.
        means: see ``Means``.
        length: see ``Length``.
        json: Print what was measured as JSON.
    """
    began = time.perf_counter()
    opened = _opened(url, load, means)
    print(f"at most {opened.memory_bytes / 1e9:.2f} GB of shared memory", file=sys.stderr)
    found = measure(opened, length, step_s=load.step_s, began=began)
    if json:
        print(msgspec.json.encode(found).decode())
    else:
        print("\n".join(lines(found)))


def _opened(url: str, load: Load, means: Means) -> Stream:
    from wit_train.blocks import Layout
    from wit_train.stream import Look, Pace, Stream

    return Stream(
        url,
        batch_size=load.batch_size,
        world_size=load.world_size,
        rank=load.rank,
        start_step=load.start_step,
        layout=Layout(lanes=load.lanes),
        look=Look(image_size=load.image_size),
        pace=Pace(workers=means.workers, readers=means.readers, cache=_cache(means)),
    )


def _cache(means: Means) -> Cache | None:
    if not means.cache:
        return None
    from wit_train.cache import Cache

    return Cache(means.cache, int(means.cache_gb * 1e9))


def measure(opened: Stream, length: Length, *, step_s: float, began: float) -> Found:
    """Return how fast a stream is.

    Args:
        opened: not yet iterated over.
        length: how long to measure.
        step_s: how long the caller is busy with each batch.
        began: ``time.perf_counter()`` before the stream was opened.

    Raises:
        WitError: whatever ends the stream.
    """
    batches = iter(opened)
    try:
        next(batches)
        first_batch_s = time.perf_counter() - began
        for _ in range(opened.pace.steps_ahead + 1):  # made while the first was waited for
            next(batches)
        before, start = opened.stats, time.perf_counter()
        seconds = _run(batches, length, step_s, start)
        return _found(before, opened.stats, seconds, first_batch_s)
    finally:
        batches.close()


def _run(batches: Iterator[Batch], length: Length, step_s: float, start: float) -> float:
    taken = 0
    while True:
        time.sleep(step_s)
        next(batches)
        taken += 1
        seconds = time.perf_counter() - start
        if taken >= length.batches if length.batches else seconds >= length.seconds:
            return seconds


def _found(before: Stats, after: Stats, seconds: float, first_batch_s: float) -> Found:
    images = after.images - before.images
    waiting = (after.waited_s - before.waited_s) / seconds
    decoding = (after.decode_s - before.decode_s) / seconds / max(1, after.workers)
    reading = (after.read_s - before.read_s) / seconds / after.readers
    return Found(
        batches=after.batches - before.batches,
        images=images,
        seconds=seconds,
        first_batch_s=first_batch_s,
        images_per_s=images / seconds,
        mb_per_s=(after.bytes_read - before.bytes_read) / seconds / 1e6,
        waiting=min(1.0, waiting),
        decoding=min(1.0, decoding),
        reading=min(1.0, reading),
        retries=after.retries,
        substituted=after.substituted,
        workers=after.workers,
        readers=after.readers,
        memory_bytes=after.memory_bytes,
        verdict=verdict(Shares(waiting, decoding, reading), after),
    )


class Shares(NamedTuple):
    """Of the time: how much the caller waited, the processes decoded, the readers read."""

    waiting: float
    decoding: float
    reading: float


def verdict(shares: Shares, stats: Stats, cores: int | None = None) -> str:
    """Return in a sentence or two what holds a stream back, and what to change.

    Args:
        shares: of the time.
        stats: of the stream.
        cores: that this process may use; None: ask the system.
    """
    cores = cores or len(os.sched_getaffinity(0))
    under_way = shares.reading * stats.readers
    if shares.waiting < 1 - _BUSY:
        return "Nothing holds it back: batches are there when they are asked for."
    if shares.decoding >= _BUSY:
        more = f"--workers {cores}" if stats.workers < cores else "more cores"
        return f"Decoding holds it back: {_processes(stats.workers)} busy. Give it {more}."
    if shares.reading >= _BUSY:
        more = f"--readers {2 * stats.readers}, or a --cache"
        return f"Reading holds it back: all {stats.readers} readers wait for bytes. Try {more}."
    if under_way >= 1:
        return (
            f"Reading holds it back: {under_way:.0f} reads are under way, and there is no memory "
            "for more blocks. Use more lanes, or keep blocks in a --cache."
        )
    return (
        "Neither reading nor decoding holds it back, but the process that hands out the work. "
        "Take larger batches, or leave it a core of its own: fewer --workers."
    )


def _processes(workers: int) -> str:
    if not workers:
        return "the calling process is"
    return f"all {workers} processes are" if workers > 1 else "its process is"


def lines(found: Found) -> list[str]:
    """Return what was measured, a line each, the verdict last."""
    rows = {
        "images a second": f"{found.images_per_s:,.0f}",
        "MB a second read": f"{found.mb_per_s:,.1f}",
        "first batch after": f"{found.first_batch_s:.2f} s",
        "caller waiting": f"{found.waiting:.0%}",
        "decoding": f"{found.decoding:.0%} of {_counted(found.workers, 'process', 'processes')}",
        "reading": f"{found.reading:.0%} of {_counted(found.readers, 'reader', 'readers')}",
        "retries": f"{found.retries:,}",
        "substituted": f"{found.substituted:,}",
        "measured": f"{found.batches:,} batches, {found.images:,} images, {found.seconds:.1f} s",
    }
    width = max(map(len, rows))
    return [*(f"{name:{width}}  {value}" for name, value in rows.items()), found.verdict]


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}" if count else "the calling process"
