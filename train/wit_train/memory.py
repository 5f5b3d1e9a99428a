"""What to do when a device is out of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from wit_builder.errors import TrainingError
from wit_train.training import Training, micro_batch

_ON_CPU = "DefaultCPUAllocator"
"""Named by torch in the RuntimeError that stands for it on a CPU."""


@contextlib.contextmanager
def explained(training: Training, rows: int) -> Iterator[None]:
    """Turn a device's lack of memory into an error that says what would help.

    Args:
        training: whose step is taken.
        rows: of this rank, in this step.

    Raises:
        TrainingError: the device is out of memory.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or _ON_CPU in str(error)):
            raise
        device = training.ranks.device
        raise TrainingError(
            f"out of memory: {str(error).splitlines()[0]}",
            where=f"rank {training.ranks.rank}, {device}",
            fix=_help(training, rows),
        ) from error


def _help(training: Training, rows: int) -> str:
    settings, size = training.recipe.step, micro_batch(training.recipe, rows)
    helps = []
    if size > 1:
        caching = "" if size < rows else ", so that features are computed part by part"
        helps.append(f"step.micro_batch={size // 2} (now {size} of {rows} rows{caching})")
    if not settings.checkpointing:
        helps.append("step.checkpointing=true (a third more time)")
    if training.recipe.precision == "fp32":
        helps.append("precision=bf16")
    return " or ".join(helps) if helps else "a smaller model, or a device with more memory"
