"""In which numbers features are computed."""

from __future__ import annotations

import contextlib

import torch


def precision(name: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context in which features are computed: autocast, or nothing for fp32."""
    if name == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if name == "bf16" else torch.float16)
