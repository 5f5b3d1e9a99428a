"""Who does the work: this process, a pool of processes, or a Ray cluster.

A runner applies a module-level function to picklable items and hands back each item with its
result, in any order. Exceptions are the function's own business; a runner only reports what is
``Lost`` because a worker died.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from wit_builder.errors import ClusterError, MissingPartError

Item = TypeVar("Item")
Result = TypeVar("Result")

RETRIES = 2
"""How often the cluster does a task again whose worker or node died."""


@dataclass(frozen=True)
class Lost:
    """An item without a result: its worker died."""

    why: str


class Runner(Protocol):
    """Applies a function to items, in any order, and hands back what became of each."""

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[Item, Result | Lost]]:
        """Yield every item with its result, as they come."""

    def close(self) -> None:
        """End workers."""


class InProcess:
    """Does one item after the other in this process."""

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[Item, Result | Lost]]:
        """Yield every item with its result, in order."""
        return ((item, function(item)) for item in items)

    def close(self) -> None:
        """Nothing to end."""


class LocalPool:
    """Does items in worker processes of this machine; one that dies is replaced."""

    def __init__(self, workers: int) -> None:
        assert workers > 0
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[Item, Result | Lost]]:
        """Yield every item with its result, as they come; two items a worker are in flight.

        When a worker dies, nobody can say whose fault it was: all that were in flight become
        suspects, and go one at a time until each is done or has died alone.
        """
        waiting = list(reversed(items))
        suspects: list[Item] = []
        flying: dict[Future[Result], tuple[Item, bool]] = {}
        # not concurrent.futures.wait: interrupted, it leaves locks held that exiting then waits for
        finished: queue.SimpleQueue[Future[Result]] = queue.SimpleQueue()
        while waiting or suspects or flying:
            most, line = (1, suspects) if suspects else (2 * self._workers, waiting)
            while line and len(flying) < most:
                try:
                    future = self._executor().submit(function, line[-1])
                except BrokenProcessPool:  # a worker died just now, or while nothing was to do
                    self._pool = None
                    break
                flying[future] = line.pop(), line is suspects
                future.add_done_callback(finished.put)
            if flying:
                future = finished.get()
                item, alone = flying.pop(future)
                try:
                    yield item, future.result()
                except BrokenProcessPool:
                    self._pool = None
                    if alone:
                        yield item, Lost(_DIED)
                    else:
                        suspects.append(item)

    def _executor(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, context, initializer=_be_a_worker)
        return self._pool

    def close(self) -> None:
        """End the workers at once; what they had not published is done again next time."""
        if self._pool is not None:
            processes = list((self._pool._processes or {}).values())  # noqa: SLF001 - no public way to stop a busy worker
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            for process in processes:
                process.join()
            self._pool = None


_DIED = "the worker process died (out of memory?) -> use fewer workers or smaller units"


def _be_a_worker() -> None:
    """Leave Ctrl-C to the parent, and do not outlive it (even if it is killed)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class RayCluster:
    """Does items as Ray tasks, bounded in flight; one whose node dies is done elsewhere.

    Args:
        address: of a running cluster, or ``"local"`` to start one on this machine.

    Raises:
        MissingPartError: Ray is not installed.
        ClusterError: there is no cluster at that address.
    """

    def __init__(self, address: str) -> None:
        try:
            import ray  # noqa: PLC0415 - an optional part, heavy to import
        except ImportError as error:
            raise MissingPartError(
                "the Ray runner needs Ray", fix="pip install 'wit-builder[ray]'"
            ) from error
        self._ray: Any = ray
        if ray.is_initialized():
            return
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (OSError, RuntimeError, ValueError) as error:
            raise ClusterError(
                f"no Ray cluster: {error}", where=address, fix="check --address; is it running?"
            ) from error

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[Item, Result | Lost]]:
        """Yield every item with its result, as they come; two items a core are in flight."""
        most = 2 * max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        remote = self._ray.remote(max_retries=RETRIES)(function)
        waiting = list(reversed(items))
        flying: dict[Any, Item] = {}
        while waiting or flying:
            while waiting and len(flying) < most:
                item = waiting.pop()
                flying[remote.remote(item)] = item
            ready, _ = self._ray.wait(list(flying), num_returns=1)
            item = flying.pop(ready[0])
            try:
                yield item, self._ray.get(ready[0])
            except self._ray.exceptions.RayError as error:
                yield item, Lost(f"lost on the cluster: {type(error).__name__}")

    def close(self) -> None:
        """Leave the cluster (or end the one that was started here)."""
        self._ray.shutdown()


def default_workers() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def make_runner(workers: int, cluster: str | None = None) -> Runner:
    """Return the runner for so many local workers, or for a Ray cluster's address."""
    if cluster is not None:
        return RayCluster(cluster)
    return InProcess() if workers == 1 else LocalPool(workers)
