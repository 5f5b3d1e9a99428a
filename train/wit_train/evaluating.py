"""``wit eval`` in its processes: one, some that it starts itself, or some that torchrun started.

    torchrun --nnodes 2 --nproc-per-node 8 ... -m wit_train.evaluating JSON

is what the launcher runs on this machine, JSON being ``evaluate.run.Asked``. Nothing resumes: a
process that fails ends the others.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from types import FrameType
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Column, Table
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from wit_builder.errors import PeerError, TrainingError, WitError
from wit_train import launch, ranks
from wit_train.commands import need_torch
from wit_train.evaluate import results, run
from wit_train.evaluate.results import Result, Results, Score
from wit_train.evaluate.run import Asked

_EXAMPLE = '{"model": "RUN", "images": "SET", "few_shot": [1, 2], "out": "FOLDER"}'

_PATIENCE_S = 24 * 3600.0
"""For so long do ranks wait for each other: one may have the slow pictures, or fit the probe."""


def evaluate(asked: dict[str, Any], processes: int, *, as_json: bool) -> None:
    """Measure what was asked, as ``run.Asked``, and print it.

    Args:
        asked: its fields.
        processes: to start; 0: one for each GPU, or one. In a process of torchrun's it is not read.
        as_json: print JSON instead of a table.

    Raises:
        WitError: see ``run.evaluate``; or a process failed, which said why itself.
    """
    question = msgspec.convert(asked, Asked)
    run.check(question)
    count = launch.processes_of(processes)
    try:
        if "RANK" not in os.environ and count > 1:
            _beside_each_other(asked, count, as_json=as_json)
        else:
            _here(question, as_json=as_json)
    except KeyboardInterrupt:
        sys.stderr.write("wit eval: interrupted; it begins anew when it is started again\n")
        raise SystemExit(launch.INTERRUPTED) from None


def _here(asked: Asked, *, as_json: bool) -> None:
    """Take this process's part; the first one prints."""
    total = int(os.environ.get("WORLD_SIZE", "1"))
    with _without_checkpoint(), ranks.joined(total, _PATIENCE_S) as own:
        assert own is not None  # all of them divide so many lanes
        found = run.evaluate(asked, own, lambda line: print(line, file=sys.stderr, flush=True))
        if own.rank == 0:
            text = results.encoded(found).decode()
            print(text, end="") if as_json else _show(found)


@contextlib.contextmanager
def _without_checkpoint() -> Iterator[None]:
    """Say of a lost peer what helps an evaluation, which has no checkpoint to go on from."""
    try:
        yield
    except PeerError as error:
        fix = "see what it says itself"
        raise PeerError(error.what, where=error.where, fix=fix) from error


def _show(found: Results) -> None:
    Console().print(table_of(found))
    measured = (found.zero_shot, found.retrieval, found.probe and found.probe.result, found.overlap)
    for note in dict.fromkeys(note for part in measured if part for note in part.notes):
        print(f"note: {note}")


def _beside_each_other(asked: dict[str, Any], count: int, *, as_json: bool) -> None:
    launch.hush()
    words = [msgspec.json.encode(asked).decode(), *(["--json"] if as_json else [])]
    before = dict(os.environ)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // count)))
    try:
        with tempfile.TemporaryDirectory(prefix="wit-") as folder:
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=count,
                run_id="wit-eval",
                rdzv_backend="c10d",
                rdzv_endpoint="127.0.0.1:0",
                rdzv_configs={"is_host": 1},
                max_restarts=0,
                signals_to_handle="SIGHUP,SIGQUIT",
                # or else torch makes a folder, and leaves it behind
                logs_specs=DefaultLogsSpecs(log_dir=folder),
            )
            with _interruptible():
                elastic_launch(config, sys.executable)("-m", "wit_train.evaluating", *words)
    except SignalException as error:
        if error.sigval == signal.SIGTERM:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + error.sigval) from None
    except ChildFailedError as error:
        raise TrainingError(
            f"{len(error.failures)} of {count} processes failed",
            where="wit eval",
            fix="see what they said above",
        ) from None
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Have the agent send SIGTERM to its processes for either signal, and be asked once.

    It would pass Ctrl-C on, at which those that are still importing print tracebacks.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)

    def end(_: int, __: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise SignalException("interrupted", signal.SIGTERM)

    before = {n: signal.signal(n, end) for n in numbers if signal.getsignal(n) != signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def table_of(found: Results) -> Table:
    """Return all scores as a table for the terminal."""
    headings = ("score", "95 % interval", "chance", "of")
    table = Table("", *(Column(heading, no_wrap=True) for heading in headings))
    probe, twice = found.probe, found.overlap
    for task, result in (
        ("zero-shot", found.zero_shot),
        ("retrieval", found.retrieval),
        ("linear probe", probe and probe.result),
    ):
        if result:
            _add(table, task, result)
    for prompt in found.zero_shot.prompts if found.zero_shot else ():
        table.add_row(f'top1 of "{prompt.wording}" alone', *_figures(prompt.top1))
    for shot in probe.few_shot if probe else ():
        fewer = f", fewer of {shot.short:,}" if shot.short else ""
        table.add_row(f"top1 of a probe on {shot.shots} of each class{fewer}", f"{shot.top1:.2%}")
    if twice:
        table.add_row("trained on, too", "", "", "", f"{twice.overlapping:,}")
        for name, part in (("these (99.5 %)", twice.overlap), ("the others", twice.clean)):
            if part:
                table.add_row(f"zero-shot top1 of {name}", *_figures(part))
    return table


def _add(table: Table, task: str, result: Result) -> None:
    for name, score in result.scores.items():
        count = result.texts if name.startswith("image_by") else result.pictures
        table.add_row(f"{task} {name.replace('_', ' ')}", *_figures(score), f"{count:,}")
    for why, count in result.left_out.items():
        table.add_row(f"left out: {why}", "", "", "", f"{count:,}")
    if result.empty_classes:
        table.add_row("classes with no picture", f"{len(result.empty_classes):,}")


def _figures(score: Score) -> tuple[str, str, str]:
    low, high = score.low, score.high
    interval = "" if low is None or high is None else f"{low:.2%} - {high:.2%}"
    return f"{score.value:.2%}", interval, "" if score.chance is None else f"{score.chance:.3%}"


def main(words: list[str]) -> None:
    """Be one process of several; print an error in one line and exit with 1."""
    need_torch("wit eval")
    try:
        asked = msgspec.json.decode(words[0] if words else "", type=Asked)
    except msgspec.MsgspecError as error:
        sys.exit(f"wit eval: not a question in JSON, such as {_EXAMPLE}: {error}")
    try:
        _here(asked, as_json="--json" in words[1:])
    except WitError as error:
        sys.exit(f"wit eval: {error}")
    except KeyboardInterrupt:
        sys.exit(launch.INTERRUPTED)


if __name__ == "__main__":
    main(sys.argv[1:])
