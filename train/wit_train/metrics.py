"""What is seen of a run: a row per logged step, in a JSONL file and on the terminal."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Self, TextIO

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from wit_builder import storage

_WINDOW_ROWS = 30
"""How many rows back the time left looks: over checkpoints and slow spells, but not for hours."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A logged step. What is None was not measured, and is null in the journal.

    Attributes:
        step: how many steps are done.
        loss: of that step.
        logit_scale: after it.
        learning_rate: of that step.
        grad_norm: of that step, over all weights, before clipping; None where it is not finite.
        pairs_per_s: since the row before, of all ranks, but for the time that measuring took.
        data_wait: share of the time since the row before spent waiting for data.
        mfu: model FLOPs utilisation since the row before; None where the device's peak is unknown.
        held_out: loss on held-out pairs after that step.
        scores: on test sets after that step, by name, such as ``zero_shot_top1``.
        substituted: samples replaced by another of their block, since the row before.
        sample_ids: xxh3-64 hex over the step's sample ids, to compare runs with.
    """

    step: int
    loss: float
    logit_scale: float
    learning_rate: float
    grad_norm: float | None = None
    pairs_per_s: float
    data_wait: float
    mfu: float | None = None
    held_out: float | None = None
    scores: dict[str, float] | None = None
    substituted: int
    sample_ids: str


class Journal:
    """``metrics.jsonl`` of a run, continued from the step it resumes at.

    A local file grows line by line; a remote one is published with each checkpoint (``publish``).
    """

    def __init__(self, url: str, start_step: int) -> None:
        """Keep the rows of an earlier start up to ``start_step``, and drop those beyond."""
        self._url = url
        earlier = storage.read_bytes(url).splitlines() if storage.exists(url) else []
        self._lines = [line for line in earlier if _is_before(line, start_step)]
        self.publish()

    def add(self, row: Row) -> None:
        """Append a row."""
        line = msgspec.json.encode(row)
        self._lines.append(line)
        if not storage.is_remote(self._url):
            with storage.translated(self._url, "write"), Path(self._url).open("ab") as stream:
                stream.write(line + b"\n")

    def publish(self) -> None:
        """Publish all rows so far."""
        storage.publish_bytes(self._url, b"".join(line + b"\n" for line in self._lines))


def _is_before(line: bytes, step: int) -> bool:
    try:
        return msgspec.json.decode(line, type=Row).step <= step
    except msgspec.MsgspecError:  # the last line of a killed run may be cut short
        return False


def read(url: str) -> list[Row]:
    """Return the rows of a journal.

    Raises:
        StorageError: it cannot be read.
    """
    return [msgspec.json.decode(line, type=Row) for line in storage.read_bytes(url).splitlines()]


class TimeLeft:
    """How long the rest of a run will take, by its latest rows.

    What came before the first row (the model's compilation, the first blocks) counts for that row's
    estimate only.
    """

    def __init__(
        self, steps: int, done: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin to count.

        Args:
            steps: of the whole run.
            done: those that an earlier start took.
            clock: in seconds.
        """
        self._steps, self._clock = steps, clock
        self._begin = (done, clock())
        self._rows: deque[tuple[int, float]] = deque(maxlen=_WINDOW_ROWS)

    def after(self, step: int) -> float:
        """Return the seconds left at a row, after so many steps."""
        self._rows.append((step, self._clock()))
        before, then = self._rows[0] if len(self._rows) > 1 else self._begin
        _, now = self._rows[-1]
        return (now - then) / max(1, step - before) * (self._steps - step)


class Shown:
    """Rows as JSON for machines, else a line a row with the time that is left."""

    def __init__(self, steps: int, *, as_json: bool = False, stream: TextIO | None = None) -> None:
        self._steps, self._json, self._stream = steps, as_json, stream or sys.stderr

    def show(self, row: Row, seconds_left: float) -> None:
        """Print a row."""
        if self._json:
            text = msgspec.json.encode(row).decode()
        else:
            text = f"step {row.step:>6,}/{self._steps:,}  {_figures(row, seconds_left)}"
        print(text, file=self._stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class Bar(Shown):
    """Rows as a progress bar on a terminal."""

    def __init__(self, steps: int, console: Console | None = None) -> None:
        super().__init__(steps)
        columns = [
            TextColumn("train"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True)),
        ]
        # the note has what the others leave: on a narrow terminal its end is cut, not they
        self._bar = Progress(*columns, console=console or Console(stderr=True), expand=True)
        self._task = self._bar.add_task("train", total=steps, note="")

    def show(self, row: Row, seconds_left: float) -> None:
        """Move the bar to a row."""
        self._bar.update(self._task, completed=row.step, note=_figures(row, seconds_left))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def for_terminal(steps: int, *, as_json: bool = False) -> Shown:
    """Return a bar on a terminal, lines elsewhere, JSON lines when asked."""
    return Bar(steps) if sys.stderr.isatty() and not as_json else Shown(steps, as_json=as_json)


_SHOWN = {"zero_shot_top1": "top-1", "retrieval_text_by_image_r1": "R@1"}
"""Scores that a terminal shows; R@1 is that of finding a picture's text."""


def _figures(row: Row, seconds_left: float) -> str:
    """Return a row in words, what matters most first, since a narrow terminal cuts the end."""
    scores = row.scores or {}
    parts = [
        f"loss {row.loss:.4f}",
        f"held-out {row.held_out:.4f}" if row.held_out is not None else "",
        *(f"{word} {scores[name]:.1%}" for name, word in _SHOWN.items() if name in scores),
        f"{_clock(seconds_left)} left",
        f"{row.pairs_per_s:,.0f} pairs/s",
        f"MFU {row.mfu:.0%}" if row.mfu is not None else "",
        f"wait {row.data_wait:.0%}",
        f"scale {row.logit_scale:.3g}",
        f"grad {row.grad_norm:.3g}" if row.grad_norm is not None else "",
    ]
    return "  ".join(part for part in parts if part)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
