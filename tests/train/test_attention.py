"""Attention by the shortest way, beside open_clip's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from open_clip.model import CLIP

from tests.train.tiny import TINY, a_batch
from wit_train import attention, model
from wit_train.attention import SelfAttention
from wit_train.towers import Towers


def after(clip: CLIP, *, precise: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return features, and the gradients of a sum of them."""
    given = a_batch()
    with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
        features = Towers(clip)(given.image_BHWC, given.text_BT)
    both = torch.cat([features.image_BD, features.text_BD], 1)
    (both * torch.linspace(-1, 1, both.shape[1])).sum().backward()
    return both, {name: p.grad for name, p in clip.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("precise", [True, False])
def test_it_is_open_clips(precise: bool):  # noqa: FBT001 - a parameter of the test
    """Features and gradients are the same but for rounding; weights keep their names."""
    theirs = model.build(model.checked(TINY), 0)
    ours = copy.deepcopy(theirs)
    attention.simplify(ours)
    changed = [m for m in ours.modules() if isinstance(m, SelfAttention)]
    assert sorted(m.causal for m in changed) == [False, True]
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    (features, gradients), (expected, wanted) = (after(m, precise=precise) for m in (ours, theirs))
    error = 1e-5 if precise else 5e-2
    close: dict[str, Any] = {"rtol": error, "atol": error}
    torch.testing.assert_close(features, expected, **close)
    assert gradients.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, **close, msg=name)


def test_other_models_keep_their_own():
    """A ResNet has no such blocks, and a text tower without a causal mask is left alone."""
    resnet = {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}
    seeing = {**TINY["text_cfg"], "no_causal_mask": True}
    for config in ({**TINY, "vision_cfg": resnet}, {**TINY, "text_cfg": seeing}):
        clip = model.build(model.checked(config), 0)
        attention.simplify(clip)
        changed = [m for m in clip.modules() if isinstance(m, SelfAttention)]
        assert len(changed) == 1
