"""How close many polite hosts come to the rate that their limits allow, and that none is exceeded.

    python benchmarks/fetch_polite.py [--hosts 100] [--each 60] [--interval 1.0] [--data .data]

So many hosts, each a domain that is asked once in ``interval`` seconds at most, all by one worker;
pictures of at most 300 px that wait 20 to 500 ms for their first byte. In theory ``hosts /
interval`` pictures come a second: every host's robots.txt takes one of its turns, and its first
turn is at once. The time is that of the whole unit, from its start until its last part is
published.

The server's log tells when each request began, robots.txt included. As both ends read their clocks
a moment early or late (two processes on two busy cores, milliseconds in the log), a request counts
as over the limit when it comes more than ``SLACK_S`` too early.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.fetch import Work, pictures, unit
from benchmarks.fetch_server import Mix, Request, pool, serving
from benchmarks.web_turns import versions
from wit_builder.fetch import run as fetch
from wit_builder.sections import FetchSection

SLACK_S = 0.02


def timed(work: Work, hosts: int, interval_s: float) -> float:
    """Ask for the paths, dealt to hosts; return the seconds it took, imports not counted."""
    urls = [f"http://h{i % hosts}.test{path}" for i, path in enumerate(work.paths)]
    section = FetchSection(
        concurrency=work.requests, per_domain_concurrency=1, per_domain_interval_s=interval_s
    )
    job = unit(urls, work, section)
    started = time.perf_counter()
    fetch.run(job)
    return time.perf_counter() - started


def gaps(requests: Iterable[Request]) -> list[float]:
    """Return the seconds between the beginnings of every two consecutive requests to one host."""
    began: dict[str, list[float]] = {}
    for request in requests:
        began.setdefault(request.host, []).append(request.began_s)
    pairs = (itertools.pairwise(sorted(times)) for times in began.values())
    return [later - earlier for host in pairs for earlier, later in host]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--each", type=int, default=60, help="pictures of a host")
    parser.add_argument("--interval", type=float, default=1.0)
    parser.add_argument("--requests", type=int, default=64, help="under way at once")
    options = parser.parse_args()
    print(versions("aiohttp"))
    made = pool(options.data, Mix(pictures=100, shortest=100, longest=300))
    paths = made.paths(options.hosts * options.each)
    with serving(made) as server, tempfile.TemporaryDirectory() as folder:
        work = Work(paths, server.address, 0, options.requests, folder)
        with multiprocessing.get_context("spawn").Pool(1) as worker:
            wall_s = worker.apply(timed, (work, options.hosts, options.interval))
        requests = list(server.requests())
        alive = sum(1 for _ in pictures(Path(folder)))
    theory = options.hosts / options.interval
    apart = gaps(requests)
    early = sum(1 for gap in apart if gap < options.interval - SLACK_S)
    print(f"{alive:,} of {len(paths):,} pictures, {len(requests):,} requests in {wall_s:.1f} s")
    print(f"{alive / wall_s:.1f} a second, {alive / wall_s / theory:.1%} of {theory:g} in theory")
    print(f"smallest gap of a host {min(apart):.3f} s; {early} requests over their host's limit")


if __name__ == "__main__":
    main()
