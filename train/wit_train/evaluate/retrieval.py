"""Retrieval: finding the texts of a picture among all texts, and the picture of a text.

Legend: N pictures, M texts, D embedding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from wit_builder import storage
from wit_train.embedding import Embedding
from wit_train.evaluate import statistics
from wit_train.evaluate.features import Collected, collected
from wit_train.evaluate.ranking import image_ranks, text_ranks
from wit_train.evaluate.results import Result, Score
from wit_train.evaluate.sets import TestSet
from wit_train.ranks import Ranks

_WITHIN = (1, 5, 10)


class Sides(NamedTuple):
    """Features of both sides of a test set.

    Attributes:
        pictures: the set.
        image_ND: their features.
        texts: all captions, picture after picture.
        text_MD: their features.
        owner_M: the picture of each, a row of ``image_ND``.
    """

    pictures: Collected
    image_ND: torch.Tensor
    texts: list[str]
    text_MD: torch.Tensor
    owner_M: torch.Tensor


def sides(embedding: Embedding, test: TestSet, ranks: Ranks | None = None) -> Sides:
    """Return the features of a test set's pictures and captions; every rank must ask.

    They are in memory together: 4 D bytes for each picture and each caption.

    Returns:
        The same on every rank.

    Raises:
        TrainingError: no picture decodes.
        StorageError, ShardFormatError: the set cannot be read.
    """
    ranks = ranks or Ranks()
    pictures = collected(embedding, test, ranks)
    texts = [text for captions in pictures.texts for text in captions]
    bounds = [len(texts) * r // ranks.world_size for r in (ranks.rank, ranks.rank + 1)]
    own = texts[slice(*bounds)]
    own_MD = embedding.texts(own).cpu().numpy() if own else None
    text_MD = np.concatenate([part for part in ranks.gathered(own_MD) if part is not None])
    owner_M = np.repeat(np.arange(len(pictures.texts)), [len(t) for t in pictures.texts])
    return Sides(
        pictures,
        torch.from_numpy(pictures.image_ND).to(embedding.device),
        texts,
        torch.from_numpy(text_MD).to(embedding.device),
        torch.from_numpy(owner_M).to(embedding.device),
    )


def retrieval(found: Sides, test: TestSet) -> Result:
    """Return R@1, R@5 and R@10 both ways.

    A picture counts where any of its own captions is found (``text_by_image``), a caption where its
    own picture is (``image_by_text``), even where others have the same text. Ties count against the
    model. Chance is what guessing would give.

    Args:
        found: features of both sides.
        test: the set that they are of.
    """
    pictures, texts = len(found.image_ND), len(found.text_MD)
    side = (found.image_ND, found.text_MD, found.owner_M)
    owner_M = found.owner_M.cpu().numpy()
    own_N = np.bincount(owner_M, minlength=pictures)
    scores = dict[str, Score]()
    for name, rank, candidates, own in (
        ("text_by_image", text_ranks(*side), texts, own_N.astype(np.float64)),
        ("image_by_text", image_ranks(*side), pictures, np.ones(1)),
    ):
        rank_Q = rank.cpu().numpy()
        for k in _WITHIN:
            chance = float(np.mean(_guessed(candidates, own, k)))
            if name == "text_by_image":
                score = statistics.share(int((rank_Q < k).sum()), pictures, chance)
            else:  # captions of one picture are found together, or not
                hits_N = np.bincount(owner_M[rank_Q < k], minlength=pictures)
                score = statistics.clustered(hits_N, own_N, chance)
            scores[f"{name}_r{k}"] = score
    return Result(
        data=storage.redact(test.place),
        scores=scores,
        pictures=pictures,
        texts=texts,
        left_out=found.pictures.left_out,
        undecodable=found.pictures.undecodable,
        notes=list(test.notes),
    )


def _guessed(candidates: int, own: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.float64]:
    """Return how likely k of the candidates, drawn without looking, have one of the own."""
    missed = np.ones(len(own))
    for drawn in range(min(k, candidates)):
        missed *= np.clip((candidates - own - drawn) / (candidates - drawn), 0, 1)
    return 1 - missed
