"""A filter: how well a picture and its text go together, as a CLIP sees it.

``wit`` finds it as ``similarity``. Its one score, ``score``, is the cosine of the two features,
from -1 to 1: the number that CLIP-filtered data sets cut at (LAION-400M at 0.3, by ViT-B/32;
arXiv 2111.02114). torch is imported when one is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wit_train.commands import need_torch

Pixels = npt.NDArray[np.uint8]


class Similarity:
    """Scores pairs; makes no objection of its own.

    On CPU the same pairs in the same batches get the same scores, to the bit.

    Args:
        pretrained: a tag of open_clip's, a file of weights, or, without ``model``, the folder of a
            run of ``wit train`` or the JSON of one of its checkpoints.
        model: an open_clip model's name.
        device: as torch names it, such as ``cuda``.
        batch: pairs that are looked at together.
        threads: of torch on CPU; one suits a machine whose every core has a worker.

    Raises:
        MissingPartError: torch or open_clip is not installed.
        RecipeError: there is no such model.
        CheckpointError: a checkpoint of ``wit train`` is damaged.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        model: str = "",
        device: str = "cpu",
        batch: int = 64,
        threads: int = 1,
    ) -> None:
        need_torch("the filter similarity")
        from wit_train import trained  # noqa: PLC0415 - torch, which is optional

        place = (model, pretrained) if model else (pretrained, "")
        self._embedding = trained.load(*place, device, threads)
        self._batch = batch

    def __call__(
        self, images: Sequence[Pixels], texts: Sequence[str], _rows: Any
    ) -> tuple[dict[str, list[float]], list[None]]:
        """Return the similarity of each picture with its text, and no objection."""
        scores: list[float] = []
        for at in range(0, len(images), self._batch):
            part = slice(at, at + self._batch)
            scores += self._embedding.similarity(images[part], texts[part])
        return {"score": scores}, [None] * len(images)
