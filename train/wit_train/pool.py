"""Decode processes: started, given tasks, replaced when they are killed, ended."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, Pipe

import msgspec

from wit_builder.errors import TrainingError
from wit_train.arena import Area
from wit_train.worker import Filler, Result, Settings, Task

_TASKS_EACH = 2
"""Under way in a process: the one it does, and the one that it does next without waiting."""

_MAX_DEATHS = 3
"""A task that was in so many processes when they were killed is not given to another."""

_STARTING = -1
"""Stands for the start of a process, where deaths are counted by task."""

_PATIENCE_S = 5.0
"""For a process to end by itself once its pipe is closed; it may be in the middle of a task."""


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

    def results(self, changed: Callable[[], object]) -> Iterator[Result]:
        """Yield the results that are there, without waiting.

        Args:
            changed: called when ``connections`` are others than before.

        Raises:
            TrainingError: a task failed, or killed several processes.
        """
        if self._filler is not None:
            while self._own:
                yield self._filler.fill(self._own.pop())
            return
        for number, process in enumerate(self._processes):
            try:
                yield from map(_refuse_failed, process.results())
            except (EOFError, OSError):  # it has ended
                self._processes[number] = self._replaced(process)
                changed()

    def close(self) -> None:
        """End the processes, and wait until they have ended."""
        for process in self._processes:
            process.connection.close()
        for process in self._processes:
            process.end()

    def _replaced(self, process: _Process) -> _Process:
        """Return a process that does another's tasks, which was killed."""
        process.connection.close()
        status = process.end()
        blamed = list(process.tasks) if process.answered else [_STARTING]
        for what in blamed:
            deaths = self._deaths[what] = self._deaths.get(what, 0) + 1
            if deaths >= _MAX_DEATHS:
                raise TrainingError(
                    f"decode processes end, time and again, with status {status}",
                    where="pace.workers",
                    fix="killed (-9): give it more memory, or set fewer workers; else set 0 to see",
                )
        new = _Process(self._settings, self._fds)
        for task in process.tasks.values():
            new.begin(task)
        return new


def _refuse_failed(result: Result) -> Result:
    if result.error:
        error = TrainingError(f"decoding failed: {result.error}", fix="see the traceback above")
        error.add_note(result.trace)
        raise error
    return result


class _Process:
    """A decode process, the pipe to it, and the tasks it has."""

    def __init__(self, settings: Settings, fds: tuple[int, int]) -> None:
        self.connection, theirs = Pipe()
        self.tasks: dict[int, Task] = {}
        self.answered = False
        numbers = theirs.fileno(), *fds
        # not multiprocessing: that would import the caller's main module, and torch with it
        self._process = subprocess.Popen(  # noqa: S603 - our own module, numbers as arguments
            [sys.executable, "-P", "-m", "wit_train.worker", *map(str, numbers)],
            pass_fds=numbers,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        theirs.close()
        with contextlib.suppress(BrokenPipeError):  # it has ended: seen where results are read
            self.connection.send_bytes(msgspec.msgpack.encode(settings))

    def begin(self, task: Task) -> None:
        self.tasks[task.number] = task
        with contextlib.suppress(BrokenPipeError):  # see above
            self.connection.send_bytes(msgspec.msgpack.encode(task))

    def results(self) -> Iterator[Result]:
        while self.connection.poll():
            result = msgspec.msgpack.decode(self.connection.recv_bytes(), type=Result)
            self.tasks.pop(result.number)
            self.answered = True
            yield result

    def end(self) -> int:
        """Wait for the process, which has been told to end, and return its status."""
        try:
            return self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
