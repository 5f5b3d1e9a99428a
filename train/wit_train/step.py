"""One step of training: features, loss, gradients, weights.

Legend: B batch, D embedding, T tokens.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import torch
from open_clip.model import CLIP
from torch import nn

from wit_train.config import OptimiserSection, TrainRecipe
from wit_train.loss import contrastive
from wit_train.model import normalised
from wit_train.seeds import Purpose, hashed
from wit_train.stream import Batch


@dataclass(frozen=True)
class Training:
    """What a step changes, and what it needs for it."""

    model: CLIP
    optimiser: torch.optim.Optimizer
    device: torch.device
    recipe: TrainRecipe


def optimiser_for(model: nn.Module, settings: OptimiserSection) -> torch.optim.AdamW:
    """Return AdamW that decays all weights but gains, biases and the logit scale.

    Source: CLIP paper, section 2.5; those are the parameters of fewer than two dimensions.
    """
    weights = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
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


def train_step(training: Training, batch: Batch, learning_rate: float) -> torch.Tensor:
    """Take one step, and return its loss (a scalar on the device: nothing waits for it)."""
    model, optimiser = training.model, training.optimiser
    torch.manual_seed(_step_seed(training.recipe.seed, batch.step))
    image_BHWC = torch.from_numpy(batch.images).to(training.device)
    text_BT = torch.from_numpy(batch.tokens).to(training.device, torch.long)

    with precision(training.recipe.precision, training.device):
        image_BD = model.encode_image(normalised(image_BHWC), normalize=True)
        text_BD = model.encode_text(text_BT, normalize=True)
    loss = contrastive(image_BD, text_BD, model.logit_scale.exp())

    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own lack
    for group in optimiser.param_groups:
        group["lr"] = learning_rate
    optimiser.step()
    with torch.no_grad():
        model.logit_scale.clamp_(max=math.log(training.recipe.optimiser.max_logit_scale))
    return loss.detach()


def precision(name: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context in which features are computed: autocast for bf16, nothing for fp32."""
    if name == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def _step_seed(seed: int, step: int) -> int:
    """Return torch's seed for a step, so that no state of a generator need be saved."""
    return int(hashed(Purpose.STEP, seed, step)[0] >> 1)
