"""A contestant of ``evaluate.py``: its own command, with a clock on its classification.

    python -m benchmarks.evaluate_command ours eval FOLDER --images SET ...
    python -m benchmarks.evaluate_command peer eval --model local-dir:FOLDER ...

What is clocked begins when the model is loaded and the test set is open, and ends with the scores:
the text classifier, reading, decoding, the tower, and counting.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks import clip_benchmark_cli
from benchmarks.stream_meter import tree_cpu_s


class Clocked(NamedTuple):
    """What classification took; CPU time is that of the whole tree of processes."""

    seconds: float
    cpu_s: float


def clocked(work: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does the same, and prints what it took as a line of JSON."""

    def timed(*args: Any, **options: Any) -> Any:
        cpu_s, began = tree_cpu_s(os.getpid()), time.perf_counter()
        found = work(*args, **options)
        took = Clocked(time.perf_counter() - began, tree_cpu_s(os.getpid()) - cpu_s)
        print("\n" + json.dumps(took._asdict()), flush=True)
        return found

    return timed


def read(output: str) -> Clocked:
    """Return what was clocked, out of all that a contestant printed."""
    (line,) = (line for line in output.splitlines() if line.startswith('{"seconds"'))
    return Clocked(**json.loads(line))


def main() -> None:
    """Be the command."""
    who, *words = sys.argv[1:]
    sys.argv = ["wit" if who == "ours" else "clip_benchmark", *words]
    if who == "ours":
        _put("wit_train.evaluate.run", "zero_shot")
        importlib.import_module("wit_builder.cli").main()
    else:
        clip_benchmark_cli.mend()
        _put("clip_benchmark.metrics.zeroshot_classification", "evaluate")
        importlib.import_module("clip_benchmark.cli").main()


def _put(module: str, function: str) -> None:
    where = importlib.import_module(module)
    setattr(where, function, clocked(getattr(where, function)))


if __name__ == "__main__":
    main()
