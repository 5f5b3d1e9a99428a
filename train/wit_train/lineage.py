"""Where an exported model comes from: its recipe, its data, and the datasheets of these."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from wit_builder import storage
from wit_builder.errors import GoneError, RecipeError, TrainingError
from wit_builder.shards.layout import DATASET, DatasetInfo
from wit_builder.shards.read import read_info
from wit_train.checkpoint import Note

_GENERATION = re.compile(r"g\d+")
_SHARDS = re.compile(r"(?P<build>.*)/g\d+/shards/?")
_URL = ("https://", "http://")


class _ToldModel(msgspec.Struct, frozen=True):
    name: str = ""
    init_from: str = ""


class _ToldEvaluation(msgspec.Struct, frozen=True):
    images: str = ""
    pairs: str = ""
    every_steps: int = 0


class Told(msgspec.Struct, frozen=True):
    """What of a run's ``recipe.toml`` its checkpoints do not say."""

    name: str = ""
    model: _ToldModel = _ToldModel()
    evaluation: _ToldEvaluation = _ToldEvaluation()


class DataSet(NamedTuple):
    """A data set that was trained on.

    Attributes:
        base: digest of which sample is where.
        place: of its shards; empty where that was not given.
        info: of it, where its place was given.
    """

    base: str
    place: str = ""
    info: DatasetInfo | None = None


class Datasheet(NamedTuple):
    """A datasheet: what to link to, and the file to copy there; none for a URL."""

    link: str
    source: str = ""


def told(checkpoint: str) -> Told:
    """Return what the recipe says of the run that a checkpoint's JSON is in; nothing without one.

    Raises:
        RecipeError: there is one that cannot be read.
        StorageError: the place cannot be read.
    """
    if not storage.is_remote(checkpoint):  # so that there are folders to leave out of it
        checkpoint = os.path.abspath(checkpoint)  # noqa: PTH100 - Path has only one that follows links
    place = storage.join(checkpoint.rsplit("/", 2)[0], "recipe.toml")
    try:
        return msgspec.toml.decode(storage.read_bytes(place), type=Told)
    except GoneError:
        return Told()  # a checkpoint that was copied without it
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"not a recipe: {error}",
            where=storage.redact(place),
            fix="bring it back, or move it away: the model card then says less",
        ) from error


def trained_on(note: Note, places: Sequence[str]) -> list[DataSet]:
    """Return the data sets of a checkpoint, with what is found of them at the places.

    Args:
        note: of the checkpoint.
        places: folders of shards, or of builds with such in them.

    Raises:
        TrainingError: a place has none that was trained on; or another one of them is given none.
        WitError: a place has no shards, or cannot be read.
    """
    bases = list(dict.fromkeys(note.data.split("+")))
    found: dict[str, DataSet] = {}
    for place in places:
        there = {info.base: DataSet(info.base, folder, info) for folder, info in _in(place)}
        if not there.keys() & set(bases):
            raise TrainingError(
                "the model was not trained on this data set",
                where=storage.redact(place),
                fix=f"name that of base {' or '.join(base[:16] for base in bases)}",
            )
        found |= there
    if places and (missing := [base for base in bases if base not in found]):
        raise TrainingError(
            f"the model was trained on another data set too, of base {missing[0]}",
            where="--data",
            fix="give all of them, or none",
        )
    return [found.get(base, DataSet(base)) for base in bases]


def _in(place: str) -> Iterator[tuple[str, DatasetInfo]]:
    """Yield the finished data sets at a place: itself, or the generations of a build."""
    builds = [name for name in storage.list_folders(place) if _GENERATION.fullmatch(name)]
    for name in builds:
        folder = storage.join(place, name, "shards")
        if storage.exists(storage.join(folder, DATASET)):
            yield folder, read_info(folder)
    if not builds:
        yield place, read_info(place)


def datasheets(data: Sequence[DataSet], given: str) -> list[Datasheet]:
    """Return the datasheets of data sets: the one that is given, or those of their builds.

    Raises:
        StorageError: a place cannot be looked up.
    """
    if given:
        storage.refuse_credentials(given)
        return [Datasheet(given) if given.startswith(_URL) else Datasheet(_numbered(0), given)]
    builds = [m["build"] for d in data if (m := _SHARDS.fullmatch(d.place))]
    sheets = [storage.join(build, "report", "datasheet.md") for build in dict.fromkeys(builds)]
    there = [sheet for sheet in sheets if storage.exists(sheet)]
    return [Datasheet(_numbered(i), sheet) for i, sheet in enumerate(there)]


def _numbered(index: int) -> str:
    return f"datasheet-{index + 1}.md" if index else "datasheet.md"
