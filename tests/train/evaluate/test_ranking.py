"""Where the right answer stands."""

from __future__ import annotations

import torch

from wit_train.evaluate import ranking
from wit_train.evaluate.ranking import class_ranks, image_ranks, ranks_of, text_ranks


def test_ranks_count_candidates_that_score_as_well():
    """A tie counts against the right answer, so that constant features score nothing."""
    score_NC = torch.tensor([[0.9, 0.1, 0.2], [0.5, 0.5, 0.5], [0.1, 0.9, 0.5]])
    assert ranks_of(score_NC, torch.tensor([0, 1, 2])).tolist() == [0, 2, 1]


def test_any_own_text_will_do_for_a_picture():
    """A picture's rank is that of its best caption; its other captions are not in the way."""
    image_ND = torch.eye(3)
    text_MD = torch.tensor([[0.2, 0.0, 0.9], [0.8, 0.1, 0.0], [0.9, 0.0, 0.0], [0.0, 0.5, 0.3]])
    owner_M = torch.tensor([0, 0, 1, 2])
    assert text_ranks(image_ND, text_MD, owner_M).tolist() == [1, 3, 1]
    assert image_ranks(image_ND, text_MD, owner_M).tolist() == [1, 0, 2, 1]


def test_parts_give_what_the_whole_gives(monkeypatch):
    """Queries are scored in parts, so that N x M scores need not fit memory."""
    generator = torch.Generator().manual_seed(0)
    image_ND = torch.randn(20, 4, generator=generator)
    text_MD = torch.randn(50, 4, generator=generator)
    owner_M = torch.arange(50) % 20
    whole = text_ranks(image_ND, text_MD, owner_M), image_ranks(image_ND, text_MD, owner_M)
    monkeypatch.setattr(ranking, "_ROWS", 7)
    parts = text_ranks(image_ND, text_MD, owner_M), image_ranks(image_ND, text_MD, owner_M)
    assert [p.tolist() for p in parts] == [w.tolist() for w in whole]


def test_what_is_no_number_is_behind_all():
    """A model that gives NaN scores nothing, rather than everything."""
    nan_NC = torch.full((2, 3), torch.nan)
    assert ranks_of(nan_NC, torch.tensor([0, 2])).tolist() == [2, 2]
    owner_M = torch.tensor([0, 1])
    nan_ND = torch.full((2, 4), torch.nan)
    assert text_ranks(nan_ND, nan_ND, owner_M).tolist() == [1, 1]
    assert image_ranks(nan_ND, nan_ND, owner_M).tolist() == [1, 1]


def test_of_classes_with_one_name_the_first_is_better():
    """As argmax has it, where they have the same score; however that was rounded."""
    score_NC = torch.tensor([[0.9, 0.1, 0.9], [0.5, 0.4, 0.5000001]])
    first_C = torch.tensor([0, 1, 0])
    assert class_ranks(score_NC, torch.tensor([0, 0]), first_C).tolist() == [0, 0]
    assert class_ranks(score_NC, torch.tensor([2, 2]), first_C).tolist() == [1, 1]
    assert class_ranks(score_NC, torch.tensor([1, 1]), first_C).tolist() == [2, 2]
