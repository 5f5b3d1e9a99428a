"""Features of pictures and texts by any model: one trained here, or one that open_clip knows.

Legend: B pairs, D embedding.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from PIL import Image

from wit_builder.errors import RecipeError
from wit_train import decode, evaluate
from wit_train.model import tokenizer_of

Pixels = npt.NDArray[np.uint8]


class Embedding(ABC):
    """Normalised features of pictures and texts, float32.

    Args:
        threads: of torch on CPU, while it computes.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def similarity(self, images: Sequence[Pixels], texts: Sequence[str]) -> list[float]:
        """Return the cosine of each picture's features and its text's."""
        with torch.inference_mode(), _threads(self._threads):
            image_BD, text_BD = self.images(images), self.texts(texts)
            cosine_B: list[float] = (image_BD * text_BD).sum(-1).cpu().tolist()
        return cosine_B

    @abstractmethod
    def images(self, images: Sequence[Pixels]) -> torch.Tensor:
        """Return the features [B, D] of pictures of any size."""

    @abstractmethod
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the features [B, D] of texts."""


def load(model: str, pretrained: str, device: str, threads: int) -> Embedding:
    """Return a model that was trained.

    Args:
        model: an open_clip model's name; empty for one that ``wit train`` trained.
        pretrained: a tag or file of open_clip's; or a run's folder, or a checkpoint's JSON.
        device: as torch names it.
        threads: of torch on CPU.

    Raises:
        RecipeError: there is no such model, or no such weights of it.
        TrainingError: the folder has no checkpoint.
        CheckpointError: the checkpoint is damaged.
    """
    if not model:
        return _Ours(evaluate.load(pretrained, device), threads)
    _refuse_unknown(model, pretrained)
    return _OpenClip(model, pretrained, device, threads)


class _Ours(Embedding):
    """A model that ``wit train`` trained."""

    def __init__(self, judged: evaluate.Judged, threads: int) -> None:
        super().__init__(threads)
        self._judged, self._tokenize = judged, tokenizer_of(judged.spec)

    def images(self, images: Sequence[Pixels]) -> torch.Tensor:
        size = self._judged.spec.image_size
        return self._judged.images(np.stack([decode.for_evaluation(i, size) for i in images]))

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        return self._judged.texts(self._tokenize(texts))


class _OpenClip(Embedding):
    """A model that open_clip knows, with its own transform and tokens."""

    def __init__(self, model: str, pretrained: str, device: str, threads: int) -> None:
        super().__init__(threads)
        made = open_clip.create_model_from_pretrained(model, pretrained, device=device)
        self._network: Any = made[0].eval()
        self._transform: Any = made[1]
        self._tokenize: Any = open_clip.get_tokenizer(model)
        self._device = device

    def images(self, images: Sequence[Pixels]) -> torch.Tensor:
        image_BCHW = torch.stack([self._transform(Image.fromarray(pixels)) for pixels in images])
        features_BD: torch.Tensor = self._network.encode_image(
            image_BCHW.to(self._device), normalize=True
        )
        return features_BD.float()

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        tokens_BT = self._tokenize(list(texts)).to(self._device)
        features_BD: torch.Tensor = self._network.encode_text(tokens_BT, normalize=True)
        return features_BD.float()


def _refuse_unknown(model: str, pretrained: str) -> None:
    if ":" in model:  # hf-hub:, local-dir: and the like say where their weights are
        return
    if open_clip.get_model_config(model) is None:
        close = difflib.get_close_matches(model, open_clip.list_models(), 1)
        fix = f"did you mean {close[0]!r}?" if close else "see open_clip.list_models()"
        raise RecipeError(f"no model {model!r} in open_clip", where="filters.options", fix=fix)
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained not in tags and not Path(pretrained).is_file():
        raise RecipeError(
            f"no weights {pretrained!r} of {model}: neither a file nor a tag",
            where="filters.options",
            fix=f"tags: {', '.join(tags) or 'none'}",
        )


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Let torch have so many threads on CPU for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
