"""Decode processes: started, given tasks, replaced when they are killed, ended."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe

import msgspec
import numpy as np

from wit_builder.errors import TrainingError
from wit_train.arena import Area
from wit_train.worker import COLUMNS, ID, Filler, Result, Settings, Task

_TASKS_EACH = 2
"""Under way in a process: the one it does, and the one that it does next without waiting."""

_MAX_DEATHS = 3
"""A task that was in so many processes when they were killed is not given to another."""

_STARTING = -1
"""Stands for the start of a process, where deaths are counted by task."""

_PATIENCE_S = 5.0
"""For processes to end by themselves once told to; they may be in the middle of a task."""


class Decoding:
    """Does tasks in processes, or, without any, in the thread that asks for results."""

    def __init__(self, settings: Settings, areas: tuple[Area, Area], workers: int) -> None:
        """Start the processes.

        Args:
            settings: that all tasks share.
            areas: memory of the blocks and of the batches.
            workers: processes; 0: none.
        """
        self._settings = settings
        self._fds = areas[0].fd, areas[1].fd
        self._processes = [_Process(settings, self._fds) for _ in range(workers)]
        self._filler = None if workers else Filler(settings, *self._fds)
        self._own: list[Task] = []
        self._deaths: dict[int, int] = {}

    @property
    def room(self) -> int:
        """How many more tasks can be taken now."""
        if self._filler is not None:
            return 1 - len(self._own)
        return sum(_TASKS_EACH - len(process.tasks) for process in self._processes)

    @property
    def connections(self) -> list[Connection]:
        """What becomes readable when there may be results."""
        return [process.connection for process in self._processes]

    def begin(self, task: Task) -> None:
        """Take a task; there must be room."""
        if self._filler is not None:
            self._own.append(task)
            return
        process = min(self._processes, key=lambda p: len(p.tasks))
        process.begin(task)

    def results(self) -> Iterator[Result]:
        """Yield the results that are there, without waiting.

        Raises:
            TrainingError: a task failed, or killed several processes.
        """
        if self._filler is not None:
            while self._own:
                yield self._filler.fill(self._own.pop())
            return
        for number, process in enumerate(self._processes):
            try:
                for result in process.results():
                    self._deaths.pop(_STARTING, None)
                    yield _refuse_failed(result)
            except (EOFError, OSError):  # it has ended
                self._processes[number] = self._replaced(process)

    def close(self) -> None:
        """End the processes, and wait until they have ended."""
        for process in self._processes:
            process.tell_to_end()
        until = time.monotonic() + _PATIENCE_S
        for process in self._processes:
            process.ended(max(0.0, until - time.monotonic()))

    def _replaced(self, process: _Process) -> _Process:
        """Return a process that does another's tasks, which was killed."""
        process.tell_to_end()
        status = process.ended(_PATIENCE_S)
        for what in process.tasks or [_STARTING]:
            self._deaths[what] = self._deaths.get(what, 0) + 1
            if self._deaths[what] >= _MAX_DEATHS:
                raise _deadly(process.tasks.get(what), status)
        new = _Process(self._settings, self._fds)
        for task in process.tasks.values():
            new.begin(task)
        return new


def _deadly(task: Task | None, status: int) -> TrainingError:
    """Return the error of processes that end, of one task or before they had any."""
    what = "when they start"
    if task is not None:
        ids = np.frombuffer(task.rows, np.int64).reshape(-1, COLUMNS)[:, ID]
        what = f"at samples {ids.min()} to {ids.max()}"
    return TrainingError(
        f"decode processes end, time and again, {what}, with status {status}",
        where="pace.workers",
        fix="-9: killed, as where memory is short: set fewer workers; -11: a picture crashes the "
        "decoder: find it with `wit verify --decode`, remove it with `wit remove`",
    )


def _refuse_failed(result: Result) -> Result:
    if result.error:
        fix = "set pace.workers=0 to have it raised where it is"
        error = TrainingError(f"decoding failed: {result.error}", where="decode process", fix=fix)
        error.add_note(result.trace)
        raise error
    return result


class _Process:
    """A decode process, the pipe to it, and the tasks it has."""

    def __init__(self, settings: Settings, fds: tuple[int, int]) -> None:
        self.connection, theirs = Pipe()
        self.tasks: dict[int, Task] = {}
        numbers = theirs.fileno(), *fds
        # not multiprocessing: that would import the caller's main module, and torch with it
        self._process = subprocess.Popen(  # noqa: S603 - our own module, numbers as arguments
            [sys.executable, "-P", "-m", "wit_train.worker", *map(str, (*numbers, os.getpid()))],
            pass_fds=numbers,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, sys.path)))},
            process_group=0,  # Ctrl-C is for whoever started it
        )
        theirs.close()
        with contextlib.suppress(OSError):  # it has ended: seen where results are read
            self.connection.send_bytes(msgspec.msgpack.encode(settings))

    def begin(self, task: Task) -> None:
        self.tasks[task.number] = task
        with contextlib.suppress(OSError):  # see above
            self.connection.send_bytes(msgspec.msgpack.encode(task))

    def results(self) -> Iterator[Result]:
        while self.connection.poll():
            result = msgspec.msgpack.decode(self.connection.recv_bytes(), type=Result)
            self.tasks.pop(result.number)
            yield result

    def tell_to_end(self) -> None:
        with contextlib.suppress(OSError):  # a pipe that is only closed may be open in a fork of us
            self.connection.send_bytes(b"")
        self.connection.close()

    def ended(self, patience_s: float) -> int:
        """Wait for the process, which has been told to end, and return its status."""
        try:
            return self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
