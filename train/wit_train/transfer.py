"""Batches on the device, one ahead: the next one is copied while the caller computes with this."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from wit_train.stream import Batch


class Given(NamedTuple):
    """A rank's part of a step, on the device.

    Attributes:
        batch: as the stream gave it, on the CPU.
        image_BHWC: uint8 [B, H, W, 3].
        text_BT: int64 [B, T].
    """

    batch: Batch
    image_BHWC: torch.Tensor
    text_BT: torch.Tensor


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Given]:
    """Yield batches on a device; on a GPU, a batch is asked for and copied before it is needed."""
    if device.type != "cuda":
        for batch in batches:
            yield Given(
                batch, torch.from_numpy(batch.images), torch.from_numpy(batch.tokens).long()
            )
        return
    side, coming = torch.cuda.Stream(device), None  # type: ignore[no-untyped-call]
    for batch in batches:
        copied = _copied(batch, side)
        if coming:
            yield _arrived(*coming)
        coming = copied
    if coming:
        yield _arrived(*coming)


def _copied(batch: Batch, side: torch.cuda.Stream) -> tuple[Given, torch.cuda.Event]:
    """Begin to copy a batch, from memory that the GPU reads by itself."""
    with torch.cuda.stream(side):
        image_BHWC, text_BT = (
            torch.from_numpy(part).pin_memory().to(side.device, non_blocking=True)
            for part in (batch.images, batch.tokens)
        )
        given = Given(batch, image_BHWC, text_BT.long())
        return given, side.record_event()


def _arrived(given: Given, copied: torch.cuda.Event) -> Given:
    """Have the GPU's own queue wait for a copy; the caller does not."""
    current = torch.cuda.current_stream()
    current.wait_event(copied)
    for tensor in (given.image_BHWC, given.text_BT):
        tensor.record_stream(current)  # its memory is not given away before the step is done
    return given
