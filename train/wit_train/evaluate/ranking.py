"""Where the right answer stands among all.

Legend: N queries, C candidates, D embedding, M texts.
"""

from __future__ import annotations

import torch

_ROWS = 1024
"""Queries that are scored against all candidates at once."""


def ranks_of(score_NC: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    """Return how many other candidates score at least as well as the right one [N], int64.

    0 means that the right one is first; a tie counts against the model, and so does what is no
    number.
    """
    right_N1 = score_NC.gather(1, target_N[:, None])
    return (~(score_NC < right_N1)).sum(1) - 1


def class_ranks(
    score_NC: torch.Tensor, target_N: torch.Tensor, first_C: torch.Tensor
) -> torch.Tensor:
    """Return the rank of each right class, as ``ranks_of``, where classes may share a name.

    Classes of one name have one score, give or take how it was rounded: the first of them counts
    as better than the others, as with clip_benchmark's argmax.

    Args:
        score_NC: of pictures and classes.
        target_N: the right classes.
        first_C: the first class that has the name of each.
    """
    right_N1 = score_NC.gather(1, target_N[:, None])
    same_NC = first_C == first_C[target_N][:, None]
    before_NC = torch.arange(len(first_C), device=first_C.device) < target_N[:, None]
    return torch.where(same_NC, before_NC, ~(score_NC < right_N1)).sum(1)


def text_ranks(
    image_ND: torch.Tensor, text_MD: torch.Tensor, owner_M: torch.Tensor
) -> torch.Tensor:
    """Return the rank [N] of each picture's best own text among the texts of others.

    Args:
        image_ND: features of pictures.
        text_MD: features of texts.
        owner_M: the picture that each text belongs to; every picture has one.
    """
    found = []
    for first in range(0, len(image_ND), _ROWS):
        score_NM = image_ND[first : first + _ROWS] @ text_MD.T
        own_NM = (
            owner_M == torch.arange(first, first + len(score_NM), device=owner_M.device)[:, None]
        )
        best_N1 = score_NM.masked_fill(~own_NM, -torch.inf).amax(1, keepdim=True)
        found.append((~(score_NM < best_N1) & ~own_NM).sum(1))
    return torch.cat(found)


def image_ranks(
    image_ND: torch.Tensor, text_MD: torch.Tensor, owner_M: torch.Tensor
) -> torch.Tensor:
    """Return the rank [M] of each text's own picture among all pictures."""
    parts = [slice(first, first + _ROWS) for first in range(0, len(text_MD), _ROWS)]
    return torch.cat([ranks_of(text_MD[part] @ image_ND.T, owner_M[part]) for part in parts])
