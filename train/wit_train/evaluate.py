"""What a model can do: name pictures it was never told of, and find texts by picture.

Legend: N pictures, C classes, D embedding, T templates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from open_clip.model import CLIP

from wit_builder import storage
from wit_builder.errors import TrainingError
from wit_train import checkpoint, decode, model
from wit_train.blocks import Layout
from wit_train.labels import Labelled
from wit_train.resize import Pixels
from wit_train.step import precision
from wit_train.stream import Stream

_BATCH = 256
_READERS = 8
_RANKS = (1, 5, 10)


class Score(msgspec.Struct, frozen=True):
    """A measured share beside what guessing would give."""

    value: float
    chance: float


class Result(msgspec.Struct, frozen=True):
    """What was measured: scores by name, over so many pictures (and classes, for zero-shot)."""

    scores: dict[str, Score]
    pictures: int
    classes: int
    skipped: int
    """Pictures that do not decode."""


@dataclass(frozen=True)
class Judged:
    """A trained model, ready to be asked."""

    network: CLIP
    spec: model.Spec
    device: torch.device
    precision: str

    def images(self, image_BHWC: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Return the normalised features [B, D] of uint8 pictures, float32."""
        pixels = model.normalised(torch.from_numpy(image_BHWC).to(self.device))
        with torch.inference_mode(), precision(self.precision, self.device):
            return self.network.encode_image(pixels, normalize=True).float()

    def texts(self, text_BT: npt.NDArray[np.int32]) -> torch.Tensor:
        """Return the normalised features [B, D] of token ids, float32."""
        tokens = torch.from_numpy(text_BT).to(self.device, torch.long)
        with torch.inference_mode(), precision(self.precision, self.device):
            return self.network.encode_text(tokens, normalize=True).float()


def load(place: str, device: str = "") -> Judged:
    """Return the model of a run's folder, or of a checkpoint's JSON.

    Its weights are the moving average, where the run kept one.

    Args:
        place: of the folder or the JSON.
        device: as torch names it; by default a GPU where there is one.

    Raises:
        TrainingError: there is no checkpoint.
        CheckpointError: it is damaged.
    """
    found = checkpoint.latest(place)
    if found is None:
        raise TrainingError(
            "no checkpoint here", where=storage.redact(place), fix="name the folder of a run"
        )
    note = checkpoint.read_note(found)
    spec = model.checked(note.model)
    network = model.build(spec, seed=0)
    averaged = float(note.bound.get("optimiser.ema_decay", "0")) > 0
    checkpoint.load(found, {"ema" if averaged else "model": network})
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Judged(network.to(chosen).eval(), spec, chosen, note.precision)


def zero_shot(judged: Judged, labelled: Labelled, templates: Sequence[str]) -> Result:
    """Return top-1 and top-5 of naming pictures among the classes.

    A class is the normalised mean of the normalised features of its name in every template
    (CLIP paper, section 3.1.4).

    Args:
        judged: the model.
        labelled: pictures with their classes.
        templates: such as ``a drawing of a {}``.
    """
    class_CD = class_features(judged, labelled.classes, templates)
    image_ND, kept = _picture_features(judged, labelled.places)
    target_N = torch.tensor([labelled.targets[i] for i in kept], device=judged.device)
    classes, count = len(labelled.classes), len(kept)
    ranks = _ranks(image_ND @ class_CD.T, target_N)
    scores = {f"top{k}": Score(_within(ranks, k), min(1.0, k / classes)) for k in (1, 5)}
    return Result(scores, count, classes, len(labelled.places) - count)


def class_features(
    judged: Judged, classes: Sequence[str], templates: Sequence[str]
) -> torch.Tensor:
    """Return the classifier [C, D] made of names and templates."""
    tokenize = model.tokenizer_of(judged.spec)
    sum_CD = torch.zeros(())
    for template in templates:
        texts = [template.replace("{}", name) for name in classes]
        parts = [
            judged.texts(tokenize(texts[i : i + _BATCH])) for i in range(0, len(texts), _BATCH)
        ]
        sum_CD = sum_CD.to(judged.device) + torch.cat(parts)
    return F.normalize(sum_CD, dim=-1)


def _picture_features(judged: Judged, places: Sequence[str]) -> tuple[torch.Tensor, list[int]]:
    """Return the features of the pictures that decode, and which ones those are."""
    features, kept = list[torch.Tensor](), list[int]()
    with ThreadPoolExecutor(_READERS) as pool:
        for first in range(0, len(places), _BATCH):
            part = places[first : first + _BATCH]
            sized = list(pool.map(lambda p: _sized(p, judged.spec.image_size), part))
            usable = [picture for picture in sized if picture is not None]
            if usable:
                features.append(judged.images(np.stack(usable)))
            kept += [first + i for i, picture in enumerate(sized) if picture is not None]
    if not kept:
        raise TrainingError("no picture decodes", where=places[0], fix="give PNG or JPEG files")
    return torch.cat(features), kept


def _sized(place: str, size: int) -> Pixels | None:
    picture = decode.pixels(storage.read_bytes(place))
    return None if picture is None else decode.for_evaluation(picture, size)


def _ranks(scores_NC: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    """Return how many candidates score at least as well as the right one, itself not counted."""
    right_N1 = scores_NC.gather(1, target_N[:, None])
    return (scores_NC >= right_N1).sum(1) - 1


def _within(ranks: torch.Tensor, k: int) -> float:
    return float((ranks < k).float().mean())


def retrieval(judged: Judged, shards: str) -> Result:
    """Return R@1, R@5 and R@10 of finding a pair's text by its picture and the other way.

    Only a pair's own partner counts, even where another pair has the same text.

    Args:
        judged: the model.
        shards: folder of a finished data set; all of it is used, N x N scores in parts.
    """
    spec = judged.spec
    look = model.look_of(spec, None)
    layout = Layout(lanes=1, shuffle=False, epochs=1)
    batches = Stream(shards, batch_size=_BATCH, layout=layout, look=look)
    features = [
        (judged.images(b.images[b.valid]), judged.texts(b.tokens[b.valid])) for b in batches
    ]
    image_ND, text_ND = (torch.cat(part) for part in zip(*features, strict=True))
    count, scores = len(image_ND), dict[str, Score]()
    for name, query_ND, found_ND in (
        ("text_by_image", image_ND, text_ND),
        ("image_by_text", text_ND, image_ND),
    ):
        ranks = torch.cat(list(_partner_ranks(query_ND, found_ND)))
        for k in _RANKS:
            scores[f"{name}_r{k}"] = Score(_within(ranks, k), min(1.0, k / count))
    return Result(scores, count, 0, 0)


def _partner_ranks(query_ND: torch.Tensor, found_ND: torch.Tensor) -> Iterator[torch.Tensor]:
    own_N = torch.arange(len(query_ND), device=query_ND.device)
    for part in torch.split(own_N, _BATCH):
        yield _ranks(query_ND[part] @ found_ND.T, part)
