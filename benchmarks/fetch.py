"""Images per second, and per CPU-second, beside img2dataset on the same pictures and server.

    python benchmarks/fetch.py [--images 4000] [--repeats 3] [--data .data]

nginx (``fetch_server.py``) serves pictures whose longer side has 300 to 3000 px, and lets every URL
wait 20 to 500 ms for its first byte. Both make the same of them: shorter side 256 px, none
enlarged, JPEG of quality 95, tar files with captions and JSON, sha256. We add what we always do:
robots.txt of every host, md5, a perceptual hash, orientation.

img2dataset runs with the processes and threads that are best for it, found first in the same run;
we with two processes, as it has cores here, and with as many requests under way in all as it has.
It asks ``127.0.0.1:PORT`` for the paths that we ask many hosts for, and its EXIF extraction, which
we do not do, is off.

What is measured is what worker processes do: img2dataset's ``Downloader`` with a shard for each,
our ``fetch.run`` with a unit for each, in turns, in pools of processes that have imported all they
need and have done one picture before. So nobody's imports count (img2dataset's take seconds, in
every worker), nor what its main process does besides. nginx runs on the same cores; its CPU time is
told apart.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import multiprocessing.pool
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from benchmarks.fetch_server import Mix, Server, pool, serving
from benchmarks.web_turns import versions
from wit_builder import exchange
from wit_builder.fetch import run as fetch
from wit_builder.fetch.run import FetchJob
from wit_builder.sections import FetchSection, ImageSection
from wit_builder.tables import SELECTED

HOSTS = 200
PROCESSES = (1, 2, 4)
THREADS = (16, 32, 64, 128)
OUR_PROCESSES = 2
_SEARCHED_SHARE = 4  # of the images, one in so many is asked for per setting of the search


class Setting(NamedTuple):
    """How many processes, and how many requests under way in each."""

    processes: int
    requests: int


class Took(NamedTuple):
    """Seconds by the clock, CPU seconds of the workers, and of the server, of one run."""

    wall_s: float
    cpu_s: float
    server_cpu_s: float


class Work(NamedTuple):
    """What one worker is to do: its paths of a server, and the folder to write into."""

    paths: Sequence[str]
    address: str
    number: int
    requests: int
    folder: str


Downloads = Callable[[Work], None]


def img2dataset(work: Work) -> None:
    """Do a shard with img2dataset's own downloader, as its worker processes do."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    from img2dataset.downloader import Downloader  # noqa: PLC0415 - seconds, and only where it runs
    from img2dataset.resizer import Resizer  # noqa: PLC0415
    from img2dataset.writer import WebDatasetSampleWriter  # noqa: PLC0415

    download = Downloader(
        sample_writer_class=WebDatasetSampleWriter,
        resizer=Resizer(256, "keep_ratio", True, encode_quality=95, encode_format="jpg"),
        thread_count=work.requests,
        save_caption=True,
        extract_exif=False,
        output_folder=work.folder,
        column_list=["url", "caption"],
        timeout=20,
        number_sample_per_shard=10_000,
        oom_shard_count=5,
        compute_hash="sha256",
        verify_hash_type=None,
        encode_format="jpg",
        retries=1,
        user_agent_token=None,
        disallowed_header_directives=["noai", "noimageai", "noindex", "noimageindex"],
    )
    urls = [f"http://{work.address}{path}" for path in work.paths]
    table = pa.table({"url": urls, "caption": [caption(url) for url in urls]})
    source = f"{work.folder}/{work.number}.feather"
    with pa.OSFile(source, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    succeeded, _ = download((work.number, source))
    assert succeeded


def ours(work: Work) -> None:
    """Do a unit as a build does; its hosts are no other worker's."""
    urls = [f"http://h{i % HOSTS}-{work.number}.test{path}" for i, path in enumerate(work.paths)]
    fetch.run(unit(urls, work, FetchSection(concurrency=work.requests)))


def unit(urls: Sequence[str], work: Work, section: FetchSection) -> FetchJob:
    """Return the job that asks for URLs whose hosts end in ``.test``, its input written."""
    source = f"{work.folder}/{work.number}.arrow"
    exchange.scatter(selected(urls), np.zeros(len(urls), np.int64), 1, source)
    return FetchJob(
        sources=[source],
        bucket=0,
        number=work.number,
        out=f"{work.folder}/{work.number}",
        fetch=section,
        image=ImageSection(size_px=256, quality=95),
        loopback={"*.test": work.address},
    )


def caption(path: str) -> str:
    """Return the text of a pair."""
    return f"what is to be seen at {path}"


def selected(urls: Sequence[str]) -> pa.Table:
    """Return a table of selected pairs (``tables.SELECTED``) with some URLs."""
    columns = {
        "uid": [xxhash.xxh3_128_digest(url.encode()) for url in urls],
        "url": urls,
        "text": [caption(url) for url in urls],
        "text_from": ["alt"] * len(urls),
        "archive": ["benchmark"] * len(urls),
        "query_ids": [[0]] * len(urls),
        "drawn_by": [[0]] * len(urls),
    }
    arrays = [
        pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(len(urls), f.type)
        for f in SELECTED
    ]
    return pa.table(arrays, schema=SELECTED)


def cpu_of(download: Downloads, work: Work) -> float:
    """Do some work; return the CPU seconds it took this process, all threads of it."""
    started = time.process_time()
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        download(work)
    return time.process_time() - started


@cache
def workers(download: Downloads, processes: int, address: str) -> multiprocessing.pool.Pool:
    """Return a pool of processes; each has done one picture."""
    spawn = multiprocessing.get_context("spawn")
    return spawn.Pool(processes, _begin, (download, address, spawn.Barrier(processes)))


def _begin(download: Downloads, address: str, together: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cpu_of(download, Work(["/0/0000.jpg"], address, 0, 1, folder))
    together.wait()


def took(download: Downloads, paths: Sequence[str], server: Server, setting: Setting) -> Took:
    """Ask for the paths, dealt to the workers of a setting; return what it took.

    Raises:
        RuntimeError: a picture is missing in what was written.
    """
    pool_of_workers = workers(download, setting.processes, server.address)
    with tempfile.TemporaryDirectory() as folder:
        works = [
            Work(paths[n :: setting.processes], server.address, n, setting.requests, folder)
            for n in range(setting.processes)
        ]
        pool_of_workers.map(_ready, range(setting.processes), 1)
        served, started = server.cpu_s(), time.perf_counter()
        cpu_s = sum(pool_of_workers.map(partial(cpu_of, download), works, 1))
        wall_s = time.perf_counter() - started
        made = sum(1 for _ in pictures(Path(folder)))
    if made != len(paths):
        raise RuntimeError(f"{download.__name__} {setting}: {made} of {len(paths)} pictures")
    return Took(wall_s, cpu_s, server.cpu_s() - served)


def _ready(_: int) -> None:
    """Do nothing, once all of a pool's processes have begun."""


def pictures(folder: Path) -> Iterator[str]:
    """Yield the name of every picture in the tar files below a folder."""
    for file in sorted(folder.rglob("*.tar")):
        with tarfile.open(file) as tar:
            yield from (name for name in tar.getnames() if name.endswith(".jpg"))


class Rates(NamedTuple):
    """Images per second, and per CPU-second of the workers; medians of some runs."""

    per_s: float
    per_cpu_s: float

    @staticmethod
    def of(runs: Sequence[Took], images: int) -> Rates:
        """Return the rates of runs with so many images each."""
        return Rates(
            images / statistics.median(run.wall_s for run in runs),
            images / statistics.median(run.cpu_s for run in runs),
        )


def best(paths: Sequence[str], server: Server) -> Setting:
    """Return img2dataset's fastest setting; print all."""
    rates: dict[Setting, float] = {}
    for setting in (Setting(p, t) for p in PROCESSES for t in THREADS):
        rate = Rates.of([took(img2dataset, paths, server, setting)], len(paths))
        rates[setting] = rate.per_s
        print(
            f"img2dataset, {setting.processes} processes x {setting.requests:3} threads: "
            f"{rate.per_s:4.0f} images/s, {rate.per_cpu_s:4.0f} per CPU-s",
            flush=True,
        )
    return max(rates, key=lambda setting: rates[setting])


def compare(
    settings: dict[Downloads, Setting], paths: Sequence[str], server: Server, repeats: int
) -> None:
    """Print the rates of both, and the ratios."""
    runs: dict[Downloads, list[Took]] = {download: [] for download in settings}
    for _ in range(repeats):
        for download, setting in settings.items():
            runs[download].append(took(download, paths, server, setting))
    rates = {download: Rates.of(of, len(paths)) for download, of in runs.items()}
    for download, setting in settings.items():
        walls = ", ".join(f"{run.wall_s:.1f}" for run in runs[download])
        served_s = statistics.median(run.server_cpu_s for run in runs[download])
        print(
            f"{download.__name__}, {setting.processes} processes x {setting.requests} requests: "
            f"{rates[download].per_s:.0f} images/s, {rates[download].per_cpu_s:.0f} per CPU-s "
            f"({walls} s; nginx {served_s:.1f} CPU-s)",
            flush=True,
        )
    wall = rates[ours].per_s / rates[img2dataset].per_s
    cpu = rates[ours].per_cpu_s / rates[img2dataset].per_cpu_s
    print(f"ratio: {wall:.2f} images per second, {cpu:.2f} per CPU-second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", type=int, nargs=2, help="processes and threads; default: search")
    options = parser.parse_args()
    print(versions("img2dataset", "aiohttp", "opencv-python-headless", "pillow"))
    made = pool(options.data, Mix())
    paths = made.paths(options.images)
    with serving(made) as server:
        few = paths[: options.images // _SEARCHED_SHARE]
        theirs = Setting(*options.peer) if options.peer else best(few, server)
        requests = theirs.processes * theirs.requests // OUR_PROCESSES
        settings: dict[Downloads, Setting] = {
            img2dataset: theirs,
            ours: Setting(OUR_PROCESSES, requests),
        }
        compare(settings, paths, server, options.repeats)


if __name__ == "__main__":
    main()
