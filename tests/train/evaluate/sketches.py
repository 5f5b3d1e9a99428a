"""A tiny model with open_clip's own parts, and test sets of a few pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from tests.train.tiny import TINY
from wit_train import model, trained
from wit_train.embedding import Embedding
from wit_train.evaluate.item import Item, TestSet


def network(seed: int = 0) -> Embedding:
    """Return the tiny model with weights of a seed."""
    spec = model.checked(TINY)
    return trained.of_network(
        model.build(spec, seed), spec, f"tiny {seed}", torch.device("cpu"), "fp32"
    )


def png(number: int, side: int = 36) -> bytes:
    """Return a picture that a number decides."""
    pixels = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
    pixels = cv2.resize(pixels, (side + 8, side), interpolation=cv2.INTER_NEAREST)
    return cv2.imencode(".png", pixels)[1].tobytes()


class Sketches(TestSet):
    """A test set in memory; picture i is of class ``i % classes``; some do not decode."""

    def __init__(
        self,
        count: int,
        classes: Sequence[str] = (),
        captions: int = 0,
        damaged: Collection[int] = (),
    ) -> None:
        super().__init__("sketches", classes)
        self._count, self._captions, self._damaged = count, captions, set(damaged)
        self.read = 0

    def items(self, rank: int = 0, world_size: int = 1) -> Iterator[Item]:
        """Yield every picture of a rank."""
        for i in range(rank, self._count, world_size):
            self.read += 1
            target = i % len(self.classes) if self.classes else -1
            texts = tuple(f"text {i} {n}" for n in range(self._captions + i % 2 * self._captions))
            yield Item(i, f"picture {i}", lambda i=i: self._bytes(i), target, texts)  # type: ignore[misc]

    def pictures(self, indices: Collection[int]) -> dict[int, bytes]:
        """Return the bytes of some."""
        return {i: self._bytes(i) for i in indices}

    def _bytes(self, i: int) -> bytes:
        return b"no picture" if i in self._damaged else png(i)


def class_folders(root: Path, classes: Sequence[str], each: int, first: int = 0) -> Path:
    """Write a folder of class folders whose pictures are of colours of their class."""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        colour = np.frombuffer(hashlib.md5(name.encode()).digest()[:3], np.uint8)
        for i in range(first, first + each):
            noise = np.random.default_rng([number, i]).integers(-40, 40, (40, 48, 3))
            pixels = np.clip(colour + noise, 0, 255).astype(np.uint8)
            cv2.imwrite(str(root / name / f"{i}.png"), pixels)
    return root


def open_clip_config(**changes: Any) -> dict[str, Any]:
    """Return the tiny model's config with other entries."""
    return {**TINY, **changes}
