"""A data set from shards that have their pictures: balanced anew, with nobody asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.foreign_tar import sample, write
from tests.mock_web import jpeg
from tests.offline import unplug
from tests.small_web import shards_of
from wit_builder import pipeline, recipe, storage, units
from wit_builder.shards.read import Dataset, Sample
from wit_builder.shards.verify import verify

RECIPE = """
name = "rebalanced"
seed = 3
buckets = 3

[queries]
numbers = 0
custom = ["queries.txt"]

[balance]
cap_per_query = {cap}

[pack]
samples_per_shard = 6
max_block_bytes = 65_536

[[crawl.sources]]
kind = "webdataset"
paths = ["{paths}"]
"""
CAP = 5
TEXTS = [*["a cat"] * 20, *["a dog"] * 7, *["a cat and a dog"] * 3, *["nothing"] * 10]


def pictures() -> list[bytes]:
    return [jpeg(64, 40 + i, seed=i) for i in range(len(TEXTS))]


def given(folder: Path) -> str:
    """Write two shards as img2dataset would, the second without URLs; return their pattern."""
    made = [
        sample(f"{i:09d}", body, f"{text}, number {i}", **_metadata(i))
        for i, (body, text) in enumerate(zip(pictures(), TEXTS, strict=True))
    ]
    write(folder / "cc" / "00000.tar", *made[0::2])
    write(folder / "cc" / "00001.tar", *made[1::2])
    return f"{folder}/cc/{{00000..00001}}.tar"


def _metadata(number: int) -> dict[str, str]:
    return {} if number % 2 else {"url": f"https://example.test/{number}.jpg"}


def build(root: Path, paths: str, cap: int = CAP) -> list[Sample]:
    """Build into a folder, in this process; return the samples of the data set."""
    if not root.exists():
        root.mkdir()
        (root / "queries.txt").write_text("cat\ndog\nhorse\n")
    (root / "in.toml").write_text(RECIPE.format(cap=cap, paths=paths))
    pipeline.Build(recipe.read(str(root / "in.toml")), units.Run(str(root)))()
    assert not verify(str(root / "g0" / "shards")).faults
    data = Dataset.open(str(root / "g0" / "shards"))
    return [s for shard in range(data.info.shards) for s in data.samples(shard)]


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Sample]:
    unplug(monkeypatch)
    return build(tmp_path / "built", given(tmp_path / "given"))


def test_balanced_anew_with_nobody_asked(samples: list[Sample], tmp_path: Path) -> None:
    """Without network and contact, each query keeps its cap; pictures are bit-identical."""
    url = str(tmp_path / "built" / "report" / "balance.parquet")
    kept = {row["query"]: row["kept"] for row in storage.read_parquet(url).to_pylist()}
    assert kept == {"cat": CAP, "dog": CAP, "horse": 0}
    given_pictures = pictures()
    for found in samples:
        metadata = json.loads(found.members["json"])
        text, number = metadata["caption"].rsplit(" ", 1)
        assert found.members["jpg"] == given_pictures[int(number)]
        assert text == f"{TEXTS[int(number)]}, number"
        shard = f"wds:cc/00001.tar/{int(number):09d}"
        assert metadata["url"] == _metadata(int(number)).get("url", shard)


def test_the_same_bytes_again(samples: list[Sample], tmp_path: Path) -> None:
    """From a copy of the shards elsewhere, the data set has the same bytes."""
    assert build(tmp_path / "again", given(tmp_path / "elsewhere")) == samples
    assert shards_of(str(tmp_path / "again")) == shards_of(str(tmp_path / "built"))


def test_from_what_was_built(samples: list[Sample], tmp_path: Path) -> None:
    """Our own shards are a source as well: pairs keep uid, URL and picture, even without URL."""
    fewer = build(tmp_path / "fewer", f"{tmp_path}/built/g0/shards/*.tar", cap=2)
    before = {uid_of(s): s.members["jpg"] for s in samples}
    assert 2 <= len(fewer) <= 4
    assert all(before[uid_of(s)] == s.members["jpg"] for s in fewer)


def uid_of(found: Sample) -> str:
    uid: str = json.loads(found.members["json"])["uid"]
    return uid


def test_started_again(samples: list[Sample], tmp_path: Path) -> None:
    """A shard that changed is read anew; starting again without a change does nothing."""
    markers = sorted((tmp_path / "built" / "units").rglob("*.json"))
    before = [m.stat().st_mtime_ns for m in markers]
    paths = f"{tmp_path}/given/cc/{{00000..00001}}.tar"
    assert build(tmp_path / "built", paths) == samples
    assert [m.stat().st_mtime_ns for m in markers] == before
    write(tmp_path / "given" / "cc" / "00001.tar", sample("0", jpeg(64, 64), "a horse"))
    found = build(tmp_path / "built", paths)
    assert any(s.members["txt"] == b"a horse" for s in found)
