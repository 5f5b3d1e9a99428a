"""One step of training: features, loss, gradients, weights.

Where a rank's rows do not fit the device at once, features are computed twice, part by part: first
without gradients, so that the loss can be had of the whole batch; then with, each part being given
the loss's gradient of its features (GradCache, arXiv 2101.06983). The generator of random numbers
is set by (seed, step, rank, part), so that both passes, and a resumed run, draw the same.

Legend: B rows of this rank, G rows of all ranks, D embedding.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from open_clip.model import CLIP
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from wit_builder.errors import TrainingError
from wit_train import loss
from wit_train.config import micro_batch
from wit_train.precision import precision
from wit_train.seeds import Purpose, hash_of
from wit_train.towers import Features
from wit_train.training import Training
from wit_train.transfer import Given


class Taken(NamedTuple):
    """What a step came to: scalars on the device, for which nothing waits.

    Attributes:
        loss: of this rank's rows; its mean over ranks is the loss of the batch.
        grad_norm: of the gradients of all weights, before clipping; NaN if not measured.
        logit_scale: after the step.
    """

    loss: torch.Tensor
    grad_norm: torch.Tensor
    logit_scale: torch.Tensor


def train_step(
    training: Training, given: Given, learning_rate: float, *, measured: bool = True
) -> Taken:
    """Take one step.

    Args:
        training: is changed.
        given: this rank's rows.
        learning_rate: of this step.
        measured: whether the norm of the gradients is wanted, which takes a pass over them.
    """
    training.optimiser.zero_grad(set_to_none=True)
    rows = len(given.image_BHWC)
    size = micro_batch(training.recipe, rows)
    if size == rows:
        value = _at_once(training, given)
    else:
        value = _by_parts(training, given, [slice(i, i + size) for i in range(0, rows, size)])
    training.phase("weights")
    norm = _update(training, learning_rate, measured=measured)
    return Taken(value, norm, training.clip.logit_scale.detach().exp())


def _at_once(training: Training, given: Given) -> torch.Tensor:
    training.phase("features")
    value = contrast(training, _features(training, given, slice(None), 0))
    training.phase("gradients")
    training.scaler.scale(value).backward()  # type: ignore[no-untyped-call]  # torch's own lack
    return value.detach()


def _by_parts(training: Training, given: Given, parts: list[slice]) -> torch.Tensor:
    training.phase("features")
    with torch.no_grad(), _same_statistics(training):
        found = [_features(training, given, rows, i) for i, rows in enumerate(parts)]
    leaves = Features(
        *(torch.cat(column).requires_grad_() for column in list(zip(*found, strict=True))[:2]),
        *(None if part is None else part.detach().requires_grad_() for part in found[0][2:]),
    )
    value = contrast(training, leaves)
    training.phase("gradients")
    wanted = [leaf for leaf in leaves if leaf is not None]
    image_BD, text_BD, *rest = torch.autograd.grad(training.scaler.scale(value), wanted)
    for i, rows in enumerate(parts):
        last = i == len(parts) - 1
        with _quiet(training, last=last):  # ranks meet, and statistics move, once a step
            features = _features(training, given, rows, i)
            outputs = [part for part in features if part is not None]
            gradients = [image_BD[rows], text_BD[rows], *rest]
            count = len(outputs) if last else 2  # scale and bias have their whole gradient at once
            torch.autograd.backward(outputs[:count], gradients[:count])
    return value.detach()


def _features(training: Training, given: Given, rows: slice, part: int) -> Features:
    recipe, ranks = training.recipe, training.ranks
    seed = hash_of(Purpose.STEP, recipe.seed, given.batch.step, ranks.rank, part)
    torch.manual_seed(seed >> 1)
    with precision(recipe.precision, ranks.device):
        return Features(*training.module(given.image_BHWC[rows], given.text_BT[rows]))


def contrast(training: Training, features: Features) -> torch.Tensor:
    """Return the loss of this rank's rows among those of all ranks."""
    ranks, settings = training.ranks, training.recipe.loss
    image_BD, text_BD, scale, bias = features
    training.phase("loss")
    first = ranks.rank * len(image_BD)
    if settings.kind == "siglip":
        assert bias is not None  # model.spec_of sees to it
        text_GD = ranks.gather(text_BD)
        return loss.sigmoid(
            image_BD, text_GD, scale, bias, first=first, chunk_rows=settings.chunk_rows
        )
    image_GD, text_GD = image_BD, text_BD
    if ranks.world_size > 1:
        image_GD, text_GD = ranks.gather(torch.cat([image_BD, text_BD], 1)).chunk(2, 1)
    return loss.contrastive(
        image_BD, text_BD, image_GD, text_GD, scale, first=first, chunk_rows=settings.chunk_rows
    )


def _update(training: Training, learning_rate: float, *, measured: bool) -> torch.Tensor:
    """Change the weights by their gradients, whose norm is returned; NaN if not measured."""
    settings, clip = training.recipe.optimiser, training.clip
    training.scaler.unscale_(training.optimiser)
    gradients = [p.grad for p in clip.parameters() if p.grad is not None]
    if measured or settings.clip_norm:
        norm = torch.nn.utils.get_total_norm(gradients)
    else:
        norm = torch.full((), torch.nan, device=training.ranks.device)
    if settings.clip_norm:
        torch.nn.utils.clip_grads_with_norm_(clip.parameters(), settings.clip_norm, norm)
    for group in training.optimiser.param_groups:
        group["lr"] = learning_rate
    training.scaler.step(training.optimiser)
    training.scaler.update()
    if limit := training.recipe.loss.max_logit_scale:
        with torch.no_grad():
            clip.logit_scale.clamp_(max=math.log(limit))
    if training.average is not None:
        _follow(training.average, clip, settings.ema_decay)
    return norm


def _follow(average: CLIP, clip: CLIP, decay: float) -> None:
    """Move an average towards the weights; torch's AveragedModel would wait for the device."""
    move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    move(list(average.parameters()), list(clip.parameters()), None)
    with torch.no_grad():
        for ours, theirs in zip(average.buffers(), clip.buffers(), strict=True):
            ours.copy_(theirs)


def refuse_damage(training: Training, step: int) -> None:
    """See that the weights are worth saving.

    Raises:
        TrainingError: they are not finite; nothing that comes of them would be.
    """
    norm = torch.nn.utils.get_total_norm(training.clip.parameters())
    if not math.isfinite(float(norm.detach())):
        raise TrainingError(
            f"the weights are {float(norm.detach())} after {step} steps, and are not saved",
            where=f"step {step - 1}",
            fix="start again with a lower optimiser.learning_rate (and --allow-change "
            "optimiser.learning_rate), to go on from the last checkpoint",
        )


@contextlib.contextmanager
def _quiet(training: Training, *, last: bool) -> Iterator[None]:
    """Keep gradients from the other ranks and statistics as they are, but for the last part."""
    if last:
        yield
        return
    module = training.module
    alone = (
        module.no_sync()
        if isinstance(module, DistributedDataParallel)
        else contextlib.nullcontext()
    )
    with alone, _same_statistics(training):
        yield


@contextlib.contextmanager
def _same_statistics(training: Training) -> Iterator[None]:
    """Have batch normalisation keep its running statistics as they are."""
    norms = training.batch_norms()
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
