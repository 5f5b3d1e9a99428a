"""What a training recipe says: frozen structs, read by ``wit_builder.recipe.load``.

Every default is the paper's (CLIP, tables 18 to 20), but for what a model must be told: its data.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from wit_builder.errors import RecipeError
from wit_builder.sections import Natural, Positive
from wit_train.blocks import Layout
from wit_train.cache import Cache
from wit_train.decode import Augment
from wit_train.stream import Pace

_Rate = Annotated[float, Meta(gt=0)]
_Beta = Annotated[float, Meta(ge=0, lt=1)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section of a recipe."""


class DataSection(_Section, frozen=True):
    """Which samples, and in which order."""

    shards: str = ""
    """Folder of a finished data set, local (from where the command runs) or remote."""
    mixture: dict[str, Positive] = {}
    """Instead: folders with their numbers of lanes, which are their shares of every batch. Their
    order matters; the lanes are ``lanes`` in all."""
    batch_size: Positive = 32_768
    """Of all ranks together."""
    lanes: Positive = 256
    window_blocks: Natural = 0
    """Blocks whose samples are permuted together; 0: 1 for shards that we packed, 8 for others."""
    augment: Augment = Augment()


class ModelSection(_Section, frozen=True):
    """Which model: one of open_clip's by name, a JSON file like open_clip's, or the same inline."""

    name: str = ""
    file: str = ""
    config: dict[str, Any] = {}


class OptimiserSection(_Section, frozen=True):
    """AdamW with decoupled decay, on all weights but gains and biases."""

    learning_rate: _Rate = 5e-4
    beta1: _Beta = 0.9
    beta2: _Beta = 0.98
    eps: _Rate = 1e-6
    weight_decay: Annotated[float, Meta(ge=0)] = 0.2
    warmup_steps: Natural = 2000
    max_logit_scale: _Rate = 100.0


class PaceSection(_Section, frozen=True):
    """What changes how fast training goes, never what it gives."""

    workers: Annotated[int, Meta(ge=-1)] = -1
    """Decode processes; -1: this process's share of the cores; 0: none."""
    readers: Positive = 16
    """Blocks that are read at once."""
    steps_ahead: Positive = 2
    deadline_s: Annotated[float, Meta(gt=0)] = 300.0
    """A range of a shard that cannot be read for so long ends the run."""
    cache: str = ""
    """Folder on local disk for blocks of remote shards, shared by the processes of a machine."""
    cache_bytes: Positive = 100 << 30
    compute_threads: Natural = 0
    """0: as torch chooses. On CPU, another number rounds differently."""


class LogSection(_Section, frozen=True):
    """How often something is written."""

    every_steps: Positive = 10
    checkpoint_every_steps: Positive = 1000
    keep_checkpoints: Positive = 3


class TrainRecipe(_Section, frozen=True):
    """All that a training run needs to know. One of ``epochs`` and ``steps`` is set."""

    name: str = "clip"
    seed: Natural = 0
    out: str = ""
    """Folder of the run, local or remote; ``--out`` goes before it."""
    epochs: Annotated[float, Meta(ge=0)] = 0.0
    steps: Natural = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    optimiser: OptimiserSection = OptimiserSection()
    pace: PaceSection = PaceSection()
    log: LogSection = LogSection()


_FREE = {"name", "out", "pace", "log", "shards", "mixture"}
"""Keys that may change between a run and its continuation."""


def layout_of(recipe: TrainRecipe) -> Layout:
    """Return what decides the order of the samples."""
    data = recipe.data
    return Layout(lanes=data.lanes, window_blocks=data.window_blocks, seed=recipe.seed)


def pace_of(pace: PaceSection) -> Pace:
    """Return how far and how hard the stream works ahead."""
    return Pace(
        workers=None if pace.workers < 0 else pace.workers,
        steps_ahead=pace.steps_ahead,
        readers=pace.readers,
        deadline_s=pace.deadline_s,
        cache=Cache(pace.cache, pace.cache_bytes) if pace.cache else None,
    )


def places_of(data: DataSection) -> str | dict[str, int]:
    """Return what to stream: a folder, or folders with their lanes.

    Raises:
        RecipeError: neither or both of ``shards`` and ``mixture`` are set.
    """
    if bool(data.shards) == bool(data.mixture):
        what = "train on which shards?" if not data.shards else "set one of shards and mixture"
        raise RecipeError(what, where="data.shards", fix="--set data.shards=FOLDER")
    return data.shards or dict(data.mixture)


def steps_of(recipe: TrainRecipe, samples: int) -> int:
    """Return how many steps the run has over a data set of so many samples.

    Raises:
        RecipeError: not exactly one of ``epochs`` and ``steps`` is set, or it makes no step.
    """
    if bool(recipe.epochs) == bool(recipe.steps):
        raise RecipeError(
            "set one of epochs and steps", where="epochs, steps", fix="--set steps=1000"
        )
    steps = recipe.steps or int(recipe.epochs * samples / recipe.data.batch_size)
    if not steps:
        raise RecipeError("less than one batch in all", where="epochs", fix="set more epochs")
    return steps


def bound_keys(recipe: TrainRecipe) -> dict[str, str]:
    """Return the keys that a continued run must share with its beginning, with values as JSON."""
    found: dict[str, str] = {}
    _flatten(msgspec.to_builtins(recipe), "", found)
    found["data.mixture"] = msgspec.json.encode(list(recipe.data.mixture.values())).decode()
    return found


def _flatten(section: dict[str, Any], path: str, found: dict[str, str]) -> None:
    for key, value in section.items():
        if key in _FREE and path in ("", "data."):
            continue
        if isinstance(value, dict) and path + key != "model.config":
            _flatten(value, f"{path}{key}.", found)
        else:
            found[path + key] = msgspec.json.encode(value, order="sorted").decode()
