"""clip_benchmark's own command, on a NumPy that it does not know yet.

    python -m benchmarks.clip_benchmark_cli eval --model local-dir:FOLDER ...

Its release 1.6.2 makes a float of an array with one element, which NumPy refuses from 2.4 on
(issue 147 of LAION-AI/CLIP_benchmark). Here its module finds a ``float`` that takes one, as before;
nothing else of it is touched. With an older NumPy, its plain command does the same.
"""

from __future__ import annotations

import numpy as np


def mend() -> None:
    """Give clip_benchmark's accuracy a ``float`` of arrays with one element."""
    from clip_benchmark.metrics import zeroshot_classification  # noqa: PLC0415 - takes seconds

    zeroshot_classification.float = _float


def _float(value: object) -> float:
    return float(value.item() if isinstance(value, np.ndarray) else value)  # type: ignore[arg-type]  # as float


if __name__ == "__main__":
    from clip_benchmark.cli import main

    mend()
    main()
