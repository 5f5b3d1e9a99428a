"""The model that a recipe names."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image

from tests.train.tiny import TINY
from wit_builder.errors import RecipeError
from wit_train import model
from wit_train.config import LossSection, ModelSection

RESNET = {**TINY, "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}}
BIASED = {**TINY, "init_logit_bias": -10}
SIGLIP = LossSection(kind="siglip", initial_logit_scale=10, initial_logit_bias=-10)


def test_pixels_are_normalised_as_clip_does():
    """uint8 [B, H, W, 3] becomes what open_clip's transform gives."""
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    transform = image_transform(32, is_train=False, mean=model.MEAN, std=model.STD)
    expected = transform(Image.fromarray(picture))[None]
    torch.testing.assert_close(
        model.normalised(torch.from_numpy(picture[None])), expected, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("section", "loss", "names"),
    [
        ({}, {}, "say which model"),
        ({"name": "RN50", "config": TINY}, {}, "say which model"),
        ({"name": "ViT-B-33"}, {}, "no model 'ViT-B-33'.*did you mean 'ViT-B-32'"),
        ({"name": "local-dir:/nowhere"}, {}, "cannot get the config.*No such file"),
        ({"config": {"embed_dim": 4}}, {}, "needs vision_cfg"),
        ({"config": {**TINY, "vision_cfg": 3}}, {}, "needs vision_cfg"),
        ({"config": {**TINY, "text_cfg": {"vocab_size": 8}}}, {}, "not CLIP's BPE"),
        ({"name": "ViT-B-16-SigLIP"}, {}, "not CLIP's BPE"),
        ({"config": {**TINY, "vision_cfg": {"image_size": [32, 48]}}}, {}, "must be square"),
        ({"config": {**TINY, "towers": 3}}, {}, "open_clip refuses"),
        ({"config": {**TINY, "vision_cfg": {"patch_size": 0}}}, {}, "open_clip refuses"),
        ({"name": "RN50", "patch_dropout": 0.5}, {}, "no patches to drop"),
        ({"config": TINY}, {"kind": "siglip"}, "needs a bias.*-10"),
        ({"config": TINY}, {"initial_logit_bias": 0.0}, "would not be trained"),
        ({"config": BIASED}, {}, "would not be trained"),
    ],
)
def test_a_model_that_cannot_be_is_refused(
    section: dict[str, Any], loss: dict[str, Any], names: str
):
    """Each mistake is told in one line."""
    with pytest.raises(RecipeError, match=names) as caught:
        model.build(model.spec_of(ModelSection(**section), LossSection(**loss)), 0)
    assert "\n" not in str(caught.value)


def test_a_model_by_name_has_its_sizes():
    """ViT-B-32 wants 224 pixels and 77 tokens, and keeps its name."""
    spec = model.spec_of(ModelSection(name="ViT-B-32"))
    assert (spec.image_size, spec.context_length, spec.name) == (224, 77, "ViT-B-32")


def test_a_model_by_file_is_open_clips_json(tmp_path: Path):
    """The same JSON as open_clip's model_configs; what is no JSON is refused."""
    place = tmp_path / "model.json"
    place.write_text(json.dumps(TINY))
    assert model.spec_of(ModelSection(file=str(place))).config == TINY
    place.write_text("{")
    with pytest.raises(RecipeError, match="not a model config"):
        model.spec_of(ModelSection(file=str(place)))


@pytest.mark.parametrize("name", ["ViT-B-32", "RN50", "ViT-B-32-plus-256"])
def test_open_clips_own_models_are_built(name: str):
    """The same names and shapes as open_clip's own: a model, without its weights."""
    with torch.device("meta"):
        ours = model.build(model.spec_of(ModelSection(name=name)), 0).state_dict()
        theirs = open_clip.create_model(name, device="meta", load_weights=False).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_the_loss_decides_the_first_logits():
    """Scale and bias are parameters of the model, and of the config that checkpoints record."""
    spec = model.spec_of(ModelSection(config=TINY), SIGLIP)
    network = model.build(spec, 0)
    assert float(network.logit_scale.detach().exp()) == pytest.approx(10)
    assert network.logit_bias is not None
    assert float(network.logit_bias.detach()) == -10
    assert spec.config == {**TINY, "init_logit_scale": math.log(10), "init_logit_bias": -10}
    assert model.checked(spec.config).config == spec.config


def test_without_a_word_the_logits_are_clips():
    """1 / 0.07, and no bias."""
    spec = model.spec_of(ModelSection(config=TINY), LossSection())
    network = model.build(spec, 0)
    assert spec.config == TINY
    assert float(network.logit_scale.detach().exp()) == pytest.approx(1 / 0.07)
    assert network.logit_bias is None


def test_patches_are_dropped_in_training_alone():
    """Half of 16 patches, and the class token, go through the tower; all of them in evaluation."""
    spec = model.spec_of(ModelSection(config=TINY, patch_dropout=0.5))
    network, lengths = model.build(spec, 0), list[int]()
    network.visual.transformer.register_forward_hook(
        lambda _, given, __: lengths.append(given[0].shape[1])
    )
    for training in (True, False):
        network.train(training).encode_image(torch.zeros(2, 3, 32, 32))
    assert lengths == [9, 17]
    assert "patch_dropout" not in TINY["vision_cfg"]


@pytest.mark.parametrize("config", [TINY, RESNET, {**TINY, "custom_text": True}])
def test_weights_are_a_function_of_the_seed(config: dict[str, Any]):
    """So that every rank has the same, whatever was drawn before; another seed gives others."""
    spec = model.checked(config)
    first = model.build(spec, 3).state_dict()
    torch.rand(7)
    again, other = model.build(spec, 3).state_dict(), model.build(spec, 4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["visual.conv1.weight"], other["visual.conv1.weight"])
    assert first["visual.conv1.weight"].is_contiguous(memory_format=torch.channels_last)
