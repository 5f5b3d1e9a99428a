"""open_clip's trainer as a contestant: ``python -m benchmarks.train_peer SETTING``.

Its own ``main`` runs, with its own options, model, optimiser, loss and loop (``train_one_epoch``).
Three things are put in its way: the clock around what its loop iterates over; a note of its losses
while it warms up; and, where the feed is "memory" or "bytes", a batch in memory instead of a data
set, so that no loader of its own holds its steps up. Pictures in memory are what its loader's
processes would have made: normalised floats, pinned for a GPU.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from benchmarks import train_meter
from benchmarks.train_meter import MEAN, STD, Ready, Setting

_PORTIONS = 50
"""More than are ever asked for: how far its own synthetic data set reaches."""

_ENDLESS = 10**9


class Loader:
    """What its loop iterates over: batches, and the clock."""

    def __init__(self, batches: Iterable[Any], setting: Setting, losses: list[Any]) -> None:
        self._batches, self._setting, self._losses = batches, setting, losses
        self.num_batches = _ENDLESS
        self.num_samples = _ENDLESS * setting.batch

    def __iter__(self) -> Iterator[Any]:
        return train_meter.metered(self._batches, self._setting, self._ready)

    def _ready(self) -> Ready:
        packages = ("torch", "open_clip_torch", "webdataset")
        told = self._setting.feed in ("memory", "bytes")
        return Ready(
            versions={name: metadata.version(name) for name in packages},
            device=train_meter.device_name(self._setting.device),
            losses=[float(loss) for loss in self._losses] if told else [],
        )


class Noted:
    """Its loss, whose values of the warm-up are kept."""

    def __init__(self, loss: Callable[..., Any], keep: int, losses: list[Any]) -> None:
        self._loss, self._keep, self._losses = loss, keep, losses

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what it returns."""
        out = self._loss(*args, **kwargs)
        if len(self._losses) < self._keep:
            self._losses.append(out["contrastive_loss"].detach())
        return out


def arguments(setting: Setting) -> list[str]:
    """Return the command line of its trainer."""
    samples = setting.batch * (setting.warm_steps + _PORTIONS * setting.steps)
    named = {
        "model": setting.model,
        "batch-size": setting.batch,
        "device": setting.device,
        "precision": {"bf16": "amp_bf16"}.get(setting.precision, setting.precision),
        "workers": setting.workers,
        "epochs": 1,
        "lr": train_meter.LEARNING_RATE,
        "lr-scheduler": "const",
        "warmup": 0,
        "logs": "none",
        "pretrained": setting.weights if Path(setting.weights).is_file() else "",
    }
    if setting.feed == "shards":
        tars = sorted(str(path) for path in Path(setting.shards).resolve().glob("*.tar"))
        named |= {"dataset-type": "webdataset", "train-data": "::".join(tars)}
        named |= {"train-num-samples": _ENDLESS}
    else:
        named |= {"dataset-type": "synthetic", "train-num-samples": samples}
    flags = ["--local-loss", "--gather-with-grad"]
    flags += ["--torchcompile"] * setting.compile + ["--grad-checkpointing"] * setting.checkpointing
    return [*flags, *(f"--{name}={value}" for name, value in named.items())]


def in_memory(setting: Setting) -> Iterator[Any]:
    """Yield one batch, again and again: pictures [batch, 3, side, side] as floats, and texts."""
    pixels = torch.from_numpy(train_meter.pixels(setting))
    texts = torch.from_numpy(train_meter.tokens(setting)).long()
    if setting.feed == "bytes":
        return ((_normalised(pixels), texts) for _ in repeat(None))
    batch = (_normalised(pixels), texts)
    if setting.device == "cuda":
        batch = (batch[0].pin_memory(), batch[1].pin_memory())
    return repeat(batch)


def _normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Return what torchvision's ToTensor and Normalize make of a batch."""
    floats = pixels.permute(0, 3, 1, 2).contiguous().float().div_(255)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return floats.sub_(mean).div_(std)


def _put_in(setting: Setting, trainer: Any) -> None:
    """Put the clock, the note and the batch into open_clip's ``main``."""
    losses: list[Any] = []
    its_data, its_loss = trainer.get_data, trainer.create_loss

    def get_data(*args: Any, **kwargs: Any) -> Any:
        data = its_data(*args, **kwargs)
        own = setting.feed in ("shipped", "shards")
        batches = data["train"].dataloader if own else in_memory(setting)
        data["train"].dataloader = Loader(batches, setting, losses)
        return data

    trainer.get_data = get_data
    trainer.create_loss = lambda args: Noted(its_loss(args), setting.warm_steps, losses)


def main() -> None:
    setting = Setting.read(sys.argv[1])
    if setting.threads:
        torch.set_num_threads(setting.threads)
    import open_clip  # noqa: PLC0415 - takes seconds
    from open_clip_train import main as trainer  # noqa: PLC0415 - likewise

    if setting.config:
        open_clip.add_model_config(setting.config)
    _put_in(setting, trainer)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where it makes a folder for logs, whether it is to log or not
        trainer.main(arguments(setting))


if __name__ == "__main__":
    main()
