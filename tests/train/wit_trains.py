"""``wit train`` as a user starts it, line by line, and what it should have trained on."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self

import msgspec
import xxhash

from wit_train.blocks import Layout
from wit_train.stream import Look, Pace, Stream

PATIENCE_S = 120


class Trains:
    """``wit train`` under way, with what it says; killed with its processes when left."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        prefix: Sequence[str] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        """Start it."""
        self.said: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [*prefix, *arguments],
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def until(self, step: int) -> int:
        """Return which step it told of last, when it is this one or a later one."""
        while True:
            line = self._next()
            if line.startswith("{") and (now := int(msgspec.json.decode(line)["step"])) >= step:
                return now

    def until_said(self, text: str) -> None:
        """Return when a line has a text in it."""
        while text not in self._next():
            pass

    def _next(self) -> str:
        line = self._lines.get(timeout=PATIENCE_S)
        assert line is not None, "\n".join(self.said)
        self.said.append(line)
        return line

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self) -> int:
        """Return its exit status when it has ended."""
        while (line := self._lines.get(timeout=PATIENCE_S)) is not None:
            self.said.append(line)
        return self._process.wait(PATIENCE_S)

    def processes(self) -> list[int]:
        """Return the processes that it started, which train."""
        return children_of(self._process.pid)

    def kill(self) -> None:
        """Kill it and all that it started, as a machine does that loses power."""
        for process in [self._process.pid, *self.processes()]:
            os.kill(process, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()
        self._process.wait(PATIENCE_S)
        self._listener.join(PATIENCE_S)
        assert self._process.stdout
        self._process.stdout.close()


def children_of(process: int) -> list[int]:
    """Return the processes that a process started and that live."""
    listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(word) for word in listed.split()]


def wit_train(recipe: Path, out: str, *more: str) -> list[str]:
    """Return the command line that trains, telling of each step as JSON."""
    wit = str(Path(sys.executable).parent / "wit")
    return [wit, "train", str(recipe), "--out", out, "--json", *more]


def expected_ids(shards: str, steps: int, batch_size: int = 8, lanes: int = 4) -> list[str]:
    """Return the digests of the sample ids of the first steps, as one process sees them."""
    look, pace = Look(image_size=32, context_length=8), Pace(workers=0)
    stream = Stream(shards, batch_size=batch_size, layout=Layout(lanes=lanes), look=look, pace=pace)
    batches = islice(stream, steps)
    return [xxhash.xxh3_64_hexdigest(batch.sample_ids.tobytes()) for batch in batches]


def rows_of(journal: bytes) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl."""
    return [msgspec.json.decode(line) for line in journal.splitlines()]
