"""Pictures that a number decides, a model without weights, and a little data set with copies."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.overlap_recall import KINDS, encoded, plant, write

PER_KIND, WITHOUT, OTHERS = 2, 10, 60
TESTS = len(KINDS) * PER_KIND + WITHOUT


def picture(number: int) -> Any:
    """Return uint8 [120, 150, 3]: soft patches of colours, unlike any other number's."""
    drawn = np.random.default_rng(number)
    patches = drawn.integers(0, 256, (6, 7, 3), np.uint8)
    return cv2.resize(patches, (150, 120), interpolation=cv2.INTER_CUBIC)


class Pixels:
    """An embedding without weights: the pixels of a small grey square, normalised."""

    def prepared(self, pixels: Any) -> Any:
        """Return the square."""
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        return cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA)

    def images(self, prepared: list[Any]) -> torch.Tensor:
        """Return the features."""
        flat = torch.from_numpy(np.stack(prepared).reshape(len(prepared), -1)).float()
        return torch.nn.functional.normalize(flat - flat.mean(1, keepdim=True), dim=-1)


def plant_in(folder: str) -> tuple[list[bytes], list[str]]:
    """Write shards in which copies of test pictures stand; return these, and samples' names."""
    tests, copies = plant([picture(i) for i in range(TESTS)], PER_KIND)
    named = [(f"other-{i}", encoded(picture(1000 + i), 92)) for i in range(OTHERS)]
    named += [(f"copy-{i}", body) for i, body in copies.items()]
    named = [named[i] for i in np.random.default_rng(0).permutation(len(named))]
    write(folder, named)
    return tests, [name for name, _ in named]
