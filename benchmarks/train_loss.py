"""Memory and time of the losses, forward and backward, beside open_clip's, on CPU in one process.

    python benchmarks/train_loss.py [--rows 16384] [--width 512] [--chunks 256] [--repeats 5]

Features are float32 and normalised, pictures and texts unrelated; the logit scale is 1/0.07, for
the sigmoid losses 10, with a bias of -10. The losses must agree, and are timed in turns.

Memory is that of a process of its own per loss: its peak (VmHWM) less what it held before, after a
small batch went through, so that neither inputs nor libraries count. "With gradients" is all of it;
"beyond gradients" is less those of the inputs, which the caller asked for.

"Among several" is our loss as a rank of many computes it, who cannot use that the logits of the
texts are those of the pictures, transposed; here it has all rows to itself.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor

from benchmarks.web_turns import timed, versions
from wit_train.loss import contrastive, sigmoid

Losses = dict[str, Callable[[], Tensor]]

PLAIN = {"CLIP": "CLIP, open_clip", "SigLIP": "SigLIP, open_clip"}
MB = 1e6
COLUMNS = [
    "loss",
    "median s",
    "fastest s",
    "of open_clip's time",
    "MB with gradients",
    "of open_clip's",
    "MB beyond gradients",
    "of open_clip's",
]


def features(rows: int, width: int, seed: int) -> Tensor:
    """Return unit vectors, of which gradients are wanted."""
    drawn = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return F.normalize(drawn, dim=-1).requires_grad_()


def number(value: float) -> Tensor:
    return torch.tensor(value, requires_grad=True)


def losses(rows: int, width: int, chunks: list[int]) -> tuple[Losses, list[Tensor]]:
    """Return the losses of a batch, by name, and what they have gradients in."""
    image, text = features(rows, width, 0), features(rows, width, 1)
    scale, ten, bias = number(1 / 0.07), number(10.0), number(-10.0)
    found: Losses = {
        PLAIN["CLIP"]: partial(ClipLoss(), image, text, scale),
        PLAIN["SigLIP"]: partial(SigLipLoss(), image, text, ten, bias),
    }
    for rows_at_once in chunks:
        clip = partial(contrastive, first=0, chunk_rows=rows_at_once)
        siglip = partial(sigmoid, first=0, chunk_rows=rows_at_once)
        others = image.view_as(image), text.view_as(text)  # equal, but not the same
        name = f"ours, {rows_at_once} rows at once"
        found[f"CLIP, {name}"] = partial(clip, image, text, image, text, scale)
        found[f"CLIP, {name}, among several"] = partial(clip, image, text, *others, scale)
        found[f"SigLIP, {name}"] = partial(siglip, image, text, ten, bias)
    return found, [image, text, scale, ten, bias]


def forward_and_backward(loss_of: Callable[[], Tensor], inputs: list[Tensor]) -> Tensor:
    """Return a loss; its gradients are with the inputs."""
    for tensor in inputs:
        tensor.grad = None
    loss = loss_of()
    loss.backward()
    return loss.detach()


def status_kb(key: str) -> int:
    """Return what the system says of this process: VmRSS, VmHWM."""
    found = re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def own_peak_bytes(name: str, rows: int, width: int, chunks: list[int]) -> int:
    """Return by how much one loss raises this process's memory at most."""
    forward_and_backward(*_named(name, min(rows, 64), width, chunks))
    work = partial(forward_and_backward, *_named(name, rows, width, chunks))
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew at VmRSS
    before_kb = status_kb("VmRSS")
    work()
    return (status_kb("VmHWM") - before_kb) * 1024


def _named(
    name: str, rows: int, width: int, chunks: list[int]
) -> tuple[Callable[[], Tensor], list[Tensor]]:
    found, inputs = losses(rows, width, chunks)
    return found[name], inputs


def peak_bytes(name: str) -> int:
    """Return what a fresh process with our arguments says of one loss."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


def in_turns(found: Losses, inputs: list[Tensor], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each loss, a turn of each after another; the first is not counted."""
    works = {name: partial(forward_and_backward, loss, inputs) for name, loss in found.items()}
    said = {name: float(work()) for name, work in works.items()}
    for name, value in said.items():
        expected = said[PLAIN[name.split(",")[0]]]
        assert abs(value - expected) < 1e-5 * abs(expected), said
    took: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            took[name].append(timed(work))
    return took


def table(took: dict[str, list[float]], peaks: dict[str, int], gradients: int) -> str:
    """Return a Markdown table."""
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        "| --- " * len(COLUMNS) + "|",
    ]
    for name in sorted(took, key=lambda name: name.split(",")[0]):
        plain = PLAIN[name.split(",")[0]]
        seconds = statistics.median(took[name])
        peak, peers = peaks[name], peaks[plain]
        cells = [
            name,
            f"{seconds:.2f}",
            f"{min(took[name]):.2f}",
            f"{seconds / statistics.median(took[plain]):.2f}",
            f"{peak / MB:,.0f}",
            f"1/{peers / peak:.1f}",
            f"{(peak - gradients) / MB:,.0f}",
            f"1/{(peers - gradients) / max(1, peak - gradients):.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=16_384)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--chunks", type=int, nargs="+", default=[256])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes = options.rows, options.width, options.chunks
    if options.memory_of:
        print(own_peak_bytes(options.memory_of, *sizes))
        return
    print(versions("torch", "open_clip_torch"))
    print(f"{options.rows:,} pairs of {options.width} numbers, {options.threads} threads\n")
    found, inputs = losses(*sizes)
    peaks = {name: peak_bytes(name) for name in found}
    gradients = sum(tensor.nbytes for tensor in inputs)
    print(table(in_turns(found, inputs, options.repeats), peaks, gradients))


if __name__ == "__main__":
    main()
