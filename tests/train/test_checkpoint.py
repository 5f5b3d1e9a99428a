"""Checkpoints: written beside training, whole or not at all, and read from the last whole one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from tests.train.saved_states import at, names_in, number_of, saved, state_of
from wit_builder import storage
from wit_builder.errors import CheckpointError
from wit_train import checkpoint, snapshot
from wit_train.checkpoint import Checkpoints


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder for checkpoints that is not there yet."""
    return str(tmp_path / "checkpoints")


@pytest.fixture
def newest() -> Callable[[str], checkpoint.Found | None]:
    """The last whole checkpoint of a folder, where nothing may be damaged."""
    return lambda folder: checkpoint.newest(folder, pytest.fail)


def test_what_could_not_be_read_back_is_not_published(folder: str):
    """A value of another kind is told when it is saved, not when it is needed."""
    checkpoints = Checkpoints(folder, 3)
    checkpoints.save(at(1), {"optimiser": {"lr": np.float64(0.1)}})
    with pytest.raises(CheckpointError, match=r"could not be read back.*numpy.*step-00000001\.pt"):
        checkpoints.finish()
    assert not list(Path(folder).iterdir())


def test_training_goes_on_while_it_is_written(folder: str, newest):
    """What changes after ``save`` returned is not in the file, nor in the file before."""
    with Checkpoints(folder, 3) as checkpoints:
        state = state_of(1)
        checkpoints.save(at(1), state)
        state["model"]["w"].fill_(2)
        state["optimiser"]["state"][0]["step"].fill_(2)
        state["optimiser"]["param_groups"][0]["lr"] = 0.2
        first = checkpoints.finish()
        buffers = [held.data_ptr() for held in checkpoints._buffers._held]
        checkpoints.save(at(2), state)
        assert [held.data_ptr() for held in checkpoints._buffers._held] == buffers
        state["model"]["w"].fill_(3)
    network: Any = torch.nn.Module()
    network.register_buffer("w", torch.zeros(100, 50))
    assert checkpoint.load(first, {"model": network}).step == 1
    assert network.w.unique().tolist() == [1.0]
    assert number_of(newest(folder).state) == 2


def test_a_save_waits_for_the_one_before(folder: str):
    """There is one set of buffers: when the second is copied, the first is published."""
    with Checkpoints(folder, 3) as checkpoints:
        assert checkpoints.finish() == ""
        for step in (1, 2, 3):
            assert checkpoints.save(at(step), state_of(step)) > 0
            assert set(checkpoint.steps_in(folder)) >= set(range(1, step))
        assert checkpoints.finish() == f"{folder}/step-00000003.json"


def test_a_run_continued_from_it_is_the_same_to_the_bit(folder: str, newest):
    """Weights in channels last and their averages are laid out as before, so fused steps agree."""

    def begun() -> tuple[torch.nn.Conv2d, torch.optim.Optimizer]:
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return network, torch.optim.AdamW(network.parameters(), fused=True)

    def step(network: torch.nn.Module, optimiser: torch.optim.Optimizer, number: int) -> None:
        optimiser.zero_grad()
        torch.manual_seed(number)
        network(torch.rand(2, 3, 8, 8)).square().mean().backward()
        optimiser.step()

    whole, its = begun()
    step(whole, its, 1)
    with Checkpoints(folder, 3) as checkpoints:
        checkpoints.save(at(1), {"model": whole.state_dict(), "optimiser": its.state_dict()})
    step(whole, its, 2)
    other, of_other = begun()
    found = newest(folder)
    other.load_state_dict(found.state["model"])
    of_other.load_state_dict(found.state["optimiser"])
    step(other, of_other, 2)
    assert torch.equal(whole.weight, other.weight)
    averages = [o.state[n.weight]["exp_avg"].stride() for n, o in ((whole, its), (other, of_other))]
    assert averages[0] == averages[1] == whole.weight.stride()


def test_the_last_ones_are_kept(folder: str):
    """Of five saved with ``keep=2``, two; half ones and what a kill left are gone, others stay."""
    for name in ("step-00000001.pt", ".step-00000002.pt.host.1.part", "notes.txt"):
        storage.publish_bytes(f"{folder}/{name}", b"x")
    saved(folder, 10, 20, 30, 40, 50, keep=2)
    assert names_in(folder) == [
        "notes.txt",
        "step-00000040.json",
        "step-00000040.pt",
        "step-00000050.json",
        "step-00000050.pt",
    ]


def test_one_that_was_passed_over_does_not_count(folder: str, newest):
    """A damaged one of a later step displaces none; the run replaces it when it gets there."""
    saved(folder, 10, 20)
    Path(folder, "step-00000020.pt").write_bytes(b"")
    saved(folder, 15, keep=1)
    assert checkpoint.steps_in(folder) == [15, 20]
    saved(folder, 20, keep=1)
    assert checkpoint.steps_in(folder) == [20]
    assert number_of(newest(folder).state) == 20


def flip(folder: Path) -> None:
    place = folder / "step-00000002.pt"
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.write_bytes(data)


def cut(folder: Path) -> None:
    os.truncate(folder / "step-00000002.pt", 1000)


def miss(folder: Path) -> None:
    (folder / "step-00000002.pt").unlink()


def swap(folder: Path) -> None:
    shutil.copy(folder / "step-00000001.pt", folder / "step-00000002.pt")


def rename(folder: Path) -> None:
    shutil.copy(folder / "step-00000001.json", folder / "step-00000002.json")


def garble(folder: Path) -> None:
    (folder / "step-00000002.json").write_bytes(b'{"step": 2, \xff')


def hollow(folder: Path) -> None:
    (folder / "step-00000002.json").write_bytes(msgspec.json.encode(at(2)))


def foreign(folder: Path) -> None:
    (folder / "step-00000002.json").write_bytes(b'{"format": 2, "step": "two"}')


def not_torch(folder: Path) -> None:
    record = storage.publish_bytes(str(folder / "step-00000002.pt"), b"whole, but no state")
    file = snapshot.SavedFile("step-00000002.pt", record.size_bytes, record.xxh3)
    (folder / "step-00000002.json").write_bytes(msgspec.json.encode(at(2, files=[file])))


DAMAGES = [
    pytest.param(flip, r"step-00000002\.pt.*digest is not the one noted", id="a flipped bit"),
    pytest.param(cut, r"step-00000002\.pt.*it has 1,000 bytes, not \d\d,\d", id="cut short"),
    pytest.param(miss, r"step-00000002\.pt.*it is missing", id="no weights"),
    pytest.param(swap, r"step-00000002\.pt.*digest is not", id="weights of another step"),
    pytest.param(rename, r"step-00000002\.json.*it is of step 1", id="manifest of another step"),
    pytest.param(garble, r"step-00000002\.json.*not a manifest", id="manifest garbled"),
    pytest.param(hollow, r"step-00000002\.json.*it names no files", id="manifest without files"),
    pytest.param(foreign, r"step-00000002\.json.*not a manifest.*int.*str", id="manifest of what?"),
    pytest.param(not_torch, r"step-00000002\.pt.*it does not load", id="whole, but no state"),
]


@pytest.mark.parametrize(("damage", "named"), DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(folder: str, damage, named: str):
    """The one before is used; the warning names the file, the damage, and what is used instead."""
    saved(folder, 1, 2)
    damage(Path(folder))
    warnings: list[str] = []
    found = checkpoint.newest(folder, warnings.append)
    assert found
    assert (found.place, found.note.step) == (f"{folder}/step-00000001.json", 1)
    assert number_of(found.state) == 1
    (warning,) = warnings
    assert re.search(named + r".*used instead: .*step-00000001\.json", warning)


@pytest.mark.parametrize(("damage", "named"), DAMAGES)
def test_a_damaged_checkpoint_that_was_named_is_refused(folder: str, damage, named: str):
    """Whoever names a checkpoint does not get another one."""
    saved(folder, 1, 2)
    damage(Path(folder))
    with pytest.raises(CheckpointError, match="a damaged checkpoint") as raised:
        checkpoint.load(f"{folder}/step-00000002.json", {})
    assert re.search(named, f"{raised.value.where}: {raised.value.what}")


def test_if_all_are_damaged_nothing_begins_anew(folder: str):
    """The error names each, with what is wrong with it."""
    saved(folder, 2, 3)
    cut(Path(folder))
    Path(folder, "step-00000003.pt").unlink()
    named = r"no checkpoint is whole: .*3\.pt: it is missing; .*2\.pt: it has .*--out to begin anew"
    with pytest.raises(CheckpointError, match=named):
        checkpoint.newest(folder, pytest.fail)


def test_weights_without_their_manifest_do_not_count(folder: str, newest):
    """The manifest is published last, so half a checkpoint is none, and no reason for a warning."""
    assert newest(folder) is None
    saved(folder, 1, 2)
    Path(folder, "step-00000002.json").unlink()
    assert newest(folder).place == checkpoint.latest(folder) == f"{folder}/step-00000001.json"
    Path(folder, "step-00000001.json").unlink()
    assert newest(folder) is None
    assert checkpoint.latest(folder) is None


@pytest.mark.parametrize(("version", "fix"), [(1, "that wrote it"), (3, "update wit-builder")])
def test_another_format_is_told_apart_from_damage(folder: str, version: int, fix: str):
    """It is whole, so nothing is passed over: this version cannot go on from it."""
    saved(folder, 1, 2)
    old = {"step": 2, "xxh3": "0", "format": version}
    Path(folder, "step-00000002.json").write_bytes(msgspec.json.encode(old))
    for read in (
        lambda: checkpoint.newest(folder, pytest.fail),
        lambda: checkpoint.read_note(f"{folder}/step-00000002.json"),
    ):
        with pytest.raises(CheckpointError, match=f"of format {version}, not 2.*{fix}"):
            read()


def test_a_state_that_does_not_fit_is_refused(folder: str):
    """Other shapes, or a part that was not saved."""
    place = f"{saved(folder, 1)}/step-00000001.json"
    for parts in ({"model": torch.nn.Linear(2, 2)}, {"ema": torch.nn.Linear(2, 2)}):
        with pytest.raises(CheckpointError, match="does not fit the model"):
            checkpoint.load(place, parts)
