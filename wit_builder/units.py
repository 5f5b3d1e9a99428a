"""A stage is a list of units; a unit is a function of its inputs and of its section of the recipe.

A unit publishes its outputs atomically and its *marker* last, with the digest of what went in and
the outputs with their sizes: ``ROOT/units/GENERATION/STAGE/UNIT.json``. A marker with the same
digest, whose outputs are still there, means *done*; so starting again is resuming. A unit that
fails is tried once more (unless its error is for good: a wrong recipe, a bad input), then reported;
the others finish first.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from wit_builder import interrupts, live, storage
from wit_builder.errors import EngineError, StorageError, UnitsFailedError, WitError
from wit_builder.progress import Observer, Silent
from wit_builder.recipe import digest
from wit_builder.runners import InProcess, Lost, Runner
from wit_builder.storage import Published
from wit_builder.tables import FORMAT_VERSION


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
        step: what people are told that it is a part of; empty for its name.
        items: how many there are of what ``counted`` counts, where units say how they get on.
        counted: names of the counts that add up to ``items``.
    """

    name: str
    function: Callable[[Any], Done]
    units: Sequence[Unit]
    settings: Any = None
    step: str = ""
    items: int = 0
    counted: Sequence[str] = ()

    @property
    def shown(self) -> str:
        """What people are told that it is a part of."""
        return self.step or self.name


class Marker(msgspec.Struct, frozen=True):
    """A unit that is done. Places of outputs are relative to the run's folder.

    ``rewritten`` are those of its outputs from which pairs were removed since, or are being removed
    now: their sizes are not as noted. The identity stays, so that nothing is done anew for that.
    """

    unit: str
    digest: str
    outputs: list[Published]
    counts: dict[str, int]
    seconds: float
    rewritten: list[str] = []

    @property
    def identity(self) -> str:
        """What a later unit names as its input: changes when any output's bytes do."""
        return digest([(o.url, o.size_bytes, o.xxh3) for o in self.outputs])


class Failure(msgspec.Struct, frozen=True):
    """A unit that could not be done: its error in a line, the traceback, and whether to retry."""

    unit: str
    error: str
    trace: str = ""
    again: bool = True


class Task(msgspec.Struct, frozen=True):
    """A unit with all a worker needs to do it, and the marker of an earlier time, if any."""

    function: Callable[[Any], Done]
    unit: Unit
    digest: str
    root: str
    folder: str
    before: Marker | None = None


def perform(task: Task) -> Marker | Failure:
    """Do one unit, and publish its marker last. What it raises comes back as a ``Failure``."""
    started = time.monotonic()
    try:
        _disown(task)
        done = task.function(task.unit.job)
        outputs = [_relative(o, task.root) for o in done.outputs]
        seconds = round(time.monotonic() - started, 3)
        marker = Marker(task.unit.name, task.digest, outputs, done.counts, seconds)
        storage.publish_bytes(_marker_url(task.folder, task.unit), msgspec.json.encode(marker))
        _remove_former(task, marker)
    except WitError as error:
        # these may go better in a moment; a wrong recipe or a bad input will not mend itself
        again = isinstance(error, StorageError | EngineError)
        return Failure(task.unit.name, str(error), traceback.format_exc(), again)
    except Exception as error:  # noqa: BLE001 - whatever a unit raises must not end the others
        text = " ".join(str(error).split()) or "no message"
        return Failure(task.unit.name, f"{type(error).__name__}: {text}", traceback.format_exc())
    return marker


def _disown(task: Task) -> None:
    """Let the marker of an earlier time stand for nothing before its outputs are replaced.

    Else a kill between outputs and marker, and then the old recipe again, would have that marker
    vouch for the new outputs. It still tells which files are there.
    """
    if task.before is not None:
        void = msgspec.structs.replace(task.before, digest="")
        storage.publish_bytes(_marker_url(task.folder, task.unit), msgspec.json.encode(void))


def _remove_former(task: Task, marker: Marker) -> None:
    """Remove what an earlier time published under names that this one did not."""
    for gone in _places(task.before) - _places(marker):
        storage.remove(storage.join(task.root, gone))


def _places(marker: Marker | None) -> set[str]:
    return {output.url for output in marker.outputs} if marker else set()


def _relative(output: Published, root: str) -> Published:
    return Published(_inside(output.url, root), output.size_bytes, output.xxh3)


def _inside(place: str, root: str) -> str:
    inside = place.removeprefix(root.rstrip("/") + "/")
    assert inside != place, f"{place} is not below {root}"
    return inside


def _marker_url(folder: str, unit: Unit) -> str:
    return storage.join(folder, unit.name + ".json")


def _unit_of(marker_url: str) -> str:
    return storage.name_of(marker_url).removesuffix(".json")


@dataclass(frozen=True)
class Run:
    """A run's folder, and how its units are done.

    Attributes:
        root: the run's folder, local or remote.
        runner: who does the units.
        observer: who is told.
        only: the only stages of which anything is done; others must be done already. Empty: all.
    """

    root: str
    runner: Runner = field(default_factory=InProcess)
    observer: Observer = field(default_factory=Silent)
    only: frozenset[str] = frozenset()

    def do(self, stage: Stage, generation: str = "g0") -> list[Marker]:
        """Do what is not done of a stage, and return all its markers, in the order of its units.

        Raises:
            UnitsFailedError: units failed after their retries. The others are done, and a rerun
                does only what is missing.
            StorageError: something is left to do of a stage of which nothing may be done.
        """
        interrupts.check()
        folder = storage.join(self.root, "units", generation, stage.name)
        tasks = self._tasks(stage, folder)
        markers = self._done(tasks)
        missing = [t for t in tasks if t.unit.name not in markers]
        if missing and self.only and stage.name not in self.only:
            raise StorageError(
                f"{stage.name}: {len(missing)} of {len(tasks)} units are not done",
                where=storage.redact(folder),
                fix="wit build does them; nothing else does",
            )
        self.observer.begin(stage.name, stage.shown, len(tasks), len(markers))
        failures = self._attempt(missing, stage, markers)
        again = {f.unit for f in failures if f.again}
        if again:
            retried = self._attempt([t for t in missing if t.unit.name in again], stage, markers)
            failures = [f for f in failures if not f.again] + retried
        if failures:
            raise _report(stage, folder, failures, len(tasks))
        self._forget_failures(folder)
        self._retire(folder, keep=markers)
        self.observer.end(stage.name, total(list(markers.values())))
        return [markers[u.name] for u in stage.units]

    def _attempt(
        self, tasks: Sequence[Task], stage: Stage, markers: dict[str, Marker]
    ) -> list[Failure]:
        """Do tasks, add the markers of those that are done, and return the others' failures."""
        failures: list[Failure] = []
        counts = total(list(markers.values()))
        self.runner.share(self.root)
        look = partial(self._look, stage, tasks[0].folder if tasks else "", markers)
        with live.watching(look) if stage.items and tasks else contextlib.nullcontext():
            for task, result in self.runner.each(perform, tasks):
                interrupts.check()
                if isinstance(result, Marker):
                    markers[result.unit] = result
                    counts = _add(counts, result.counts)
                    self.observer.advance(stage.name, counts)
                elif isinstance(result, Lost):
                    failures.append(Failure(task.unit.name, result.why))
                else:
                    failures.append(result)
        return failures

    def _look(self, stage: Stage, folder: str, markers: dict[str, Marker]) -> None:
        """Tell the observer how far all units are, by what those under way write down."""
        done = dict(markers)
        counts = total(list(done.values()))
        for so_far in live.told(folder, (u.name for u in stage.units if u.name not in done)):
            counts = _add(counts, so_far)
        items = sum(counts.get(name, 0) for name in stage.counted)
        self.observer.live(stage.name, items, stage.items, counts)

    def is_done(self, stage: Stage, generation: str = "g0") -> bool:
        """Return whether nothing is left to do of a stage."""
        tasks = self._tasks(stage, storage.join(self.root, "units", generation, stage.name))
        return len(self._done(tasks)) == len(tasks)

    def _tasks(self, stage: Stage, folder: str) -> list[Task]:
        assert len({u.name for u in stage.units}) == len(stage.units), "unit names must be unique"
        found = storage.read_many(_marker_url(folder, unit) for unit in stage.units)
        return [
            Task(stage.function, u, _digest(stage, u), self.root, folder, _decoded(data))
            for u in stage.units
            for data in [found.get(_marker_url(folder, u))]
        ]

    def retire(self, stage: str, generation: str = "g0") -> None:
        """Remove what a stage left behind that this recipe does not have any more."""
        self._retire(storage.join(self.root, "units", generation, stage), keep={})

    def forget(self, stage: str, unit: str, generation: str = "g0") -> None:
        """Let a unit be done anew next time."""
        storage.remove(storage.join(self.root, "units", generation, stage, f"{unit}.json"))

    def _done(self, tasks: Sequence[Task]) -> dict[str, Marker]:
        markers = {t.unit.name: t.before for t in tasks if t.before and t.before.digest == t.digest}
        present = self._sizes({o.url for m in markers.values() for o in m.outputs})
        return {
            name: marker
            for name, marker in markers.items()
            if all(
                present.get(o.url) == o.size_bytes
                or (o.url in marker.rewritten and o.url in present)
                for o in marker.outputs
            )
        }

    def _sizes(self, relative: set[str]) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for folder in sorted({url.rpartition("/")[0] for url in relative}):
            for name, size in storage.sizes(storage.join(self.root, folder)).items():
                sizes[f"{folder}/{name}"] = size
        return sizes

    def _retire(self, folder: str, keep: dict[str, Marker]) -> None:
        """Remove the outputs of units that are not the stage's any more, then their markers.

        Otherwise a run with fewer buckets than an earlier one would leave the old ones lying about.
        """
        standing = {o.url for m in keep.values() for o in m.outputs}
        stale = [u for u in storage.list_files(folder, ".json") if _unit_of(u) not in keep]
        for url, data in storage.read_many(stale).items():
            marker = _decoded(data)
            for gone in {o.url for o in marker.outputs} - standing if marker else ():
                storage.remove(storage.join(self.root, gone))
            storage.remove(url)

    def _forget_failures(self, folder: str) -> None:
        for url in storage.list_files(folder, ".error.txt"):
            storage.remove(url)


def _decoded(data: bytes | None) -> Marker | None:
    """Return a marker; one that cannot be read is none."""
    if data is not None:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode(data, type=Marker)
    return None


def _digest(stage: Stage, unit: Unit) -> str:
    return digest([FORMAT_VERSION, stage.name, stage.settings, unit.name, unit.inputs])


def note_rewritten(root: str, places: Collection[str]) -> None:
    """Let the markers of a run say that these of their outputs are rewritten.

    To be called before they are: a marker that vouches for the size of a file that is another one
    by now would have its unit done anew.

    Args:
        root: the run's folder.
        places: of the files, below it.

    Raises:
        StorageError: a marker cannot be read or written.
    """
    rewritten = {_inside(place, root) for place in places}
    for generation in storage.list_folders(storage.join(root, "units")):
        for stage in storage.list_folders(storage.join(root, "units", generation)):
            folder = storage.join(root, "units", generation, stage)
            for url, data in storage.read_many(storage.list_files(folder, ".json")).items():
                if marker := _decoded(data):
                    _note_rewritten(url, marker, rewritten)


def _note_rewritten(url: str, marker: Marker, rewritten: Collection[str]) -> None:
    mine = {o.url for o in marker.outputs if o.url in rewritten}
    if mine - set(marker.rewritten):
        told = sorted(mine.union(marker.rewritten))
        noted = msgspec.structs.replace(marker, rewritten=told)
        storage.publish_bytes(url, msgspec.json.encode(noted))


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
