"""The losses and their gradients, against open_clip's own and against plain ones in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from wit_train.loss import contrastive, sigmoid

WIDTH = 16
Found = tuple[Tensor, list[Tensor]]
LossOf = Callable[[list[Tensor]], Tensor]


class Operations(TorchDispatchMode):
    """What torch was made to do: names, and the elements of the largest tensor that came of it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.names.add(func._schema.name.removeprefix("aten::"))
        if isinstance(out, Tensor):
            self.largest = max(self.largest, out.numel())
        return out


def features(rows: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    drawn = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))
    return F.normalize(drawn.double(), dim=-1).to(dtype)


def inputs(rows: int, scale: float = 14.3, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Return pictures and texts that resemble each other a little, scale and bias."""
    image, noise = features(rows, 0), features(rows, 1)
    text = F.normalize(0.3 * image + noise, dim=-1)
    floats = torch.promote_types(dtype, torch.float32)
    numbers = [torch.tensor(scale, dtype=floats), torch.tensor(-3.0, dtype=floats)]
    return [each.detach().requires_grad_() for each in (image.to(dtype), text.to(dtype), *numbers)]


def found(loss: Tensor, given: list[Tensor]) -> Found:
    """Return a loss and its gradients."""
    return loss.detach(), list(torch.autograd.grad(loss, given))


def plain_contrastive(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    logits, target = scale * image @ text.T, torch.arange(len(image))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def plain_sigmoid(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    logits = scale * image @ text.T + bias
    sign = 2 * torch.eye(len(image), dtype=logits.dtype) - 1
    return -F.logsigmoid(sign * logits).sum() / len(image)


def alone(given: list[Tensor], chunk_rows: int = 4) -> Tensor:
    """Return the contrastive loss of a world of one."""
    image, text, scale = given[:3]
    return contrastive(image, text, image, text, scale, first=0, chunk_rows=chunk_rows)


def together(given: list[Tensor], chunk_rows: int = 4) -> Tensor:
    """Return the sigmoid loss of a world of one."""
    image, text, scale, bias = given
    return sigmoid(image, text, scale, bias, first=0, chunk_rows=chunk_rows)


def among(given: list[Tensor], world: int, chunk_rows: int) -> Tensor:
    """Return the mean contrastive loss of ranks, each with its share of the rows."""
    image, text, scale = given[:3]
    rows = len(image) // world
    losses = [
        contrastive(
            image[first : first + rows],
            text[first : first + rows],
            image,
            text,
            scale,
            first=first,
            chunk_rows=chunk_rows,
        )
        for first in range(0, len(image), rows)
    ]
    return torch.stack(losses).mean()


def sigmoid_among(given: list[Tensor], world: int, chunk_rows: int) -> Tensor:
    """Return the mean sigmoid loss of ranks, each with its share of the rows."""
    image, text, scale, bias = given
    rows = len(image) // world
    losses = [
        sigmoid(image[n : n + rows], text, scale, bias, first=n, chunk_rows=chunk_rows)
        for n in range(0, len(image), rows)
    ]
    return torch.stack(losses).mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_the_contrastive_loss_is_open_clips(scale: float, dtype: torch.dtype):
    """Loss and gradients equal those of ClipLoss, the logit scale's included."""
    given = inputs(11, scale, dtype)[:3]
    torch.testing.assert_close(found(alone(given), given), found(ClipLoss()(*given), given))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_the_sigmoid_loss_is_open_clips(scale: float, dtype: torch.dtype):
    """Loss and gradients equal those of SigLipLoss, the scale's and the bias's included."""
    given = inputs(11, scale, dtype)
    torch.testing.assert_close(found(together(given), given), found(SigLipLoss()(*given), given))


SIZES = {
    "world": st.sampled_from([1, 2, 4]),
    "rows": st.integers(1, 6),
    "chunk_rows": st.integers(1, 8),
    "scale": st.floats(0.5, 100.0),
}


@settings(max_examples=25, deadline=None)
@given(**SIZES)
def test_ranks_and_chunks_change_nothing(world: int, rows: int, chunk_rows: int, scale: float):
    """The ranks' mean loss, and gradients through it, are the plain loss's of the whole batch."""
    given = inputs(world * rows, scale)[:3]
    expected = found(plain_contrastive(*given), given)
    ours = found(among(given, world, chunk_rows), given)
    torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(**SIZES)
def test_ranks_and_chunks_do_not_change_the_sigmoid_loss(
    world: int, rows: int, chunk_rows: int, scale: float
):
    """So it is with the sigmoid loss, bias included."""
    given = inputs(world * rows, scale)
    expected = found(plain_sigmoid(*given), given)
    ours = found(sigmoid_among(given, world, chunk_rows), given)
    torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 9), chunk_rows=st.integers(1, 10), scale=st.floats(0.5, 100.0))
def test_a_rank_that_is_alone_finds_the_same(rows: int, chunk_rows: int, scale: float):
    """The shorter way of a world of one leads to the plain loss and its gradients."""
    given = inputs(rows, scale)[:3]
    expected = found(plain_contrastive(*given), given)
    ours = found(alone(given, chunk_rows), given)
    torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10)


LOSSES = pytest.mark.parametrize(
    "loss_of",
    [alone, together, partial(among, world=2, chunk_rows=4)],
    ids=["alone", "sigmoid", "among"],
)


@LOSSES
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(loss_of: LossOf, dtype: torch.dtype):
    """Inside autocast too; the gradients come back in the type of the features."""
    halves = inputs(12, 100.0, dtype)
    wide = [each.detach().float().requires_grad_() for each in halves]
    with torch.autocast("cpu", dtype):
        loss = loss_of(halves)
    loss.backward()
    expected = loss_of(wide)
    expected.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    for half, full in zip(halves, wide, strict=True):
        if full.grad is not None:
            # what a row adds up to as a rank's own and as a gathered one, autograd rounds again
            expected_grad = full.grad.to(half.dtype)
            torch.testing.assert_close(half.grad, expected_grad, rtol=2e-2, atol=2e-3)


@LOSSES
def test_what_float16_cannot_hold_reaches_a_loss_scaler(loss_of: LossOf):
    """The gradients meet the scaler's factor before they are rounded to the features' type."""
    given = inputs(32, 1e-5, torch.float16)
    (loss_of(given) * 65536).backward()
    wide = [each.detach().double().requires_grad_() for each in given]
    (loss_of(wide) * 65536).backward()
    assert given[0].grad is not None
    torch.testing.assert_close(given[0].grad.double(), wide[0].grad, rtol=1e-2, atol=1e-6)


@LOSSES
def test_without_gradients_only_the_loss_is_computed(loss_of: LossOf):
    """Held-out evaluation gets the same number, and no gradient is made on the way."""
    given = inputs(12)
    expected = loss_of(given)
    for without in (torch.no_grad, torch.inference_mode):
        with without(), Operations() as seen:
            loss = loss_of(given)
        assert not loss.requires_grad
        assert "addmm_" not in seen.names
        torch.testing.assert_close(loss, expected.detach(), rtol=0, atol=0)
    with Operations() as seen:
        assert not loss_of([each.detach() for each in given]).requires_grad
    assert "addmm_" not in seen.names


@LOSSES
def test_no_tensor_is_larger_than_a_chunk_or_the_features(loss_of: LossOf):
    """Memory is linear in the batch: nothing of B rows and G columns is ever made."""
    rows = 64
    with Operations() as seen:
        loss_of(inputs(rows)).backward()
    assert "addmm_" in seen.names
    assert seen.largest == rows * WIDTH > 4 * rows


@LOSSES
def test_a_second_backward_is_refused(loss_of: LossOf):
    """The gradients are handed over, so a second pass is an error and not a wrong number."""
    given = inputs(8)
    loss = loss_of(given)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_are_for_those_who_want_them():
    """A frozen tower gets none, and the other's is the same."""
    given = inputs(8)
    expected = torch.autograd.grad(alone(given), given[0])
    text, scale = given[1].detach(), given[2].detach()
    torch.testing.assert_close(
        torch.autograd.grad(alone([given[0], text, scale]), given[0]), expected
    )


def test_a_small_loss_at_a_large_scale_is_kept():
    """Where every pair is told apart well, float32 still knows by how much."""
    matched = torch.cat([torch.full((8, 1), 0.86), 0.14 * torch.eye(8)], dim=1).sqrt()
    loss = alone([matched, matched.clone(), torch.tensor(100.0)])
    expected = 7 * torch.tensor(-14.0, dtype=torch.float64).exp()
    torch.testing.assert_close(loss.double(), expected, rtol=0.05, atol=0)
