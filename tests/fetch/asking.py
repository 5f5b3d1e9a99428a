"""Fetch units of URLs, and what became of these."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.fetch.conftest import selection
from tests.mock_web import MockWeb
from wit_builder.exchange import scatter
from wit_builder.fetch.run import FetchJob
from wit_builder.sections import FetchSection, ImageSection


def job(folder: Path, web: MockWeb, urls: list[str], fetch: FetchSection, **more: Any) -> FetchJob:
    """Return a unit that asks a web for URLs, with its notes, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    source = str(folder / "selected.arrow")
    scatter(selection(urls), np.zeros(len(urls), np.int64), 1, source)
    settings = {"image": ImageSection(size_px=64), "loopback": web.loopback, **more}
    return FetchJob(
        sources=[source],
        bucket=0,
        number=0,
        out=str(folder / "images"),
        fetch=fetch,
        notes=str(folder / "web"),
        **settings,
    )


def rows(folder: str) -> pa.Table:
    """Return the rows of all parts in a folder."""
    return pa.concat_tables(pq.read_table(path) for path in sorted(Path(folder).glob("*.parquet")))


# Not getrusage: its peak is that of the parent, where the parent was larger (Linux, execve).
CHILD = """
import pickle, sys
from wit_builder.fetch.run import run
for job in pickle.load(open(sys.argv[1], "rb")):
    run(job)
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(peak.split()[1], flush=True)
"""


def peaks_kb(folder: Path, jobs: Sequence[FetchJob]) -> list[int]:
    """Return the peak memory, so far, of a process of its own after each unit that it does."""
    (folder / "jobs.pickle").write_bytes(pickle.dumps(list(jobs)))
    command = [sys.executable, "-c", CHILD, str(folder / "jobs.pickle")]
    told = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return [int(line) for line in told.split()]
