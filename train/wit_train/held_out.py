"""The loss on pairs that are not trained on.

It depends on the batch size, so that stays the same whatever the number of ranks; and it changes
nothing that training goes on from: not the weights, nor statistics, nor a generator's state.
"""

from __future__ import annotations

import contextlib
from itertools import islice

import torch

from wit_builder.errors import RecipeError
from wit_train import model
from wit_train.blocks import Layout
from wit_train.config import TrainRecipe, micro_batch, pace_of
from wit_train.precision import precision
from wit_train.ranks import Ranks
from wit_train.step import contrast
from wit_train.stream import Stream
from wit_train.towers import Features
from wit_train.training import Training, as_saved
from wit_train.transfer import Given, on_device


class HeldOut:
    """The first batches of a data set, each shared by all ranks."""

    def __init__(self, recipe: TrainRecipe, spec: model.Spec, ranks: Ranks) -> None:
        """Open the data set.

        Raises:
            RecipeError: it has less than a batch.
            WitError: it cannot be read, or its numbers do not fit each other.
        """
        settings = recipe.held_out
        if settings.batch_size % recipe.data.lanes:
            raise RecipeError(
                f"{recipe.data.lanes} lanes do not divide a batch of {settings.batch_size}",
                where="held_out.batch_size",
                fix=f"set a multiple of {recipe.data.lanes}",
            )
        self._stream = Stream(
            settings.shards,
            batch_size=settings.batch_size,
            world_size=ranks.world_size,
            rank=ranks.rank,
            layout=Layout(lanes=recipe.data.lanes, shuffle=False, epochs=1),
            look=model.look_of(spec, None),
            pace=pace_of(recipe.pace),
        )
        whole = self._stream.order.samples // settings.batch_size
        if not whole:
            raise RecipeError(
                f"{self._stream.order.samples} pairs do not make a batch",
                where="held_out.batch_size",
                fix="lower it",
            )
        self._batches = min(settings.batches, whole)

    def loss(self, training: Training) -> float:
        """Return the mean over the batches; every rank must ask, and gets the same."""
        with (
            as_saved(training.clip, training.ranks),
            contextlib.closing(iter(self._stream)) as batches,
            torch.inference_mode(),
        ):
            first = on_device(islice(batches, self._batches), training.ranks.device)
            losses = [contrast(training, _features(training, given)) for given in first]
        return float(training.ranks.mean(torch.stack(losses).mean()))


def _features(training: Training, given: Given) -> Features:
    """Return features made as in a step, but neither compiled nor by way of DDP."""
    training.phase("held-out loss")
    rows = len(given.image_BHWC)
    in_training = training.recipe.data.batch_size // training.ranks.world_size
    size = min(rows, micro_batch(training.recipe, in_training))
    with precision(training.recipe.precision, training.ranks.device):
        found = [
            training.towers.forward(given.image_BHWC[i : i + size], given.text_BT[i : i + size])
            for i in range(0, rows, size)
        ]
    image_BD = torch.cat([part.image_BD for part in found])
    text_BD = torch.cat([part.text_BD for part in found])
    return Features(image_BD, text_BD, found[0].logit_scale, found[0].logit_bias)
