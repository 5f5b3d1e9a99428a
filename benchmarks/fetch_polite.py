"""How close many polite hosts come to the rate that their limits allow, and that none is exceeded.

    python benchmarks/fetch_polite.py [--hosts 100] [--each 60] [--interval 1.0] [--data .data]

So many hosts, each a domain that is asked once in ``interval`` seconds at most, all by one worker;
pictures of at most 300 px that wait 20 to 500 ms for their first byte. In theory ``hosts /
interval`` come a second. The time is that of the whole unit, from its start until its last part is
published: the full interval that it waits first, and a turn of every host for its robots.txt, are
in it.

The server's log tells when each request began, robots.txt included. A process that has to wait for
its core sends, or reads, a request late, and then the next one seems early. So a host is over its
limit if eleven requests in a row begin within less than ten intervals, ``SLACK_S`` left aside; the
smallest time between two is printed beside it.
"""

from __future__ import annotations

import argparse
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

SLACK_S = 0.05
_ROW = 10


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


def apart(requests: Iterable[Request], steps: int) -> list[float]:
    """Return the seconds from every request's beginning to that of the host's so-manieth next."""
    began: dict[str, list[float]] = {}
    for request in requests:
        began.setdefault(request.host, []).append(request.began_s)
    hosts = [sorted(times) for times in began.values()]
    return [
        later - earlier
        for host in hosts
        for earlier, later in zip(host, host[steps:], strict=False)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--each", type=int, default=60, help="pictures of a host")
    parser.add_argument("--interval", type=float, default=1.0)
    parser.add_argument("--requests", type=int, default=128, help="under way at once")
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
    rows = apart(requests, _ROW)
    early = sum(1 for row_s in rows if row_s < _ROW * options.interval - SLACK_S)
    print(f"{alive:,} of {len(paths):,} pictures, {len(requests):,} requests in {wall_s:.1f} s")
    print(f"{alive / wall_s:.1f} a second, {alive / wall_s / theory:.1%} of {theory:g} in theory")
    print(f"smallest time between two requests to a host: {min(apart(requests, 1)):.3f} s")
    print(f"{_ROW + 1} in a row: {min(rows):.3f} s or more; {early} times over a host's limit")


if __name__ == "__main__":
    main()
