"""The part of the model that a step differentiates: from pixels and tokens to features.

Legend: B batch, H height, W width, T tokens, D embedding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from open_clip.model import CLIP
from torch import nn

from wit_train.model import MEAN, STD


class Features(NamedTuple):
    """What the loss is made of.

    Attributes:
        image_BD, text_BD: normalised, float32.
        logit_scale: factor of the similarities.
        logit_bias: added to them; None where the model has none.
    """

    image_BD: torch.Tensor
    text_BD: torch.Tensor
    logit_scale: torch.Tensor
    logit_bias: torch.Tensor | None


class Towers(nn.Module):
    """Both towers in one forward pass, which is what DDP and torch.compile take hold of."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, clip: CLIP) -> None:
        super().__init__()
        self.clip = clip
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values) * 255, persistent=False)

    def forward(self, image_BHWC: torch.Tensor, text_BT: torch.Tensor) -> Features:
        """Return the features of uint8 pixels [B, H, W, 3] and token ids [B, T]."""
        image_BCHW = ((image_BHWC.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        image_BD = self.clip.encode_image(image_BCHW).float()  # before it is given length 1
        text_BD = self.clip.encode_text(text_BT).float()
        scale, bias = self.clip.logit_scale.exp(), self.clip.logit_bias
        return Features(F.normalize(image_BD, dim=-1), F.normalize(text_BD, dim=-1), scale, bias)
