"""What is seen of a run in a browser: its rows on TensorBoard, and on wandb for who asks for it.

The journal has every row, so that no board is worth a run: where one cannot be written, that is
said once, and training goes on.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from wit_builder import storage
from wit_builder.errors import MissingPartError
from wit_train.config import LogSection
from wit_train.metrics import Row

_START_S = 30.0
"""For how long a start waits for wandb's server; every rank waits with it."""

_FINISH_S = 20.0
"""For how long the end of a run waits for wandb to upload; it may have been told to be quick."""


class _Board(Protocol):
    def add(self, step: int, figures: dict[str, float]) -> None: ...

    def publish(self) -> None: ...

    def close(self) -> None: ...


class Boards:
    """The boards that a recipe asks for, on rank 0."""

    def __init__(
        self, out: str, log: LogSection, recipe: dict[str, Any], start_step: int = 0
    ) -> None:
        """Open them.

        Args:
            out: folder of the run.
            log: which boards.
            recipe: as builtins, shown beside wandb's curves; what may be a secret is blanked out.
            start_step: steps that are done; what earlier starts showed beyond it is taken back.

        Raises:
            MissingPartError: the package of one is not installed.
        """
        self._boards: dict[str, _Board] = {}
        self._complained: set[str] = set()
        if log.tensorboard:
            _need("tensorboard", "wit-builder[train]", "set log.tensorboard=false")
            with self._forgiving("tensorboard"):
                self._boards["tensorboard"] = _TensorBoard(out, start_step)
        if log.wandb:
            _need("wandb", "wandb", "leave log.wandb empty")
            with self._forgiving("wandb"):
                self._boards["wandb"] = _Wandb(out, log.wandb, recipe)

    def add(self, row: Row) -> None:
        """Show a row's figures."""
        figures = msgspec.to_builtins(row)
        step = figures.pop("step")
        known = dict(_numbers(figures))
        for name, board in list(self._boards.items()):
            with self._forgiving(name):
                board.add(step, known)

    def publish(self) -> None:
        """Publish what a remote run's folder lacks; meant for each checkpoint."""
        for name, board in list(self._boards.items()):
            with self._forgiving(name, keep=True):  # the next time brings all of it
                board.publish()

    def close(self) -> None:
        """Publish the rest, and end each."""
        self.publish()
        for name, board in list(self._boards.items()):
            with self._forgiving(name):
                board.close()
        self._boards.clear()

    @contextlib.contextmanager
    def _forgiving(self, name: str, *, keep: bool = False) -> Iterator[None]:
        """Say once what goes wrong with a board, and drop it unless it is to be kept."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not worth the run
            if name not in self._complained:
                self._complained.add(name)
                said = storage.redact(" ".join(str(error).split()))[:300] or type(error).__name__
                lost = "is behind" if keep else "ends here"
                sys.stderr.write(f"warning: {name} {lost}, metrics.jsonl goes on: {said}\n")
            if not keep:
                self._boards.pop(name, None)


def _numbers(figures: dict[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    """Yield what is a number, by its path: ``scores/zero_shot_top1``."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{path}{name}/")
        elif isinstance(value, int | float):
            yield path + name, float(value)


def _need(package: str, pip: str, otherwise: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise MissingPartError(
            f"the run is to be shown by {package}, which is not installed",
            fix=f"pip install '{pip}', or {otherwise}",
        )


class _TensorBoard:
    """Rows in an event file of TensorBoard's, one a start of the run.

    The file is written here, record by record, and not by torch's SummaryWriter: that imports
    tensorflow where it is installed, and writes in a thread, whose errors nobody catches.
    """

    def __init__(self, out: str, start_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import (  # noqa: PLC0415 - optional package
            Event,
            SessionLog,
        )

        self._event = Event
        folder = storage.join(out, "tensorboard")
        # what TensorBoard looks for in a name, and a time first, which it sorts by
        name = f"events.out.tfevents.{time.time_ns() // 1000:016d}.{socket.gethostname()}"
        self._url = storage.join(folder, f"{name}.{os.getpid()}")
        self._kept = bytearray()
        storage.publish_bytes(self._url, b"")
        self._write(Event(file_version="brain.Event:2"))
        # takes back what earlier files say of this step and of later ones
        started = SessionLog(status=SessionLog.START)
        self._write(Event(step=start_step + 1, session_log=started))

    def add(self, step: int, figures: dict[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415 - optional package

        values = [Summary.Value(tag=k, simple_value=v) for k, v in figures.items()]
        self._write(self._event(step=step, summary=Summary(value=values)))

    def publish(self) -> None:
        if storage.is_remote(self._url):
            storage.publish_bytes(self._url, bytes(self._kept))

    def close(self) -> None: ...

    def _write(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import (  # noqa: PLC0415 - optional package
            RecordWriter,
        )

        event.wall_time = time.time()
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        if storage.is_remote(self._url):
            self._kept += record.getvalue()
        else:
            with Path(self._url).open("ab") as stream:
                stream.write(record.getvalue())


class _Wandb:
    """Rows on wandb; a run that goes on continues its curve."""

    def __init__(self, out: str, project: str, recipe: dict[str, Any]) -> None:
        import wandb  # noqa: PLC0415 - optional package

        entity, _, project = project.rpartition("/")
        self._run = wandb.init(
            project=project,
            entity=entity or None,
            name=recipe.get("name"),
            id=_curve(out),
            resume="allow",
            config=_without_secrets(recipe),
            dir=None if storage.is_remote(out) else out,
            settings=wandb.Settings(
                # the terminal is ours, and neither it nor the command line is wandb's to upload
                console="off",
                x_disable_meta=True,
                disable_git=True,
                save_code=False,
                quiet=True,
                init_timeout=_START_S,
                finish_timeout=_FINISH_S,
            ),
        )

    def add(self, step: int, figures: dict[str, float]) -> None:
        if step >= self._run.step:  # else it has the row from before a crash, and would complain
            self._run.log(figures, step=step)

    def publish(self) -> None: ...

    def close(self) -> None:
        self._run.finish()


def _curve(out: str) -> str:
    """Return wandb's id of a run, kept in its folder.

    It is drawn, not derived from the place: in a folder that was emptied, a run begins anew, and
    wandb would drop its steps up to the last of the old one.
    """
    place = storage.join(out, "wandb-id")
    if storage.exists(place):
        return storage.read_bytes(place).decode().strip()
    curve = secrets.token_hex(8)
    storage.publish_bytes(place, curve.encode() + b"\n")
    return curve


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {storage.redact(str(k)): _without_secrets(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(v) for v in value]
    return storage.redact(value) if isinstance(value, str) else value
