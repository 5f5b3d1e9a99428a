"""Gradients are those of the whole batch: over ranks, by parts, in chunks, for both losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss

from tests.train.conftest import MakeShards, jpeg
from tests.train.many_ranks import over_ranks
from tests.train.tiny import PAIRS, TINY, a_batch, recipe_of
from wit_train import model, ranks, training
from wit_train.evaluate import sets
from wit_train.evaluate.in_training import Evaluation
from wit_train.evaluate.zero_shot import zero_shot
from wit_train.seeds import Purpose, hash_of
from wit_train.step import train_step
from wit_train.towers import Features, Towers
from wit_train.trained import of_network

SIGLIP = {"loss.kind": "siglip", "loss.initial_logit_scale": 10.0, "loss.initial_logit_bias": -10.0}
RATE = 1e-3


class After(NamedTuple):
    """A rank's training after a step: numbers as lists and arrays, so that they can be sent."""

    loss: float
    grad_norm: float
    gradients: dict[str, np.ndarray[Any, Any]]
    weights: dict[str, np.ndarray[Any, Any]]


def stepped(cases: list[dict[str, Any]]) -> list[After]:
    """Take a step of each case on this rank's share of the batch."""
    found = []
    with ranks.joined(4, 60) as own:
        assert own
        share = PAIRS // own.world_size
        rows = slice(own.rank * share, (own.rank + 1) * share)
        for changes in cases:
            recipe = recipe_of(changes)
            spec = model.spec_of(recipe.model, recipe.loss)
            made = training.begin(recipe, spec, own)
            taken = train_step(made, a_batch(rows), RATE)
            parameters = dict(made.clip.named_parameters())
            found.append(
                After(
                    float(own.mean(taken.loss)),
                    float(taken.grad_norm),
                    {name: p.grad.numpy() for name, p in parameters.items() if p.grad is not None},
                    {name: p.detach().numpy() for name, p in parameters.items()},
                )
            )
    return found


def expected(changes: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """Return loss and gradients by open_clip's loss on the whole batch at once."""
    recipe = recipe_of(changes)
    clip = model.build(model.spec_of(recipe.model, recipe.loss), recipe.seed)
    given = a_batch(slice(None))
    image, text, scale, bias = Towers(clip)(given.image_BHWC, given.text_BT)
    siglip = recipe.loss.kind == "siglip"
    loss = SigLipLoss()(image, text, scale, bias) if siglip else ClipLoss()(image, text, scale)
    loss.backward()
    gradients = {name: p.grad for name, p in clip.named_parameters() if p.grad is not None}
    return float(loss.detach()), gradients


CASES: list[dict[str, Any]] = [
    {},
    {"step.micro_batch": 3},
    {"step.micro_batch": 2, "loss.chunk_rows": 3, "step.checkpointing": True},
    SIGLIP,
    SIGLIP | {"step.micro_batch": 1, "loss.chunk_rows": 1},
]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_gradients_are_those_of_one_process(world_size: int):
    """The logit scale's and bias's among them; the weights after are the same on every rank."""
    reached = over_ranks(world_size, stepped, CASES)
    for number, changes in enumerate(CASES):
        loss, gradients = expected(changes)
        for of_rank in reached:
            after = of_rank[number]
            assert after.loss == pytest.approx(loss, rel=1e-5)
            assert after.gradients.keys() == gradients.keys()
            for name, gradient in gradients.items():
                found = torch.from_numpy(after.gradients[name])
                torch.testing.assert_close(found, gradient, rtol=1e-3, atol=2e-6, msg=name)
            norm = torch.stack([g.norm() for g in gradients.values()]).norm()
            assert after.grad_norm == pytest.approx(float(norm), rel=1e-4)
            for name, weights in reached[0][number].weights.items():
                assert (after.weights[name] == weights).all()


def test_both_passes_over_a_part_draw_the_same():
    """Patches that are left out at random are the same for the loss and for its gradient."""
    recipe = recipe_of({"step.micro_batch": 8, "model.patch_dropout": 0.5})
    spec = model.spec_of(recipe.model, recipe.loss)
    made = training.begin(recipe, spec)
    other = training.begin(recipe, spec)
    given = a_batch(slice(None), step=5)
    parts = []
    for part in range(2):
        torch.manual_seed(hash_of(Purpose.STEP, 0, 5, 0, part) >> 1)
        rows = slice(8 * part, 8 * part + 8)
        parts.append(other.towers(given.image_BHWC[rows], given.text_BT[rows]))
    image, text = (torch.cat([part[side] for part in parts]) for side in (0, 1))
    ClipLoss()(image, text, parts[0].logit_scale).backward()
    train_step(made, given, RATE)
    for (name, ours), theirs in zip(
        made.clip.named_parameters(), other.clip.parameters(), strict=True
    ):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=2e-6, msg=name)


def test_statistics_of_batches_move_once_a_step():
    """By the last part alone, however many parts there are, and in no pass without gradients."""
    config = {**TINY, "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}}
    whole, parts = (
        training.begin(recipe, model.spec_of(recipe.model, recipe.loss))
        for recipe in (recipe_of({"model.config": config, "step.micro_batch": n}) for n in (0, 4))
    )
    twin = training.begin(whole.recipe, model.spec_of(whole.recipe.model, whole.recipe.loss))
    train_step(parts, a_batch(slice(None)), RATE)
    train_step(twin, a_batch(slice(12, 16)), RATE)
    for ours, theirs in zip(parts.batch_norms(), twin.batch_norms(), strict=True):
        torch.testing.assert_close(ours.running_mean, theirs.running_mean)
        torch.testing.assert_close(ours.running_var, theirs.running_var)
        assert ours.momentum == theirs.momentum == 0.1


def scored(images: str, pairs: str) -> tuple[dict[str, float], list[int]]:
    """Return this rank's scores of first weights, and the pictures that were looked at."""
    config = {**TINY, "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64}}
    recipe = recipe_of(
        {"model.config": config, "evaluation.images": images, "evaluation.pairs": pairs}
    )
    spec = model.spec_of(recipe.model)
    with ranks.joined(4, 60) as own:
        assert own
        made = training.begin(recipe, spec, own)
        moved = made.batch_norms()[0].running_mean
        assert moved is not None
        moved += own.rank
        embedding = of_network(made.clip, spec, "tiny", own.device, "fp32")
        test = sets.opened(images)
        seen = zero_shot(embedding, test, ["{}"], own, cached=False).predictions["index"]
        scores = Evaluation(recipe, spec).scores(made)
        assert (moved == own.rank).all()
    return scores, seen.to_pylist()


def test_scores_on_test_sets_are_those_of_one_process(tmp_path: Path, make_shards: MakeShards):
    """Every picture is looked at once; a ResNet's statistics are the first rank's, for a while."""
    for number in range(21):
        place = tmp_path / f"class {number % 3}/{number:02}.jpg"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(jpeg(number))
    arguments = str(tmp_path), make_shards(30)
    alone = scored(*arguments)
    assert alone[1] == list(range(21))
    assert len(alone[0]) == 2 + 6
    assert over_ranks(2, scored, *arguments) == [alone, alone]


def test_ranks_tell_each_other():
    """A stop is agreed on at the same call by all; trees and rows arrive whole and in order."""
    told = over_ranks(2, _talk)
    assert told[0] == told[1]
    stops, tree, rows = told[0]
    assert stops == [0, 0, 2, 2]
    assert tree == {"a": [1, 2.5, "x", None], "t": [[1, 2], [0.5], [], 7], "moments": [*range(16)]}
    assert rows == [0, 1, 10, 11]


def _talk() -> tuple[list[int], Any, list[Any]]:
    with ranks.joined(4, 60) as own:
        assert own
        stops = [own.agreed(flag=2 * own.rank if call else 0) for call in range(4)]
        tree = {
            "a": [1, 2.5, "x", None],
            "t": [
                torch.tensor([1, 2]),
                torch.tensor([0.5]).bfloat16(),
                torch.empty(0),
                torch.tensor(7),
            ],
            "moments": torch.arange(16.0).reshape(1, 2, 2, 4).to(memory_format=torch.channels_last),
        }
        given = own.broadcast(tree if own.rank == 0 else None)
        given["t"] = [part.tolist() for part in given["t"]]
        assert given["moments"].is_contiguous(memory_format=torch.channels_last)
        given["moments"] = given["moments"].flatten().tolist()
        rows = own.all_rows(torch.tensor([10 * own.rank, 10 * own.rank + 1])).tolist()
    return stops, given, rows


def test_features_in_half_precision_are_compared_in_single():
    """The loss is computed in float32 whatever the towers compute in."""
    recipe = recipe_of({"precision": "bf16"})
    made = training.begin(recipe, model.spec_of(recipe.model, recipe.loss))
    given = a_batch(slice(None))
    with torch.autocast("cpu", torch.bfloat16):
        features = Features(*made.towers(given.image_BHWC, given.text_BT))
    assert features.image_BD.dtype == features.text_BD.dtype == torch.float32
    assert train_step(made, given, RATE).loss.dtype == torch.float32
