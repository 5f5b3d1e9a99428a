"""The smallest of models, its recipe, and a batch of made-up pairs for it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import torch

from wit_train.config import TrainRecipe
from wit_train.stream import Batch
from wit_train.transfer import Given

PAIRS = 16
TINY: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def recipe_of(changes: dict[str, Any]) -> TrainRecipe:
    """Return its recipe with other values for dotted keys."""
    tree: dict[str, Any] = {"data": {"batch_size": PAIRS, "lanes": 4}, "model": {"config": TINY}}
    for key, value in changes.items():
        section, name = key.rsplit(".", 1) if "." in key else ("", key)
        (tree.setdefault(section, {}) if section else tree)[name] = value
    return msgspec.convert(tree, TrainRecipe)


def a_batch(rows: slice = slice(None), step: int = 0) -> Given:
    """Return some rows of a step's batch."""
    drawn = np.random.default_rng(step)
    images = drawn.integers(0, 256, (PAIRS, 32, 32, 3), np.uint8)[rows]
    tokens = np.zeros((PAIRS, 8), np.int32)
    tokens[:, :3] = drawn.integers(1, 49000, (PAIRS, 3))
    tokens[:, 3] = 49407
    tokens, ids = tokens[rows], np.arange(PAIRS)[rows]
    batch = Batch(step, images, tokens, ids, np.ones(len(ids), np.bool_), 0)
    return Given(batch, torch.from_numpy(images), torch.from_numpy(tokens).long())
