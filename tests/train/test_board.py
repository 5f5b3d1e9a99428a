"""What is seen of a run on TensorBoard and on wandb."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.train.test_metrics import row
from wit_builder import storage
from wit_builder.errors import MissingPartError, StorageError
from wit_train import board
from wit_train.board import Boards
from wit_train.config import LogSection

NO_RECIPE: dict[str, object] = {}
TENSORBOARD = LogSection()


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run."""
    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    tags = found.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in tags}


def show(out: str, start: int, rows: range, loss: float) -> None:
    boards = Boards(out, TENSORBOARD, NO_RECIPE, start)
    for step in rows:
        boards.add(row(step, loss=loss))
    boards.close()


def test_tensorboard_shows_every_figure_that_was_measured(tmp_path: Path):
    """A held-out loss only where there is one."""
    boards = Boards(str(tmp_path), TENSORBOARD, NO_RECIPE)
    boards.add(row(10, loss=2.5, grad_norm=0.5))
    boards.add(row(20, loss=1.5, held_out=1.75, scores={"zero_shot_top1": 0.5}))
    found = curves(tmp_path)  # while the run goes on
    assert found["loss"] == [(10, 2.5), (20, 1.5)]
    assert (found["held_out"], found["grad_norm"]) == ([(20, 1.75)], [(10, 0.5)])
    assert found["scores/zero_shot_top1"] == [(20, 0.5)]
    assert {"pairs_per_s", "data_wait", "logit_scale", "learning_rate"} < set(found)
    assert not {"mfu", "sample_ids", "step"} & set(found)


def test_tensorboard_is_written_without_tensorflow(tmp_path: Path):
    """Nor with torch's writer; in a process of its own, for other tests may have imported them."""
    code = (
        "import sys; from wit_train.board import Boards; from wit_train.config import LogSection\n"
        f"Boards({str(tmp_path)!r}, LogSection(), {{}}).close()\n"
        "assert 'tensorboard' in sys.modules\n"
        "assert not {'tensorflow', 'torch.utils.tensorboard'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_steps_that_are_taken_again_are_shown_once(tmp_path: Path):
    """A crash after the checkpoint leaves rows that the next start takes back, and replaces."""
    show(str(tmp_path), 0, range(1, 8), loss=1)
    show(str(tmp_path), 4, range(5, 10), loss=2)
    show(str(tmp_path), 9, range(10, 11), loss=3)
    steps = [(s, 1) for s in range(1, 5)] + [(s, 2) for s in range(5, 10)] + [(10, 3)]
    assert curves(tmp_path)["loss"] == steps


def test_a_remote_run_is_published_with_its_checkpoints(tmp_path: Path):
    """One file a start; between checkpoints nothing is sent."""
    out = "memory://board/run"
    boards = Boards(out, TENSORBOARD, NO_RECIPE)
    boards.add(row(1))
    (place,) = storage.list_files(storage.join(out, "tensorboard"))
    assert storage.size_of(place) == 0
    boards.publish()
    here = tmp_path / "tensorboard" / storage.name_of(place)
    here.parent.mkdir()
    here.write_bytes(storage.read_bytes(place))
    assert curves(tmp_path)["loss"] == [(1, 2.0)]
    boards.add(row(2))
    boards.close()
    here.write_bytes(storage.read_bytes(place))
    assert curves(tmp_path)["loss"] == [(1, 2.0), (2, 2.0)]


def test_a_board_that_cannot_be_written_is_told_of_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The run goes on: the journal has all."""
    boards = Boards(str(tmp_path), TENSORBOARD, NO_RECIPE)
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.unlink()
    file.mkdir()
    for step in range(3):
        boards.add(row(step))
    boards.publish()
    boards.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: tensorboard ends here, metrics.jsonl goes on: ")
    assert "Is a directory" in line


def test_a_bucket_that_fails_at_one_checkpoint_is_asked_at_the_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Nothing is lost, since each time all of it is sent."""
    boards = Boards("memory://board/again", TENSORBOARD, NO_RECIPE)
    boards.add(row(1))
    with monkeypatch.context() as failing:

        def fail(*_: object) -> None:
            raise StorageError("cannot write: slow down", where="memory://board")

        failing.setattr(storage, "publish_bytes", fail)
        boards.publish()
        boards.publish()
    boards.publish()
    (place,) = storage.list_files("memory://board/again/tensorboard")
    assert storage.size_of(place) > 0
    assert capsys.readouterr().err == (
        "warning: tensorboard is behind, metrics.jsonl goes on: "
        "cannot write: slow down [memory://board]\n"
    )


def test_no_board_is_opened_that_was_not_asked_for(tmp_path: Path):
    """Nothing appears in the run's folder."""
    boards = Boards(str(tmp_path), LogSection(tensorboard=False), NO_RECIPE)
    boards.add(row(1))
    boards.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_board_whose_package_is_missing_is_refused(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """At the start, with what to install."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    with pytest.raises(MissingPartError, match=rf"by {package}.*pip install '.*{package[:2]}"):
        Boards(str(tmp_path), LogSection(wandb="birds"), NO_RECIPE)


SECRET = "hunter2"


def test_wandb_works_offline_and_is_told_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """The real package; a run that goes on has the id it had, and the terminal stays ours."""
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(sys, "argv", ["wit", f"--token={SECRET}"])
    recipe = {
        "name": "birds",
        "data": {
            "shards": f"https://h.example/s?signature={SECRET}",
            "mixture": {f"s3://key:{SECRET}@bucket/x": 4},
        },
        "model": {"config": {"layers": [1, f"https://u:{SECRET}@h"]}},
    }
    run = tmp_path / "run"
    log = LogSection(tensorboard=False, wandb="us/birds")
    boards = Boards(str(run), log, recipe)
    boards.add(row(3, loss=0.123456789))
    print(SECRET)
    boards.close()
    wandb.teardown()  # waits for its own process, which writes the file
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    assert file.stem == f"run-{(run / 'wandb-id').read_text().strip()}"
    assert "Run summary" not in capfd.readouterr().err
    told = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"0.123456789" in told
    assert b"https://h.example/s?..." in told
    assert SECRET.encode() not in told


def test_a_run_continues_its_curve_and_another_begins_its_own(tmp_path: Path):
    """The id is the folder's, wherever it is moved; an emptied folder is another run."""
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    curve = board._curve(first)
    assert board._curve(first) == curve
    Path(first).rename(second)
    assert board._curve(second) == curve
    assert board._curve(first) != curve
