"""What is seen while stages run: bars on a terminal, lines elsewhere, JSON for machines."""

from __future__ import annotations

import json
import sys
import time
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column


class Observer(Protocol):
    """Told how stages get on."""

    def begin(self, stage: str, units: int, done: int) -> None:
        """A stage begins; ``done`` of its units were done by an earlier run."""

    def advance(self, stage: str, counts: dict[str, int]) -> None:
        """One more unit is done; ``counts`` are the stage's totals so far."""

    def end(self, stage: str, counts: dict[str, int]) -> None:
        """All units of the stage are done, with these totals."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Silent:
    """Says nothing: for tests and for calls from other programs."""

    def begin(self, stage: str, units: int, done: int) -> None:
        """Ignore."""

    def advance(self, stage: str, counts: dict[str, int]) -> None:
        """Ignore."""

    def end(self, stage: str, counts: dict[str, int]) -> None:
        """Ignore."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class Lines(Silent):
    """One line when a stage begins and one when it ends; as JSON objects when asked."""

    def __init__(self, stream: TextIO | None = None, *, as_json: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._json = as_json
        self._started: dict[str, float] = {}

    def begin(self, stage: str, units: int, done: int) -> None:
        """Note the time, and say how much there is to do."""
        self._started[stage] = time.monotonic()
        if self._json:
            self._say({"event": "begin", "stage": stage, "units": units, "done_before": done})

    def end(self, stage: str, counts: dict[str, int]) -> None:
        """Say the stage's totals and how long it took."""
        seconds = round(time.monotonic() - self._started.pop(stage), 1)
        if self._json:
            self._say({"event": "end", "stage": stage, "seconds": seconds, "counts": counts})
        else:
            print(f"{stage:<18} {seconds:7.1f} s  {phrase(counts)}", file=self._stream, flush=True)

    def _say(self, event: dict[str, object]) -> None:
        print(json.dumps(event), file=self._stream, flush=True)


_NOTE = Column(ratio=1, no_wrap=True, overflow="ellipsis")
"""Totals take what room is left: the bar must not give way to them."""


class Bars(Silent):
    """A bar per stage."""

    def __init__(self, console: Console | None = None) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", table_column=_NOTE),
            console=console or Console(stderr=True),
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def begin(self, stage: str, units: int, done: int) -> None:
        """Add the stage's bar."""
        self._tasks[stage] = self._bars.add_task(stage, total=units, completed=done, note="")

    def advance(self, stage: str, counts: dict[str, int]) -> None:
        """Move it by one unit."""
        self._bars.update(self._tasks[stage], advance=1, note=phrase(counts))

    def end(self, stage: str, counts: dict[str, int]) -> None:
        """Leave it standing with its totals."""
        task = self._tasks.pop(stage)
        self._bars.update(task, note=phrase(counts))
        self._bars.stop_task(task)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()


def phrase(counts: dict[str, int], most: int = 7) -> str:
    """Return the first few totals in words; reasons of rejections are left to the report."""
    shown = [(k, v) for k, v in counts.items() if ":" not in k][:most]
    return ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in shown)


def for_terminal(*, as_json: bool = False) -> Observer:
    """Return bars on a terminal, lines elsewhere, JSON lines when asked."""
    if as_json:
        return Lines(as_json=True)
    return Bars() if sys.stderr.isatty() else Lines()
