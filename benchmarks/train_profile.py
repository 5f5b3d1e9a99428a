"""Where a step's time goes on the GPU: a page made from torch's profiler."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch._C._autograd import DeviceType  # which torch.profiler names, and does not export
from torch.profiler import ProfilerActivity, profile

_ROWS = 25
_NAME_LETTERS = 80

_KINDS = {
    "matrix products": ("gemm", "cutlass", "cublas", "nvjet", "xmma"),
    "attention": ("flash", "fmha", "attention", "attn", "sdpa"),
    "convolutions": ("conv", "cudnn", "implicit"),
    "fused by the compiler": ("triton",),
    "optimiser": ("multi_tensor", "adam"),
    "copies": ("memcpy", "memset", "copy"),
    "between GPUs": ("nccl",),
}
"""Kinds of kernels by what is in their names; the first that fits."""

_ORDER = ("attention", "optimiser", "between GPUs", "fused by the compiler")
"""Asked before the others: their names have words of others in them."""


def kind_of(kernel: str) -> str:
    """Return what a kernel is for, judged by its name."""
    name = kernel.lower()
    for kind in (*_ORDER, *_KINDS):
        if any(word in name for word in _KINDS[kind]):
            return kind
    return "other"


def page(step: Callable[[], object], steps: int) -> str:
    """Return a page of Markdown on some steps: time by kind of kernel, and the longest kernels.

    Where there is no GPU, operators of the CPU stand for kernels.
    """
    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as recorded:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        if on_gpu:
            torch.cuda.synchronize()
        wall_us = (time.perf_counter() - began) * 1e6
    spent = {}
    for event in recorded.key_averages():
        if took := _own_us(event, on_gpu=on_gpu):
            spent[event.key] = (took, event.count)
    return "\n".join(_lines(spent, wall_us, steps))


def _own_us(event: Any, *, on_gpu: bool) -> float:
    """Return the microseconds that a kernel took: not those of what it called, or was called by."""
    if not on_gpu:
        return float(event.self_cpu_time_total)
    is_kernel = event.device_type == DeviceType.CUDA and not event.is_user_annotation
    return float(event.self_device_time_total) if is_kernel else 0.0


def _lines(spent: dict[str, tuple[float, int]], wall_us: float, steps: int) -> Iterable[str]:
    total = sum(took for took, _ in spent.values())
    kinds: dict[str, float] = {}
    for name, (took, _) in spent.items():
        kinds[kind_of(name)] = kinds.get(kind_of(name), 0.0) + took
    yield from (f"# Where {steps} steps of training spend their time", "")
    yield f"{steps} steps in {wall_us / 1e3:.1f} ms by the clock, the profiler's own work included;"
    yield f"kernels ran for {total / 1e3:.1f} ms, {total / wall_us:.0%} of it."
    yield from ("", "| kind | ms a step | share |", "| --- | --- | --- |")
    for kind, took in sorted(kinds.items(), key=lambda pair: -pair[1]):
        yield f"| {kind} | {took / steps / 1e3:.2f} | {took / total:.1%} |"
    yield from ("", "| kernel | ms a step | share | calls a step |", "| --- | --- | --- | --- |")
    for name, (took, count) in sorted(spent.items(), key=lambda pair: -pair[1][0])[:_ROWS]:
        short = name.replace("|", "/")[:_NAME_LETTERS]
        yield f"| `{short}` | {took / steps / 1e3:.3f} | {took / total:.1%} | {count / steps:g} |"
    yield ""
