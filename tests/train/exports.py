"""Exported models for tests: of a run that was trained, and of checkpoints that were not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from wit_builder import recipe as recipes
from wit_builder import storage
from wit_train import loop, model
from wit_train.checkpoint import Checkpoints, Note
from wit_train.config import TrainRecipe
from wit_train.evaluate.results import Overlap, Prompt, Result, Results, Score
from wit_train.export import Wishes, export


class Run(NamedTuple):
    """A run that kept a moving average, its export, and the digest of the exported weights."""

    place: str
    folder: str
    weights: str
    shards: str


def trained(recipe: Path, shards: str, folder: Path) -> Run:
    """Return a run of four steps on the shards, exported."""
    place, out = str(folder / "run"), str(folder / "folder")
    changes = ["steps=4", "name=tiny owl", "optimiser.ema_decay=0.5", "log.tensorboard=false"]
    loop.train(recipes.load(str(recipe), TrainRecipe, changes), place)
    return Run(place, out, export(place, out, Wishes(data=(shards,))), shards)


def saved(config: dict[str, Any], run: Path, data: str = "base") -> str:
    """Save a checkpoint of a model that was never trained, and return the run's folder."""
    network = model.build(model.checked(config), seed=3)
    note = Note(step=5, data=data, bound={}, model=config, precision="fp32")
    with Checkpoints(str(run / "checkpoints"), keep=1) as checkpoints:
        checkpoints.save(note, {"model": network.state_dict()})
    return str(run)


def contents(folder: str) -> dict[str, bytes]:
    return {name: storage.read_bytes(f"{folder}/{name}") for name in sorted(storage.sizes(folder))}


def results_of(weights: str) -> Results:
    share = Score(0.25, 0.1, 0.2, 0.3)
    zero_shot = Result(
        data="/home/somebody/imagenet|v2",
        scores={"top1": share, "top5": Score(0.5, 0.5), "mean_per_class": share},
        pictures=1000,
        classes=10,
        left_out={"not decodable": 3},
        templates=["a photo of a {}"],
        prompts=[Prompt("a photo of a {}", share)],
    )
    retrieval = Result(
        data="s3://bucket/captions?signature=secret",
        scores={"text_by_image_r1": share, "image_by_text_r5": share},
        pictures=100,
        texts=500,
    )
    overlap = Overlap(
        shards=["/home/somebody/shards"],
        hashed=70,
        pictures=1000,
        candidates=12,
        overlapping=9,
        threshold=0.95,
        distance=6,
        all=share,
        overlap=share,
        clean=None,
        inflation=0.0012,
        p_value=0.04,
    )
    return Results(
        model="m", weights=weights, zero_shot=zero_shot, retrieval=retrieval, overlap=overlap
    )
