"""What is seen while stages run: bars on a terminal, lines elsewhere, JSON for machines."""
# ruff: noqa: ARG002 - observers use what they need of what they are told

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from collections import deque
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

from wit_builder.tables import Reason


class Observer(Protocol):
    """Told how stages get on."""

    def begin(self, stage: str, step: str, units: int, done: int) -> None:
        """A stage, part of a step, begins; ``done`` of its units were done by an earlier run."""

    def advance(self, stage: str, counts: dict[str, int]) -> None:
        """One more unit is done; ``counts`` are the stage's totals so far."""

    def live(self, stage: str, done: int, items: int, counts: dict[str, int]) -> None:
        """Of a stage's items so many are done, those of units under way included."""

    def end(self, stage: str, counts: dict[str, int]) -> None:
        """All units of the stage are done, with these totals."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Silent:
    """Says nothing: for tests and for calls from other programs."""

    def begin(self, stage: str, step: str, units: int, done: int) -> None:
        """Ignore."""

    def advance(self, stage: str, counts: dict[str, int]) -> None:
        """Ignore."""

    def live(self, stage: str, done: int, items: int, counts: dict[str, int]) -> None:
        """Ignore."""

    def end(self, stage: str, counts: dict[str, int]) -> None:
        """Ignore."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class Speed:
    """How fast items are done, and how long the others will take, by what was seen of a stage.

    The last two minutes count, as far as they were watched.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=25)

    def add(self, done: int) -> None:
        """Take note of how many are done by now."""
        self._seen.append((time.monotonic(), done))

    @property
    def per_s(self) -> float:
        """Items a second; 0 where nothing can be told yet."""
        (began, before), (now, done) = self._seen[0], self._seen[-1]
        return (done - before) / (now - began) if now > began else 0.0

    def left_s(self, items: int) -> float | None:
        """Return how many seconds the others will take at this speed; None if there is none."""
        per_s = self.per_s
        return max(0, items - self._seen[-1][1]) / per_s if per_s else None

    def words(self, items: int) -> str:
        """Return the speed and the time left; empty where nothing can be told yet."""
        left_s = self.left_s(items)
        if left_s is None:
            return ""
        return f"{self.per_s:,.3g}/s, {dt.timedelta(seconds=round(left_s))} left"


class JsonLines(Silent):
    """A JSON object when a stage begins, one when it ends, and some of a long stage meanwhile."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._started: dict[str, float] = {}

    def begin(self, stage: str, step: str, units: int, done: int) -> None:
        """Note the time, and say how much there is to do."""
        self._started[stage] = time.monotonic()
        event = {"event": "begin", "stage": stage, "step": step, "units": units}
        self._say({**event, "done_before": done})
        self._speed = Speed()

    def live(self, stage: str, done: int, items: int, counts: dict[str, int]) -> None:
        """Say how far it is."""
        self._speed.add(done)
        event = {"event": "progress", "stage": stage, "done": done, "items": items}
        left_s = self._speed.left_s(items)
        told = {"per_s": round(self._speed.per_s, 3), "left_s": left_s and round(left_s, 1)}
        self._say({**event, **told, "counts": counts})

    def end(self, stage: str, counts: dict[str, int]) -> None:
        """Say the stage's totals and how long it took."""
        seconds = round(time.monotonic() - self._started.pop(stage), 1)
        self._say({"event": "end", "stage": stage, "seconds": seconds, "counts": counts})

    def _say(self, event: dict[str, object]) -> None:
        print(json.dumps(event), file=self._stream, flush=True)


_TELL_EVERY_S = 60.0


class Lines(Silent):
    """One line for each step, when all its stages are done, and now and then one of a long one."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._step = ""
        self._started = 0.0
        self._counts: dict[str, int] = {}

    def begin(self, stage: str, step: str, units: int, done: int) -> None:
        """Tell of the step before, if this is another."""
        if step != self._step:
            self._tell()
            self._step, self._started, self._counts = step, time.monotonic(), {}
        self._speed, self._told_at = Speed(), time.monotonic()

    def live(self, stage: str, done: int, items: int, counts: dict[str, int]) -> None:
        """Say how far it is, if nothing was said for a while."""
        self._speed.add(done)
        if time.monotonic() - self._told_at >= _TELL_EVERY_S:
            self._told_at = time.monotonic()
            parts = [f"{done:,} of {items:,}", self._speed.words(items), phrase(counts)]
            said = f"{self._step:<18} {', '.join(filter(None, parts))}"
            print(said, file=self._stream, flush=True)

    def end(self, stage: str, counts: dict[str, int]) -> None:
        """Take the stage's totals for the step's."""
        self._counts |= counts

    def __exit__(self, *_: object) -> None:
        self._tell()

    def _tell(self) -> None:
        if self._step:
            seconds = time.monotonic() - self._started
            said = line(self._step, seconds, self._counts)
            print(said, file=self._stream, flush=True)
        self._step = ""


_NOTE = Column(ratio=1, no_wrap=True, overflow="ellipsis")
"""Totals take what room is left: the bar must not give way to them."""


class Bars(Silent):
    """A bar for the step that is under way; a line above it for each that is done."""

    def __init__(self, console: Console | None = None) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", table_column=_NOTE),
            console=console or Console(stderr=True),
            expand=True,
        )
        self._step = ""
        self._task = TaskID(0)
        self._counts: dict[str, int] = {}

    def begin(self, stage: str, step: str, units: int, done: int) -> None:
        """Let the bar be of this stage; one more line if it is of another step."""
        if step != self._step:
            self._finish()
            self._step, self._counts = step, {}
            self._task = self._bars.add_task(step, total=units, completed=done, note="")
        else:
            self._bars.update(self._task, total=units, completed=done)
        self._speed: Speed | None = None

    def advance(self, stage: str, counts: dict[str, int]) -> None:
        """Move it by one unit, unless it tells of items."""
        if self._speed is None:
            self._bars.update(self._task, advance=1, note=phrase(self._counts | counts))

    def live(self, stage: str, done: int, items: int, counts: dict[str, int]) -> None:
        """Let it tell of items."""
        self._speed = self._speed or Speed()
        self._speed.add(done)
        note = ", ".join(filter(None, [self._speed.words(items), phrase(counts)]))
        self._bars.update(self._task, total=items, completed=done, note=note)

    def end(self, stage: str, counts: dict[str, int]) -> None:
        """Take the stage's totals for the step's."""
        self._counts |= counts

    def _finish(self) -> None:
        if self._step:
            seconds = self._bars.tasks[-1].elapsed or 0.0
            self._bars.remove_task(self._task)
            self._bars.console.print(line(self._step, seconds, self._counts), highlight=False)
        self._step = ""

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if not any(error):
            self._finish()
        self._bars.stop()


def line(step: str, seconds: float, counts: dict[str, int]) -> str:
    """Return what is said of a step that is done."""
    return f"{step:<18} {seconds:7.1f} s  {phrase(counts)}".rstrip()


def phrase(counts: dict[str, int]) -> str:
    """Return totals in words, but those with a colon in their names and reasons of rejections."""
    shown = [(k, v) for k, v in counts.items() if ":" not in k and k not in _REASONS]
    return ", ".join(f"{value:,} {_words(key, value)}" for key, value in shown)


_REASONS = frozenset(Reason)


def _words(key: str, value: int) -> str:
    words = key.replace("_", " ")
    if value != 1:
        return words
    return words.removesuffix("es") if words.endswith("ches") else words.removesuffix("s")


def for_terminal(*, as_json: bool = False) -> Observer:
    """Return bars on a terminal, lines elsewhere, JSON lines when asked."""
    if as_json:
        return JsonLines()
    return Bars() if sys.stderr.isatty() else Lines()
