"""Attention without copies: what ``nn.MultiheadAttention`` computes, by the shortest way.

That module lays out queries, keys and values anew before it attends, ten copies of the activations
a block, forward and backward; and given CLIP's causal mask as numbers it cannot take the kernels
that know of causality. Weights, their names and what comes out stay as they are.

Legend: B batch, L tokens or patches, D width, H heads, d width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock
from torch import nn


class SelfAttention(nn.MultiheadAttention):
    """Attention of a sequence to itself.

    Attributes:
        causal: whether a token attends to those before it only.
    """

    causal: bool

    def forward(  # type: ignore[override]  # as open_clip's blocks call it
        self,
        query_BLD: torch.Tensor,
        key_BLD: torch.Tensor,  # noqa: ARG002 - the same tensor
        value_BLD: torch.Tensor,  # noqa: ARG002 - the same tensor
        *,
        need_weights: bool,  # noqa: ARG002 - never
        attn_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, None]:
        """Return what a sequence [B, L, D] attends to, and no weights."""
        assert self.causal == (attn_mask is not None)
        projected = F.linear(query_BLD, self.in_proj_weight, self.in_proj_bias)
        shape = (len(query_BLD), -1, self.num_heads, self.head_dim)
        q_BHLd, k_BHLd, v_BHLd = (
            part.view(shape).transpose(1, 2) for part in projected.chunk(3, -1)
        )
        out_BHLd = F.scaled_dot_product_attention(q_BHLd, k_BHLd, v_BHLd, is_causal=self.causal)
        return self.out_proj(out_BHLd.transpose(1, 2).flatten(2)), None


def simplify(clip: CLIP) -> None:
    """Have the attention of a model's own transformers go the shortest way; others stay."""
    _simplify(getattr(clip.visual, "transformer", None), causal=False)
    mask = getattr(clip, "attn_mask", None)
    if mask is not None and torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1)):
        _simplify(clip.transformer, causal=True)


def _simplify(transformer: nn.Module | None, *, causal: bool) -> None:
    for block in transformer.modules() if transformer else ():
        if type(block) is ResidualAttentionBlock and type(block.attn) is nn.MultiheadAttention:
            attention = block.attn
            attention.__class__ = SelfAttention  # the same weights, under the same names
            assert isinstance(attention, SelfAttention)
            attention.causal = causal
