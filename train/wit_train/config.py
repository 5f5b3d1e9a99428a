"""What a training recipe says: frozen structs, read by ``wit_builder.recipe.load``.

Every default is the paper's (CLIP, tables 18 to 20), but for what a model must be told: its data.
"""

from __future__ import annotations

import math
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
    """V: parts of a batch, each read from a place of its own in the data. The number of ranks must
    divide it, and it the batch size."""
    window_blocks: Natural = 0
    """Blocks whose samples are permuted together; 0: 1 for shards that we packed, 8 for others."""
    augment: Augment = Augment()
    """What happens to pictures; a section of its own."""


class ModelSection(_Section, frozen=True):
    """Which model: one of open_clip's by name, a JSON file like open_clip's, or the same inline."""

    name: str = ""
    """Of one of open_clip's models, such as `ViT-B-32-quickgelu`."""
    file: str = ""
    """JSON file like those of open_clip's models, or the config of an exported model."""
    config: dict[str, Any] = {}
    """What such a file would hold."""
    init_from: str = ""
    """Checkpoint whose weights the run begins with: one of ours, or any of open_clip's."""
    patch_dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Share of a picture's patches that a step leaves out (FLIP, arXiv 2212.00794); ViT only."""


class LossSection(_Section, frozen=True):
    """What is minimised: CLIP's contrastive loss or SigLIP's sigmoid loss (arXiv 2303.15343)."""

    kind: Literal["clip", "siglip"] = "clip"
    """Which of the two."""
    initial_logit_scale: Annotated[float, Meta(ge=0)] = 0.0
    """Factor of the similarities at first; 0: the model's own, 1 / 0.07."""
    initial_logit_bias: float | None = None
    """Added to them, trained with the rest; SigLIP needs it, CLIP has none."""
    max_logit_scale: Annotated[float, Meta(ge=0)] = 100.0
    """The factor is clipped there after every step; 0: no limit."""
    chunk_rows: Positive = 256
    """Rows of similarities that are in memory at once."""


class OptimiserSection(_Section, frozen=True):
    """AdamW with decoupled decay, on all weights but gains and biases."""

    learning_rate: _Rate = 5e-4
    """The largest: reached after the warm-up, and lowered to 0 along half a cosine."""
    beta1: _Beta = 0.9
    """Of the gradients' moving average."""
    beta2: _Beta = 0.98
    """Of the moving average of their squares."""
    eps: _Rate = 1e-6
    """Added to the root of those squares."""
    weight_decay: Annotated[float, Meta(ge=0)] = 0.2
    """Times the learning rate."""
    warmup_steps: Natural = 2000
    """Steps over which the learning rate grows from 0."""
    clip_norm: Annotated[float, Meta(ge=0)] = 0.0
    """Gradients of a larger norm are scaled down to it; 0: never."""
    ema_decay: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Of a moving average of the weights, which `wit eval` then measures; 0: none is kept."""


class StepSection(_Section, frozen=True):
    """How a step is computed: what fits the device's memory, and how fast."""

    micro_batch: Natural = 0
    """Pairs of a rank that go through the towers at once. Where a rank's share of the batch is
    larger, features are computed twice, and the gradient is that of the whole batch; 0: all."""
    checkpointing: bool = False
    """Compute the towers' activations again for the gradient, instead of keeping them."""
    sync_batch_norm: bool = False
    """ResNets only: statistics over the batch of all ranks; by default each rank has its own."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto: on a GPU."""


class HeldOutSection(_Section, frozen=True):
    """The loss on pairs that are not trained on, at a batch size that never changes."""

    shards: str = ""
    """Folder of a finished data set; none: nothing is measured."""
    every_steps: Positive = 500
    """Steps between two measurements."""
    batch_size: Positive = 1024
    """The loss depends on it, and on ``data.lanes``, which must divide it: compare at the same."""
    batches: Positive = 8
    """How many are measured, always the same ones."""


class EvaluationSection(_Section, frozen=True):
    """Scores on test sets while training goes on: as `wit eval` would find them then."""

    images: str = ""
    """Test set with classes, as ``--images`` of `wit eval`: zero-shot top-1, top-5 and mean per
    class; none: not measured."""
    names: str = ""
    """Its classes, as ``--names``: a file of them, or `imagenet`."""
    template: list[str] = []
    """Prompts, each with ``{}`` for the name, as ``--template``."""
    templates: str = ""
    """More of them, as ``--templates``: a file, `imagenet` or `simple`. Where there are no prompts:
    the test set's own, or the bare name."""
    pairs: str = ""
    """Test set with captions, as ``--pairs``: retrieval R@1, R@5 and R@10 both ways; none: not
    measured."""
    every_steps: Positive = 1000
    """Steps between two evaluations; there is one after the last step, too."""


class DistributedSection(_Section, frozen=True):
    """What matters with more than one process."""

    timeout_s: Annotated[float, Meta(gt=0)] = 600.0
    """A rank that does not move for so long ends the run; above ``pace.deadline_s``."""


class PaceSection(_Section, frozen=True):
    """What changes how fast training goes, never what it gives."""

    workers: Annotated[int, Meta(ge=-1)] = -1
    """Decode processes; -1: this process's share of the cores; 0: none."""
    readers: Positive = 16
    """Blocks that are read at once."""
    steps_ahead: Positive = 2
    """Batches that are made while one is trained on."""
    deadline_s: Annotated[float, Meta(gt=0)] = 300.0
    """A range of a shard that cannot be read for so long ends the run."""
    cache: str = ""
    """Folder on local disk for blocks of remote shards, shared by the processes of a machine."""
    cache_bytes: Positive = 100 << 30
    """Most that the cache takes."""
    compute_threads: Natural = 0
    """0: as torch chooses. On CPU, another number rounds differently."""


class LogSection(_Section, frozen=True):
    """How often something is written."""

    every_steps: Positive = 10
    """Steps between two rows of metrics."""
    checkpoint_every_steps: Positive = 1000
    """Steps between two checkpoints: a killed run loses as many at most."""
    keep_checkpoints: Positive = 3
    """The last ones; older ones are removed."""
    tensorboard: bool = True
    """Write event files for TensorBoard beside the metrics."""
    wandb: str = ""
    """Project there; none: nothing is sent."""


class TrainRecipe(_Section, frozen=True):
    """All that a training run needs to know. One of ``epochs`` and ``steps`` is set."""

    name: str = "clip"
    """Of the run, for those who read it."""
    seed: Natural = 0
    """Of the order of samples, of augmentation and of the first weights."""
    out: str = ""
    """Folder of the run, local or remote; ``--out`` goes before it."""
    epochs: Annotated[float, Meta(ge=0)] = 0.0
    """Times that every sample is seen, on average."""
    steps: Natural = 0
    """Batches in all."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the towers' activations (autocast; fp16 with a loss scaler); weights and loss are fp32."""
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    loss: LossSection = LossSection()
    optimiser: OptimiserSection = OptimiserSection()
    step: StepSection = StepSection()
    held_out: HeldOutSection = HeldOutSection()
    evaluation: EvaluationSection = EvaluationSection()
    distributed: DistributedSection = DistributedSection()
    pace: PaceSection = PaceSection()
    log: LogSection = LogSection()


Effect = Literal["order", "maths", "free"]
"""What changing a key in mid-run changes: which samples make a batch, what is computed of them, or
neither (but for rounding)."""

_EFFECTS: dict[str, Effect] = {
    "name": "free",
    "seed": "order",
    "out": "free",
    "epochs": "maths",
    "steps": "maths",
    "precision": "maths",
    "data": "order",
    "data.shards": "free",
    "data.augment": "maths",
    "model": "maths",
    "model.name": "free",
    "model.file": "free",
    "model.init_from": "free",
    "loss": "maths",
    "loss.initial_logit_scale": "free",
    "loss.initial_logit_bias": "free",
    "loss.chunk_rows": "free",
    "optimiser": "maths",
    "step": "maths",
    "step.checkpointing": "free",
    "step.compile": "free",
    "held_out": "free",
    "evaluation": "free",
    "distributed": "free",
    "pace": "free",
    "log": "free",
}
"""By key or section; the longest that fits counts. A model's name and file are free because its
config is compared, whatever it came from; what only the first step reads is free as well."""


def effect_of(key: str) -> Effect:
    """Return what a change of a dotted key (``optimiser.beta1``) in mid-run changes.

    Raises:
        KeyError: no such section.
    """
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        if effect := _EFFECTS.get(".".join(parts[:length])):
            return effect
    raise KeyError(key)


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
    if recipe.epochs and recipe.steps:
        raise RecipeError(
            f"epochs = {recipe.epochs:g} and steps = {recipe.steps}: set one of them",
            where="epochs, steps",
            fix="--set epochs=0, or --set steps=0",
        )
    if not (recipe.epochs or recipe.steps):
        raise RecipeError(
            "set one of epochs and steps", where="epochs, steps", fix="--set steps=1000"
        )
    if not math.isfinite(recipe.epochs):
        raise RecipeError("a run must end", where="epochs", fix="set a number")
    steps = recipe.steps or int(recipe.epochs * samples / recipe.data.batch_size)
    if not steps:
        raise RecipeError("less than one batch in all", where="epochs", fix="set more epochs")
    return steps


def micro_batch(recipe: TrainRecipe, rows: int) -> int:
    """Return how many of a rank's rows go through the towers at once."""
    return min(recipe.step.micro_batch or rows, rows)


def places(recipe: TrainRecipe) -> list[str]:
    """Return every place that a recipe names."""
    data, model, tests = recipe.data, recipe.model, recipe.evaluation
    found = [recipe.out, data.shards, *data.mixture, recipe.held_out.shards, recipe.pace.cache]
    found += [model.file, model.init_from, tests.images, tests.names, tests.templates, tests.pairs]
    return [place for place in found if place]


def common_keys(recipe: TrainRecipe) -> dict[str, str]:
    """Return the keys that all ranks must share, with values as JSON: bound ones, and when."""
    found: dict[str, str] = {}
    _flatten(msgspec.to_builtins(recipe), "", found)
    when = (
        "log.every_steps",
        "log.checkpoint_every_steps",
        "held_out.",
        "evaluation.every_steps",
    )
    timed = {key: value for key, value in found.items() if key.startswith(when)}
    timed.pop("held_out.shards")
    return bound_keys(recipe) | timed


def bound_keys(recipe: TrainRecipe) -> dict[str, str]:
    """Return the keys that a continued run must share with its beginning, with values as JSON."""
    found: dict[str, str] = {}
    _flatten(msgspec.to_builtins(recipe), "", found)
    found["data.mixture"] = msgspec.json.encode(list(recipe.data.mixture.values())).decode()
    return {key: value for key, value in found.items() if effect_of(key) != "free"}


def _flatten(section: dict[str, Any], path: str, found: dict[str, str]) -> None:
    for key, value in section.items():
        if isinstance(value, dict) and path + key not in ("model.config", "data.mixture"):
            _flatten(value, f"{path}{key}.", found)
        else:
            found[path + key] = msgspec.json.encode(value, order="sorted").decode()
