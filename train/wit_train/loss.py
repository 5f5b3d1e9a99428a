"""The contrastive loss (CLIP paper, figure 3).

Legend: B batch, D embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere


def contrastive(
    image_BD: torch.Tensor, text_BD: torch.Tensor, logit_scale: torch.Tensor
) -> torch.Tensor:
    """Return the mean of the cross-entropies of pictures over texts and of texts over pictures.

    Args:
        image_BD: normalised; row i belongs to row i of the texts.
        text_BD: normalised.
        logit_scale: factor of the cosine similarities (the exponential of the parameter).

    Returns:
        A scalar; logits are float32 whatever the features are.
    """
    logits_BB = logit_scale.float() * image_BD.float() @ text_BD.float().T
    target_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return (F.cross_entropy(logits_BB, target_B) + F.cross_entropy(logits_BB.T, target_B)) / 2
