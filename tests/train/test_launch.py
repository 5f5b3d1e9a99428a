"""Several processes on one machine: started, stopped, killed, and what the user is told."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import NamedTuple

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented there

from tests.train.wit_trains import Trains, expected_ids, rows_of, wit_train
from wit_builder import recipe as recipes
from wit_builder.errors import RecipeError, TrainingError
from wit_train import launch, loop, meeting
from wit_train.config import TrainRecipe
from wit_train.metrics import Row

ENDLESS = ("--set", "steps=1000000", "--set", "log.tensorboard=false")


class Life(NamedTuple):
    """A run that was killed and stopped: what it said, how it ended, its folder, its command."""

    said: list[str]
    status: int
    out: Path
    recipe: Path
    temporary: Path


@pytest.fixture(scope="module")
def life(recipe_file_of_a_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Life:
    """Start three processes, kill one that trains, and stop them all some steps later."""
    out, recipe = tmp_path_factory.mktemp("run"), recipe_file_of_a_module
    temporary = tmp_path_factory.mktemp("temporary")
    command = wit_train(recipe, str(out), *ENDLESS, "--processes", "3")
    with Trains(command, env={"TMPDIR": str(temporary)}) as run:
        run.until(6)
        os.kill(run.processes()[0], signal.SIGKILL)
        run.until_said("was killed by SIGKILL")
        run.until_said("begins: 3 processes")
        run.until(6)
        run.send(signal.SIGINT)
        return Life(run.said, run.end(), out, recipe, temporary)


@pytest.mark.slow
def test_a_signal_saves_and_exits_as_interrupted(life):
    """SIGINT has all processes save after a step, also one that waits; the exit status is 130."""
    assert life.status == 130
    rows = rows_of((life.out / "metrics.jsonl").read_bytes())
    assert any(f"stopped after step {rows[-1]['step']:,} of" in line for line in life.said)


@pytest.mark.slow
def test_no_temporary_file_stays(life):
    """Neither the launcher nor torch's agent leaves a folder behind."""
    left = [path.name for path in life.temporary.iterdir()]
    # timm imports wandb if it is there, whose folders stay when a process is killed
    assert not [name for name in left if "wandb" not in name]


@pytest.mark.slow
def test_processes_that_do_not_divide_the_lanes_wait(life):
    """Of three processes with four lanes two train and one waits, which is said."""
    said = "2 processes train, the most that divide 4 lanes evenly; waiting: rank 2"
    assert [line.startswith(said) for line in life.said].count(True) == 2


@pytest.mark.slow
def test_starting_again_goes_on_with_the_same_samples(life, shards):
    """Killed, stopped, gone on with by one process: every step once, with the same samples."""
    before = rows_of((life.out / "metrics.jsonl").read_bytes())
    settings = recipes.load(str(life.recipe), TrainRecipe, [*ENDLESS[1::2]])
    stops = len(before) + 3

    def stop(row: Row, _: float) -> None:
        if row.step == stops:
            signal.raise_signal(signal.SIGTERM)

    outcome = loop.train(settings, str(life.out), stop)
    assert outcome.interrupted
    rows = rows_of((life.out / "metrics.jsonl").read_bytes())
    assert [row["step"] for row in rows] == list(range(1, stops + 1))
    assert [row["sample_ids"] for row in rows] == expected_ids(shards, stops)


def test_an_error_ends_the_run_and_is_raised_once(recipe_file, tmp_path, capfd):
    """What every process refuses, and would again, is raised by the launcher; no more is said."""
    arguments = [str(recipe_file), "--out", str(tmp_path / "run"), "--set", "data.lanez=4"]
    with pytest.raises(RecipeError, match="lanez"):
        launch.start(arguments, processes=2, nodes="1", rendezvous="")
    said = capfd.readouterr().err.splitlines()
    assert said == ["begins: 2 processes on 1 machine"]


@pytest.mark.parametrize("nodes", ["", "0", "3:2", "2:", "many", "1:2:3"])
def test_a_wrong_number_of_machines_is_refused(nodes):
    """Machines are a number, or the fewest and the most."""
    with pytest.raises(TrainingError, match="is no number of machines"):
        launch.is_wanted(1, nodes)


def test_machines_need_a_place_to_meet():
    """With several machines and no rendezvous nothing is started."""
    with pytest.raises(TrainingError, match="where shall the machines meet"):
        launch.start(["r.toml", "--out", "o"], processes=1, nodes="2", rendezvous="")


@pytest.mark.parametrize("place", ["node", "node:", ":1", "node:x", "node:0", "node:65536"])
def test_a_malformed_meeting_place_is_refused(place):
    """A meeting place is HOST:PORT."""
    with pytest.raises(TrainingError, match="is not HOST:PORT"):
        meeting.find(place, 2, 1)


def test_an_unknown_host_is_named():
    """A name that nobody knows is an error at once."""
    with pytest.raises(TrainingError, match=r"no such host.*\[a\.\.b:1\]"):
        meeting.find("a..b:1", 2, 1)


def test_a_host_where_nobody_answers_is_named(monkeypatch):
    """Nobody at another machine's address: said while waiting, then an error."""
    monkeypatch.setattr(meeting, "_is_ours", lambda _: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(TrainingError, match=rf"nobody answers: .*\[127\.0\.0\.1:{port}\]"):
        meeting.find(f"127.0.0.1:{port}", 2, 0)


@pytest.mark.parametrize("ours", [True, False])
def test_a_port_of_another_program_is_refused(monkeypatch, ours):
    """A port where something else listens is an error, on its machine and on the others."""
    monkeypatch.setattr(meeting, "_ANSWER_S", 0.3)
    monkeypatch.setattr(meeting, "_is_ours", lambda _: ours)
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(TrainingError, match=r"another program|not wit train"):
            meeting.find(place, 2, 1)


def test_two_runs_may_meet_at_one_place():
    """A port where torch's store answers is joined, not served; a free one is served."""
    store = TCPStore("127.0.0.1", 0, is_master=True)
    found = meeting.find(f"127.0.0.1:{store.port}", 2, 1)
    assert found == ("127.0.0.1", store.port, False, "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert meeting.find(f"127.0.0.1:{port}", 2, 1).is_host
