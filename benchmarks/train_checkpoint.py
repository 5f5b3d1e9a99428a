"""What saving costs a training run: wall time of the same steps with and without checkpoints.

    python benchmarks/train_checkpoint.py [--steps 300] [--every 100] [--step-s 1] [--folder .]

The state is ViT-B/32's (open_clip's ViT-B-32-quickgelu, random weights) with AdamW's in fp32:
1.8 GB, saved to local disk. Steps are taken in turns: ``every`` without a checkpoint, then as many
with one, which is copied after the first of them, written during the others, and waited for at
their end, within the clock.

* waits: the host waits until the second is over, as it does for a GPU. There is no GPU in this: the
  copy is one from memory to memory, not over PCIe.
* computes: products of matrices on one thread of the CPU, about as long.

Beside it: how long the loop stands still for ``torch.save`` itself, as open_clip_train calls it.

Asked: at most 2 % wall time with a checkpoint every 100 steps of 1 s.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from benchmarks.web_turns import timed, versions
from wit_train.checkpoint import Checkpoints, Note
from wit_train.config import ModelSection, OptimiserSection
from wit_train.model import build, spec_of

MODEL = "ViT-B-32-quickgelu"
NOTE = Note(step=0, data="", bound={}, model={}, precision="fp32")

Step = Callable[[], None]


def state_of_a_run() -> dict[str, Any]:
    """Return the state dicts of the model and of an optimiser that has taken a step."""
    network = build(spec_of(ModelSection(name=MODEL)), seed=0)
    settings = OptimiserSection()
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, fused=True)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return {"model": network.state_dict(), "optimiser": optimiser.state_dict()}


def size_of(value: object) -> int:
    """Return the bytes of all tensors in a state."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    return sum(map(size_of, value.values())) if isinstance(value, dict) else 0


def waits(step_s: float) -> Step:
    """Return a step during which the host waits."""
    return lambda: time.sleep(step_s)


def computes(step_s: float) -> Step:
    """Return a step that computes: as many products as take about so long on an idle machine."""
    one, other = torch.rand(2, 1024, 1024)

    def products(count: int) -> None:
        for _ in range(count):
            one @ other

    took = min(timed(lambda: products(10)) for _ in range(5)) / 10
    return lambda: products(max(1, round(step_s / took)))


CASES = {"waits": waits, "computes": computes}
WHAT = {
    "waits": "waits (the host sleeps to the end of a step, as for a GPU; the copy is on the host)",
    "computes": "computes (one thread of the CPU)",
}


def taken(step: Step, count: int) -> list[float]:
    """Return the seconds of so many steps."""
    return [timed(step) for _ in range(count)]


class Turn:
    """The two runs, one stretch of steps of each after the other."""

    def __init__(self, step: Step, every: int, checkpoints: Checkpoints) -> None:
        self._step, self._every, self._checkpoints = step, every, checkpoints
        self.plain_s: list[float] = []
        self.saving_s: list[float] = []
        self.blocked_s: list[float] = []
        self.slowest_s: list[tuple[float, float]] = []

    def take(self, number: int, state: dict[str, Any]) -> None:
        """Take a stretch without a checkpoint, and one with it."""
        began = time.perf_counter()
        plain = taken(self._step, self._every)
        between = time.perf_counter()
        first = taken(self._step, 1)
        note = msgspec.structs.replace(NOTE, step=number)
        self.blocked_s.append(self._checkpoints.save(note, state))
        rest = taken(self._watched, self._every - 1)
        self._checkpoints.finish()
        self.saving_s.append(time.perf_counter() - between)
        self.plain_s.append(between - began)
        self.slowest_s.append((max(plain), max(first + rest)))

    def _watched(self) -> None:
        self._checkpoints.check()
        self._step()

    def print(self, name: str) -> None:
        """Print what was measured."""
        plain, saving, steps = (
            sum(self.plain_s),
            sum(self.saving_s),
            self._every * len(self.plain_s),
        )
        first, *later = self.blocked_s
        slowest = [max(both) for both in zip(*self.slowest_s, strict=True)]
        print(
            f"{WHAT[name]}:\n  {steps} steps {plain:.2f} s, with {len(self.saving_s)} checkpoints "
            f"{saving:.2f} s: {saving / plain - 1:+.2%}\n"
            f"  blocked by the copy: first {first:.2f} s"
            + (f", later {statistics.median(later):.2f} s" if later else "")
            + f"; slowest step {slowest[0]:.3f} s, with checkpoints {slowest[1]:.3f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--step-s", type=float, default=1.0)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--folder", type=Path, default=Path())
    options = parser.parse_args()
    print(versions("torch", "open_clip_torch"))
    state = state_of_a_run()
    print(f"a state of {size_of(state) / 1e9:.2f} GB ({MODEL}, AdamW, fp32)")
    torch.set_num_threads(1)
    for name in options.cases:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            with Checkpoints(folder, keep=2) as checkpoints:
                turn = Turn(CASES[name](options.step_s), options.every, checkpoints)
                for number in range(1, options.steps // options.every + 1):
                    turn.take(number, state)
            turn.print(name)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        with Checkpoints(folder, keep=1) as checkpoints:
            checkpoints.save(NOTE, state)
            writing = timed(checkpoints.finish)
        blocking = timed(lambda: torch.save(state, Path(folder) / "blocking.pt"))
    print(f"until it is published: {writing:.2f} s; torch.save in the loop blocks {blocking:.2f} s")


if __name__ == "__main__":
    main()
