"""How much a model computes, and how much a GPU could: together, model FLOPs utilisation (MFU)."""

from __future__ import annotations

import re

import torch
from torch.utils.flop_counter import FlopCounterMode

from wit_train import model
from wit_train.model import Spec

_PASSES = 3
"""A training step over a forward pass: the backward pass multiplies twice for each product of the
forward one, once for the inputs' gradients and once for the weights' (arXiv 2204.02311, B)."""

_TERA = 1e12

_PEAKS = {
    # "NVIDIA H100 Tensor Core GPU" data sheets: SXM 1,979 with sparsity, NVL 1,671, PCIe 1,513
    "H100": 989,
    "H100 NVL": 835,
    "H100 PCIe": 756,
    "H800": 989,  # an H100 with less NVLink
    "H800 PCIe": 756,
    "GH200": 989,  # "NVIDIA GH200 Grace Hopper Superchip" data sheet: an H100's
    "H200": 989,  # "NVIDIA H200 Tensor Core GPU" data sheet: SXM 1,979 with sparsity, NVL 1,671
    "H200 NVL": 835,
    "B200": 2250,  # "NVIDIA DGX B200" data sheet: eight have 36,000 with sparsity
    "GB200": 2500,  # "NVIDIA GB200 NVL72" data sheet: two have 10,000 with sparsity
    "A100": 312,  # "NVIDIA A100 Tensor Core GPU" data sheet
    "A800": 312,  # an A100 with less NVLink
    "A40": 149.7,  # "NVIDIA A40" data sheet
    "A30": 165,  # "NVIDIA A30 Tensor Core GPU" data sheet
    "A10": 125,  # "NVIDIA A10 Tensor Core GPU" data sheet
    "RTX A6000": 154.8,  # "NVIDIA RTX A6000" data sheet: 309.7 with sparsity
    "L40S": 362,  # "NVIDIA L40S" data sheet
    "L40": 181,  # "NVIDIA L40" data sheet
    "L4": 121,  # "NVIDIA L4 Tensor Core GPU" data sheet: 242 with sparsity
    "RTX 6000 Ada": 364,  # "NVIDIA RTX 6000 Ada" data sheet: 1,457 in fp8 with sparsity
    "RTX 4090": 165,  # "NVIDIA Ada GPU Architecture" white paper, appendix A, fp32 accumulation
    "RTX 3090": 71,  # "NVIDIA Ampere GA102" white paper, appendix A, fp32 accumulation
    "V100": 125,  # "NVIDIA V100" data sheet: SXM2; fp16, it has no bf16
    "V100-PCIE": 112,
    "T4": 65,  # "NVIDIA T4" data sheet; fp16, it has no bf16
}
"""Dense bf16 TFLOPS of tensor cores, without sparsity, by the part of the device's name."""

_OTHER_CHIP = r"\bMIG\b|\bLaptop\b|\bMax-Q\b|\b4090 D\b"
"""A slice of a GPU, or another chip, that bears a whole one's name."""


def forward_flops(spec: Spec) -> float:
    """Return the floating-point operations of one pair's forward pass, a multiply-add being two.

    Matrix products and convolutions count, those of attention too, in full where it is masked; so
    does what patch dropout leaves. Normalisations, activations and the loss do not. No weights are
    allocated.

    Raises:
        RecipeError: open_clip refuses the model's config.
    """
    # frozen weights, because under no_grad the counter fails on timm's attention pooling
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        clip = model.build(spec, 0).train().requires_grad_(requires_grad=False)
        image_BCHW = torch.empty(1, 3, spec.image_size, spec.image_size)
        text_BT = torch.empty(1, spec.context_length, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            clip.encode_image(image_BCHW)
            clip.encode_text(text_BT)
    return float(counter.get_total_flops())


def peak_flops(device: torch.device) -> float | None:
    """Return the dense bf16 peak of a device's tensor cores in FLOP/s; None where it is unknown."""
    return peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def peak_of(name: str) -> float | None:
    """Return the dense bf16 peak in FLOP/s of a GPU by its name; None for one that is unknown."""
    if re.search(_OTHER_CHIP, name):
        return None
    known = [part for part in _PEAKS if re.search(rf"\b{part}\b", name)]
    return _PEAKS[max(known, key=len)] * _TERA if known else None


def utilisation(forward: float, pairs_per_s: float, peak: float) -> float:
    """Return MFU: the share of the peak that the model's own operations are.

    What is computed a second time (checkpointing, gradient caching) is no work done.
    Source: PaLM (arXiv 2204.02311), appendix B.

    Args:
        forward: operations of one pair's forward pass.
        pairs_per_s: of all devices together.
        peak: of all devices together, in FLOP/s.
    """
    return _PASSES * forward * pairs_per_s / peak
