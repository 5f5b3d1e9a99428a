"""Checkpoints: appear whole or not at all, know what they belong to, and are checked when read.

``FOLDER/step-00000300.pt`` holds weights and optimiser; ``step-00000300.json``, published after
it, its digest, the step and what the run was. A checkpoint without its JSON does not exist.
"""

from __future__ import annotations

import io
import pickle
import re
from typing import Any, Protocol

import msgspec
import torch
import xxhash

from wit_builder import storage
from wit_builder.errors import CheckpointError, StorageError

FORMAT = 1
_NAME = re.compile(r"step-(\d{8,})\.json")


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside the weights.

    Attributes:
        step: the next step to take.
        data: ``base`` digest of the data set: the same in each of its revisions.
        revision: of the data set; what was removed from it since is no hindrance.
        bound: recipe keys that the continuation must share, with their values as JSON.
        model: config of the model, as open_clip takes it.
        precision: fp32 or bf16.
        size_bytes: of the weights' file.
        xxh3: of the weights' file, xxh3-64 hex.
        format: of the checkpoint.
    """

    step: int
    data: str
    bound: dict[str, str]
    model: dict[str, Any]
    precision: str
    revision: int = 0
    size_bytes: int = 0
    xxh3: str = ""
    format: int = FORMAT


class Stateful(Protocol):
    """What has a state to save: a model, an optimiser."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take a state over."""


def save(folder: str, note: Note, parts: dict[str, Stateful], keep: int) -> str:
    """Publish a checkpoint, then remove all but the last ``keep``; return the place of its JSON.

    Raises:
        StorageError: disk full, no permission, bucket unreachable; what was there is still there.
    """
    stem = f"step-{note.step:08d}"
    done: list[storage.Published] = []
    with storage.publishing(storage.join(folder, f"{stem}.pt"), done) as path:
        torch.save({name: part.state_dict() for name, part in parts.items()}, path)
    note = msgspec.structs.replace(note, size_bytes=done[0].size_bytes, xxh3=done[0].xxh3)
    place = storage.join(folder, f"{stem}.json")
    storage.publish_bytes(place, msgspec.json.format(msgspec.json.encode(note)))
    for step in steps_in(folder)[:-keep]:
        old = storage.join(folder, f"step-{step:08d}")
        storage.remove(f"{old}.json")
        storage.remove(f"{old}.pt")
    return place


def steps_in(folder: str) -> list[int]:
    """Return the steps of a folder's checkpoints, ascending."""
    return sorted(int(m[1]) for name in storage.sizes(folder) if (m := _NAME.fullmatch(name)))


def latest(place: str) -> str | None:
    """Return the JSON of the last checkpoint in a folder, or of a run's folder; None if none.

    A place that ends in ``.json`` stands for itself.
    """
    if place.endswith(".json"):
        return place
    for folder in (place, storage.join(place, "checkpoints")):
        if steps := steps_in(folder):
            return storage.join(folder, f"step-{steps[-1]:08d}.json")
    return None


def read_note(place: str) -> Note:
    """Return what stands beside the weights.

    Raises:
        CheckpointError: not readable, or of another format.
        StorageError: not there.
    """
    try:
        note = msgspec.json.decode(storage.read_bytes(place), type=Note)
    except msgspec.MsgspecError as error:
        raise _damaged(place, str(error)) from error
    if note.format != FORMAT:
        raise CheckpointError(
            f"a checkpoint of format {note.format}, not {FORMAT}",
            where=place,
            fix="update wit-builder",
        )
    return note


def load(place: str, parts: dict[str, Stateful]) -> Note:
    """Put a checkpoint's state into the parts named, and return its note.

    Raises:
        CheckpointError: damaged, or of other shapes than the parts.
        StorageError: it cannot be read.
    """
    note = read_note(place)
    weights = place.removesuffix(".json") + ".pt"
    try:
        data = storage.read_bytes(weights)
    except StorageError as error:
        raise _damaged(weights, error.what) from error
    if xxhash.xxh3_64_hexdigest(data) != note.xxh3:
        raise _damaged(weights, f"{len(data)} bytes whose digest is not the one noted")
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (RuntimeError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"the checkpoint does not fit the model: {error}", where=place, fix="use its own recipe"
        ) from error
    return note


def _damaged(place: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"a damaged checkpoint: {what}",
        where=storage.redact(place),
        fix="remove it (.json and .pt) to go on from the one before",
    )


def refuse_other_run(note: Note, expected: Note, place: str) -> None:
    """Refuse to go on from a checkpoint of other data or of another recipe.

    Raises:
        CheckpointError: names the keys that differ.
    """
    keys = sorted(note.bound.keys() | expected.bound.keys())
    changed = [k for k in keys if note.bound.get(k) != expected.bound.get(k)]
    if note.data != expected.data:
        changed.append("the data set")
    if changed:
        raise CheckpointError(
            f"the checkpoint is of a run with another value of: {', '.join(changed)}",
            where=storage.redact(place),
            fix="give another --out, or undo the change",
        )
    if expected.revision < note.revision:
        raise CheckpointError(
            f"the data set is of revision {expected.revision}, the checkpoint of a run on revision "
            f"{note.revision}: what was removed since is back",
            where=storage.redact(place),
            fix="remove it again with `wit remove`, or name the data set that it was removed from",
        )
