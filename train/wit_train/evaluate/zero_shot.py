"""Zero-shot classification: naming pictures among classes that are only told of in words.

Legend: B batch, N pictures, C classes, D embedding, T templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from wit_builder import storage
from wit_train.embedding import Embedding
from wit_train.evaluate import statistics
from wit_train.evaluate.features import Faults, Seen, refuse_nothing, seen, together
from wit_train.evaluate.prompts import class_features, ensemble
from wit_train.evaluate.ranking import class_ranks
from wit_train.evaluate.results import PREDICTIONS, Prompt, Result, Score
from wit_train.evaluate.sets import TestSet
from wit_train.ranks import Ranks

_BEST = 5
_TABLES = 128
"""Of batches, before they are made one."""


class Measured(NamedTuple):
    """What zero-shot classification found.

    Attributes:
        result: the scores.
        predictions: of every picture, ``results.PREDICTIONS``, in the order of the test set.
    """

    result: Result
    predictions: pa.Table


class _Part(NamedTuple):
    """What one rank found: its predictions, and how often each template alone was right."""

    predictions: pa.Table
    right_T: list[int]
    left_out: dict[str, int]
    undecodable: list[tuple[int, str]]


def zero_shot(
    embedding: Embedding,
    test: TestSet,
    templates: Sequence[str],
    ranks: Ranks | None = None,
    *,
    compare: bool = False,
    cached: bool = True,
) -> Measured:
    """Return how well the pictures of a test set are named; every rank must ask.

    Some 100 bytes a picture are kept, so that the pictures may be more than fit memory.

    Args:
        embedding: the model.
        test: pictures with classes.
        templates: such as ``a drawing of a {}``.
        ranks: who shares the work; by default nobody does.
        compare: whether each template is measured alone as well.
        cached: whether classifiers are kept for the next time; see ``class_features``.

    Returns:
        The same on every rank.

    Raises:
        TrainingError: no picture decodes.
        StorageError, ShardFormatError: the set cannot be read.
    """
    ranks = ranks or Ranks()
    own = _part(embedding, test, templates, ranks, compare=compare, cached=cached)
    parts = ranks.gathered(own)
    table = pa.concat_tables([part.predictions for part in parts])
    refuse_nothing(len(table), test)
    predictions = table.take(np.argsort(table["index"].to_numpy()))
    left_out, undecodable = together((part.left_out, part.undecodable) for part in parts)
    target_N, classes = predictions["target"].to_numpy(), len(test.classes)
    present = set(np.unique(target_N).tolist())
    right_T = [sum(of_ranks) for of_ranks in zip(*(part.right_T for part in parts), strict=True)]
    result = Result(
        data=storage.redact(test.place),
        scores=_scores(predictions, classes),
        pictures=len(predictions),
        classes=classes,
        left_out=left_out,
        undecodable=undecodable,
        notes=list(test.notes),
        templates=list(templates),
        prompts=[
            Prompt(template, statistics.share(right, len(predictions), 1 / classes))
            for template, right in zip(templates, right_T, strict=False)
        ],
        empty_classes=[name for i, name in enumerate(test.classes) if i not in present],
    )
    return Measured(result, predictions)


def _part(
    embedding: Embedding,
    test: TestSet,
    templates: Sequence[str],
    ranks: Ranks,
    *,
    compare: bool,
    cached: bool,
) -> _Part:
    """Return what this rank finds in its share of the pictures."""
    made = partial(class_features, embedding, test.classes, cached=cached)
    alone_TCD = [made([template]) for template in templates if compare]
    class_CD = ensemble(alone_TCD) if compare else made(templates)
    faults, tables, right_T = Faults(), [PREDICTIONS.empty_table()], [0] * len(alone_TCD)
    first = {name: i for i, name in reversed(list(enumerate(test.classes)))}
    first_C = torch.tensor([first[name] for name in test.classes], device=embedding.device)
    for batch in seen(embedding, test.items(ranks.rank, ranks.world_size), faults):
        target_B = torch.from_numpy(batch.target_B).to(embedding.device)
        tables.append(_predictions(batch, batch.image_BD @ class_CD.T, target_B, first_C))
        if len(tables) > _TABLES:  # each small one takes more than its rows
            tables = [pa.concat_tables(tables).combine_chunks()]
        for i, alone_CD in enumerate(alone_TCD):
            alone_B = class_ranks(batch.image_BD @ alone_CD.T, target_B, first_C)
            right_T[i] += int((alone_B == 0).sum())
    return _Part(pa.concat_tables(tables), right_T, dict(test.left_out), faults.found)


def _predictions(
    batch: Seen, score_BC: torch.Tensor, target_B: torch.Tensor, first_C: torch.Tensor
) -> pa.Table:
    best = score_BC.topk(min(_BEST, score_BC.shape[1]))
    ranks_B = class_ranks(score_BC, target_B, first_C)
    best_B5, score_B5 = best.indices.cpu().numpy(), best.values.cpu().numpy()
    best_B5[:, 0] = first_C.cpu().numpy()[best_B5[:, 0]]
    columns = {
        "index": batch.index_B,
        "picture": batch.names,
        "target": batch.target_B,
        "predicted": best_B5[:, 0],
        "rank": ranks_B.cpu().numpy(),
        "score": score_B5[:, 0],
        "margin": score_B5[:, 0] - score_B5[:, 1],
        "top5": best_B5.tolist(),
    }
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in PREDICTIONS]
    return pa.Table.from_arrays(arrays, schema=PREDICTIONS)


def _scores(predictions: pa.Table, classes: int) -> dict[str, Score]:
    """Return shares of pictures; of two classes the area under the ROC curve too."""
    rank_N, target_N = predictions["rank"].to_numpy(), predictions["target"].to_numpy()
    scores = statistics.classification(rank_N, target_N, classes)
    if classes == 2 and len(np.unique(target_N)) == 2:
        margin_N = predictions["margin"].to_numpy().astype(np.float64)
        for_second_N = np.where(predictions["predicted"].to_numpy() == 1, margin_N, -margin_N)
        scores["roc_auc"] = statistics.roc_auc(for_second_N, target_N == 1)
    return scores
