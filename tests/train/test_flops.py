"""What a forward pass costs, and what a GPU could do."""

from __future__ import annotations

import open_clip
import pytest
import torch

from wit_train import flops, model
from wit_train.model import Spec

PUBLISHED = {
    "ViT-L-14-336": 395.22,
    "RN50": 18.18,
    "RN50x64": 552.65,
}
"""GFLOPs of a pair, as open_clip's docs/model_profile.csv has them."""


def spec_of(name: str, **vision: object) -> Spec:
    config = dict(open_clip.get_model_config(name))
    return model.checked({**config, "vision_cfg": {**config["vision_cfg"], **vision}})


def transformer(tokens: int, width: int, layers: int) -> int:
    """FLOPs of blocks: projections in and out, an MLP of 4 widths, similarities and their use."""
    products = (3 + 1 + 4 + 4) * tokens * width**2 + 2 * tokens**2 * width
    return layers * 2 * products


def test_a_vit_costs_what_is_derived_by_hand():
    """Attention is in it, that of masked texts in full."""
    vision = 2 * 49 * (3 * 32 * 32) * 768 + transformer(50, 768, 12) + 2 * 768 * 512
    text = transformer(77, 512, 12) + 2 * 512 * 512
    assert flops.forward_flops(spec_of("ViT-B-32")) == vision + text


@pytest.mark.parametrize("name", PUBLISHED)
def test_models_cost_what_open_clip_published(name: str):
    """To all its digits, for ViTs and ResNets."""
    assert round(flops.forward_flops(spec_of(name)) / 1e9, 2) == PUBLISHED[name]


def test_a_model_with_towers_of_its_own_is_counted():
    """A SigLIP, whose picture tower is timm's, with attention pooling."""
    siglip = dict(open_clip.get_model_config("ViT-B-16-SigLIP"))
    text = dict(open_clip.get_model_config("ViT-B-16")["text_cfg"])
    spec = model.checked({**siglip, "embed_dim": 768, "text_cfg": text})
    vision = 2 * 196 * (3 * 16 * 16) * 768 + transformer(196, 768, 12)
    pooled = 2 * (2 * 196 + 2 + 8) * 768**2 + 4 * 196 * 768  # one query; an MLP
    texts = transformer(77, 512, 12) + 2 * 512 * 768
    assert flops.forward_flops(spec) == vision + pooled + texts


def test_patches_that_are_dropped_cost_nothing():
    """What is counted is what a step of training computes."""
    full, half = (
        flops.forward_flops(spec_of("ViT-B-16", patch_dropout=p, layers=1)) for p in (0, 0.5)
    )
    assert full - half == transformer(197, 768, 1) - transformer(99, 768, 1)


def test_counting_leaves_no_trace():
    """The generator's state, the default device and the config are as they were."""
    spec = spec_of("ViT-B-32", layers=1)
    before, config = torch.get_rng_state(), str(spec.config)
    flops.forward_flops(spec)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.empty(1).device == torch.device("cpu")
    assert str(spec.config) == config


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165),
        ("Tesla V100-SXM2-32GB", 125),
        ("Tesla V100-PCIE-16GB", 112),
    ],
)
def test_the_longest_name_that_fits_tells_the_peak(name: str, tera: float):
    """As torch.cuda.get_device_name says it."""
    assert flops.peak_of(name) == tera * 1e12


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA A10G",
        "Something new",
    ],
)
def test_the_peak_of_another_chip_is_unknown(name: str):
    """A slice of a GPU, or a lesser one with a similar name, is not taken for the whole."""
    assert flops.peak_of(name) is None


def test_a_cpu_has_no_known_peak():
    """So no utilisation is shown there."""
    assert flops.peak_flops(torch.device("cpu")) is None


def test_a_gpu_is_asked_for_its_name(monkeypatch: pytest.MonkeyPatch):
    """Stands in for a GPU, which is not here."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
    assert flops.peak_flops(torch.device("cuda", 0)) == 989e12


def test_utilisation_counts_a_step_as_three_forward_passes():
    """ViT-B/16 on one H100 at 3,000 pairs a second: 37 %."""
    forward = flops.forward_flops(spec_of("ViT-B-16"))
    assert round(flops.utilisation(forward, 3000, 989e12), 2) == 0.37
