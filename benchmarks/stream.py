"""Images per CPU-second: the stream beside the loaders of others, and beside bare decoding.

    python benchmarks/stream.py [--repeats 3] [--seconds 10] [--workers 2] [--data .data]
                                [--peers-python PYTHON]

The same shards of 256-pixel JPEG on local disk, in the page cache; pictures of 224 pixels and
tokenised captions in batches of 256; the crop of open_clip's transform of training. Each
contestant runs in a fresh process, in turns, several times; the clocks run from one batch to a
later one, so imports and starts are not in them. CPU time is that of the whole tree of processes,
user and system.

Asked of ours: at least 4 times open_clip's own pipeline per CPU-second, and at least 0.85 of a bare
one-thread loop of decode, crop and resize.

open_clip's data module needs webdataset 0.2.86, which is downloaded into ``DATA/peers-open_clip``
for it alone. Mosaic's and Energon's packages are not installed beside ours; ``--peers-python``
names the Python of an environment with ``PACKAGES``; without it they are left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import stream_ours, stream_peers
from benchmarks.stream_meter import Rate, read
from benchmarks.stream_shards import SAMPLES, shards
from benchmarks.web_turns import versions

PACKAGES = "mosaicml-streaming megatron-energon webdataset torch torchvision open_clip_torch"
OF_OTHERS = ("mosaic", "energon")
"""Contestants that want an environment of their own."""

_OLD_WEBDATASET = "webdataset==0.2.86"
_REPOSITORY = Path(__file__).parent.parent


class Contestant(NamedTuple):
    """A command that prints a rate, and where its Python finds packages first."""

    name: str
    command: list[str]
    first: str = ""

    def run(self, *more: str) -> str:
        """Return what the command prints."""
        paths = [self.first, str(_REPOSITORY)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
        }
        done = subprocess.run(
            [*self.command, *more], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{self.name} failed:\n{done.stderr[-3000:]}")
        return done.stdout


def contestants(data: Path, folder: str, peers_python: str) -> Iterator[Contestant]:
    """Yield all that can run here; say who cannot."""
    for name in stream_ours.CONTESTANTS:
        yield Contestant(name, [sys.executable, "-m", "benchmarks.stream_ours", name, folder])
    for name in stream_peers.CONTESTANTS:
        python = peers_python if name in OF_OTHERS else sys.executable
        if not python:
            print(f"{name}: left out; give --peers-python, of an environment with: {PACKAGES}")
            continue
        first = _old_webdataset(data) if name == "open_clip" else ""
        command = [python, "-m", "benchmarks.stream_peers", name, folder]
        contestant = Contestant(name, command, first)
        contestant.run("--prepare")
        print(f"{stream_peers.PACKAGES[name]} {contestant.run('--version').strip()}", flush=True)
        yield contestant


def _old_webdataset(data: Path) -> str:
    """Return a folder with the webdataset that open_clip's data module was written for."""
    folder = (data / "peers-open_clip").resolve()
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--target", str(folder), _OLD_WEBDATASET]
        subprocess.run(command, check=True)
    return str(folder)


def table(rates: dict[str, list[Rate]]) -> Iterator[str]:
    """Yield a line for each contestant: medians, and how many times better ours is per CPU-second.

    That is the median of the turns' ratios: what else the machine does in a turn, it does to both.
    """
    yield f"{'':20} {'images/s':>9} {'per CPU-s':>10} {'CPU used':>9} {'ours/this':>10}"
    for name, runs in rates.items():
        turns = zip(rates["ours"], runs, strict=True)
        ratios = [ours.per_cpu_second / this.per_cpu_second for ours, this in turns]
        yield (
            f"{name:20} {statistics.median(r.per_second for r in runs):9,.0f} "
            f"{statistics.median(r.per_cpu_second for r in runs):10,.0f} "
            f"{statistics.median(r.cpu_s / r.wall_s for r in runs):9.2f} "
            f"{statistics.median(ratios):10.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--peers-python", default="")
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    print(versions("open_clip_torch", "torch", "simplejpeg", "opencv-python-headless", "numba"))
    folder = shards(options.data, options.samples)
    running = [
        one
        for one in contestants(options.data, str(Path(folder).resolve()), options.peers_python)
        if not options.only or one.name in (*options.only, "ours")
    ]
    rates: dict[str, list[Rate]] = {one.name: [] for one in running}
    for _ in range(options.repeats):
        for one in running:
            how = ("--seconds", str(options.seconds), "--workers", str(options.workers))
            rates[one.name].append(read(one.run(*how)))
            last = rates[one.name][-1]
            print(f"{one.name}: {last.per_second:,.0f}/s, {last.per_cpu_second:,.0f}", flush=True)
    print("\n".join(table(rates)))


if __name__ == "__main__":
    main()
