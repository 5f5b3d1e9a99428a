"""The whole build, on a real (loopback) web: same bytes however it is done."""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.killing import killed_in
from tests.small_web import CAP, SmallWeb, shards_of
from wit_builder import exchange, storage
from wit_builder import recipe as recipes
from wit_builder.pack import plan
from wit_builder.shards.verify import verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(small_run: Path) -> str:
    """A build that nothing disturbed, by one worker."""
    return str(small_run)


def table(root: str, *folders: str) -> pa.Table:
    urls = storage.list_files(storage.join(root, "g0", *folders), ".parquet")
    return pa.concat_tables(storage.read_parquet(url) for url in urls)


def read_with_webdataset(tars: list[str]) -> list[dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn, and it leaves tars to the collector
        import webdataset

        samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("pil"))
        gc.collect()
    return samples


def test_the_shards_are_whole_and_open_with_webdataset(built: str) -> None:
    """Every digest holds, and plain webdataset sees every kept pair once."""
    folder = storage.join(built, "g0", "shards")
    report = verify(folder)
    assert not report.faults
    tars = storage.list_files(folder, ".tar")
    assert len(tars) > 1
    samples = read_with_webdataset(tars)
    kept = table(built, "kept")
    assert sorted(s["json"]["uid"] for s in samples) == sorted(
        u.hex() for u in kept["uid"].to_pylist()
    )
    assert all(max(s["jpg"].size) >= 32 and s["txt"] == s["json"]["caption"] for s in samples)


def test_no_query_is_over_its_cap_and_the_busy_one_is_full(built: str) -> None:
    """The word that half the web says keeps its cap exactly; nobody keeps more."""
    balance = storage.read_parquet(storage.join(built, "report", "balance.parquet"))
    assert max(balance["kept"].to_pylist()) == CAP
    rows = {row["query"]: row for row in balance.to_pylist()}
    assert rows["drawing"]["status"] == "full"
    assert rows["drawing"]["matched"] > 5 * CAP


def test_dead_links_are_topped_up(built: str) -> None:
    """A second round asks for what the first one lost, and gets pictures."""
    first, second = table(built, "images", "r0"), table(built, "images", "r1")
    assert pc.sum(pc.equal(first["outcome"], "dead")).as_py() > 0
    assert pc.sum(pc.equal(second["outcome"], "alive")).as_py() > 0


def test_nothing_is_lost_on_the_way(built: str) -> None:
    """Every candidate is matched or rejected by name, and every asked pair has an outcome."""
    rejected = table(built, "rejected")
    matched = table(built, "matched")
    of_stage = pc.value_counts(rejected["stage"]).to_pylist()
    dropped = {row["values"]: row["counts"] for row in of_stage}
    markers = Path(built, "units", "g0", "match").glob("*.json")
    counts = [json.loads(m.read_text())["counts"] for m in markers]
    candidates = sum(c["candidates"] for c in counts)
    assert candidates == matched.num_rows + dropped["match"] + dropped["dedup"] - _doubled(built)
    for number in ("r0", "r1"):
        asked, answered = table(built, "selected", number), table(built, "images", number)
        moved = pc.equal(answered["outcome"], "moved")  # another row tells what came of it
        answers = answered.filter(pc.invert(moved))
        assert sorted(asked["uid"].to_pylist()) == sorted(answers["uid"].to_pylist())


def _doubled(root: str) -> int:
    """Pairs dropped after fetching, since another has their picture: they were matched."""
    return storage.read_parquet(storage.join(root, "g0", "rejected", "keep-00000.parquet")).num_rows


def test_what_opted_out_is_neither_asked_for_nor_kept(built: str, small_web: SmallWeb) -> None:
    """What robots.txt forbids was never asked for; noai pictures are in no shard."""
    counts = small_web.web.counts()
    assert counts["none"] > 0
    assert "forbidden" not in counts
    images = table(built, "images", "r0")
    opted = images.filter(pc.equal(images["reason"], "opt_out_image"))
    kept = table(built, "kept")
    assert opted.num_rows > 0
    assert not set(opted["uid"].to_pylist()) & set(kept["uid"].to_pylist())


def test_two_workers_give_the_same_bytes(built: str, small_web: SmallWeb, tmp_path: Path) -> None:
    """The number of workers changes no byte of a shard."""
    small_web.build(str(tmp_path), workers=2)
    assert shards_of(str(tmp_path)) == shards_of(built)


@pytest.mark.s3
def test_a_bucket_gives_the_same_bytes(built: str, small_web: SmallWeb, s3_folder: str) -> None:
    """A run whose folder is on a real S3 server has the shards of the local one."""
    small_web.build(s3_folder)
    assert shards_of(s3_folder) == shards_of(built)
    assert not verify(storage.join(s3_folder, "g0", "shards")).faults


def test_a_second_start_does_nothing(built: str, small_web: SmallWeb) -> None:
    """Everything is done: no marker is written again, no request is made."""
    markers = {p: p.stat().st_mtime_ns for p in Path(built, "units").rglob("*.json")}
    before = small_web.web.counts()
    small_web.build(built)
    assert {p: p.stat().st_mtime_ns for p in Path(built, "units").rglob("*.json")} == markers
    assert small_web.web.counts() == before


def test_merging_exchange_files_changes_no_byte(
    built: str, small_web: SmallWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more slices than are allowed, files are merged first; the shards are the same."""
    monkeypatch.setattr(exchange, "MAX_SLICES", 3)
    monkeypatch.setattr(plan, "UNIT_BYTES", 100_000)  # so that pack has several
    small_web.build(str(tmp_path))
    merged = {p.parent.name for p in tmp_path.rglob("*-merged/*.arrow")}
    assert {"match-merged", "route-r0-merged", "pack-locate-merged"} <= merged
    assert shards_of(str(tmp_path)) == shards_of(built)


def start(small_web: SmallWeb, root: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "wit_builder", *small_web.command(root)]
    command += ["--workers", "2", "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_at_random_moments_and_resumed_gives_the_same_bytes(
    built: str, small_web: SmallWeb, tmp_path: Path
) -> None:
    """SIGKILL in the middle of several stages changes nothing in the end."""
    moments = random.Random(11)
    stages = ["queries", "crawl-site", "match", "fetch-r0", "fetch-r0", "pack"]
    killed = [
        killed_in(start(small_web, str(tmp_path)), stage, moments.uniform(0.02, 0.4))
        for stage in stages
    ]
    assert sum(killed) >= 3
    with start(small_web, str(tmp_path)) as process:
        _, said = process.communicate()
    assert process.returncode == 0, said
    assert shards_of(str(tmp_path)) == shards_of(built)
    assert not list(tmp_path.rglob(".*.part"))


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_says_so_and_goes_on(
    built: str, small_web: SmallWeb, tmp_path: Path, signal_number: int
) -> None:
    """Ctrl-C or SIGTERM: status 130 and one line; starting again finishes the same bytes."""
    with start(small_web, str(tmp_path)) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("{") and json.loads(line)["stage"] == "fetch-r0":
                break
        process.send_signal(signal_number)
        said = process.stderr.read()
        process.wait(timeout=60)
    assert process.returncode == 130, said
    assert said.splitlines()[-1].startswith("wit: interrupted ->")
    assert "Traceback" not in said
    small_web.build(str(tmp_path))
    assert shards_of(str(tmp_path)) == shards_of(built)


def test_a_smaller_recipe_leaves_nothing_of_a_larger_one(
    built: str, small_web: SmallWeb, tmp_path: Path
) -> None:
    """Building again with fewer buckets and bigger shards leaves no file of the first build."""
    from wit_builder import pipeline, units

    root = Path(shutil.copytree(built, tmp_path / "run"))
    smaller = recipes.read(small_web.recipe, ["buckets=1", "pack.samples_per_shard=1000"])
    pipeline.Build(smaller, units.Run(str(root)), small_web.loopback)()
    assert len(storage.list_files(str(root / "g0" / "matched"))) == 1
    assert len(storage.list_files(str(root / "g0" / "shards"), ".tar")) == 1
    assert not verify(str(root / "g0" / "shards")).faults


def test_ray_gives_the_same_bytes(built: str, small_web: SmallWeb, tmp_path: Path) -> None:
    """The same units as Ray tasks on a real (one-node) cluster give the same shards."""
    command = [sys.executable, "-m", "wit_builder", *small_web.command(str(tmp_path))]
    env = {**os.environ, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    done = subprocess.run(
        [*command, "--runner", "ray"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert shards_of(str(tmp_path)) == shards_of(built)
