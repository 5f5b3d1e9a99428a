"""A model as a folder that open_clip's ``local-dir:`` and the hub have: weights and a config."""

from __future__ import annotations

from typing import Any

import msgspec

from wit_builder import storage
from wit_builder.errors import CheckpointError
from wit_train.model import MEAN, STD

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names of the weights, in the order in which open_clip looks for them; we write the first."""
PREFIX = "local-dir:"
"""By which open_clip tells such a folder from the name of a model; we take one without it, too."""

PREPROCESSING = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
"""What ``decode.for_evaluation`` and ``model.normalised`` do; the size is the model's."""


class Config(msgspec.Struct, frozen=True):
    """``open_clip_config.json``: the model's config, and how its pictures are made ready."""

    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any] = {}


def is_exported(folder: str) -> bool:
    """Return whether there is an exported model."""
    return storage.exists(storage.join(folder, CONFIG))


def read_config(folder: str) -> Config:
    """Return the config of an exported model.

    Raises:
        CheckpointError: it is damaged.
        StorageError: there is none, or it cannot be read.
    """
    place = storage.join(folder, CONFIG)
    try:
        return msgspec.json.decode(storage.read_bytes(place), type=Config)
    except msgspec.MsgspecError as error:
        raise CheckpointError(
            f"not a model's config: {error}", where=storage.redact(place), fix="export it again"
        ) from error


def weights_in(folder: str) -> str:
    """Return the place of an exported model's weights.

    Raises:
        CheckpointError: there are none.
        StorageError: the folder cannot be read.
    """
    there = storage.sizes(folder)
    for name in WEIGHTS:
        if name in there:
            return storage.join(folder, name)
    raise CheckpointError(
        "a config without weights",
        where=storage.redact(folder),
        fix=f"bring {WEIGHTS[0]} back, or export it again",
    )
