"""Training from a recipe, stopped and continued."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from wit_builder import recipe as recipes
from wit_builder.errors import CheckpointError, RecipeError, TrainingError
from wit_builder.shards import removal
from wit_train import checkpoint, commands, loop, metrics, model
from wit_train.config import TrainRecipe
from wit_train.decode import Augment
from wit_train.metrics import Row
from wit_train.step import train_step

RECIPES = Path(__file__).parents[2] / "train/recipes"
WIT = [sys.executable, "-c", "from wit_builder.cli import main; main()"]


def load(recipe_file: Path, *overrides: str) -> TrainRecipe:
    return recipes.load(str(recipe_file), TrainRecipe, list(overrides))


def seen(out: Path) -> list[tuple[int, float, float, str]]:
    """What must be equal between two runs, step by step."""
    rows = metrics.read(str(out / "metrics.jsonl"))
    return [(r.step, r.loss, r.logit_scale, r.sample_ids) for r in rows]


def test_the_loss_falls_and_the_run_leaves_its_files(recipe_file: Path, tmp_path: Path):
    """A run ends with recipe, journal and its last checkpoints, and has learned something."""
    out = tmp_path / "run"
    recipe = load(
        recipe_file, "steps=120", "optimiser.learning_rate=1e-3", "log.keep_checkpoints=2"
    )
    outcome = loop.train(recipe, str(out))
    assert (outcome.step, outcome.interrupted) == (120, False)
    losses = [loss for _, loss, _, _ in seen(out)]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert checkpoint.steps_in(str(out / "checkpoints")) == [116, 120]
    assert load(out / "recipe.toml") == recipe


def test_a_run_stopped_and_continued_equals_one_that_was_not(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """After a crash between checkpoints: the same samples, and losses equal to the bit."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    loop.train(load(recipe_file), str(whole))

    def crash(training, batch, rate):
        if batch.step == 6:
            raise KeyboardInterrupt
        return train_step(training, batch, rate)

    monkeypatch.setattr(loop, "train_step", crash)
    with pytest.raises(KeyboardInterrupt):
        loop.train(load(recipe_file), str(broken))
    monkeypatch.undo()
    assert checkpoint.steps_in(str(broken / "checkpoints")) == [4]
    outcome = loop.train(load(recipe_file, "log.every_steps=1"), str(broken))
    assert outcome.step == 10
    assert seen(broken) == seen(whole)


def test_the_memory_of_the_stream_is_told(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Before the first step, so that nobody is surprised by it."""
    commands.train(str(recipe_file), out=str(tmp_path / "run"), set_=["steps=1"])
    first, *_ = capsys.readouterr().err.splitlines()
    assert first == "the stream takes at most 0.00 GB of shared memory"


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_stopped_can_go_on_exactly(
    recipe_file: Path, tmp_path: Path, stop: signal.Signals
):
    """SIGINT saves and exits 130; SIGKILL loses the steps since the last checkpoint, no more."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    changes = ["steps=60", "log.checkpoint_every_steps=7"]
    options = [part for change in changes for part in ("--set", change)]
    command = [*WIT, "train", str(recipe_file), *options, "--out", str(broken)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert any("step     20/60" in line for line in process.stderr)
        process.send_signal(stop)
        process.communicate(timeout=60)
    assert process.returncode == (130 if stop == signal.SIGINT else -9)
    assert checkpoint.steps_in(str(broken / "checkpoints"))[-1] < 60
    for out in (broken, whole):
        loop.train(load(recipe_file, *changes), str(out))
    assert seen(broken) == seen(whole)


def test_a_continuation_that_differs_is_refused(recipe_file: Path, tmp_path: Path):
    """Another seed in the same folder names the key; other intervals are fine."""
    out = str(tmp_path / "run")
    loop.train(load(recipe_file), out)
    with pytest.raises(CheckpointError, match=r"another value of: seed"):
        loop.train(load(recipe_file, "seed=1"), out)
    assert loop.train(load(recipe_file, "log.every_steps=3"), out).step == 10


def test_a_continuation_on_other_data_is_refused(recipe_file: Path, tmp_path: Path, make_shards):
    """The data set's digest is part of the checkpoint; its place is not."""
    out = str(tmp_path / "run")
    loop.train(load(recipe_file), out)
    with pytest.raises(CheckpointError, match="the data set"):
        loop.train(load(recipe_file, f"data.shards={make_shards(30)}"), out)


def test_a_checkpoint_outlives_a_removal(recipe_file: Path, tmp_path: Path, make_shards):
    """Training goes on after it, with the same slots; going back to what was removed is refused."""
    whole, broken, shards = tmp_path / "whole", tmp_path / "broken", make_shards(70)
    before = shutil.copytree(shards, tmp_path / "before")
    loop.train(load(recipe_file, f"data.shards={shards}"), str(whole))
    half = ["steps=10", f"data.shards={shards}"]
    loop.train(load(recipe_file, *half), str(broken))
    for step in (8, 10):
        (broken / f"checkpoints/step-{step:08d}.json").unlink()
    removal.remove(shards, pa.array([hashlib.md5(b"5").digest()], pa.binary(16)))
    assert loop.train(load(recipe_file, *half), str(broken)).step == 10
    assert [row[3] for row in seen(broken)] == [row[3] for row in seen(whole)]
    with pytest.raises(CheckpointError, match=r"what was removed since is back.*wit remove"):
        loop.train(load(recipe_file, f"data.shards={before}"), str(broken))


def test_a_damaged_checkpoint_is_named(recipe_file: Path, tmp_path: Path):
    """A flipped byte or a missing file is refused with the file's name and the way out."""
    out = tmp_path / "run"
    loop.train(load(recipe_file), str(out))
    weights = out / "checkpoints/step-00000010.pt"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"step-00000010\.pt.*go on from the one before"):
        loop.train(load(recipe_file), str(out))
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"step-00000010\.pt"):
        loop.train(load(recipe_file), str(out))


def test_weights_without_their_note_do_not_count(recipe_file: Path, tmp_path: Path):
    """The note is published last, so half a checkpoint is none."""
    out = tmp_path / "run"
    loop.train(load(recipe_file), str(out))
    (out / "checkpoints/step-00000010.json").unlink()
    assert checkpoint.latest(str(out)) == str(out / "checkpoints/step-00000008.json")


def test_a_loss_that_is_not_finite_stops_the_run(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """NaN never reaches a journal or a checkpoint."""
    monkeypatch.setattr(loop, "train_step", lambda *_: float("nan"))
    with pytest.raises(TrainingError, match=r"loss is nan \[step 0\]"):
        loop.train(load(recipe_file), str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("steps=0", "one of epochs and steps"),
        ("epochs=1", "one of epochs and steps"),
        ("model.name=ViT-B-33", "did you mean 'ViT-B-32'"),
        ("data.batch_sise=4", "did you mean 'batch_size'"),
        ("data.lanes=3", "lanes do not divide"),
        ("data.batch_size=80", "70 samples"),
        ("data.augment.gray=2", "gray"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(
    recipe_file: Path, tmp_path: Path, override: str, names: str
):
    """Each mistake is told with the key, and what to do."""
    more = ["model.config={}"] if "model.name" in override else []
    with pytest.raises((RecipeError, TrainingError), match=names):
        loop.train(load(recipe_file, override, *more), str(tmp_path / "run"))


def test_the_journal_drops_rows_that_were_not_checkpointed(tmp_path: Path):
    """Steps taken again appear once; a line cut short by a kill is dropped."""
    place = tmp_path / "metrics.jsonl"
    rows = [Row(s, 1.0, 14.0, 0.1, 1.0, 0.0, 0, "x") for s in (1, 2, 3)]
    place.write_bytes(b"\n".join(msgspec.json.encode(r) for r in rows) + b'\n{"step": 4, "lo')
    journal = metrics.Journal(str(place), 2)
    journal.add(rows[2])
    assert [r.step for r in metrics.read(str(place))] == [1, 2, 3]


@pytest.mark.s3
def test_checkpoints_go_to_a_bucket(recipe_file: Path, s3_folder: str):
    """A run in s3:// trains, saves, and continues."""
    out = f"{s3_folder}/run"
    loop.train(load(recipe_file), out)
    assert checkpoint.latest(out) == f"{out}/checkpoints/step-00000010.json"
    assert loop.train(load(recipe_file), out).step == 10
    assert len(metrics.read(f"{out}/metrics.jsonl")) == 10


REPOSITORY = RECIPES.parents[1]


@pytest.mark.parametrize(
    "name",
    ["wit_builder/demo/train.toml", "train/recipes/tiny.toml", "train/recipes/vit_b_32.toml"],
)
def test_the_recipes_load_and_open_with_their_command(name: str):
    """Every recipe names a model that can be built, and begins with the command that runs it."""
    place = REPOSITORY / name
    recipe = recipes.load(str(place), TrainRecipe)
    assert model.spec_of(recipe.model).context_length
    assert place.read_text().startswith(f"# wit train {name} ")


def test_vit_b_32_has_the_papers_numbers():
    """CLIP, tables 18 to 20."""
    recipe = recipes.load(str(RECIPES / "vit_b_32.toml"), TrainRecipe)
    settings = recipe.optimiser
    assert (recipe.data.batch_size, recipe.epochs) == (32_768, 32)
    assert (settings.learning_rate, settings.beta1, settings.beta2) == (5e-4, 0.9, 0.98)
    assert (settings.eps, settings.weight_decay, settings.warmup_steps) == (1e-6, 0.2, 2000)
    assert recipe.data.augment == Augment()
