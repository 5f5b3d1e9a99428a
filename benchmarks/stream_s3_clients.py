"""The contestants of ``stream_s3.py``: read blocks of a bucket, so many at once.

    python -m benchmarks.stream_s3_clients NAME s3://BUCKET/FOLDER [--at-once 16] [--turns 3]

prints what it cost. Account and endpoint come from the environment, for all of them.

* ``ours``: ``wit_train.bucket``, which is obstore, into memory that is given.
* ``pyarrow``, ``botocore``, ``s3fs``: the range reads of these, as they are.
* ``aws pipe``, ``curl pipe``: a large shard (``WHOLE``) by four pipes at once, as webdataset reads
  ``pipe:`` with the command line program of AWS, or with curl and a signed URL: no ranges.
"""

from __future__ import annotations

import argparse
import importlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks import stream_meter
from wit_builder import storage
from wit_builder.shards.read import Dataset

_PIECE_BYTES = 1 << 20


class Range(NamedTuple):
    """A block: bucket and key of its shard, and its bytes."""

    bucket: str
    key: str
    start: int
    end: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.end - self.start


Read = Callable[[Range, memoryview], int]
"""Reads a range into memory; returns how many bytes."""


def ours(place: str) -> Read:
    """Return the client of the stream."""
    from wit_train.bucket import Bucket  # noqa: PLC0415 - each contestant imports its own

    bucket = Bucket(place, 20)

    def read(one: Range, into: memoryview) -> int:
        url, until = f"s3://{one.bucket}/{one.key}", time.monotonic() + 300
        return bucket.read(url, one.start, into[: one.length], until)

    return read


def pyarrow(place: str) -> Read:
    """Return Arrow's file system, which is C++; files stay open."""
    del place
    module: Any = importlib.import_module("pyarrow.fs")
    fs = module.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"])
    files: dict[str, Any] = {}

    def read(one: Range, into: memoryview) -> int:
        path = f"{one.bucket}/{one.key}"
        file = files.get(path) or files.setdefault(path, fs.open_input_file(path))
        found = file.read_at(one.length, one.start)
        into[: one.length] = found
        return len(found)

    return read


def botocore(place: str) -> Read:
    """Return the client of AWS, one for all threads."""
    del place
    session: Any = importlib.import_module("botocore.session").get_session()
    config = importlib.import_module("botocore.config").Config(max_pool_connections=64)
    client = session.create_client("s3", config=config)

    def read(one: Range, into: memoryview) -> int:
        asked = f"bytes={one.start}-{one.end - 1}"
        at = 0
        body = client.get_object(Bucket=one.bucket, Key=one.key, Range=asked)["Body"]
        while got := body.readinto(into[at : min(at + _PIECE_BYTES, one.length)]):
            at += got
        return at

    return read


def s3fs(place: str) -> Read:
    """Return fsspec's file system for S3, which fetches on an event loop of its own."""
    fs, _ = storage.filesystem(place)

    def read(one: Range, into: memoryview) -> int:
        found = fs.cat_file(f"{one.bucket}/{one.key}", start=one.start, end=one.end)
        into[: one.length] = found
        return len(found)

    return read


def _piped(command: Callable[[Range], str]) -> Read:
    """Return webdataset's reading of a program's output."""
    webdataset: Any = importlib.import_module("webdataset")

    def read(one: Range, into: memoryview) -> int:
        at = 0
        with webdataset.gopen(f"pipe:{command(one)}") as stream:
            while piece := stream.read(_PIECE_BYTES):
                into[at : at + len(piece)] = piece
                at += len(piece)
        return at

    return read


def aws_pipe(place: str) -> Read:
    """Return what webdataset's users write most."""
    del place
    return _piped(lambda one: f"aws s3 cp --quiet s3://{one.bucket}/{one.key} -")


def curl_pipe(place: str) -> Read:
    """Return the same with curl, which starts faster; the URLs are signed beforehand."""
    fs, _ = storage.filesystem(place)
    return _piped(lambda one: f"curl -sf '{fs.sign(f'{one.bucket}/{one.key}', 3600)}'")


CONTESTANTS: dict[str, Callable[[str], Read]] = {
    "ours": ours,
    "pyarrow": pyarrow,
    "botocore": botocore,
    "s3fs": s3fs,
    "aws pipe": aws_pipe,
    "curl pipe": curl_pipe,
}
PIPES = ("aws pipe", "curl pipe")
"""Contestants that read shards as a whole."""

WHOLE = "whole.tar"
"""The bytes of all shards as one: a program's start should count as little as with large shards."""

_PIPES_AT_ONCE = 4


def ranges(place: str) -> list[Range]:
    """Return the blocks of a data set."""
    dataset = Dataset.open(place)
    bucket, folder = urlsplit(place).netloc, urlsplit(place).path.strip("/")
    names = dataset.manifest["shard"].to_pylist()
    return [
        Range(bucket, f"{folder}/{names[b['shard']]}", b["offset"], b["offset"] + b["length"])
        for b in dataset.blocks.to_pylist()
    ]


def whole(place: str) -> list[Range]:
    """Return the large shard, once for each pipe."""
    url = storage.join(place, WHOLE)
    parts = urlsplit(url)
    one = Range(parts.netloc, parts.path.strip("/"), 0, storage.size_of(url))
    return [one] * _PIPES_AT_ONCE


def measure(read: Read, wanted: list[Range], at_once: int) -> stream_meter.Rate:
    """Return what it costs to read some ranges; of images, there are bytes."""
    memory = threading.local()
    longest = max(one.length for one in wanted)

    def one(wanted_one: Range) -> int:
        if not hasattr(memory, "into"):
            memory.into = memoryview(bytearray(longest))
        got = read(wanted_one, memory.into)
        assert got == wanted_one.length
        return got

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, wanted[:at_once]))  # opens connections
        cpu_s, began = stream_meter.tree_cpu_s(os.getpid()), time.perf_counter()
        count = sum(pool.map(one, wanted))
        wall_s = time.perf_counter() - began
        return stream_meter.Rate(count, wall_s, stream_meter.tree_cpu_s(os.getpid()) - cpu_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("place")
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    read = CONTESTANTS[options.name](options.place)
    piped = options.name in PIPES
    wanted = whole(options.place) if piped else ranges(options.place) * options.turns
    stream_meter.report(measure(read, wanted, options.at_once))


if __name__ == "__main__":
    main()
