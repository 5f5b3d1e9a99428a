"""Packing by map units and coarse buckets, in a run, as it is where there is much to pack."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.killing import killed_in
from tests.small_web import SmallWeb, shards_of
from wit_builder import pipeline, removal, units
from wit_builder import recipe as recipes
from wit_builder.pack import plan
from wit_builder.removal.wanted import entry
from wit_builder.runners import make_runner
from wit_builder.shards.verify import verify

pytestmark = pytest.mark.slow

_MANY = "pack.samples_per_shard=4"
"""Shards enough for coarse buckets."""

_UNIT_BYTES, _MAX_SLICES = 60_000, 3
"""Limits that make a small build a large one."""


@pytest.fixture(scope="module")
def built(small_web: SmallWeb, small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a report, packed by one map unit and one exchange; read only."""
    root = tmp_path_factory.mktemp("built") / "run"
    shutil.copytree(small_run, root, ignore=shutil.ignore_patterns("report", "pack*", "shards"))
    build(small_web, root)
    return root


def build(small_web: SmallWeb, root: Path, workers: int = 1, *overrides: str) -> None:
    recipe = recipes.read(small_web.recipe, [_MANY, *overrides])
    runner = make_runner(workers)
    try:
        pipeline.Build(recipe, units.Run(str(root), runner), small_web.loopback)("pack")
    finally:
        runner.close()


def unpacked(built: Path, root: Path) -> Path:
    """Return a copy of a run that has fetched all, and packed nothing."""
    shutil.copytree(built, root)
    for stage in root.glob("units/g0/pack*"):
        shutil.rmtree(stage)
    for folder in ("packed", "located", "wanted"):
        shutil.rmtree(root / "g0/exchange" / folder)
    shutil.rmtree(root / "g0/shards")
    return root


@pytest.fixture
def large(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run that is still to be packed, under the limits of a large one."""
    monkeypatch.setattr(plan, "UNIT_BYTES", _UNIT_BYTES)
    monkeypatch.setattr(plan, "MAX_SLICES", _MAX_SLICES)
    return unpacked(built, tmp_path / "run")


def test_two_exchanges_give_the_shards_of_one(
    built: Path, large: Path, small_web: SmallWeb
) -> None:
    """Map units, coarse buckets and two workers change no byte of a shard."""
    build(small_web, large, workers=2)
    for folder in ("packed", "refined"):
        assert len(list((large / "g0/exchange" / folder).glob("*.arrow"))) > 3
    assert shards_of(str(large)) == shards_of(str(built))
    markers = {p: p.stat().st_mtime_ns for p in (large / "units").rglob("*.json")}
    build(small_web, large)
    assert {p: p.stat().st_mtime_ns for p in (large / "units").rglob("*.json")} == markers


def test_one_exchange_again_leaves_nothing_of_two(
    built: Path, large: Path, small_web: SmallWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a second exchange wrote goes with it, and the shards are the same still."""
    build(small_web, large)
    monkeypatch.undo()
    build(small_web, large)
    assert not list((large / "g0/exchange/refined").glob("*"))
    assert shards_of(str(large)) == shards_of(str(built))


def test_no_picture_of_a_removed_pair_is_left_in_any_exchange(
    large: Path, small_web: SmallWeb
) -> None:
    """Its bytes are gone from the files of both exchanges; and packed anew, it stays out."""
    build(small_web, large)
    pair = pq.read_table(next(large.glob("g0/kept/*.parquet")))["uid"][0].as_py()
    jpeg, others = picture(large, pair), sum(holding(large, b"\xff\xd8\xff").values())
    assert {"packed", "refined", "shards"} <= {p.parent.name for p in holding(large, jpeg)}
    assert removal.remove(str(large), [entry("uid", pair.hex())]).samples == 1
    assert not holding(large, jpeg)
    assert sum(holding(large, b"\xff\xd8\xff").values()) > others // 2
    build(small_web, large, 1, "pack.max_block_bytes=8192")
    assert verify(str(large / "g0/shards")).ok
    assert not holding(large, jpeg)


def test_what_is_judged_is_packed_from_the_tars_beside(
    built: Path, tmp_path: Path, small_web: SmallWeb
) -> None:
    """A block-list makes tables of its own; the pictures are in the parts as they were fetched."""
    root = Path(shutil.copytree(built, tmp_path / "run"))
    listed = tmp_path / "listed"
    listed.write_text("0" * 32)
    build(small_web, root, 1, f'block.md5=["{listed}"]')
    assert list(root.glob("g0/judged/*/*.parquet"))
    digests = [shards_of(str(folder)) for folder in (root, built)]
    tars = [{n: d for n, d in found.items() if n.endswith(".tar")} for found in digests]
    assert tars[0] == tars[1]


def picture(root: Path, uid: bytes) -> bytes:
    """Return a kept pair's picture, by the table of its shard."""
    for table in root.glob("g0/shards/0*.parquet"):
        for row in pq.read_table(table).to_pylist():
            if row["uid"] == uid:
                data = table.with_suffix(".tar").read_bytes()
                return data[row["jpg"]["offset"] :][: row["jpg"]["size"]]
    raise AssertionError(f"{uid.hex()} is in no shard")


def holding(root: Path, data: bytes) -> dict[Path, int]:
    """Return which files have some bytes, and how often."""
    found = {p: p.read_bytes().count(data) for p in root.rglob("*") if p.is_file()}
    return {path: count for path, count in found.items() if count}


MAIN = f"""
from wit_builder.pack import plan
plan.UNIT_BYTES, plan.MAX_SLICES = {_UNIT_BYTES}, {_MAX_SLICES}
from wit_builder.cli import main
main()
"""


def test_killed_while_packing_and_resumed_gives_the_same_bytes(
    built: Path, tmp_path: Path, small_web: SmallWeb
) -> None:
    """SIGKILL in each of the stages of packing changes nothing in the end."""
    root = unpacked(built, tmp_path / "run")
    command = [sys.executable, "-c", MAIN, *small_web.command(str(root)), "--set", _MANY, "--json"]

    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen([*command, "--workers", "2"], stdout=pipe, stderr=pipe, text=True)

    stages = ["pack-locate", "pack-scatter", "pack-refine", "pack", "pack-finish"]
    assert sum(killed_in(start(), stage, 0.02) for stage in stages) >= 3
    with start() as process:
        _, said = process.communicate()
    assert process.returncode == 0, said
    assert shards_of(str(root)) == shards_of(str(built))
    assert not list(root.rglob(".*.part"))
