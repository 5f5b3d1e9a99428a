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
import torch

from wit_builder import recipe as recipes
from wit_builder.errors import CheckpointError, RecipeError, StorageError, TrainingError
from wit_builder.shards import removal
from wit_train import checkpoint, commands, loop, metrics, trained
from wit_train.config import ModelSection, TrainRecipe
from wit_train.step import train_step

# waits before its 25th step until its standard input ends: however slow who stops it is
HELD = """
import sys
from wit_builder.cli import main
from wit_train import loop
train_step = loop.train_step
def held(training, given, rate, **options):
    if given.batch.step == 24:
        sys.stdin.read()
    return train_step(training, given, rate, **options)
loop.train_step = held
main()
"""

RECIPES = Path(__file__).parents[2] / "train/recipes"


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

    def crash(training, given, rate, **options):
        if given.batch.step == 6:
            raise KeyboardInterrupt
        return train_step(training, given, rate, **options)

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
def test_a_process_that_is_stopped_can_go_on_exactly(recipe_file: Path, tmp_path: Path):
    """SIGINT saves and exits 130; what SIGKILL does stands in test_resume.py."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    changes = ["steps=60", "log.checkpoint_every_steps=7"]
    options = [part for change in changes for part in ("--set", change)]
    command = [sys.executable, "-c", HELD, "train", str(recipe_file), *options]
    command += ["--out", str(broken)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stderr=pipe, text=True) as process:
        assert process.stderr
        assert any("step     20/60" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)  # ends its standard input, too
    assert process.returncode == 130
    assert checkpoint.steps_in(str(broken / "checkpoints"))[-1] < 60
    for out in (broken, whole):
        loop.train(load(recipe_file, *changes), str(out))
    assert seen(broken) == seen(whole)


def test_a_continuation_that_differs_is_refused(recipe_file: Path, tmp_path: Path):
    """Another seed in the same folder names the key; other intervals are fine."""
    out = str(tmp_path / "run")
    loop.train(load(recipe_file), out)
    with pytest.raises(CheckpointError, match=r"seed 0 -> 1.*--allow-change seed"):
        loop.train(load(recipe_file, "seed=1"), out)
    assert loop.train(load(recipe_file, "log.every_steps=3"), out).step == 10


def test_a_continuation_on_other_data_is_refused(recipe_file: Path, tmp_path: Path, make_shards):
    """The data set's digest is part of the checkpoint; its place is not."""
    out = str(tmp_path / "run")
    loop.train(load(recipe_file), out)
    with pytest.raises(CheckpointError, match=r"another run.*: data "):
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


def test_a_damaged_checkpoint_is_passed_over(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The run goes on from the one before, says so, and ends as if nothing had happened."""
    out = tmp_path / "run"
    loop.train(load(recipe_file), str(out))
    before = seen(out)
    weights = out / "checkpoints/step-00000010.pt"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    capsys.readouterr()
    loop.train(load(recipe_file), str(out))
    said = capsys.readouterr().err
    assert "step-00000010.pt" in said
    assert "used instead" in said
    assert "step-00000008.json" in said
    assert seen(out) == before


def test_what_may_change_in_mid_run(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A key of the maths changes where it is allowed to, and the log says so."""
    out = str(tmp_path / "run")
    loop.train(load(recipe_file, "steps=4"), out)
    with pytest.raises(CheckpointError, match="--allow-change"):
        loop.train(load(recipe_file, "optimiser.clip_norm=1"), out)
    changed = load(recipe_file, "optimiser.clip_norm=1")
    outcome = loop.train(changed, out, allow=["optimiser.clip_norm", "steps"])
    assert outcome.step == 10
    assert "optimiser.clip_norm: 0.0 -> 1.0" in capsys.readouterr().err


def test_what_is_allowed_to_change_does(
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    """The optimiser's settings are the recipe's, not the checkpoint's; parts may be added."""
    out = str(tmp_path / "run")
    loop.train(load(recipe_file, "steps=4"), out)
    keys = ["weight_decay=0.5", "beta1=0.8", "eps=1e-7", "ema_decay=0.9"]
    recipe = load(recipe_file, "steps=5", *(f"optimiser.{key}" for key in keys))
    allow = ["steps", *(f"optimiser.{key.split('=')[0]}" for key in keys)]
    loop.train(recipe, out, allow=allow)
    assert "the checkpoint has no ema" in capsys.readouterr().err
    state = torch.load(tmp_path / "run/checkpoints/step-00000005.pt", weights_only=True)
    decaying, others = state["optimiser"]["param_groups"]
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.5, 0.0)
    assert (decaying["betas"], decaying["eps"]) == ((0.8, 0.98), 1e-7)
    expected = trained.load(out).network.state_dict()
    assert all(torch.equal(state["ema"][name], expected[name]) for name in expected)


def test_another_name_for_the_same_model_is_no_change(recipe_file: Path, tmp_path: Path):
    """Its config is what counts: from the recipe or from a file."""
    recipe = load(recipe_file, "steps=2")
    loop.train(recipe, str(tmp_path / "run"))
    place = tmp_path / "model.json"
    place.write_bytes(msgspec.json.encode(recipe.model.config))
    same = msgspec.structs.replace(recipe, model=ModelSection(file=str(place)))
    assert loop.train(same, str(tmp_path / "run")).step == 2


def test_secrets_are_refused_wherever_they_stand(recipe_file: Path, tmp_path: Path):
    """Before the recipe is written anywhere, also in keys that the run would not read."""
    out = tmp_path / "run"
    keys = ("model.init_from", "model.file", "pace.cache", "held_out.shards", "evaluation.images")
    for key in (*keys, "evaluation.names", "evaluation.templates", "evaluation.pairs"):
        with pytest.raises(StorageError, match="credentials") as caught:
            loop.train(load(recipe_file, f"{key}=s3://user:secret@bucket/x"), str(out))
        assert "secret" not in str(caught.value)
    assert not out.exists()


def test_the_loss_on_held_out_pairs(recipe_file: Path, tmp_path: Path, make_shards):
    """It is measured at its interval, and changes nothing of what is trained."""
    plain, held = tmp_path / "plain", tmp_path / "held"
    loop.train(load(recipe_file), str(plain))
    options = [
        f"held_out.shards={make_shards(30)}",
        "held_out.every_steps=4",
        "held_out.batch_size=8",
    ]
    loop.train(load(recipe_file, *options), str(held))
    assert seen(held) == seen(plain)
    rows = metrics.read(str(held / "metrics.jsonl"))
    measured = {row.step: row.held_out for row in rows if row.held_out is not None}
    assert sorted(measured) == [4, 8, 10]
    assert all(1 < loss < 4 for loss in measured.values())
    with pytest.raises(RecipeError, match="30 pairs do not make a batch"):
        loop.train(load(recipe_file, *options[:2]), str(tmp_path / "none"))


def test_the_average_of_the_weights_is_what_is_measured(recipe_file: Path, tmp_path: Path):
    """A run that keeps one goes on with it to the bit, and its model is the average."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = ["optimiser.ema_decay=0.9", "optimiser.learning_rate=1e-2"]
    loop.train(load(recipe_file, *options), str(whole))
    loop.train(load(recipe_file, *options), str(broken))
    for kind in ("json", "pt"):
        (broken / f"checkpoints/step-00000010.{kind}").unlink()
    loop.train(load(recipe_file, *options), str(broken))
    ours, theirs = (trained.load(str(out)).network.state_dict() for out in (whole, broken))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    last = torch.load(whole / "checkpoints/step-00000010.pt", weights_only=True)["model"]
    assert not torch.equal(ours["visual.proj"], last["visual.proj"])


def test_ranks_must_wait_longer_than_reads(recipe_file: Path, tmp_path: Path):
    """A rank that still tries to read its data is not to be given up by the others."""
    with pytest.raises(RecipeError, match=r"before a read of the data is given up.*deadline_s"):
        loop.train(load(recipe_file, "distributed.timeout_s=300"), str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("error", "option", "helps"),
    [
        (torch.OutOfMemoryError("out of memory"), "seed=0", "micro_batch=4 (now 8 of 8 rows"),
        (RuntimeError("DefaultCPUAllocator"), "step.micro_batch=4", "micro_batch=2 (now 4 of"),
        (torch.OutOfMemoryError("out of memory"), "step.checkpointing=true", "precision=bf16"),
    ],
)
def test_what_helps_against_a_lack_of_memory(
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: RuntimeError,
    option: str,
    helps: str,
):
    """The error names the settings that would help (raised by hand: there is no GPU here)."""

    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(loop, "train_step", full)
    with pytest.raises(TrainingError, match="out of memory") as caught:
        loop.train(load(recipe_file, option), str(tmp_path / "run"))
    assert helps in str(caught.value)
    assert ("checkpointing" in str(caught.value)) == ("checkpointing" not in option)


def test_weights_without_their_note_do_not_count(recipe_file: Path, tmp_path: Path):
    """The note is published last, so half a checkpoint is none."""
    out = tmp_path / "run"
    loop.train(load(recipe_file), str(out))
    (out / "checkpoints/step-00000010.json").unlink()
    assert checkpoint.latest(str(out)) == str(out / "checkpoints/step-00000008.json")


def test_a_loss_that_is_not_finite_stops_the_run(recipe_file: Path, tmp_path: Path):
    """NaN never reaches a journal or a checkpoint, and the error names its step."""
    options = ["optimiser.learning_rate=1e30", "optimiser.warmup_steps=0", "log.every_steps=3"]
    with pytest.raises(TrainingError, match=r"loss is nan \[step 2\].*learning_rate"):
        loop.train(load(recipe_file, *options), str(tmp_path / "run"))
    assert checkpoint.steps_in(str(tmp_path / "run/checkpoints")) == []
    assert metrics.read(str(tmp_path / "run/metrics.jsonl")) == []


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("steps=0", "epochs.* and steps"),
        ("epochs=1", "epochs.* and steps"),
        ("model.name=ViT-B-33", "did you mean 'ViT-B-32'"),
        ("data.batch_sise=4", "did you mean 'batch_size'"),
        ("data.lanes=3", "lanes do not divide"),
        ("data.batch_size=80", "70 samples"),
        ("epochs=inf", "epochs.* and steps"),
        ("model.config.vision_cfg.patch_size=64", "cannot be run"),
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


@pytest.mark.s3
def test_checkpoints_go_to_a_bucket(recipe_file: Path, s3_folder: str):
    """A run in s3:// trains, saves, and continues."""
    out = f"{s3_folder}/run"
    loop.train(load(recipe_file), out)
    assert checkpoint.latest(out) == f"{out}/checkpoints/step-00000010.json"
    assert loop.train(load(recipe_file), out).step == 10
    assert len(metrics.read(f"{out}/metrics.jsonl")) == 10
