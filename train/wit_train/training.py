"""What a step changes: model, optimiser, averages, made from a recipe and saved in checkpoints."""

from __future__ import annotations

import contextlib
import copy
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from open_clip.model import CLIP
from torch import nn
from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # only there
from torch.nn.modules.batchnorm import _BatchNorm  # torch names no public base of them
from torch.nn.parallel import DistributedDataParallel

from wit_builder import storage
from wit_builder.errors import RecipeError
from wit_train import attention, checkpoint, model
from wit_train.config import OptimiserSection, TrainRecipe, micro_batch
from wit_train.ranks import Ranks
from wit_train.snapshot import State
from wit_train.start import start_from
from wit_train.towers import Towers

_CACHE = "TORCHINDUCTOR_CACHE_DIR"


class Saved(Protocol):
    """What has a state to save: a model, an optimiser."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take a state over."""


def _untold(what: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """A model and all that its steps need.

    Attributes:
        clip: the model, as open_clip has it.
        towers: its forward pass, without DDP.
        module: the same as a step calls it, with DDP where there are several ranks.
        optimiser: AdamW.
        scaler: of the loss, for fp16; switched off otherwise.
        average: moving average of the weights, if the recipe wants one.
        ranks: the processes.
        recipe: what to do.
        phase: told of what a step does next.
    """

    clip: CLIP
    towers: Towers
    module: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: CLIP | None
    ranks: Ranks
    recipe: TrainRecipe
    phase: Callable[[str], object] = _untold

    def parts(self) -> dict[str, Saved]:
        """Return what has a state, by its name in a checkpoint."""
        parts: dict[str, Saved] = {"model": self.clip, "optimiser": self.optimiser}
        if self.scaler.is_enabled():
            parts["scaler"] = self.scaler
        if self.average is not None:
            parts["ema"] = self.average
        return parts

    def batch_norms(self) -> list[_BatchNorm]:
        """Return the layers that keep statistics of batches."""
        return _batch_norms(self.clip)


def _batch_norms(network: nn.Module) -> list[_BatchNorm]:
    return [m for m in network.modules() if isinstance(m, _BatchNorm)]


def begin(
    recipe: TrainRecipe,
    spec: model.Spec,
    ranks: Ranks | None = None,
    *,
    out: str = "",
    phase: Callable[[str], object] = _untold,
    afresh: bool = True,
) -> Training:
    """Return a training at its step 0: the same on every rank.

    Args:
        recipe: what to train and how.
        spec: of the model.
        ranks: the processes; by default, this one alone.
        out: folder of the run, where a local one keeps what torch.compile made.
        phase: told of what a step does next.
        afresh: whether the weights matter; not if a checkpoint's are to take their place.

    Raises:
        RecipeError: the model cannot be, or an option does not suit it.
        CheckpointError: ``model.init_from`` does not fit.
    """
    ranks = ranks or Ranks()
    if ranks.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # shapes stay the same
        torch.set_float32_matmul_precision("high")  # TF32: 10 bits where bf16 logits have 7
    clip = model.build(spec, recipe.seed).to(ranks.device).train()
    if afresh and recipe.model.init_from:
        start_from(clip, spec, recipe.model.init_from)
    if recipe.step.sync_batch_norm:
        clip = _with_common_statistics(clip, ranks)
    attention.simplify(clip)
    if recipe.step.checkpointing:
        clip.set_grad_checkpointing()
    towers = Towers(clip).to(ranks.device)
    training = Training(
        clip=clip,
        towers=towers,
        module=_over_ranks(towers, ranks),
        optimiser=optimiser_for(clip, recipe.optimiser),
        scaler=torch.amp.GradScaler(ranks.device.type, enabled=recipe.precision == "fp16"),
        average=_average(clip, recipe.optimiser.ema_decay),
        ranks=ranks,
        recipe=recipe,
        phase=phase,
    )
    _warn_of_statistics(training)
    _compile(training, out)
    return training


def optimiser_for(clip: nn.Module, settings: OptimiserSection) -> torch.optim.AdamW:
    """Return AdamW that decays all weights but gains, biases and the logit scale.

    Source: CLIP paper, section 2.5; those are the parameters of fewer than two dimensions.
    """
    weights = [p for p in clip.parameters() if p.requires_grad and p.ndim >= 2]
    others = [p for p in clip.parameters() if p.requires_grad and p.ndim < 2]
    return torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )


@contextlib.contextmanager
def as_saved(network: nn.Module, ranks: Ranks) -> Iterator[None]:
    """Let a model compute as one made of the checkpoint would; then it is as it was before.

    That one is not in training, and has the first rank's statistics of batches. Every rank must
    enter.
    """
    was_training = network.training
    buffers = [buffer for norm in _batch_norms(network) for buffer in norm.buffers()]
    own = [buffer.clone() for buffer in buffers]
    ranks.take_from_first(buffers)
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
        for buffer, before in zip(buffers, own, strict=True):
            buffer.copy_(before)


def _with_common_statistics(clip: CLIP, ranks: Ranks) -> CLIP:
    if ranks.device.type != "cuda":
        raise RecipeError(
            "statistics of batches are shared among ranks on GPUs only",
            where="step.sync_batch_norm",
            fix="set it to false",
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(clip)  # type: ignore[no-untyped-call]


def _over_ranks(towers: Towers, ranks: Ranks) -> nn.Module:
    """Return towers whose gradients are averaged over ranks; each keeps statistics of its own."""
    if ranks.world_size == 1:
        return towers
    devices = [ranks.device.index] if ranks.device.type == "cuda" else None
    names = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers"  # since torch 2.15
    unsynced: dict[str, Any] = {name if name in names else "broadcast_buffers": False}
    return DistributedDataParallel(
        towers, device_ids=devices, gradient_as_bucket_view=True, **unsynced
    )


def _average(clip: CLIP, decay: float) -> CLIP | None:
    return copy.deepcopy(clip).requires_grad_(requires_grad=False) if decay else None


def is_compiled(recipe: TrainRecipe, device: torch.device) -> bool:
    """Return whether towers are compiled: by itself, not with statistics shared in mid-layer."""
    wanted = recipe.step.compile
    return wanted == "on" or (
        wanted == "auto" and device.type == "cuda" and not recipe.step.sync_batch_norm
    )


def _compile(training: Training, out: str) -> None:
    if not is_compiled(training.recipe, training.ranks.device):
        return
    # importing open_clip already set the variable to torch's default
    if out and not storage.is_remote(out) and os.environ.get(_CACHE) in (None, default_cache_dir()):
        os.environ[_CACHE] = str(Path(storage.join(out, "compile-cache")).absolute())
    if training.recipe.step.checkpointing:  # torch 2.11 cannot cut such graphs for DDP
        torch._dynamo.config.optimize_ddp = False  # noqa: SLF001 - torch documents it by this name
    training.module.compile(dynamic=False)


def _warn_of_statistics(training: Training) -> None:
    """Say so where statistics of batches are not those of a rank's whole share of the batch."""
    rows = training.recipe.data.batch_size // training.ranks.world_size
    size = micro_batch(training.recipe, rows)
    if size < rows and training.batch_norms() and training.ranks.rank == 0:
        sys.stderr.write(
            f"warning: batch normalisation sees {size} rows at a time, not the rank's {rows}: "
            "gradients are not those of the whole batch (step.micro_batch)\n"
        )


def state_of(training: Training) -> dict[str, dict[str, Any]]:
    """Return the states of all parts, as a checkpoint keeps them."""
    return {name: part.state_dict() for name, part in training.parts().items()}


def restore(training: Training, state: State, place: str) -> list[str]:
    """Take a checkpoint's state over; return what it lacks, and what is begun afresh therefore.

    The optimiser's settings stay those of the recipe.

    Raises:
        CheckpointError: the state is of another model.
    """
    parts = training.parts()
    settings = [
        {key: value for key, value in group.items() if key != "params"}
        for group in training.optimiser.param_groups
    ]
    checkpoint.fit(state, {name: parts[name] for name in parts if name in state}, place)
    for group, own in zip(training.optimiser.param_groups, settings, strict=True):
        group.update(own)
    if training.average is not None and "ema" not in state:
        training.average.load_state_dict(training.clip.state_dict())
    return [name for name in parts if name not in state]
