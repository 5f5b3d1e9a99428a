"""What is seen of a run: a row per logged step, in a JSONL file and on the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Self, TextIO

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from wit_builder import storage


class Row(msgspec.Struct, frozen=True):
    """A logged step.

    Attributes:
        step: how many steps are done.
        loss: of that step.
        logit_scale: after it.
        learning_rate: of that step.
        pairs_per_s: since the row before.
        data_wait: share of the time since the row before spent waiting for data.
        substituted: samples replaced by another of their block, since the row before.
        sample_ids: xxh3-64 hex over the step's sample ids, to compare runs with.
    """

    step: int
    loss: float
    logit_scale: float
    learning_rate: float
    pairs_per_s: float
    data_wait: float
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
            with Path(self._url).open("ab") as stream:
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


class Shown:
    """Rows as JSON for machines, else a line a row with the time that is left."""

    def __init__(self, steps: int, *, as_json: bool = False, stream: TextIO | None = None) -> None:
        self._steps, self._json, self._stream = steps, as_json, stream or sys.stderr

    def show(self, row: Row, seconds_left: float) -> None:
        """Print a row."""
        if self._json:
            text = msgspec.json.encode(row).decode()
        else:
            text = (
                f"step {row.step:>6,}/{self._steps:,}  {_figures(row)}  {_clock(seconds_left)} left"
            )
        print(text, file=self._stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class Bar(Shown):
    """Rows as a progress bar on a terminal."""

    def __init__(self, steps: int) -> None:
        super().__init__(steps)
        columns = [
            TextColumn("train             "),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        ]
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("train", total=steps, note="")

    def show(self, row: Row, seconds_left: float) -> None:
        """Move the bar to a row."""
        note = f"{_figures(row)}  {_clock(seconds_left)} left"
        self._bar.update(self._task, completed=row.step, note=note)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def for_terminal(steps: int, *, as_json: bool = False) -> Shown:
    """Return a bar on a terminal, lines elsewhere, JSON lines when asked."""
    return Bar(steps) if sys.stderr.isatty() and not as_json else Shown(steps, as_json=as_json)


def _figures(row: Row) -> str:
    return (
        f"loss {row.loss:7.4f}  scale {row.logit_scale:6.2f}  "
        f"{row.pairs_per_s:6,.0f} pairs/s  waiting {row.data_wait:4.0%}"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
