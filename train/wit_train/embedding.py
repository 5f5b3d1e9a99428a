"""Features of pictures and texts by any model: one trained here, or one that open_clip knows.

Legend: B pairs, D embedding, F features before the projection.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple, TypeVar, cast

import msgspec
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
import xxhash
from open_clip.transformer import VisionTransformer

from wit_builder.errors import TrainingError
from wit_train.model import MEAN, STD
from wit_train.precision import precision
from wit_train.resize import Pixels

_ON_CPU, _ON_GPU = 64, 256
"""Texts that go through the tower at once."""

T = TypeVar("T")
R = TypeVar("R")

Prepared = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


class Preparation(NamedTuple):
    """How a model wants its pictures.

    Attributes:
        prepare: one picture of any size, uint8 [H, W, 3], to what a batch is stacked of: uint8
            pixels of one size, or floats that are normalised already.
        mean, std: by which uint8 pixels are normalised, per channel, of pixels in [0, 1].
    """

    prepare: Callable[[Pixels], Prepared]
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD


class Embedding:
    """Normalised features of pictures and texts, float32.

    Attributes:
        name: of the model, as people would ask for it.
        device: what computes.
        step: of training, for a model of ours.
        precision: of activations: fp32, bf16 or fp16.
    """

    def __init__(
        self,
        network: Any,
        preparation: Preparation,
        tokenize: Callable[[Sequence[str]], Any],
        *,
        name: str,
        config: Any,
        device: torch.device,
        precision: str = "fp32",
    ) -> None:
        """Take a model of open_clip's.

        Args:
            network: with ``encode_image`` and ``encode_text``.
            preparation: how it wants its pictures.
            tokenize: from texts to ids [B, T].
            name: for people.
            config: of the model, as JSON can have it: what its weights are used by.
            device: to compute on.
            precision: of activations: fp32, bf16 or fp16.
        """
        self.network = network.to(device).eval()
        self.name, self.device, self.step = name, device, None
        self.threads, self.told = 0, _untold
        self._prepare, mean, std = preparation
        self._mean, self._std = (torch.tensor(v, device=device) * 255 for v in (mean, std))
        self._tokenize, self.precision, self._config = tokenize, precision, config

    step: int | None
    threads: int
    """Of torch on CPU, while it computes; 0: as many as it has."""
    told: Callable[[], object]
    """Called before each batch of pictures or of texts, by any thread: for a watch."""

    @functools.cached_property
    def digest(self) -> str:
        """XXH3-128 of all weights, by their names: the same for the same weights anywhere."""
        return digest_of(self.network.state_dict())

    @functools.cached_property
    def identity(self) -> str:
        """A digest of all that decides its features: weights, config, precision."""
        used = msgspec.json.encode([self.digest, self._config, self.precision], order="sorted")
        return xxhash.xxh3_128_hexdigest(used)

    def prepared(self, picture: Pixels) -> Prepared:
        """Return a picture as the model wants it; any number of threads may ask at once.

        Args:
            picture: uint8 [H, W, 3] of any size, red green blue.
        """
        return self._prepare(picture)

    def images(self, prepared: Sequence[Prepared]) -> torch.Tensor:
        """Return the features [B, D] of pictures that are prepared."""
        return F.normalize(self._encoded(prepared), dim=-1)

    def unprojected(self, prepared: Sequence[Prepared]) -> torch.Tensor:
        """Return what a ViT makes of pictures before its projection [B, F], as it is.

        The CLIP paper's linear probes are trained on these (appendix A.3). Other towers have no
        projection of their own: of them it is the embedding, not normalised.
        """
        return self._encoded(prepared, self._bare)

    @functools.cached_property
    def _bare(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """What makes features of pictures, up to the projection."""
        visual = self.network.visual
        if not (isinstance(visual, VisionTransformer) and visual.proj is not None):
            return cast("Callable[[torch.Tensor], torch.Tensor]", self.network.encode_image)
        bare = copy.copy(visual)  # of the same layers and weights, but for one
        bare._parameters = {**visual._parameters, "proj": None}  # noqa: SLF001 - torch copies not these
        return bare

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the features [B, D] of texts."""
        size = _ON_CPU if self.device.type == "cpu" else _ON_GPU
        parts = [texts[i : i + size] for i in range(0, len(texts), size)]
        return F.normalize(torch.cat(list(self.at_once(self._texts, parts))), dim=-1)

    def at_once(self, encode: Callable[[T], R], batches: Iterable[T]) -> Generator[R]:
        """Yield what a function makes of batches, in order; on CPU, of as many as there are cores.

        Each is one core's then: cores that share a batch wait for each other at every layer, and
        round otherwise than another number of them would.
        """
        cores = torch.get_num_threads() if self.device.type == "cpu" and not self.threads else 1
        if cores == 1:
            yield from map(encode, batches)
            return
        waiting, given = deque[Future[R]](), iter(batches)
        with _threads(1), ThreadPoolExecutor(cores) as pool:
            try:
                while True:
                    for batch in islice(given, cores + 1 - len(waiting)):
                        waiting.append(pool.submit(encode, batch))
                    if not waiting:
                        return
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def similarity(self, images: Sequence[Pixels], texts: Sequence[str]) -> list[float]:
        """Return the cosine of each picture's features and its text's."""
        image_BD = self.images([self.prepared(picture) for picture in images])
        cosine_B: list[float] = (image_BD * self.texts(texts)).sum(-1).cpu().tolist()
        return cosine_B

    def _encoded(
        self,
        prepared: Sequence[Prepared],
        encode: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        image = torch.from_numpy(np.stack(prepared)).to(self.device)
        with self._computing():
            if image.dtype == torch.uint8:
                image = ((image.float() - self._mean) / self._std).permute(0, 3, 1, 2)
            return self._checked((encode or self.network.encode_image)(image).float())

    def _texts(self, texts: Sequence[str]) -> torch.Tensor:
        tokens = torch.as_tensor(self._tokenize(texts)).to(self.device, torch.long)
        with self._computing():
            return self._checked(self.network.encode_text(tokens).float())

    def _checked(self, features: torch.Tensor) -> torch.Tensor:
        if not torch.isfinite(features).all():
            raise TrainingError(
                f"features that are no numbers ({self.precision})",
                where=self.name,
                fix="its weights are damaged, or too large for the precision",
            )
        return features

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        self.told()
        with (
            _threads(self.threads),
            torch.inference_mode(),
            precision(self.precision, self.device),
        ):
            yield


def _untold() -> None:
    """Tell nobody."""


def digest_of(state: dict[str, torch.Tensor]) -> str:
    """Return the XXH3-128 of weights: names, types, shapes and bytes, in the order of the names."""
    found = xxhash.xxh3_128()
    for name in sorted(state):
        tensor = state[name].detach().to("cpu", copy=False).contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """Let torch have so many threads on CPU for a while; 0: as many as it has."""
    before = torch.get_num_threads()
    if number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if number:
            torch.set_num_threads(before)
