"""What to do when a device is out of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from wit_builder.errors import TrainingError
from wit_train.config import TrainRecipe, micro_batch

_SIGNS = ("out of memory", "ALLOC_FAILED", "DefaultCPUAllocator")
"""In what torch, its compiler, cuBLAS and NCCL say, mostly by a RuntimeError."""


def is_lacking(error: BaseException) -> bool:
    """Return whether an error says that a device, or the machine, is out of memory."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


@contextlib.contextmanager
def explained(recipe: TrainRecipe, where: str, world_size: int) -> Iterator[None]:
    """Turn a device's lack of memory into an error that says what would help.

    Args:
        recipe: what is trained.
        where: on which rank and device.
        world_size: how many ranks share a batch.

    Raises:
        TrainingError: the device is out of memory.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_lacking(error):
            raise
        raise TrainingError(
            f"out of memory: {str(error).splitlines()[0]}",
            where=where,
            fix=_help(recipe, recipe.data.batch_size // world_size),
        ) from error


def _help(recipe: TrainRecipe, rows: int) -> str:
    size = micro_batch(recipe, rows)
    helps = []
    if size > 1:
        caching = "" if size < rows else ", so that features are computed part by part"
        helps.append(f"step.micro_batch={size // 2} (now {size} of {rows} rows{caching})")
    if not recipe.step.checkpointing:
        helps.append("step.checkpointing=true (a third more time; does nothing for ResNets)")
    if recipe.precision == "fp32":
        helps.append("precision=bf16")
    if not helps:
        return "a smaller model, or a device with more memory"
    return " or ".join(helps) + "; in mid-run, add --allow-change for it"
