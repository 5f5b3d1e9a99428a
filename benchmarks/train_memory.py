"""What a pair costs in memory while a recipe trains: counted, without a GPU and without weights.

    python -m benchmarks.train_memory train/recipes/*.toml

Runs each tower's forward pass on torch's fake CUDA tensors, which have shapes and no storage, under
the autocast of the recipe's steps and with flash attention, and adds up what autograd would keep
for the backward pass. torch.compile keeps less. The fixed cost is 22 bytes a weight: float32
weights, gradients, DDP's buckets of them and Adam's two averages, and the autocast's bfloat16 copy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from unittest import mock

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch._subclasses.fake_tensor import FakeTensorMode  # torch names no public one

from wit_builder import recipe as recipes
from wit_train import model
from wit_train.config import TrainRecipe

FIXED_BYTES = 22


def kept_bytes(forward: Callable[[int], torch.Tensor]) -> int:
    """Return the bytes a pair that autograd keeps of a forward pass.

    Of two sizes, the difference: what is kept once, however many the pairs, is not a pair's.
    """

    def kept(pairs: int) -> int:
        storages: dict[int, torch.UntypedStorage] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            storages[hash(storage)] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = forward(pairs)
        del result
        return sum(storage.nbytes() for storage in storages.values())

    return (kept(8) - kept(4)) // 4


def flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    *_: object,
    **__: object,
) -> torch.Tensor:
    """Return what flash attention gives; without a GPU torch chooses one that keeps all scores."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention  # noqa: SLF001 - torch's own name
    half = [x.to(torch.bfloat16) for x in (query, key, value)]
    result: torch.Tensor = attention(*half, 0.0, attn_mask is not None)[0]
    return result


def pair_megabytes(recipe: TrainRecipe) -> tuple[float, float, float]:
    """Return MB a pair of the picture's and the text's tower, and millions of weights."""
    spec = model.spec_of(recipe.model, recipe.loss)
    with torch.device("meta"):
        network = model.build(spec, seed=0).train()
    if recipe.step.checkpointing:
        network.set_grad_checkpointing()
    weights = sum(p.numel() for p in network.parameters())

    def image(pairs: int) -> torch.Tensor:
        size = spec.image_size
        return network.encode_image(torch.empty(pairs, 3, size, size, device="cuda"))

    def text(pairs: int) -> torch.Tensor:
        tokens = torch.zeros(pairs, spec.context_length, dtype=torch.long, device="cuda")
        return network.encode_text(tokens)

    with (  # without a GPU, torch switches its autocast off
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        mock.patch("torch.cuda.is_bf16_supported", return_value=True),
        mock.patch.object(F, "scaled_dot_product_attention", flash),
        FakeTensorMode(allow_non_fake_inputs=True),
        torch.autocast("cuda", torch.bfloat16),
    ):
        network.to_empty(device="cuda")
        image_mb, text_mb = kept_bytes(image) / 1e6, kept_bytes(text) / 1e6
    return image_mb, text_mb, weights / 1e6


def main(places: list[str]) -> None:
    """Print a row for every recipe."""
    print("| recipe | weights | picture | text | micro_batch | kept | fixed |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for place in places:
        recipe = recipes.load(place, TrainRecipe)
        image_mb, text_mb, millions = pair_megabytes(recipe)
        pairs = recipe.step.micro_batch or recipe.data.batch_size
        kept_gb, fixed_gb = pairs * (image_mb + text_mb) / 1e3, millions * FIXED_BYTES / 1e3
        row = (recipe.name, f"{millions:.0f} M", f"{image_mb:.1f} MB", f"{text_mb:.1f} MB")
        of_all = (f"{pairs:,}", f"{kept_gb:.0f} GB", f"{fixed_gb:.1f} GB")
        print(f"| {' | '.join(row + of_all)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
