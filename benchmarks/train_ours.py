"""Our trainer as a contestant: ``python -m benchmarks.train_ours SETTING``.

The steps are the trainer's (``train_step``), fed as its loop is: by the stream or, where the feed
is not "shards", by one batch in memory, and through the copy to the device one batch ahead.

Legend: B batch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from benchmarks import train_meter, train_profile
from benchmarks.train_meter import LEARNING_RATE, Ready, Setting
from wit_train import flops, model
from wit_train.config import (
    DataSection,
    ModelSection,
    OptimiserSection,
    PaceSection,
    StepSection,
    TrainRecipe,
)
from wit_train.decode import Augment
from wit_train.loop import open_stream
from wit_train.step import train_step
from wit_train.stream import Batch
from wit_train.training import Training, begin
from wit_train.transfer import Given, on_device

_CROP = Augment(crop="resized", scale=(0.9, 1.0), ratio=(3 / 4, 4 / 3))
"""That of open_clip's transform of training."""

_LANES = 64
_PROFILED_STEPS = 5


def recipe_of(setting: Setting) -> TrainRecipe:
    """Return the recipe of a setting; the optimiser is as open_clip chooses it for the model."""
    vit = "vit" in setting.model.lower()
    return TrainRecipe(
        steps=1_000_000,
        precision="bf16" if setting.precision == "bf16" else "fp32",
        data=DataSection(
            shards=setting.shards,
            batch_size=setting.batch,
            lanes=min(_LANES, setting.batch),
            augment=_CROP,
        ),
        model=ModelSection(file=setting.config)
        if setting.config
        else ModelSection(name=setting.model),
        optimiser=OptimiserSection(
            learning_rate=LEARNING_RATE,
            beta2=0.98 if vit else 0.999,
            eps=1e-6 if vit else 1e-8,
        ),
        step=StepSection(
            compile="on" if setting.compile else "off", checkpointing=setting.checkpointing
        ),
        pace=PaceSection(workers=setting.workers or -1, compute_threads=setting.threads),
    )


def in_memory(setting: Setting) -> Iterator[Batch]:
    """Yield one batch, again and again."""
    images, tokens = train_meter.pixels(setting), train_meter.tokens(setting)
    ids, valid = np.arange(setting.batch), np.ones(setting.batch, np.bool_)
    step = 0
    while True:
        yield Batch(step, images, tokens, ids, valid, 0)
        step += 1


class Run:
    """A training under the clock."""

    def __init__(self, setting: Setting) -> None:
        self.setting, recipe = setting, recipe_of(setting)
        self.spec = model.spec_of(recipe.model, recipe.loss)
        self.training: Training = begin(recipe, self.spec)
        if setting.weights:
            torch.save(self.training.clip.state_dict(), setting.weights)
        own, from_shards = self.training.ranks, setting.feed == "shards"
        self._stream = open_stream(recipe, self.spec, own) if from_shards else None
        self._losses: list[torch.Tensor] = []

    def go(self) -> None:
        """Take all the steps that are asked for, and then those that are profiled."""
        stream = self._stream
        source = iter(stream) if stream else in_memory(self.setting)
        with closing(source):  # type: ignore[type-var]  # both are generators
            given = on_device(source, self.training.ranks.device)
            waited_s = (lambda: stream.stats.waited_s) if stream else None
            for batch in train_meter.metered(given, self.setting, self._ready, waited_s):
                self._step(batch)
            if self.setting.profile:
                self._profile(given)

    def _step(self, given: Given) -> None:
        taken = train_step(self.training, given, LEARNING_RATE)
        if len(self._losses) < self.setting.warm_steps:
            self._losses.append(taken.loss)

    def _ready(self) -> Ready:
        return Ready(
            versions={name: metadata.version(name) for name in ("torch", "open_clip_torch")},
            device=train_meter.device_name(self.setting.device),
            losses=[] if self._stream else [float(loss) for loss in self._losses],
            forward_flops=flops.forward_flops(self.spec),
            peak_flops=flops.peak_flops(self.training.ranks.device),
        )

    def _profile(self, given: Iterator[Given]) -> None:
        page = train_profile.page(lambda: self._step(next(given)), _PROFILED_STEPS)
        Path(self.setting.profile).write_text(page, encoding="utf-8")


def main() -> None:
    setting = Setting.read(sys.argv[1])
    if setting.threads:
        torch.set_num_threads(setting.threads)
    Run(setting).go()


if __name__ == "__main__":
    main()
