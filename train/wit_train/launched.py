"""A process of a run that others are part of: ``python -m wit_train RECIPE``.

torchrun starts it, or the launcher of ``wit train``; the latter gives it a folder, in which the
processes of a machine leave notes for their launcher, and it for them:

* ``processes/PID``: a process that is under way, and may be sent SIGUSR1
* ``asked``: the user wants the run to stop
* ``interrupted``: it was stopped after a step, and can go on
* ``final``: the error for which to start again is no use, told once by the launcher
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import msgspec
from cyclopts import App, CycloptsError

from wit_builder import storage
from wit_builder.errors import (
    CheckpointError,
    MissingPartError,
    PeerError,
    RecipeError,
    ShardFormatError,
    TrainingError,
    WitError,
)
from wit_train import commands

NOTES: Final = "WIT_NOTES"
"""Names, in the environment, the folder of notes."""

FAILED, USAGE, MADE_WAY = 1, 2, 143
_FINAL = (RecipeError, ShardFormatError, CheckpointError, TrainingError, MissingPartError)
"""What would happen again; a bucket that is away, or a peer, may come back."""
_MOST_FAILURES = 5


class Told(msgspec.Struct, frozen=True):
    """An error as a note: the name of its class, and what it says."""

    kind: str
    what: str
    where: str
    fix: str


class Notes:
    """The folder of notes of a machine's processes."""

    def __init__(self, folder: Path) -> None:
        """Use a folder that exists."""
        self._folder = folder
        self._processes = folder / "processes"

    def make(self) -> None:
        """Make it ready, as the launcher."""
        self._processes.mkdir()

    def enrol(self, process: int) -> None:
        """Say that a process is under way."""
        (self._processes / str(process)).touch()
        self.say("begun")

    def has_begun(self) -> bool:
        """Return whether any process ever was under way."""
        return self.says("begun")

    def leave(self, process: int) -> None:
        """Say that it is not any more."""
        (self._processes / str(process)).unlink(missing_ok=True)

    def processes(self) -> list[int]:
        """Return those under way, or killed in the meantime."""
        return sorted(int(place.name) for place in self._processes.iterdir())

    def say(self, what: str) -> None:
        """Leave a note that says no more than its name: ``asked``, ``interrupted``."""
        (self._folder / what).touch()

    def says(self, what: str) -> bool:
        """Return whether such a note is there."""
        return (self._folder / what).exists()

    def give_up(self, error: WitError) -> None:
        """Leave the error for which the run ends; of several the first counts."""
        told = Told(type(error).__name__, error.what, error.where, error.fix)
        draft = self._folder / f"final-{os.getpid()}"
        draft.write_bytes(msgspec.json.encode(told))
        with contextlib.suppress(FileExistsError):
            os.link(draft, self._folder / "final")

    def final(self) -> WitError | None:
        """Return the error for which the run ends."""
        place = self._folder / "final"
        if not place.exists():
            return None
        told = msgspec.json.decode(place.read_bytes(), type=Told)
        kinds = {kind.__name__: kind for kind in _FINAL}
        return kinds.get(told.kind, TrainingError)(told.what, where=told.where, fix=told.fix)

    def failed_again(self, failures: int, newest: str) -> bool:
        """Return whether the run failed too often in a row, with no checkpoint newer than this."""
        place = self._folder / "progress"
        seen = (
            msgspec.json.decode(place.read_bytes(), type=tuple[int, str])
            if place.exists()
            else None
        )
        if seen is None or seen[1] != newest:
            place.write_bytes(msgspec.json.encode((failures, newest)))
            return False
        return failures - seen[0] >= _MOST_FAILURES


def own_notes() -> Notes | None:
    """Return the notes of the launcher that started this process, if one did."""
    folder = os.environ.get(NOTES)
    return Notes(Path(folder)) if folder else None


def main(arguments: list[str]) -> None:
    """Run a command line of ``wit train`` as one process of many; leave with its exit status."""
    notes = own_notes()
    if notes is None:
        sys.exit(status(arguments))
    _come_aboard(notes)
    try:
        sys.exit(_status_under(notes, arguments))
    finally:
        notes.leave(os.getpid())


def _come_aboard(notes: Notes) -> None:
    """Let SIGUSR1 wait until the loop listens, so that it is never lost and never kills."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    notes.enrol(os.getpid())
    if notes.says("asked"):
        os.kill(os.getpid(), signal.SIGUSR1)
    if os.environ["RANK"] == "0":
        total, machines = int(os.environ["WORLD_SIZE"]), int(os.environ["GROUP_WORLD_SIZE"])
        processes = f"{total} process{'es' * (total > 1)}"
        sys.stderr.write(f"begins: {processes} on {machines} machine{'s' * (machines > 1)}\n")


def _status_under(notes: Notes, arguments: list[str]) -> int:
    try:
        _stop_if_hopeless(notes, arguments)
        _run(arguments)
    except CycloptsError as error:
        notes.give_up(RecipeError(str(error), fix="wit train --help"))
        return USAGE
    except WitError as error:
        if isinstance(error, PeerError) or not isinstance(error, _FINAL):
            return _tell(error)
        notes.give_up(error)
        return FAILED
    return 0


def tell(*, interrupted: bool, made_way: bool) -> None:
    """Tell how the own part of a run ended; leave here, to be started anew, if it made way."""
    if made_way and "TORCHELASTIC_RUN_ID" in os.environ:
        sys.exit(MADE_WAY)
    notes = own_notes()
    if interrupted and notes:
        notes.say("interrupted")


def status(arguments: list[str]) -> int:
    """Return the exit status of a command line; errors are printed in one line."""
    try:
        _run(arguments)
    except CycloptsError as error:
        sys.stderr.write(f"wit train: {' '.join(str(error).split())} -> wit train --help\n")
        return USAGE
    except WitError as error:
        return _tell(error)
    return 0


def _tell(error: WitError) -> int:
    sys.stderr.write(f"wit train: {error}\n")
    return FAILED


def _run(arguments: list[str]) -> None:
    app = App(name="wit train", result_action="return_value")
    app.default(commands.train)
    app(arguments, exit_on_error=False, print_error=False)


def _stop_if_hopeless(notes: Notes, arguments: list[str]) -> None:
    """Raise what ends the run, if there is such a thing."""
    if error := notes.final():
        raise error
    failures = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if not failures or os.environ.get("LOCAL_RANK") != "0":
        return
    out = folder_of(arguments)
    if notes.failed_again(failures, _newest(storage.join(out, "checkpoints"))):
        raise TrainingError(
            f"the processes ended {_MOST_FAILURES} times without a new checkpoint between",
            where=storage.redact(out),
            fix="see above why",
        )


def _newest(folder: str) -> str:
    names: Collection[str] = storage.list_files(folder, ".json") if storage.exists(folder) else ()
    return max(map(storage.name_of, names), default="")


def folder_of(arguments: Sequence[str]) -> str:
    """Return the run's folder, which a command line for many processes always names."""
    return arguments[arguments.index("--out") + 1]
