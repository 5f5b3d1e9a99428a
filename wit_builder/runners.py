"""Who does the work: this process, a pool of processes, or a Ray cluster.

A runner applies a module-level function to picklable items and hands back each item with its
result, in any order. Exceptions are the function's own business; a runner only reports what is
``Lost`` because a worker died.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from wit_builder import __version__, interrupts, storage
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

    def share(self, root: str) -> None:
        """Make sure that whoever does the next items works in this run's folder."""

    def close(self) -> None:
        """End workers."""


class InProcess:
    """Does one item after the other in this process."""

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[Item, Result | Lost]]:
        """Yield every item with its result, in order."""
        return ((item, function(item)) for item in items)

    def share(self, root: str) -> None:
        """Nobody else works here."""

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
                    with _signals_waiting():
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

    def share(self, root: str) -> None:
        """Processes of one machine see the same folders."""

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
                process.kill()  # one that is being started heeds no other signal
            for process in processes:
                process.join()
            self._pool = None


_DIED = "the worker process died (out of memory?) -> use fewer workers or smaller units"


@contextlib.contextmanager
def _signals_waiting() -> Iterator[None]:
    """Have signals to end wait until workers that are being started know what they are for.

    They inherit the mask: Ctrl-C, which the whole group of processes gets, would have a worker
    print a traceback before it can know better. So would a parent that stops in the middle of
    telling it; the mask alone does not prevent that, since another thread may take the signal.
    """
    came: list[int] = []
    resource_tracker.ensure_running()  # else it starts meanwhile, and lets these signals through
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, interrupts.SIGNALS)
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        own = [n for n in interrupts.SIGNALS if signal.getsignal(n) is not None]
        # without those that are not Python's, which are None
        handlers = {n: signal.signal(n, lambda number, _: came.append(number)) for n in own}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for late in came:
            signal.raise_signal(late)


def _be_a_worker() -> None:
    """Leave Ctrl-C to the parent, and do not outlive it (even if it is killed)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, interrupts.SIGNALS)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class RayCluster:
    """Does items as Ray tasks, bounded in flight; one whose worker or node dies is done elsewhere.

    Args:
        address: ``HOST:PORT`` of a running cluster that this machine is part of, ``"auto"`` for
            the one that runs here, or ``"local"`` to start one on this machine.

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
        self._joined = not ray.is_initialized()
        self._ground = _Ground(__version__)
        if self._joined:
            _join(ray, address)

    def share(self, root: str) -> None:
        """Have every task refuse a node on which a local ``root`` is another folder than here.

        Raises:
            StorageError: it cannot be written to.
        """
        self._ground = _Ground(__version__)
        if not storage.is_remote(root):
            self._ground = _Ground(__version__, str(Path.cwd()), _proof(root), root)

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[Item, Result | Lost]]:
        """Yield every item with its result, as they come; two items a core are in flight.

        The cluster may grow or shrink meanwhile: half of what is in flight waits for a core, which
        is what an autoscaler goes by.

        Raises:
            ClusterError: a node cannot do what it was given: it has another wit-builder or none,
                or does not see the run's folder.
        """
        # SPREAD: the network of a node is scarcer than its cores
        remote = self._ray.remote(max_retries=RETRIES, scheduling_strategy="SPREAD")(_stand)
        waiting = list(reversed(items))
        flying: dict[Any, Item] = {}
        try:
            while waiting or flying:
                most = 2 * max(1, int(self._ray.cluster_resources().get("CPU", 0)))
                while waiting and len(flying) < most:
                    item = waiting.pop()
                    flying[remote.remote(self._ground, function, item)] = item
                ready, _ = self._ray.wait(list(flying), num_returns=1, timeout=_LOOK_AGAIN_S)
                for reference in ready:
                    yield flying.pop(reference), self._result(reference)
        finally:  # interrupted, or refused by a node: nobody waits for the others any more
            for reference in flying if self._ray.is_initialized() else ():
                self._ray.cancel(reference, force=True)

    def _result(self, reference: Any) -> Any:
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if "No module named" not in str(error):
                raise  # the function's own business
            last = str(error).strip().splitlines()[-1]
            result = _Refusal(f"a node of the cluster cannot do the work: {last}", _INSTALL)
        except self._ray.exceptions.RayError as error:
            return Lost(_why_lost(error))
        if isinstance(result, _Refusal):
            raise ClusterError(result.what, where=self._ground.root, fix=result.fix)
        return result

    def close(self) -> None:
        """Leave the cluster (or end the one that was started here); what it still does ends."""
        if self._joined:
            self._ray.shutdown()


_LOOK_AGAIN_S = 10.0
"""Seconds after which the cluster's size is asked for again, though nothing was finished."""
_KNOCK_S = 10.0
"""Seconds a cluster's head has to answer; Ray itself would try for two minutes."""
_INSTALL = "install the same wit-builder, with what it needs, on every node"
_SHARED = "use a bucket (--out s3://...), or a folder that every node mounts at the same place"


class _Ground(msgspec.Struct, frozen=True):
    """What a node must have to do this run's units."""

    version: str
    here: str = ""
    """The driver's working folder, which relative places start from."""
    proof: str = ""
    """What stands in ``root``'s file of that name; empty if every node reaches ``root``."""
    root: str = ""


class _Refusal(msgspec.Struct, frozen=True):
    """Why a node cannot do any unit of this run, and what the user can do."""

    what: str
    fix: str


def _stand(ground: _Ground, function: Callable[[Item], Result], item: Item) -> Result | _Refusal:
    """Do an item on a node that has what it takes: a check for each, since nodes may join late."""
    if __version__ != ground.version:
        what = f"has wit-builder {__version__}, and not {ground.version} as here"
        return _Refusal(f"node {socket.gethostname()} {what}", _INSTALL)
    if ground.proof and not _sees(ground):
        return _Refusal(f"node {socket.gethostname()} does not see the run's folder", _SHARED)
    return function(item)


def _sees(ground: _Ground) -> bool:
    try:
        os.chdir(ground.here)
        return Path(storage.filesystem(ground.root)[1], _PROOF).read_text() == ground.proof
    except OSError:
        return False


_PROOF = ".shared"
"""File of a run's folder by which a node knows it."""


def _proof(root: str) -> str:
    """Return what stands in the folder's file of proof, written once and never changed.

    A file that changed would be seen late through a network file system's caches.
    """
    with storage.translated(root, "write"):
        place = Path(storage.filesystem(root)[1], _PROOF)
        if not place.exists():
            storage.publish_bytes(str(place), uuid.uuid4().hex.encode())
        return place.read_text()


def _join(ray: Any, address: str) -> None:
    """Connect to a cluster, or start one, and let Ctrl-C and SIGTERM be what they were."""
    try:
        _knock(address)
        former = signal.getsignal(signal.SIGTERM)
        own = {"include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **own)
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"no Ray cluster: {error}",
            where=address,
            fix="check --address (HOST:PORT of the head, auto, or local) and RAY_AUTH_TOKEN; is it "
            "running, and is this machine one of its nodes?",
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, former)


def _knock(address: str) -> None:
    """Find out soon whether somebody listens at an address.

    Raises:
        OSError: nobody does.
        ValueError: it is an address for Ray's client, which cannot follow a cluster's nodes.
    """
    if address.startswith("ray://"):
        raise ValueError("this is for Ray's remote client; start the command on a node")
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def _why_lost(error: Exception) -> str:
    """Return what became of a task that Ray gave up after its retries."""
    name = type(error).__name__
    advice = "look at the cluster's logs (ray logs), then start again"
    if name in {"OutOfMemoryError", "WorkerCrashedError"}:
        advice = "give Ray fewer CPUs a node (ray start --num-cpus), or nodes with more memory"
    return f"lost on the cluster, tried {1 + RETRIES} times: {name} -> {advice}"


def default_workers() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def make_runner(workers: int, cluster: str | None = None) -> Runner:
    """Return the runner for so many local workers, or for a Ray cluster's address."""
    if cluster is not None:
        return RayCluster(cluster)
    return InProcess() if workers == 1 else LocalPool(workers)
