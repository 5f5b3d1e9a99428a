"""Checkpoints: appear whole or not at all, know what they belong to, and are checked when read.

``FOLDER/step-00000300.pt`` holds the state; ``step-00000300.json``, its manifest, is published
after it: what files there are, their digests, the step and what the run was. A checkpoint without
its manifest does not exist.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import msgspec

from wit_builder import storage
from wit_builder.errors import CheckpointError, GoneError
from wit_train import changes, memory, snapshot
from wit_train.snapshot import DamageError, SavedFile, State

FORMAT = 2
_MANIFEST = re.compile(r"step-(\d{8,})\.json")
_ANY_FILE = re.compile(r"step-(\d{8,})\.(?:json|pt)")
_LEFT_BY_A_KILL = re.compile(
    r"\.step-\d{8,}\.(?:json|pt)\..+\.part"
)  # as storage.publish names them


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest of a checkpoint.

    Attributes:
        step: the next step to take.
        data: ``base`` digest of the data set: the same in each of its revisions, URLs excluded.
        bound: recipe keys that the continuation must share, with their values as JSON.
        model: config of the model, as open_clip takes it.
        precision: fp32, bf16 or fp16.
        revision: of the data set; what was removed from it since is no hindrance.
        files: that hold the state, beside the manifest; one, until states are sharded.
        format: of the checkpoint.
    """

    step: int
    data: str
    bound: dict[str, str]
    model: dict[str, Any]
    precision: str
    revision: int = 0
    files: list[SavedFile] = []
    format: int = FORMAT


class Stateful(Protocol):
    """What has a state to load: a model, an optimiser."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take a state over."""


class Checkpoints:
    """The checkpoints that a run leaves: copied while it waits, written while it goes on.

    One is under way at a time, from the one set of buffers. What fails there is raised by the next
    call of any method, and by every one after it; what was published before is not touched.
    As a context manager it waits for the last one, whatever happened.

    Args:
        folder: where they go.
        keep: how many stay.
    """

    def __init__(self, folder: str, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._buffers = snapshot.Buffers()
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._last: Future[str] | None = None

    def save(self, note: Note, state: State) -> float:
        """Copy a state and begin to publish it; return the seconds that the caller was blocked.

        They include the wait for the checkpoint before, if that is still being published. Once
        this returns, the state may change.

        Args:
            note: the manifest, without its files.
            state: state dicts by part, of tensors anywhere and plain values.

        Raises:
            StorageError: the checkpoint before failed: disk full, no permission, no bucket.
            CheckpointError: there is no memory for the copy.
        """
        began = time.perf_counter()
        self.finish()
        copied = self._buffers.copy_of(state)
        self._last = self._writer.submit(_publish, self._folder, self._keep, note, copied)
        return time.perf_counter() - began

    def check(self) -> None:
        """Raise what has failed so far; cheap enough for every step."""
        if self._last and self._last.done():
            self._last.result()

    def is_under_way(self, wait_s: float) -> bool:
        """Return whether one is still being published after so many seconds."""
        return bool(self._last and wait([self._last], wait_s).not_done)

    def finish(self) -> str:
        """Wait until all is published, and return the last manifest's place; "" if none was saved.

        Raises:
            StorageError: that failed.
        """
        return self._last.result() if self._last else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.shutdown()
        failed = self._last.exception() if self._last else None
        if failed and error is None:
            raise failed
        if failed and error and failed is not error:
            error.add_note(f"Besides, the last checkpoint failed: {failed}")


def _publish(folder: str, keep: int, note: Note, state: State) -> str:
    file = snapshot.publish(storage.join(folder, f"step-{note.step:08d}.pt"), state)
    place = _manifest(folder, note.step)
    note = msgspec.structs.replace(note, files=[file])
    storage.publish_bytes(place, msgspec.json.format(msgspec.json.encode(note)))
    _remove_all_but(folder, keep, note.step)
    return place


def _manifest(folder: str, step: int) -> str:
    return storage.join(folder, f"step-{step:08d}.json")


def _remove_all_but(folder: str, keep: int, last: int) -> None:
    """Leave ``keep`` checkpoints up to the last step, and nothing of others or of killed writers.

    One of a later step does not count: it was passed over for damage, or there would be none of
    this step. It stays until the run reaches it again.
    """
    names = storage.sizes(folder)
    kept = set([step for step in _steps(names) if step <= last][-keep:])
    found = {name: int(m[1]) for name in names if (m := _ANY_FILE.fullmatch(name))}
    old = [name for name, step in found.items() if step <= last and step not in kept]
    parts = [name for name in names if _LEFT_BY_A_KILL.fullmatch(name)]
    for name in parts + sorted(old, key=lambda name: not name.endswith(".json")):
        storage.remove(storage.join(folder, name))


def steps_in(folder: str) -> list[int]:
    """Return the steps of a folder's checkpoints, ascending."""
    return _steps(storage.sizes(folder))


def _steps(names: Collection[str]) -> list[int]:
    return sorted(int(m[1]) for name in names if (m := _MANIFEST.fullmatch(name)))


def latest(place: str) -> str | None:
    """Return the JSON of the last checkpoint in a folder, or of a run's folder; None if none.

    A place that ends in ``.json`` stands for itself.
    """
    if place.endswith(".json"):
        return place
    for folder in (place, storage.join(place, "checkpoints")):
        if steps := steps_in(folder):
            return _manifest(folder, steps[-1])
    return None


class Found(NamedTuple):
    """A checkpoint that is whole: the place of its manifest, the manifest, and the state."""

    place: str
    note: Note
    state: State


def newest(folder: str, warn: Callable[[str], None]) -> Found | None:
    """Return the last checkpoint of a folder that is whole; None if there is none at all.

    Args:
        folder: of checkpoints.
        warn: told of every damaged one that is passed over: its file, what is wrong with it, and
            which one is used instead.

    Raises:
        CheckpointError: all are damaged, or one is of another format.
        StorageError: the place cannot be read, which says nothing about what is there.
    """
    damaged: list[str] = []
    for step in reversed(steps_in(folder)):
        place = _manifest(folder, step)
        try:
            note = _decoded(place)
            found = Found(place, note, _state(place, note))
        except (DamageError, GoneError) as error:
            damaged.append(f"{error.where}: {error.what}")
            continue
        used = f"used instead: {storage.redact(place)}"
        for what in damaged:
            warn(f"a damaged checkpoint is passed over: {what}; {used}")
        return found
    if damaged:
        raise CheckpointError(
            f"no checkpoint is whole: {'; '.join(damaged)}",
            where=storage.redact(folder),
            fix="bring a file back, or give another --out to begin anew",
        )
    return None


def read_note(place: str) -> Note:
    """Return the manifest of a checkpoint.

    Raises:
        CheckpointError: not readable, or of another format.
        StorageError: not there.
    """
    try:
        return _decoded(place)
    except DamageError as error:
        raise _damaged(error) from error


def part_to_use(note: Note) -> str:
    """Return the part of a checkpoint whose weights are the model's: the average, where kept."""
    averaged = float(note.bound.get("optimiser.ema_decay", "0")) > 0
    return "ema" if averaged else "model"


class _Format(msgspec.Struct):
    format: int


def _decoded(place: str) -> Note:
    data = storage.read_bytes(place)
    try:
        _refuse_format(msgspec.json.decode(data, type=_Format).format, place)
        note = msgspec.json.decode(data, type=Note)
    except msgspec.MsgspecError as error:
        raise DamageError(f"not a manifest: {error}", place) from error
    named = _MANIFEST.fullmatch(storage.name_of(place))
    if named and int(named[1]) != note.step:
        raise DamageError(f"it is of step {note.step}", place)
    return note


def _refuse_format(found: int, place: str) -> None:
    if found == FORMAT:
        return
    newer = "update wit-builder"
    older = "go on with the wit-builder that wrote it, or give another --out to begin anew"
    raise CheckpointError(
        f"a checkpoint of format {found}, not {FORMAT}",
        where=storage.redact(place),
        fix=newer if found > FORMAT else older,
    )


def _state(place: str, note: Note) -> State:
    folder, state = place.rpartition("/")[0], State()
    if not note.files:
        raise DamageError("it names no files", place)
    for file in note.files:
        state |= snapshot.read(storage.join(folder, file.name), file)
    return state


def load(place: str, parts: Mapping[str, Stateful]) -> Note:
    """Put a checkpoint's state into the parts named, and return its note.

    Raises:
        CheckpointError: damaged, or of other shapes than the parts.
        StorageError: it cannot be read.
    """
    note = read_note(place)
    try:
        state = _state(place, note)
    except DamageError as error:
        raise _damaged(error) from error
    fit(state, parts, place)
    return note


def fit(state: State, parts: Mapping[str, Stateful], place: str) -> None:
    """Put a state into the parts named.

    Raises:
        CheckpointError: it is of other shapes than they.
    """
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (RuntimeError, KeyError, ValueError) as error:
        if memory.is_lacking(error):
            raise
        raise CheckpointError(
            f"the checkpoint does not fit the model: {error}",
            where=storage.redact(place),
            fix="use its own recipe",
        ) from error


def _damaged(error: DamageError) -> CheckpointError:
    return CheckpointError(
        f"a damaged checkpoint: {error.what}",
        where=error.where,
        fix="name the JSON of an earlier one",
    )


def refuse_other_run(note: Note, expected: Note, place: str, allowed: Collection[str]) -> list[str]:
    """Refuse to go on from a checkpoint of other data or of another recipe.

    Args:
        note: of the checkpoint.
        expected: what a checkpoint of this run would note.
        place: of the checkpoint.
        allowed: keys that may differ; ``data`` is the data set.

    Returns:
        The changes that were allowed, to be logged: ``seed: 0 -> 1 (order)``.

    Raises:
        RecipeError: no such key may be allowed.
        CheckpointError: names the other keys that differ, with both values and what that does.
    """
    for key in allowed:
        changes.refuse_unknown(key, note.bound.keys() | expected.bound.keys())
    found = changes.between(note.bound, expected.bound)
    if note.data != expected.data:
        found["data"] = f"{note.data} -> {expected.data}"
    if refused := {key: change for key, change in found.items() if key not in allowed}:
        raise CheckpointError(
            f"the checkpoint is of another run: {changes.grouped(refused)}",
            where=storage.redact(place),
            fix="undo the change, give another --out, or allow it: "
            + " ".join(f"--allow-change {key}" for key in refused),
        )
    if expected.data == note.data and expected.revision < note.revision:
        raise CheckpointError(
            f"the data set is of revision {expected.revision}, the checkpoint of a run on revision "
            f"{note.revision}: what was removed since is back",
            where=storage.redact(place),
            fix="remove it again with `wit remove`, or name the data set that it was removed from",
        )
    return [f"{key}: {change} ({changes.effect(key)})" for key, change in found.items()]
