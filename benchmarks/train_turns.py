"""The side of the training benchmarks that starts contestants and gives them turns.

``together``: all live at once, and take a portion of steps each in turn. ``apart``: each is started
anew for every turn, for a device that has not the memory for all.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from benchmarks.train_meter import Portion, Ready, Setting

PEERS_PACKAGES = "open_clip_torch[training]==3.3.0"

_REPOSITORY = Path(__file__).parent.parent
_LOSSES_DIFFER = 0.02
_TOLD_LETTERS = 3000
_OUT_OF_MEMORY = ("OutOfMemoryError", "CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


class OutOfMemory(Exception):  # noqa: N818 - as torch calls it
    """A contestant's device has not enough memory for the setting."""


class Contestant(NamedTuple):
    """A process that trains as a setting says.

    Attributes:
        name: in tables.
        python: of its environment.
        module: of ``benchmarks``.
        setting: what it trains.
    """

    name: str
    python: str
    module: str
    setting: Setting


class Runs(NamedTuple):
    """What a contestant said: at its last start, and of each turn."""

    ready: Ready
    portions: list[Portion]

    @property
    def per_second(self) -> float:
        """Median of its images a second."""
        return statistics.median(portion.per_second for portion in self.portions)

    @property
    def step_s(self) -> float:
        """Median of its seconds a step."""
        return statistics.median(portion.seconds / portion.steps for portion in self.portions)

    @property
    def step_cpu_s(self) -> float:
        """Median of its CPU seconds a step."""
        return statistics.median(portion.cpu_s / portion.steps for portion in self.portions)

    @property
    def waiting(self) -> float:
        """Median of the share of its time that it waited for data."""
        return statistics.median(portion.waited_s / portion.seconds for portion in self.portions)

    @property
    def memory_bytes(self) -> int:
        """The most of all turns."""
        return max(portion.memory_bytes for portion in self.portions)


def ours(setting: Setting) -> Contestant:
    """Return our trainer, in the environment that this runs in."""
    return Contestant("ours", sys.executable, "train_ours", setting)


def peer(name: str, python: str, setting: Setting) -> Contestant:
    """Return open_clip's, in an environment of its own."""
    return Contestant(name, python, "train_peer", setting)


class Child:
    """A contestant's process, which has taken its first steps."""

    def __init__(self, name: str, process: subprocess.Popen[str], errors: IO[bytes]) -> None:
        self._name, self._process, self._errors = name, process, errors
        self.ready = Ready(**json.loads(self._line()))

    def portion(self) -> Portion:
        """Return what it says of a further portion of steps."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Portion(**json.loads(self._line()))

    def end(self) -> None:
        """Let it do what it has to do after its steps."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.wait():
            raise self._failure()

    def _line(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # libraries print, too
                return line
        self._process.wait()
        raise self._failure()

    def _failure(self) -> BaseException:
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace")
        if any(word in said for word in _OUT_OF_MEMORY):
            return OutOfMemory(self._name)
        return SystemExit(f"{self._name} failed:\n{said[-_TOLD_LETTERS:]}")


@contextmanager
def started(contestant: Contestant) -> Iterator[Child]:
    """Give a contestant after its warm-up; end it.

    Raises:
        OutOfMemory: its device's memory is too small.
        SystemExit: it failed.
    """
    known = os.environ.get("PYTHONPATH", "") if contestant.python == sys.executable else ""
    paths = os.pathsep.join(filter(None, [str(_REPOSITORY), known]))
    command = [contestant.python, "-m", f"benchmarks.{contestant.module}"]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [*command, contestant.setting.written()],
            env={**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            child = Child(contestant.name, process, errors)
            yield child
            child.end()
        finally:
            process.kill()


def together(contestants: Sequence[Contestant], turns: int) -> dict[str, Runs]:
    """Return what contestants say that live at once, each of which takes a portion in every turn.

    Raises:
        OutOfMemory, SystemExit: one could not.
    """
    with ExitStack() as stack:
        children = {one.name: stack.enter_context(started(one)) for one in contestants}
        runs = {name: Runs(child.ready, []) for name, child in children.items()}
        for _ in range(turns):
            for name, child in children.items():
                runs[name].portions.append(child.portion())
    return runs


def apart(contestants: Sequence[Contestant], turns: int) -> dict[str, Runs]:
    """Return what contestants say that are started anew in every turn, and take a portion in it.

    Raises:
        OutOfMemory, SystemExit: one could not.
    """
    runs: dict[str, Runs] = {}
    for _ in range(turns):
        for one in contestants:
            with started(one) as child:
                before = runs[one.name].portions if one.name in runs else []
                runs[one.name] = Runs(child.ready, [*before, child.portion()])
    return runs


def ratio(runs: dict[str, Runs], name: str) -> float:
    """Return how many times faster ours is: the median of the turns' ratios.

    What else the machine does in a turn, it does to both.
    """
    turns = zip(runs["ours"].portions, runs[name].portions, strict=True)
    return statistics.median(mine.per_second / its.per_second for mine, its in turns)


def refuse_other_work(runs: dict[str, Runs]) -> None:
    """Refuse to compare trainings that are not the same: of the same weights, on the same batch.

    Raises:
        SystemExit: a loss of the warm-up differs by more than rounding explains.
    """
    expected = runs["ours"].ready.losses
    for name, (ready, _) in runs.items():
        for mine, its in zip(expected, ready.losses, strict=False):
            if abs(mine - its) > _LOSSES_DIFFER * abs(mine):
                raise SystemExit(f"not the same work: losses {expected}, of {name} {ready.losses}")
