"""How much memory units of packing take, by how much there is to pack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.pack.by_hand import kept_of, row_of
from wit_builder import storage
from wit_builder.pack import wanted
from wit_builder.shards import tar
from wit_builder.tables import IMAGES

_PICTURE_BYTES, _PAIRS = 16_000, 256
"""Of a part: 4 MB."""

_MAP = """
import functools, json, sys
from pathlib import Path
from wit_builder import exchange
from wit_builder.pack import plan, scatter
exchange.scattering = functools.partial(exchange.scattering, held_bytes=2 << 20)
scatter._BATCH_BYTES = 1 << 20
folder, parts = Path(sys.argv[1]), int(sys.argv[2])
def high_water():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10
def scattered(files):
    wanted, ways = [str(folder / "wanted.arrow")], plan.Ways(2 * parts)
    job = scatter.MapJob(files, wanted, 0, ways, 0, str(folder / "out.arrow"))
    return scatter.run(job).counts["pairs"]
files = [scatter.PartFiles(f"{folder}/{n}.parquet", f"{folder}/{n}.tar") for n in range(parts)]
scattered(files[:1])  # what is loaded at first use is not what is asked about
before = high_water()
pairs = scattered(files)
print(json.dumps([pairs, high_water() - before]))
"""


def write_parts(folder: Path, parts: int) -> None:
    """Write parts of pictures of noise, and what tells that all are wanted."""
    noise, rows = np.random.default_rng(0), []
    for part in range(parts):
        mine = [row_of(part * _PAIRS + number) for number in range(_PAIRS)]
        storage.write_parquet(
            str(folder / f"{part}.parquet"), pa.Table.from_pylist(mine, schema=IMAGES)
        )
        with (folder / f"{part}.tar").open("wb") as sink:
            for row in mine:
                body = noise.bytes(tar.padded(_PICTURE_BYTES))
                sink.write(tar.header(f"{row['key']}.jpg", len(body)) + body)
            sink.write(tar.TRAILER)
        rows += mine
    storage.write_parquet(str(folder / "kept.parquet"), kept_of(rows))
    located, tables = str(folder / "located.arrow"), [f"{folder}/{n}.parquet" for n in range(parts)]
    wanted.run_locate(wanted.LocateJob(tables, 0, 1, located))
    place = str(folder / "wanted.arrow")
    wanted.run_want(wanted.WantJob([located], 0, str(folder / "kept.parquet"), 1, place))


@pytest.mark.parametrize("parts", [2, 32])
def test_a_map_unit_does_not_hold_its_pictures(tmp_path: Path, parts: int) -> None:
    """Eight megabytes or 130, a map unit takes little more memory than it may hold."""
    write_parts(tmp_path, parts)
    command = [sys.executable, "-c", _MAP, str(tmp_path), str(parts)]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    pairs, grown = json.loads(said.stdout)
    assert pairs == parts * _PAIRS
    assert grown < 48 << 20
