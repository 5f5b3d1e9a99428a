"""Scores on test sets while training goes on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.conftest import MakeShards, jpeg
from tests.train.test_metrics import row
from tests.train.tiny import recipe_of
from wit_builder import recipe as recipes
from wit_builder.errors import RecipeError, StorageError, TrainingError
from wit_train import loop, metrics, model, training
from wit_train.config import TrainRecipe
from wit_train.evaluate import features, run
from wit_train.evaluate.in_training import Evaluation
from wit_train.metrics import Shown
from wit_train.ranks import Ranks


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Pictures of six classes, and one that does not decode."""
    for number in range(24):
        place = tmp_path / f"images/class {number % 6}/{number:02}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(jpeg(number))
    (tmp_path / "images/class 0/torn.jpg").write_bytes(jpeg(0)[:200])
    return tmp_path / "images"


def trained(recipe_file: Path, out: Path, *overrides: str) -> dict[str, Any]:
    """Train ten steps; return the state of the last checkpoint."""
    recipe = recipes.load(str(recipe_file), TrainRecipe, ["log.tensorboard=false", *overrides])
    assert loop.train(recipe, str(out)).step == 10
    return dict(torch.load(out / "checkpoints/step-00000010.pt", weights_only=True))


def rows_of(out: Path) -> list[metrics.Row]:
    return metrics.read(str(out / "metrics.jsonl"))


def same(ours: Any, theirs: Any) -> bool:
    """Whether two states are equal to the bit."""
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == theirs)


@pytest.mark.parametrize(
    "options",
    [
        ("optimiser.ema_decay=0.5", "model.patch_dropout=0.5", "step.checkpointing=true"),
        ("precision='bf16'", "step.micro_batch=4", "RESNET"),
    ],
)
def test_evaluation_changes_nothing_and_finds_what_wit_eval_finds(
    recipe_file: Path,
    tmp_path: Path,
    images: Path,
    make_shards: MakeShards,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
):
    """Losses, weights, averages and moments are the same to the bit; so are the scores."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    resnet = "model.config.vision_cfg={layers = [1, 1, 1, 1], width = 8, image_size = 64}"
    options = tuple(option.replace("RESNET", resnet) for option in options)
    pairs = make_shards(30)
    asked = [f"evaluation.images={images}", f"evaluation.pairs={pairs}", "log.every_steps=3"]
    asked += ['evaluation.template=["a {}", "{}"]', "evaluation.every_steps=4"]
    # at the same steps, and changing as little
    asked += [f"held_out.shards={pairs}", "held_out.every_steps=4", "held_out.batch_size=8"]
    with_it = trained(recipe_file, tmp_path / "with", *options, *asked)
    assert not (tmp_path / "cache").exists()
    without = trained(recipe_file, tmp_path / "without", *options)
    assert same(with_it, without)
    rows = rows_of(tmp_path / "with")
    assert [row.step for row in rows] == [3, 4, 6, 8, 9, 10]
    assert [row.step for row in rows if row.scores] == [4, 8, 10]
    assert [row.step for row in rows if row.held_out] == [4, 8, 10]
    losses = {row.step: (row.loss, row.grad_norm) for row in rows_of(tmp_path / "without")}
    assert all(losses[row.step] == (row.loss, row.grad_norm) for row in rows)
    later = run.Asked(
        model=str(tmp_path / "with"), images=str(images), template=["a {}", "{}"], pairs=pairs
    )
    found = run.evaluate(later, Ranks(), lambda _: None)
    assert found.zero_shot
    assert found.retrieval
    parts = (("zero_shot", found.zero_shot), ("retrieval", found.retrieval))
    expected = {f"{t}_{n}": s.value for t, part in parts for n, s in part.scores.items()}
    assert rows[-1].scores == expected
    assert {"zero_shot_top1", "zero_shot_top5", "zero_shot_mean_per_class"} < expected.keys()
    assert {f"retrieval_image_by_text_r{k}" for k in (1, 5, 10)} < expected.keys()


def test_what_is_not_measured_is_said_once(
    recipe_file: Path, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
):
    """A picture that does not decode, at the first of several evaluations; prompts are a file's."""
    (tmp_path / "prompts.txt").write_text("a {}\n")
    asked = [f"evaluation.images={images}", f"evaluation.templates={tmp_path}/prompts.txt"]
    trained(recipe_file, tmp_path / "run", *asked, "evaluation.every_steps=5")
    assert capsys.readouterr().err.count(f"{images}: not measured: 1 does not decode\n") == 1


@pytest.mark.parametrize(
    ("override", "error", "says"),
    [
        ("evaluation.images=/nowhere", (TrainingError, StorageError), "nowhere"),
        ("evaluation.pairs=IMAGES", TrainingError, "no captions"),
        ('evaluation.template=["a photo"]', TrainingError, "no {} for the name"),
        ("evaluation.names=NOWHERE", StorageError, "NOWHERE"),
    ],
)
def test_a_wrong_test_set_is_refused_before_the_first_step(
    recipe_file: Path,
    tmp_path: Path,
    images: Path,
    override: str,
    error: type[Exception] | tuple[type[Exception], ...],
    says: str,
):
    """Not at the first evaluation, hours later."""
    override = override.replace("IMAGES", str(images)).replace("NOWHERE", f"{tmp_path}/NOWHERE")
    recipe = recipes.load(str(recipe_file), TrainRecipe, [f"evaluation.images={images}", override])
    with pytest.raises(error, match=says):
        loop.train(recipe, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_prompts_of_no_test_set_are_refused():
    """Somebody forgot the set, or misspelt its key."""
    recipe = recipe_of({"evaluation.templates": "imagenet"})
    with pytest.raises(RecipeError, match="of which test set"):
        Evaluation(recipe, model.spec_of(recipe.model))


def test_the_watch_hears_of_every_batch(images: Path, monkeypatch: pytest.MonkeyPatch):
    """And of the wait for other ranks, which is nobody's own fault."""
    monkeypatch.setattr(features, "_ON_CPU", 8)
    recipe = recipe_of({"evaluation.images": str(images)})
    spec = model.spec_of(recipe.model)
    heard: list[str] = []
    made = training.begin(recipe, spec, phase=heard.append)
    made.ranks.gathering = lambda: heard.append("gathering")
    assert Evaluation(recipe, spec).scores(made).keys() >= {"zero_shot_top1"}
    assert heard == ["evaluation"] * (1 + 4) + ["gathering"]
    assert made.clip.training


def test_a_terminal_shows_the_first_scores():
    """Where a row has them; the journal has all."""
    shown = io.StringIO()
    scores = {"zero_shot_top1": 0.345, "zero_shot_top5": 0.5, "retrieval_text_by_image_r1": 0.25}
    Shown(10, stream=shown).show(row(5, scores=scores), 60)
    assert "loss 2.0000  top-1 34.5%  R@1 25.0%  1:00 left" in shown.getvalue()
