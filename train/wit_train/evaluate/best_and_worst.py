"""Chosen for people to look at: queries of retrieval that did worst, and some that did well.

Legend: Q queries, C candidates, N pictures, M texts.
"""

from __future__ import annotations

import numpy as np
import torch

from wit_train.evaluate.page import EXAMPLES, FOUND
from wit_train.evaluate.ranking import image_ranks, text_ranks
from wit_train.evaluate.retrieval import Sides
from wit_train.evaluate.retrieved import Example, Found


def examples(sides: Sides) -> list[Example]:
    """Return the worst queries, and some that found what is theirs, both ways."""
    return [*_by_picture(sides), *_by_text(sides)]


def _by_picture(sides: Sides) -> list[Example]:
    found = []
    for row, rank in _chosen(text_ranks(sides.image_ND, sides.text_MD, sides.owner_M)):
        score_M = sides.text_MD @ sides.image_ND[row]
        query = int(sides.pictures.index_N[row])
        found.append(_example(query, rank, sides.texts, score_M, sides.owner_M == row))
    return found


def _by_text(sides: Sides) -> list[Example]:
    places = sides.pictures.index_N.tolist()
    found = []
    for row, rank in _chosen(image_ranks(sides.image_ND, sides.text_MD, sides.owner_M)):
        score_N = sides.image_ND @ sides.text_MD[row]
        own_N = torch.zeros_like(score_N, dtype=torch.bool)
        own_N[sides.owner_M[row]] = True
        found.append(_example(sides.texts[row], rank, places, score_N, own_N))
    return found


def _example(
    query: int | str,
    rank: int,
    candidates: list[int] | list[str],
    score_C: torch.Tensor,
    own_C: torch.Tensor,
) -> Example:
    best = score_C.topk(min(FOUND, len(score_C))).indices.tolist()
    own = int(score_C.masked_fill(~own_C, -torch.inf).argmax())
    answers = {i: Found(candidates[i], float(score_C[i]), bool(own_C[i])) for i in [*best, own]}
    seen = any(own_C[i] for i in best)
    return Example(query, [answers[i] for i in best], rank, None if seen else answers[own])


def _chosen(rank_Q: torch.Tensor) -> list[tuple[int, int]]:
    """Return rows with their ranks: the worst, at most half, and evenly some that are first."""
    ranks = rank_Q.cpu().numpy()
    worst = np.argsort(-ranks, kind="stable")[: EXAMPLES // 2]
    worst = worst[ranks[worst] > 0]
    first = np.flatnonzero(ranks == 0)
    spread = np.linspace(0, len(first) - 1, min(len(first), EXAMPLES - len(worst)))
    rows = [*worst.tolist(), *first[spread.round().astype(np.int64)].tolist()]
    return [(row, int(ranks[row])) for row in rows]
