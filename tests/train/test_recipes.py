"""The trainer's recipes, against the papers' tables written out."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import open_clip
import pytest
import torch

from tests.train.tiny import TINY
from wit_builder import recipe as recipes
from wit_builder.errors import CheckpointError
from wit_train import model
from wit_train.config import LossSection, TrainRecipe
from wit_train.decode import Augment
from wit_train.start import start_from

ROOT = Path(__file__).parents[2]
PLACES = [*sorted((ROOT / "train/recipes").glob("*.toml")), ROOT / "wit_builder/demo/train.toml"]


def load(name: str) -> TrainRecipe:
    return recipes.load(str(ROOT / f"train/recipes/{name}.toml"), TrainRecipe)


class Printed(NamedTuple):
    """A row of the CLIP paper's table 19 (ResNets) or 20 (ViTs).

    Attributes:
        learning_rate: as printed.
        embed_dim: of both towers' features.
        pixels: side of a picture.
        vision_layers: blocks, by stage for a ResNet.
        vision_width: of the ResNet's features or the ViT's tokens.
        vision_heads: of the ViT's attention; table 19 prints none.
        text_layers, text_width, text_heads: of the text tower.
    """

    learning_rate: float
    embed_dim: int
    pixels: int
    vision_layers: int | tuple[int, ...]
    vision_width: int
    vision_heads: int | None
    text_layers: int
    text_width: int
    text_heads: int


RESNETS = {
    "rn50": Printed(5e-4, 1024, 224, (3, 4, 6, 3), 2048, None, 12, 512, 8),
    "rn101": Printed(5e-4, 512, 224, (3, 4, 23, 3), 2048, None, 12, 512, 8),
    "rn50x4": Printed(5e-4, 640, 288, (4, 6, 10, 6), 2560, None, 12, 640, 10),
    "rn50x16": Printed(4e-4, 768, 384, (6, 8, 18, 8), 3072, None, 12, 768, 12),
    "rn50x64": Printed(3.6e-4, 1024, 448, (3, 15, 36, 10), 4096, None, 12, 1024, 16),
}
VITS = {
    "vit_b_32": Printed(5e-4, 512, 224, 12, 768, 12, 12, 512, 8),
    "vit_b_16": Printed(5e-4, 512, 224, 12, 768, 12, 12, 512, 8),
    "vit_l_14": Printed(4e-4, 768, 224, 24, 1024, 16, 12, 768, 12),
    "vit_l_14_336": Printed(2e-5, 768, 336, 24, 1024, 16, 12, 768, 12),
}
PAPERS = RESNETS | VITS


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.stem)
def test_recipes_load_and_open_with_their_command(place: Path):
    """Every recipe begins with the command that runs it, and its model can be built."""
    recipe = recipes.load(str(place), TrainRecipe)
    assert place.read_text().startswith(f"# wit train {place.relative_to(ROOT)} ")
    assert recipe.data.batch_size % recipe.data.lanes == 0
    with torch.device("meta"):
        network = model.build(model.spec_of(recipe.model, recipe.loss), recipe.seed)
    assert network.vocab_size == 49_408


@pytest.mark.parametrize("name", PAPERS)
def test_what_the_papers_models_have_in_common(name: str):
    """CLIP, table 18."""
    recipe = load(name)
    settings, is_vit = recipe.optimiser, name in VITS
    assert recipe.data.batch_size == 32_768
    assert recipe.epochs == (1 if name == "vit_l_14_336" else 32)
    assert recipe.steps == 0
    assert (settings.weight_decay, settings.warmup_steps) == (0.2, 2000)
    assert (settings.clip_norm, settings.ema_decay) == (0, 0)
    assert (settings.beta1, settings.beta2) == (0.9, 0.98 if is_vit else 0.999)
    assert settings.eps == (1e-6 if is_vit else 1e-8)
    assert (recipe.loss.kind, recipe.loss.max_logit_scale) == ("clip", 100)
    assert recipe.data.augment == Augment(crop="square", min_area=1)
    assert recipe.precision == "bf16"
    assert recipe.model.patch_dropout == 0


@pytest.mark.parametrize(("name", "printed"), PAPERS.items())
def test_the_papers_models(name: str, printed: Printed):
    """CLIP, tables 19 and 20, in the model that is built: QuickGELU, 77 tokens, scale 1 / 0.07."""
    recipe = load(name)
    spec = model.spec_of(recipe.model, recipe.loss)
    with torch.device("meta"):
        network = model.build(spec, 0)
    assert recipe.optimiser.learning_rate == printed.learning_rate
    assert network.text_projection.shape == (printed.text_width, printed.embed_dim)
    assert network.transformer.layers == printed.text_layers
    assert network.transformer.resblocks[0].attn.num_heads == printed.text_heads
    assert spec.image_size == printed.pixels
    assert spec.context_length == 77
    assert spec.config["quick_gelu"]
    assert spec.config.get("init_logit_scale", LOG_SCALE) == pytest.approx(LOG_SCALE)
    visual = network.visual
    if isinstance(printed.vision_layers, int):
        assert visual.proj.shape == (printed.vision_width, printed.embed_dim)
        assert len(visual.transformer.resblocks) == printed.vision_layers
        assert visual.transformer.resblocks[0].attn.num_heads == printed.vision_heads
    else:
        stages = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        assert tuple(map(len, stages)) == printed.vision_layers
        assert visual.attnpool.k_proj.in_features == printed.vision_width
        assert visual.attnpool.c_proj.out_features == printed.embed_dim


LOG_SCALE = 2.6592600369327783  # ln(1 / 0.07)


def test_the_larger_pictures_begin_with_the_l_14_run():
    """Its weights are to be named: the recipe does not begin from nothing by mistake."""
    recipe = load("vit_l_14_336")
    spec = model.checked(TINY)
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        start_from(model.build(spec, 0), spec, recipe.model.init_from)
    theirs, ours = load("vit_l_14").model, model.spec_of(recipe.model).config
    base = model.spec_of(theirs).config
    assert {**base, "vision_cfg": {**base["vision_cfg"], "image_size": 336}} == ours


def test_siglips_recipe():
    """SigLIP (arXiv 2303.15343): its loss, its optimiser, and open_clip's ViT-B-16-SigLIP."""
    recipe = load("siglip_vit_b_16")
    settings = recipe.optimiser
    assert recipe.loss == LossSection(
        kind="siglip", initial_logit_scale=10, initial_logit_bias=-10, max_logit_scale=0
    )
    assert (settings.learning_rate, settings.weight_decay) == (1e-3, 1e-4)
    assert (settings.beta1, settings.beta2) == (0.9, 0.95)
    ours = model.spec_of(recipe.model, recipe.loss).config
    theirs = open_clip.get_model_config("ViT-B-16-SigLIP")
    assert ours["vision_cfg"] | {"timm_model_pretrained": False} == theirs["vision_cfg"]
    of_tokens = {"hf_tokenizer_name", "tokenizer_kwargs", "vocab_size", "pool_type"}
    assert {k: v for k, v in ours["text_cfg"].items() if k not in of_tokens} == {
        k: v for k, v in theirs["text_cfg"].items() if k not in of_tokens
    }
