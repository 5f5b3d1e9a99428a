"""Scores on test sets while training goes on.

They are those that `wit eval` would find if the step's checkpoint were its model. Evaluation
changes nothing that training goes on from: not the weights, nor statistics, nor a generator.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import partial

import torch
import xxhash

from wit_builder import storage
from wit_builder.errors import RecipeError
from wit_train import model, trained
from wit_train.config import EvaluationSection, TrainRecipe
from wit_train.evaluate import sets
from wit_train.evaluate.prompts import templates_of
from wit_train.evaluate.results import Result
from wit_train.evaluate.retrieval import retrieval, sides
from wit_train.evaluate.zero_shot import zero_shot
from wit_train.training import Training, as_saved


class Evaluation:
    """The test sets of a recipe, opened once; false where it names none."""

    def __init__(self, recipe: TrainRecipe, spec: model.Spec) -> None:
        """Open them: what is wrong with one is told before the first step.

        Raises:
            RecipeError: classes or prompts of no test set.
            TrainingError: a test set, or a prompt, is not what it should be.
            WitError: one cannot be read.
        """
        asked = recipe.evaluation
        _refuse_idle(asked)
        self._spec, self._told = spec, dict[str, dict[str, int]]()
        self._images = sets.opened(asked.images, asked.names) if asked.images else None
        own = self._images.templates if self._images else []
        self._templates = templates_of(asked.template, asked.templates, own)
        self._pairs = sets.opened(asked.pairs, captions=True) if asked.pairs else None

    def __bool__(self) -> bool:
        return bool(self._images or self._pairs)

    def identity(self) -> dict[str, str]:
        """Return by recipe key what all ranks must have found at their places."""
        found = dict[str, str]()
        if self._images:
            words = "\0".join([str(len(self._templates)), *self._templates, *self._images.classes])
            found["evaluation.images"] = xxhash.xxh3_128_hexdigest(words.encode())
        if self._pairs:
            found["evaluation.pairs"] = "captions"
        return found

    def scores(self, training: Training) -> dict[str, float]:
        """Return the scores by name; every rank must ask, and gets the same.

        They are those of the moving average of the weights, where one is kept. The ranks share the
        pictures; texts of classes go through the tower of each.

        No second model is made. What it takes in memory, for a while: the activations of 256
        pictures or texts (64 pictures on CPU) without gradients; for zero-shot the classifier, 4 D
        bytes a class, and some 100 bytes a picture; for retrieval, on every rank, 4 D bytes for
        each picture and each caption, two or three times over while they are brought together.

        Raises:
            TrainingError: no picture decodes.
            StorageError, ShardFormatError: a set cannot be read.
        """
        network = training.clip if training.average is None else training.average
        precision, device = training.recipe.precision, training.ranks.device
        found = dict[str, float]()
        with as_saved(network, training.ranks), _full_float32():
            asked = trained.of_network(network, self._spec, "in training", device, precision)
            asked.told = partial(training.phase, "evaluation")
            if self._images:
                # every time the weights are others: their classifier is of no use later
                test = self._images
                named = zero_shot(asked, test, self._templates, training.ranks, cached=False)
                found |= self._values("zero_shot", named.result, training)
            if self._pairs:
                both = sides(asked, self._pairs, training.ranks)
                found |= self._values("retrieval", retrieval(both, self._pairs), training)
        return found

    def _values(self, task: str, result: Result, training: Training) -> dict[str, float]:
        """Return the scores' values; say what was left out, where that was not said before."""
        if self._told.get(task, {}) != result.left_out and training.ranks.rank == 0:
            why = ", ".join(f"{count:,} {why}" for why, count in result.left_out.items())
            sys.stderr.write(
                f"warning: {storage.redact(result.data)}: not measured: {why or 'none any more'}\n"
            )
        self._told[task] = result.left_out
        return {f"{task}_{name}": score.value for name, score in result.scores.items()}


def _refuse_idle(asked: EvaluationSection) -> None:
    """Refuse keys that would do nothing.

    Raises:
        RecipeError: classes or prompts of no test set.
    """
    for key in ("names", "template", "templates"):
        if getattr(asked, key) and not asked.images:
            raise RecipeError(
                f"{key} of which test set?",
                where=f"evaluation.{key}",
                fix="set evaluation.images, or leave it out",
            )


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    """Multiply in float32 as `wit eval` does, without the TF32 that training allows on a GPU."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
