"""The parts of a step, against open_clip's own and against the paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from open_clip.loss import ClipLoss

from wit_builder.errors import RecipeError
from wit_train import config, model
from wit_train.loss import contrastive
from wit_train.schedule import learning_rate
from wit_train.step import Training, optimiser_for, train_step
from wit_train.stream import Batch

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1, "head_width": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def features(rows: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(rows, 16, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=-1)


def test_loss_is_open_clips():
    """The symmetric cross-entropy equals ClipLoss."""
    image, text, scale = features(12, 0), features(12, 1), torch.tensor(14.3)
    expected = ClipLoss()(image, text, scale)
    torch.testing.assert_close(contrastive(image, text, scale), expected)


def test_loss_is_computed_in_float32():
    """Half-precision features do not make half-precision logits."""
    image, text = features(4, 0).bfloat16(), features(4, 1).bfloat16()
    assert contrastive(image, text, torch.tensor(100.0)).dtype == torch.float32


def test_learning_rate_warms_up_and_falls_to_zero():
    """Linear to the peak, half a cosine to 0, a function of the step alone."""
    rates = [learning_rate(s, peak=1.0, warmup_steps=4, steps=14) for s in range(15)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[9] == pytest.approx(0.5)
    assert rates[14] == 0.0
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_gains_biases_and_the_logit_scale_do_not_decay():
    """Weight decay is for parameters of two dimensions and more."""
    network = model.build(model.checked(TINY), 0)
    decaying, others = optimiser_for(network, config.OptimiserSection()).param_groups
    names = {id(p): n for n, p in network.named_parameters()}
    assert decaying["weight_decay"] == 0.2
    assert others["weight_decay"] == 0.0
    kept = {names[id(p)] for p in others["params"]}
    assert {"logit_scale", "ln_final.weight", "ln_final.bias"} <= kept
    assert "token_embedding.weight" not in kept


def test_logit_scale_is_clipped_at_a_hundred():
    """The paper's bound holds after every step."""
    network = model.build(model.checked(TINY), 0)
    with torch.no_grad():
        network.logit_scale.fill_(math.log(200.0))
    recipe = config.TrainRecipe()
    training = Training(
        network, optimiser_for(network, recipe.optimiser), torch.device("cpu"), recipe
    )
    images, tokens = np.zeros((4, 32, 32, 3), np.uint8), np.ones((4, 8), np.int32)
    train_step(training, Batch(0, images, tokens, np.arange(4), np.ones(4, np.bool_), 0), 1e-3)
    assert float(network.logit_scale.detach().exp()) == pytest.approx(100.0)


def test_pixels_are_normalised_as_clip_does():
    """uint8 [B, H, W, 3] becomes what open_clip's transform gives."""
    from open_clip.transform import image_transform
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    transform = image_transform(32, is_train=False, mean=model.MEAN, std=model.STD)
    expected = transform(Image.fromarray(picture))[None]
    torch.testing.assert_close(
        model.normalised(torch.from_numpy(picture[None])), expected, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("section", "names"),
    [
        ({}, "say which model"),
        ({"name": "RN50", "config": TINY}, "say which model"),
        ({"config": {"embed_dim": 4}}, "needs vision_cfg"),
        ({"config": {**TINY, "text_cfg": {"vocab_size": 8}}}, "not CLIP's BPE"),
        ({"config": {**TINY, "towers": 3}}, "open_clip refuses"),
    ],
)
def test_a_model_that_cannot_be_is_refused(section: dict[str, object], names: str):
    """Each mistake is told in one line."""
    with pytest.raises(RecipeError, match=names):
        model.build(model.spec_of(config.ModelSection(**section)), 0)  # type: ignore[arg-type]


def test_a_model_by_name_has_its_sizes():
    """ViT-B-32 wants 224 pixels and 77 tokens."""
    spec = model.spec_of(config.ModelSection(name="ViT-B-32"))
    assert (spec.image_size, spec.context_length) == (224, 77)
