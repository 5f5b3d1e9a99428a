"""A stage is a list of units; a unit is a function of its inputs and of its section of the recipe.

A unit publishes its outputs atomically and its *marker* last, with the digest of what went in and
the outputs with their sizes: ``ROOT/units/GENERATION/STAGE/UNIT.json``. A marker with the same
digest, whose outputs are still there, means *done*; so starting again is resuming. A unit that
fails is tried again, then reported with its error; the others finish first.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from wit_builder import storage
from wit_builder.errors import MissingPartError, UnitsFailedError, WitError
from wit_builder.progress import Observer, Silent
from wit_builder.recipe import digest
from wit_builder.storage import Published
from wit_builder.tables import FORMAT_VERSION

ATTEMPTS = 2


class Done(msgspec.Struct, frozen=True):
    """What a unit's function returns: what it published, and what it counted."""

    outputs: list[Published]
    counts: dict[str, int] = {}


class Unit(msgspec.Struct, frozen=True):
    """One piece of a stage.

    Attributes:
        name: file-name safe, unique in the stage.
        inputs: identities of everything it reads; a change of any makes the unit anew.
        job: the picklable argument of the stage's function.
    """

    name: str
    inputs: list[str]
    job: Any


@dataclass(frozen=True)
class Stage:
    """Units that can be done in any order, by one function.

    Attributes:
        name: shown to people, and the folder of the markers.
        function: a module-level function from a unit's job to ``Done``.
        units: what there is to do.
        settings: the part of the recipe that the outputs depend on.
    """

    name: str
    function: Callable[[Any], Done]
    units: Sequence[Unit]
    settings: Any = None


class Marker(msgspec.Struct, frozen=True):
    """A unit that is done. Places of outputs are relative to the run's folder."""

    unit: str
    digest: str
    outputs: list[Published]
    counts: dict[str, int]
    seconds: float

    @property
    def identity(self) -> str:
        """What a later unit names as its input: changes when any output's bytes do."""
        return digest([(o.url, o.size_bytes, o.xxh3) for o in self.outputs])


class Failure(msgspec.Struct, frozen=True):
    """A unit that could not be done: its error in a line, and the traceback."""

    unit: str
    error: str
    trace: str


class Task(msgspec.Struct, frozen=True):
    """A unit with all a worker needs to do it."""

    function: Callable[[Any], Done]
    unit: Unit
    digest: str
    root: str
    folder: str


def perform(task: Task) -> Marker | Failure:
    """Do one unit, and publish its marker last. What it raises comes back as a ``Failure``."""
    started = time.monotonic()
    try:
        done = task.function(task.unit.job)
        outputs = [_relative(o, task.root) for o in done.outputs]
        seconds = round(time.monotonic() - started, 3)
        marker = Marker(task.unit.name, task.digest, outputs, done.counts, seconds)
        storage.publish_bytes(_marker_url(task.folder, task.unit), msgspec.json.encode(marker))
    except WitError as error:
        return Failure(task.unit.name, str(error), traceback.format_exc())
    except Exception as error:  # noqa: BLE001 - whatever a unit raises must not end the others
        text = " ".join(str(error).split()) or "no message"
        return Failure(task.unit.name, f"{type(error).__name__}: {text}", traceback.format_exc())
    return marker


def _relative(output: Published, root: str) -> Published:
    inside = output.url.removeprefix(root.rstrip("/") + "/")
    assert inside != output.url, f"{output.url} is not below {root}"
    return Published(inside, output.size_bytes, output.xxh3)


def _marker_url(folder: str, unit: Unit) -> str:
    return storage.join(folder, unit.name + ".json")


class Runner(Protocol):
    """Does tasks, in any order, and hands back what became of each."""

    def run(self, tasks: Sequence[Task]) -> Iterator[Marker | Failure]:
        """Yield one result per task, as they come."""

    def close(self) -> None:
        """End workers."""


class InProcess:
    """Does one unit after the other in this process."""

    def run(self, tasks: Sequence[Task]) -> Iterator[Marker | Failure]:
        """Yield one result per task, in order."""
        return map(perform, tasks)

    def close(self) -> None:
        """Nothing to end."""


class LocalPool:
    """Does units in worker processes of this machine; one that dies is replaced."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def run(self, tasks: Sequence[Task]) -> Iterator[Marker | Failure]:
        """Yield one result per task, as they come; two tasks a worker are in flight.

        When a worker dies, nobody can say whose fault it was: all that were in flight become
        suspects, and go one at a time until each is done or has died alone.
        """
        waiting = list(reversed(tasks))
        suspects: list[Task] = []
        flying: dict[Future[Marker | Failure], tuple[Task, bool]] = {}
        while waiting or suspects or flying:
            most, queue = (1, suspects) if suspects else (2 * self._workers, waiting)
            while queue and len(flying) < most:
                task = queue.pop()
                flying[self._executor().submit(perform, task)] = task, queue is suspects
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                task, alone = flying.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    self._pool = None
                    if alone:
                        yield _died(task)
                    else:
                        suspects.append(task)

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


def _died(task: Task) -> Failure:
    return Failure(
        task.unit.name,
        "the worker process died (out of memory?) -> use fewer workers or smaller units",
        "",
    )


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
    """Does units as Ray tasks, bounded in flight; a unit whose node dies is done elsewhere.

    Args:
        address: of a running cluster, or ``"local"`` to start one on this machine.

    Raises:
        MissingPartError: Ray is not installed.
    """

    def __init__(self, address: str) -> None:
        try:
            import ray  # noqa: PLC0415 - an optional part, heavy to import
        except ImportError as error:
            raise MissingPartError(
                "the Ray runner needs Ray", fix="pip install 'wit-builder[ray]'"
            ) from error
        self._ray: Any = ray
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        self._perform = ray.remote(max_retries=ATTEMPTS)(perform)

    def run(self, tasks: Sequence[Task]) -> Iterator[Marker | Failure]:
        """Yield one result per task, as they come; two tasks a core are in flight."""
        most = 2 * max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        waiting = list(reversed(tasks))
        flying: dict[Any, Task] = {}
        while waiting or flying:
            while waiting and len(flying) < most:
                task = waiting.pop()
                flying[self._perform.remote(task)] = task
            ready, _ = self._ray.wait(list(flying), num_returns=1)
            task = flying.pop(ready[0])
            try:
                yield self._ray.get(ready[0])
            except self._ray.exceptions.RayError as error:
                yield Failure(
                    task.unit.name, f"lost on the cluster: {type(error).__name__}", str(error)
                )

    def close(self) -> None:
        """Leave the cluster (or end the one that was started here)."""
        self._ray.shutdown()


def runner(workers: int, cluster: str | None = None) -> Runner:
    """Return the runner for so many local workers, or for a Ray cluster's address."""
    if cluster is not None:
        return RayCluster(cluster)
    return InProcess() if workers == 1 else LocalPool(workers)


@dataclass(frozen=True)
class Run:
    """A run's folder, and how its units are done.

    Attributes:
        root: the run's folder, local or remote.
        runner: who does the units.
        observer: who is told.
    """

    root: str
    runner: Runner = field(default_factory=InProcess)
    observer: Observer = field(default_factory=Silent)

    def do(self, stage: Stage, generation: str = "g0") -> list[Marker]:
        """Do what is not done of a stage, and return all its markers, in the order of its units.

        Raises:
            UnitsFailedError: units failed after their retries. The others are done, and a rerun
                does only what is missing.
        """
        folder = storage.join(self.root, "units", generation, stage.name)
        tasks = [Task(stage.function, u, _digest(stage, u), self.root, folder) for u in stage.units]
        assert len({u.name for u in stage.units}) == len(tasks), "unit names must be unique"
        markers = self._done_before(tasks)
        self.observer.begin(stage.name, len(tasks), len(markers))
        counts = total(list(markers.values()))
        missing = [t for t in tasks if t.unit.name not in markers]
        for attempt in range(1, ATTEMPTS + 1):
            failures: list[Failure] = []
            for result in self.runner.run(missing):
                if isinstance(result, Failure):
                    failures.append(result)
                    continue
                markers[result.unit] = result
                counts = _add(counts, result.counts)
                self.observer.advance(stage.name, counts)
            failed = {f.unit for f in failures}
            missing = [t for t in missing if t.unit.name in failed]
            if not missing:
                break
            if attempt == ATTEMPTS:
                raise _report(stage, folder, failures, len(tasks))
        self._forget_failures(folder)
        self.observer.end(stage.name, counts)
        return [markers[u.name] for u in stage.units]

    def _done_before(self, tasks: Sequence[Task]) -> dict[str, Marker]:
        wanted = {_marker_url(t.folder, t.unit): t for t in tasks}
        markers: dict[str, Marker] = {}
        for url, data in storage.read_many(wanted).items():
            with contextlib.suppress(msgspec.DecodeError):  # an unreadable marker is no marker
                marker = msgspec.json.decode(data, type=Marker)
                if marker.digest == wanted[url].digest:
                    markers[marker.unit] = marker
        present = self._sizes({o.url for m in markers.values() for o in m.outputs})
        return {
            name: marker
            for name, marker in markers.items()
            if all(present.get(o.url) == o.size_bytes for o in marker.outputs)
        }

    def _sizes(self, relative: set[str]) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for folder in sorted({url.rpartition("/")[0] for url in relative}):
            for name, size in storage.sizes(storage.join(self.root, folder)).items():
                sizes[f"{folder}/{name}"] = size
        return sizes

    def _forget_failures(self, folder: str) -> None:
        for url in storage.list_files(folder, ".error.txt"):
            storage.remove(url)


def _digest(stage: Stage, unit: Unit) -> str:
    return digest([FORMAT_VERSION, stage.name, stage.settings, unit.name, unit.inputs])


def total(markers: Sequence[Marker]) -> dict[str, int]:
    """Return the sums of all counts."""
    counts: dict[str, int] = {}
    for marker in markers:
        counts = _add(counts, marker.counts)
    return counts


def _add(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return {key: a.get(key, 0) + b.get(key, 0) for key in [*a, *(k for k in b if k not in a)]}


def _report(stage: Stage, folder: str, failures: list[Failure], units: int) -> UnitsFailedError:
    """Keep every failure's traceback beside the markers, and return the error that sums them up."""
    for failure in failures:
        text = f"{failure.error}\n\n{failure.trace}"
        with contextlib.suppress(WitError):  # when storage itself is what failed
            storage.publish_bytes(storage.join(folder, failure.unit + ".error.txt"), text.encode())
    names = sorted(f.unit for f in failures)
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return UnitsFailedError(
        f"{stage.name}: {len(names)} of {units} units failed ({listed}): {failures[0].error}",
        where=storage.redact(folder),
        fix="correct the cause and start again: only these are redone",
    )
