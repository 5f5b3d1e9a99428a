"""The losses of CLIP and of SigLIP, and their gradients, in memory linear in the batch.

A rank compares its own rows with the columns of all ranks (CLIP paper, section 2.5), a chunk of
rows at a time; their logits lie in memory that the next chunk takes over. So the gradients are
computed beside the loss, while the logits are there, and wait in float32 for the gradient of what
follows: in float16 they would vanish before the factor of a loss scaler comes. They are handed
over, not copied: torch refuses a second backward through the same graph. There is no second
derivative.

A rank's loss is the mean over its own rows. DDP averages gradients over ranks; the average of the
losses is the loss of the whole batch.

Legend: B rows of this rank, b rows of a chunk, G rows of all ranks, D embedding. A slope is the
derivative of a sum of losses in a logit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor
from torch.autograd.function import once_differentiable


def contrastive(
    image_BD: Tensor,
    text_BD: Tensor,
    image_GD: Tensor,
    text_GD: Tensor,
    logit_scale: Tensor,
    *,
    first: int,
    chunk_rows: int,
) -> Tensor:
    """Return the mean of the cross-entropies of pictures over texts and of texts over pictures.

    Source: CLIP paper, figure 3.

    Args:
        image_BD: normalised; row i belongs to row i of the texts.
        text_BD: normalised.
        image_GD: the pictures of all ranks; for a rank that is alone the same tensor as
            ``image_BD``, which saves a third of the work.
        text_GD: the texts of all ranks, likewise.
        logit_scale: factor of the cosine similarities (the exponential of the parameter).
        first: number among G of the rank's first row.
        chunk_rows: rows whose logits are in memory at once; changes only how sums are rounded.

    Returns:
        A scalar: float64 if the features are, else float32, as is all that is computed.
    """
    if image_GD is image_BD and text_GD is text_BD:
        return _loss(_contrastive_alone, first, chunk_rows, image_BD, text_BD, logit_scale)
    gathered = image_GD, text_GD, logit_scale
    return _loss(_contrastive, first, chunk_rows, image_BD, text_BD, *gathered)


def sigmoid(
    image_BD: Tensor,
    text_GD: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    *,
    first: int,
    chunk_rows: int,
) -> Tensor:
    """Return the mean over pictures of the log losses, summed over texts, of "its own or not".

    Source: SigLIP (arXiv 2303.15343), algorithm 1.

    Args:
        image_BD: normalised; row i belongs to row ``first + i`` of the texts.
        text_GD: normalised, of all ranks.
        logit_scale: factor of the cosine similarities (the exponential of the parameter).
        logit_bias: added to every logit.
        first: number among G of the rank's first row.
        chunk_rows: rows whose logits are in memory at once; changes only how sums are rounded.

    Returns:
        A scalar: float64 if the features are, else float32, as is all that is computed.
    """
    return _loss(_sigmoid, first, chunk_rows, image_BD, text_GD, logit_scale, logit_bias)


class _How(NamedTuple):
    """Where a rank's rows stand, how many are done at once, and whether gradients are wanted."""

    first: int
    chunk_rows: int
    wanted: bool


Measured = tuple[Tensor, list[Tensor]]
"""A loss, and its gradients in all tensors that it is a function of, if they are wanted."""


Measure = Callable[..., Measured]
"""Takes a ``_How`` and the tensors, all of one type."""


def _loss(measure: Measure, first: int, chunk_rows: int, *inputs: Tensor) -> Tensor:
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    how = _How(first, chunk_rows, wanted)
    loss: Tensor = _Measure.apply(measure, how, *inputs)
    return loss


class _Measure(torch.autograd.Function):
    """Turns a function that computes a loss and its gradients at once into a step of autograd."""

    @staticmethod
    def forward(ctx: Any, measure: Measure, how: _How, *inputs: Tensor) -> Tensor:
        dtype = torch.promote_types(inputs[0].dtype, torch.float32)
        with torch.autocast(inputs[0].device.type, enabled=False):
            loss, gradients = measure(how, *(tensor.to(dtype) for tensor in inputs))
        ctx.save_for_backward(*gradients)
        ctx.dtypes = [tensor.dtype for tensor in inputs]
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (gradient.mul_(incoming) for gradient in ctx.saved_tensors)
        return None, None, *(x.to(dtype) for x, dtype in zip(scaled, ctx.dtypes, strict=True))


class _Comparison:
    """Rows compared with columns: their logits, chunk by chunk, and what comes of their slopes."""

    def __init__(self, row_BD: Tensor, column_GD: Tensor, scale: Tensor, how: _How) -> None:
        assert how.first + len(row_BD) <= len(column_GD), "rows without a column of their own"
        self.how = how
        self._row_BD, self._column_GD, self._scale = row_BD, column_GD, scale
        if how.wanted:
            self._row_slope_BD = torch.empty_like(row_BD)
            self._column_slope_GD = torch.zeros_like(column_GD)
            self._scale_slope = torch.zeros_like(scale)

    def buffer(self) -> Tensor:
        """Return memory for the logits of a chunk."""
        rows = min(self.how.chunk_rows, len(self._row_BD))
        return self._row_BD.new_empty(rows, len(self._column_GD))

    def chunks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield rows, their logits [b, G], and a view of these: each row's with its own column [b].

        The logits are the caller's until the next chunk.
        """
        buffer_bG = self.buffer()
        for start in range(0, len(self._row_BD), self.how.chunk_rows):
            rows = slice(start, min(start + self.how.chunk_rows, len(self._row_BD)))
            logits_bG = buffer_bG[: rows.stop - start]
            torch.mm(self._row_BD[rows] * self._scale, self._column_GD.T, out=logits_bG)
            yield rows, logits_bG, logits_bG.diagonal(self.how.first + start)

    def pull(self, rows: slice, slope_bG: Tensor) -> None:
        """Take in the slopes of a chunk; each is to come once."""
        row_bD, row_slope_bD = self._row_BD[rows], self._row_slope_BD[rows]
        torch.mm(slope_bG, self._column_GD, out=row_slope_bD)
        self._column_slope_GD.addmm_(slope_bG.T, row_bD)
        self._scale_slope += (row_bD * row_slope_bD).sum()

    def gradients(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return those in rows, columns and scale of the sum of losses over ``count``; once."""
        factor = self._scale / count
        row_BD, column_GD = self._row_slope_BD.mul_(factor), self._column_slope_GD.mul_(factor)
        return row_BD, column_GD, self._scale_slope / count


def _contrastive(how: _How, *inputs: Tensor) -> Measured:
    """Measure the rows of one rank among several."""
    image_BD, text_BD, image_GD, text_GD, scale = inputs
    images = _Comparison(image_BD, text_GD, scale, how)
    texts = _Comparison(text_BD, image_GD, scale, how)
    count = 2 * len(image_BD)
    loss = (_cross_entropies(images) + _cross_entropies(texts)) / count
    if not how.wanted:
        return loss, []
    d_image_BD, d_text_GD, d_scale = images.gradients(count)
    d_text_BD, d_image_GD, d_scale_too = texts.gradients(count)
    return loss, [d_image_BD, d_text_BD, d_image_GD, d_text_GD, d_scale + d_scale_too]


def _cross_entropies(compared: _Comparison) -> Tensor:
    """Return the sum over rows, their slopes having been pulled."""
    losses = []
    for rows, logits_bG, own_b in compared.chunks():
        top_b1 = logits_bG.amax(1, keepdim=True)
        below_top_b = top_b1.squeeze(1) - own_b
        sum_b1 = logits_bG.sub_(top_b1).exp_().sum(1, keepdim=True)
        losses.append((sum_b1.squeeze(1).log() + below_top_b).sum())
        if compared.how.wanted:
            logits_bG.div_(sum_b1)
            own_b.sub_(1)
            compared.pull(rows, logits_bG)
    return torch.stack(losses).sum()


def _contrastive_alone(how: _How, image_BD: Tensor, text_BD: Tensor, scale: Tensor) -> Measured:
    """Measure all rows there are: the logits of the texts are those of the pictures, transposed.

    What a column sums up to is known after the last chunk, so the logits are computed twice: four
    products of matrices, where ``_contrastive`` makes six. Tops and sums stay apart: the logarithm
    of a sum, added to a top of 100, would lose what a small loss is made of.
    """
    compared = _Comparison(image_BD, text_BD, scale, how)
    other_bB, size = compared.buffer(), len(image_BD)
    own_B = other_bB.new_empty(size)
    row_top_B1, row_sum_B1 = own_B.new_empty(size, 1), own_B.new_empty(size, 1)
    top_1B, sum_1B = own_B.new_full((1, size), -torch.inf), own_B.new_zeros(1, size)
    for rows, logits_bB, own_b in compared.chunks():
        out, own_B[rows] = other_bB[: len(logits_bB)], own_b
        row_top_B1[rows] = logits_bB.amax(1, keepdim=True)
        row_sum_B1[rows] = _powers(logits_bB, row_top_B1[rows], out).sum(1, keepdim=True)
        higher_1B = torch.maximum(top_1B, logits_bB.amax(0, keepdim=True))
        sum_1B.mul_((top_1B - higher_1B).exp_())
        sum_1B += _powers(logits_bB, higher_1B, out).sum(0, keepdim=True)
        top_1B = higher_1B
    losses_B = (row_top_B1.squeeze(1) - own_B) + row_sum_B1.squeeze(1).log()
    losses_B += (top_1B.squeeze(0) - own_B) + sum_1B.squeeze(0).log()
    loss = losses_B.sum() / (2 * size)
    if not how.wanted:
        return loss, []
    for rows, logits_bB, own_b in compared.chunks():
        of_rows_bB = _powers(logits_bB, row_top_B1[rows], other_bB[: len(logits_bB)])
        of_rows_bB.div_(row_sum_B1[rows])
        _powers(logits_bB, top_1B, logits_bB).div_(sum_1B).add_(of_rows_bB)
        own_b.sub_(2)  # each row and each column has its own once
        compared.pull(rows, logits_bB)
    return loss, [*compared.gradients(2 * size)]


def _powers(logits: Tensor, top: Tensor, out: Tensor) -> Tensor:
    """Return e to what the logits are above ``top``, which is none, so that none overflows."""
    return torch.sub(logits, top, out=out).exp_()


def _sigmoid(how: _How, *inputs: Tensor) -> Measured:
    """Measure every pair by itself: softplus(logit), and softplus(-logit) of a row and its own."""
    image_BD, text_GD, scale, bias = inputs
    compared = _Comparison(image_BD, text_GD, scale, how)
    other, losses, bias_slope = compared.buffer(), [], torch.zeros_like(bias)
    for rows, logits_bG, own_b in compared.chunks():
        logits_bG.add_(bias)
        own_b.neg_()
        out_bG = other[: len(logits_bG)]
        apart_bG = F.softplus(logits_bG, out=out_bG)  # type: ignore[call-arg]  # torch's own lack
        losses.append(apart_bG.sum())
        if how.wanted:
            logits_bG.sigmoid_()
            own_b.neg_()
            bias_slope += logits_bG.sum()
            compared.pull(rows, logits_bG)
    count = len(image_BD)
    loss = torch.stack(losses).sum() / count
    return loss, [*compared.gradients(count), bias_slope / count] if how.wanted else []
