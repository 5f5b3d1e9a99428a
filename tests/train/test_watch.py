"""A rank that does not move, and whoever waits for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from torch.distributed import HashStore, TCPStore  # type: ignore[attr-defined]  # torch's lack

from wit_train import watch
from wit_train.watch import Lookout, Report, Watch

NOW = 1e9


def at(step: int, phase: int, what: str, still_s: float = 1.0, unix_s: float = NOW) -> Report:
    return Report(step, phase, what, still_s, "node7", 4711, unix_s)


class Left(BaseException):
    """Stands in for the end of the process, after which nothing runs either."""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Ship:
    """A lookout whose clock and end are the test's."""

    def __init__(self, store=None, rank: int = 0, world_size: int = 1, timeout_s: float = 60):
        self.clock = Clock()
        self.lookout = Lookout(store, rank, world_size, timeout_s, self.clock, self._leave)

    def _leave(self, status: int) -> None:
        raise Left(status)

    def sail(self, seconds: float) -> None:
        """Look every period for so long."""
        for _ in range(round(seconds / self.lookout.period_s)):
            self.clock.now += self.lookout.period_s
            self.lookout.look()


@pytest.fixture
def no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)


def test_the_rank_that_waits_alone_is_named():
    """The others have come further in the same step, and wait for it."""
    reports = {r: at(1041, 3, "gradients") for r in (0, 1, 2, 4)}
    reports[3] = at(1041, 0, "waiting for data", 612)
    said = str(watch.verdict(reports, 0, 5, NOW))
    assert said == (
        "stuck: rank 3 (process 4711 on node7) is in 'waiting for data' for 612 s; waiting for it: "
        "rank 0-2, 4 in 'gradients' [step 1,041] -> look at the log of its machine; start again to "
        "go on from the last checkpoint"
    )


def test_the_lowest_step_is_furthest_behind():
    """Rank 0, still saving what the others have long left, is the one."""
    reports = {0: at(8, 9, "checkpoint"), 1: at(9, 1, "features"), 2: at(9, 2, "loss")}
    said = str(watch.verdict(reports, 0, 3, NOW))
    assert "rank 0 (process 4711 on node7) is in 'checkpoint' for 1 s" in said
    assert "waiting for it: rank 1-2 in 'features' and 'loss' [step 8] -> look at the stack" in said


def test_in_one_step_what_a_rank_does_alone_is_behind_what_needs_the_others():
    """However many phases each has counted: rank 0 counts its checkpoints."""
    reports = {0: at(9, 2, "waiting for data"), 1: at(9, 2, "features")}
    assert "stuck: rank 0 (" in str(watch.verdict(reports, 1, 2, NOW))
    reports = {0: at(9, 9, "evaluation"), 1: at(9, 8, "gathering")}
    assert "stuck: rank 0 (" in str(watch.verdict(reports, 1, 2, NOW))
    reports = {0: at(9, 3, "waiting for data"), 1: at(9, 2, "features")}
    assert "stuck: rank 0 (" in str(watch.verdict(reports, 1, 2, NOW))


def test_a_rank_that_tells_nothing_more_is_said_to_be_gone():
    """Its host is down, or the process was stopped: its last report is old."""
    reports = {0: at(5, 2, "loss", 600), 1: at(5, 1, "features", 0, NOW - 601)}
    said = str(watch.verdict(reports, 0, 2, NOW))
    assert (
        "rank 1 (process 4711 on node7) was heard of 601 s ago, in 'features': is it gone?" in said
    )


def test_a_rank_that_never_told_anything_comes_first():
    """It may have died before it could."""
    said = str(watch.verdict({0: at(5, 2, "loss"), 1: at(4, 0, "loss")}, 0, 3, NOW))
    assert "stuck: rank 2 has told nothing; waiting for it: rank 0-1 in 'loss' [step 4]" in said


def test_many_ranks_are_counted_not_listed():
    """A line stays a line in a world of a thousand."""
    reports = {r: at(5, r % 2, "loss") for r in range(1000)}
    said = str(watch.verdict(reports, 0, 1000, NOW))
    assert said.count("(process 4711 on node7)") == 8
    assert "; and 492 more; waiting for it: rank 1, 3, 5" in said


def test_ranks_at_one_place_blame_what_is_between_them():
    """Nobody is behind: a collective itself hangs."""
    said = str(watch.verdict({0: at(5, 2, "gradients", 60), 1: at(5, 2, "gradients")}, 0, 2, NOW))
    assert said.startswith("all 2 ranks are stuck in 'gradients' for 60 s [step 5, rank 0 on node7")
    assert "and the network" in said


@pytest.mark.usefixtures("no_agent")
def test_a_phase_that_takes_too_long_ends_the_process(capfd: pytest.CaptureFixture[str]):
    """Alone, too: with where, since when, and the stack of the main thread."""
    ship = Ship(timeout_s=60)
    ship.lookout.at(7, "waiting for data")
    ship.sail(60)
    with pytest.raises(Left, match="1"):
        ship.sail(5)
    message, heading, innermost, *_ = capfd.readouterr().err.splitlines()
    assert message.startswith("wit: the training is stuck in 'waiting for data' for 60 s [step 7, ")
    assert heading == "rank 0 is here, innermost first:"
    assert "watch.py" in innermost


@pytest.mark.usefixtures("no_agent")
def test_every_phase_has_the_whole_timeout():
    """Phases that move, of any step, are never given up."""
    ship = Ship(timeout_s=60)
    for step in range(5):
        for what in ("waiting for data", "features", "gradients", "gradients"):
            ship.lookout.at(step, what)
            ship.sail(55)


@pytest.mark.usefixtures("no_agent")
def test_a_process_that_was_stopped_as_a_whole_is_not_stuck():
    """After Ctrl-Z and an hour, or a paused machine, training goes on."""
    ship = Ship(timeout_s=60)
    ship.sail(30)
    ship.clock.now += 3600
    ship.lookout.look()
    ship.sail(15)


@pytest.mark.usefixtures("no_agent")
def test_whoever_is_stuck_itself_speaks_first(capfd: pytest.CaptureFixture[str]):
    """Its stack tells why; a rank that waits for it waits three looks more."""
    store = HashStore()
    waiting, stuck = (Ship(store, rank, 2, timeout_s=60) for rank in range(2))
    stuck.lookout.at(3, "waiting for data")
    stuck.lookout.look()
    waiting.lookout.at(3, "waiting for data")
    waiting.lookout.at(3, "loss")
    waiting.sail(60 + 3 * 5)
    assert capfd.readouterr().err == ""
    with pytest.raises(Left):
        waiting.sail(5)
    assert "wit: stuck: rank 1 (process" in capfd.readouterr().err
    with pytest.raises(Left):
        stuck.sail(65)
    assert "look at the stack below" in capfd.readouterr().err


def test_a_signal_to_stop_gives_the_step_its_time(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """A step that does not end is given up before torchrun kills; one that does goes on to save."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    ship = Ship(timeout_s=600)
    ship.lookout.at(7, "gradients")
    ship.lookout.stopping(20)
    ship.sail(15)
    ship.lookout.at(7, "checkpoint")
    ship.sail(60)
    ship.lookout.at(8, "gradients")
    ship.lookout.stopping(20)
    ship.lookout.stopping(20)  # asked twice, no longer
    ship.sail(15)
    with pytest.raises(Left):
        ship.sail(5)
    assert "told to stop, but still in 'gradients'" in capfd.readouterr().err


@pytest.mark.usefixtures("no_agent")
def test_without_an_agent_a_step_may_take_its_time():
    """Ctrl-C in a run of one process ends after its step, however slow, and loses nothing."""
    ship = Ship(timeout_s=600)
    ship.lookout.at(7, "gradients")
    ship.lookout.stopping(20)
    ship.sail(500)


def test_a_process_whose_agent_was_killed_ends(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """Nobody else would end it."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    ship = Ship()
    ship.sail(30)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(Left):
        ship.sail(5)
    assert "whoever started this process" in capfd.readouterr().err


class _GoneStore:
    """A store whose host answers no more, or refuses."""

    def __init__(self, answer: Callable[[], None]) -> None:
        self._answer = answer

    def clone(self) -> _GoneStore:
        return self

    def set_timeout(self, timeout: timedelta) -> None: ...

    def set(self, *_: object) -> None:
        self._answer()

    def check(self, *_: object) -> bool:
        self._answer()
        return False


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Give what waits until the test is over."""
    over = threading.Event()
    monkeypatch.setattr(watch, "_PATIENCE_S", 0.01)

    def wait() -> None:
        over.wait()

    yield wait
    over.set()


def refuse() -> None:
    raise RuntimeError("Broken pipe")


@pytest.mark.usefixtures("no_agent")
@pytest.mark.parametrize("kind", ["silent", "refusing"])
def test_a_store_that_is_gone_is_survived(kind: str, silence, capfd: pytest.CaptureFixture[str]):
    """The watch goes on, and blames nobody whom it could not ask."""
    ship = Ship(_GoneStore(silence if kind == "silent" else refuse), 0, 2, timeout_s=60)
    ship.lookout.at(7, "loss")
    ship.sail(60)
    with pytest.raises(Left):
        ship.sail(20)
    said = capfd.readouterr().err
    assert "stuck in 'loss' for 60 s, and the rendezvous host" in said
    assert "rank 1" not in said


@pytest.mark.usefixtures("no_agent")
def test_a_watch_that_is_closed_leaves_nothing():
    """Neither a thread nor a descriptor for signals; closing twice is fine."""
    before = signal.set_wakeup_fd(-1)
    with Watch(None, 0, 1, 60) as watching:
        watching.at(1, "features")
        assert "watch" in {thread.name for thread in threading.enumerate()}
    watching.close()
    assert "watch" not in {thread.name for thread in threading.enumerate()}
    assert signal.set_wakeup_fd(before) == -1


def test_a_watch_hears_signals_while_the_main_thread_is_stuck(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """Python's own handlers run only once the main thread is back from C, which may be never."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    monkeypatch.setattr(watch, "_GRACE_S", 0.0)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    other, handled = store.clone(), list[int]()

    before = signal.signal(signal.SIGTERM, lambda number, _: handled.append(number))
    try:
        with Watch(None, 0, 1, 1.0, leave=lambda _: other.set("left", "yes")) as watching:
            watching.at(4, "gradients")
            threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGTERM)).start()
            store.wait(["left"], timedelta(seconds=60))  # in C++, like a collective
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "told to stop, but still in 'gradients'" in capfd.readouterr().err
    assert handled == [signal.SIGTERM]


RANK_0 = """
import sys
from datetime import timedelta
from torch.distributed import TCPStore
from wit_train.watch import Watch

def wait_in_a_collective():
    sys.stdin.read()

store = TCPStore("127.0.0.1", int(sys.argv[1]), timeout=timedelta(seconds=60))
store.wait(["wit/at/1"])
watch = Watch(store, 0, 2, 1.0)
watch.at(12, "waiting for data")
watch.at(12, "loss")
wait_in_a_collective()
"""


@pytest.mark.usefixtures("no_agent")
def test_a_stuck_rank_is_named_by_the_one_that_waits_for_it():
    """Two processes: one never gets its data, the other ends and says so."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    stuck = Lookout(store, 1, 2, timeout_s=600)
    stuck.at(12, "waiting for data")
    stuck.look()
    command = [sys.executable, "-c", RANK_0, str(store.port)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as rank_0:
        assert rank_0.stderr is not None
        said = rank_0.stderr.read()
        assert rank_0.wait(60) == 1
    message, heading, *stack = said.splitlines()
    assert message.startswith(f"wit: stuck: rank 1 (process {os.getpid()} on ")
    assert "waiting for it: rank 0 in 'loss' [step 12] -> look at the log of its machine" in message
    assert heading == "rank 0 is here, innermost first:"
    assert any("in wait_in_a_collective" in line for line in stack)
