"""Runs that are killed at random steps and go on, in the same world and in others."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.train.conftest import MakeShards
from tests.train.many_ranks import KILLED, over_ranks
from wit_builder import recipe as recipes
from wit_builder.errors import PeerError, RecipeError
from wit_train import loop, metrics
from wit_train.config import TrainRecipe
from wit_train.step import train_step

STEPS = 24
EVERY = 5


def trained(recipe_file: str, out: str, kill_at: int | None, only_rank: int | None) -> int:
    """Train on this rank; be killed, without any warning, before a step is taken."""

    def killed(training, given, rate, **options):
        if given.batch.step == kill_at and only_rank in (None, training.ranks.rank):
            os.kill(os.getpid(), signal.SIGKILL)
        return train_step(training, given, rate, **options)

    vars(loop)["train_step"] = killed  # this process does nothing else
    options = [f"steps={STEPS}", f"log.checkpoint_every_steps={EVERY}", "log.tensorboard=false"]
    recipe = recipes.load(recipe_file, TrainRecipe, options)
    return loop.train(recipe, out).step


def run(
    world_size: int,
    recipe_file: Path,
    out: Path,
    kill_at: int | None = None,
    only_rank: int | None = None,
) -> list[object]:
    return over_ranks(world_size, trained, str(recipe_file), str(out), kill_at, only_rank)


def seen(out: Path) -> list[tuple[int, str]]:
    return [(row.step, row.sample_ids) for row in metrics.read(str(out / "metrics.jsonl"))]


def losses(out: Path) -> list[tuple[int, float, float | None, float]]:
    rows = metrics.read(str(out / "metrics.jsonl"))
    return [(row.step, row.loss, row.grad_norm, row.logit_scale) for row in rows]


@pytest.fixture(scope="module")
def whole(recipe_file_of_a_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks that nothing happened to."""
    out = tmp_path_factory.mktemp("whole")
    assert run(2, recipe_file_of_a_module, out) == [STEPS, STEPS]
    return out


def test_a_run_goes_on_in_other_worlds(whole: Path, recipe_file_of_a_module: Path, tmp_path: Path):
    """Killed in worlds of 4, 1 and 2, then ended by 4: every step once, with the same samples."""
    steps = sorted(random.Random(0).sample(range(EVERY, STEPS), 3))
    for world_size, step in zip((4, 1, 2), steps, strict=True):
        found = run(world_size, recipe_file_of_a_module, tmp_path, kill_at=step)
        assert found == [KILLED] * world_size
    assert run(4, recipe_file_of_a_module, tmp_path) == [STEPS] * 4
    assert seen(tmp_path) == seen(whole)
    assert [step for step, _ in seen(tmp_path)] == list(range(1, STEPS + 1))
    for ours, theirs in zip(losses(tmp_path), losses(whole), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("seed", [1, 2])
def test_losses_are_the_same_to_the_bit_in_the_same_world(
    whole: Path, recipe_file_of_a_module: Path, tmp_path: Path, seed: int
):
    """One rank or both are killed at any step; what comes out is what would have come out."""
    draw = random.Random(seed)
    step = draw.randrange(EVERY, STEPS)
    first, second = run(2, recipe_file_of_a_module, tmp_path, step, only_rank=seed - 1)
    dead, alive = (first, second) if seed == 1 else (second, first)
    assert dead == KILLED
    assert isinstance(alive, PeerError)
    assert "another rank is gone" in str(alive)
    assert run(2, recipe_file_of_a_module, tmp_path) == [STEPS, STEPS]
    assert seen(tmp_path) == seen(whole)
    assert losses(tmp_path) == losses(whole)


def other(recipe_file: str, out: str) -> None:
    """Train with another rate on the second rank."""
    options = ["optimiser.learning_rate=1"] if os.environ["RANK"] == "1" else []
    loop.train(recipes.load(recipe_file, TrainRecipe, options), out)


def test_ranks_with_other_recipes_are_refused(recipe_file_of_a_module: Path, tmp_path: Path):
    """Each is typed on its machine; a rank that differs would train something else in silence."""
    first, second = over_ranks(2, other, str(recipe_file_of_a_module), str(tmp_path))
    assert isinstance(first, PeerError)
    assert isinstance(second, RecipeError)
    assert "optimiser.learning_rate [rank 1]" in str(second)


def measured(recipe_file: str, out: str, held_out: str, config: dict[str, Any]) -> list[float]:
    """Return losses on held-out pairs."""
    options = [f"held_out.shards={held_out}", "held_out.every_steps=2", "held_out.batch_size=8"]
    recipe = recipes.load(recipe_file, TrainRecipe, ["steps=4", *options])
    if config:
        model = msgspec.structs.replace(recipe.model, config=config)
        recipe = msgspec.structs.replace(recipe, model=model)
    loop.train(recipe, out)
    rows = metrics.read(f"{out}/metrics.jsonl") if os.environ["RANK"] == "0" else []
    return [row.held_out for row in rows if row.held_out is not None]


def test_the_loss_on_held_out_pairs_is_the_same_in_any_world(
    recipe_file_of_a_module: Path, tmp_path: Path, make_shards: MakeShards
):
    """And of a ResNet it is that of the model which is saved: the first rank's statistics."""
    held_out = make_shards(30)
    of_worlds = [
        over_ranks(w, measured, str(recipe_file_of_a_module), str(tmp_path / f"{w}"), held_out, {})
        for w in (1, 2)
    ]
    assert len(of_worlds[0][0]) == 2
    assert of_worlds[0][0] == pytest.approx(of_worlds[1][0], rel=1e-4)


def test_processes_that_do_not_divide_the_lanes_wait(
    whole: Path, recipe_file_of_a_module: Path, tmp_path: Path
):
    """Of three, two own two lanes each, and train as two would; the third waits to the end."""
    assert run(3, recipe_file_of_a_module, tmp_path) == [STEPS, STEPS, 0]
    assert losses(tmp_path) == losses(whole)
