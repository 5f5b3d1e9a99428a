"""Judged tables: the same rows, fewer of them alive, with scores."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.judge.conftest import MakeFilter, MakePart, jpeg, row
from wit_builder import recipe as recipes
from wit_builder import storage
from wit_builder.errors import FilterError, RejectionFloodError, ShardFormatError
from wit_builder.judge import run as judge
from wit_builder.judge.run import JudgeJob, run
from wit_builder.sections import BlockSection, FilterSection, Recipe
from wit_builder.tables import IMAGES, REMOVED


@pytest.fixture
def job_of(tmp_path: Path):
    def make(*images: str, **changes: Any) -> JudgeJob:
        job = JudgeJob(list(images), str(tmp_path / "judged"), [], BlockSection())
        return msgspec.structs.replace(job, **changes)

    return make


def listed(folder: Path, **lines: str) -> BlockSection:
    for kind, text in lines.items():
        (folder / kind).write_text(text)
    files: dict[str, Any] = {kind: [str(folder / kind)] for kind in lines}
    return BlockSection(**files)


def fates(table: pa.Table) -> list[tuple[str, str | None, str | None]]:
    return list(zip(*(table[c].to_pylist() for c in ("outcome", "reason", "detail")), strict=True))


def test_scores_are_columns_and_limits_drop_pairs(greys: str, offer: MakeFilter, job_of):
    """A pair beyond a limit is dead as ``filtered``; rows that were not alive have no score."""
    offer("bright = MODULE:brightness")
    section = FilterSection(name="bright", min={"mean": 50}, max={"mean": 150})
    done = run(job_of(greys, filters=[section]))
    table = pq.read_table(done.outputs[0].url)
    assert table["bright.mean"].type == pa.float32()
    assert table["bright.mean"].to_pylist() == [0, None, 80, 120, None, 200]
    assert fates(table) == [
        ("dead", "filtered", "bright.mean 0.0 < 50.0"),
        ("dead", "http_4xx", "404"),
        ("alive", None, None),
        ("alive", None, None),
        ("deferred", "rate_limited", None),
        ("dead", "filtered", "bright.mean 200.0 > 150.0"),
    ]
    assert table["key"].to_pylist() == ["", "", f"{2:012d}", f"{3:012d}", "", ""]
    expected = {"alive": 2, "dead": 3, "deferred": 1}
    assert done.counts == expected | {"filtered": 2, "http_4xx": 1, "rate_limited": 1}


def test_what_nobody_objects_to_is_as_it_was(greys: str, offer: MakeFilter, job_of):
    """Rows, columns, their documentation and the table's metadata are the part's own."""
    offer("bright = MODULE:brightness")
    before = pq.read_table(greys)
    plain, scored = (
        pq.read_table(run(job_of(greys, **changes)).outputs[0].url)
        for changes in ({}, {"filters": [FilterSection(name="bright")]})
    )
    assert plain.equals(before, check_metadata=True)
    assert scored.drop_columns(["bright.mean"]).equals(before)
    assert scored.schema.metadata == before.schema.metadata
    assert scored.schema.field("sha256").equals(IMAGES.field("sha256"), check_metadata=True)


def test_a_part_without_a_living_pair_has_the_columns(make_part: MakePart, offer, job_of):
    """So that all tables of a round are of one schema."""
    offer("bright = MODULE:brightness")
    dead = [row(0, key="", outcome="dead", reason="http_4xx")]
    parts = [make_part(dead, {}), make_part([], {}, "00001")]
    done = run(job_of(*parts, filters=[FilterSection(name="bright")]))
    tables = [pq.read_table(output.url) for output in done.outputs]
    assert [t["bright.mean"].to_pylist() for t in tables] == [[None], []]
    assert tables[0].schema == tables[1].schema


def test_what_is_listed_is_dropped_before_a_filter_sees_it(
    greys: str, offer: MakeFilter, job_of, tmp_path: Path
):
    """By host, URL after redirects, digest, hash, or removal; it has no score."""
    code = """
    def make():
        def judge(images, texts, rows):
            assert not {"picture 0", "picture 2", "picture 5"} & set(texts)
            return {"s": [1.0] * len(images)}, [None] * len(images)
        return judge
    """
    offer("see = MODULE:make", code=code)
    removed = tmp_path / "removed.parquet"
    pq.write_table(pa.table([["uid"], [f"{5:032x}"]], schema=REMOVED), removed)
    block = listed(tmp_path, hosts="h0.test\nh1.test", md5=f"{2:032x}")
    job = job_of(greys, filters=[FilterSection(name="see")], block=block, removed=str(removed))
    done = run(job)
    table = pq.read_table(done.outputs[0].url)
    assert fates(table) == [
        ("dead", "blocked", "hosts: hosts line 1"),
        ("dead", "http_4xx", "404"),
        ("dead", "blocked", "md5: md5 line 1"),
        ("alive", None, None),
        ("deferred", "rate_limited", None),
        ("dead", "removed", "uid: removed.parquet row 1"),
    ]
    assert table["see.s"].to_pylist() == [None, None, None, 1, None, None]


def test_a_redirect_to_a_listed_host_is_dropped(make_part: MakePart, job_of, tmp_path: Path):
    """The URL that was asked for need not be listed."""
    part = make_part([row(0, final_url="http://cdn.test/0.jpg")], {f"{0:012d}": jpeg(0)})
    done = run(job_of(part, block=listed(tmp_path, hosts="cdn.test")))
    assert done.counts == {"blocked": 1, "dead": 1}


def test_every_filter_scores_and_the_first_to_object_is_the_reason(
    greys: str, offer: MakeFilter, job_of
):
    """A pair that one filter drops is still scored by the next."""
    offer("a = MODULE:brightness", "b = MODULE:brightness")
    sections = [FilterSection(name="a", max={"mean": 100}), FilterSection(name="b")]
    sections[1] = msgspec.structs.replace(sections[1], max={"mean": 50})
    table = pq.read_table(run(job_of(greys, filters=sections)).outputs[0].url)
    assert table["a.mean"].equals(table["b.mean"])
    details = [detail and detail[:6] for _, reason, detail in fates(table) if reason == "filtered"]
    assert details == ["b.mean", "a.mean", "a.mean"]


@pytest.mark.parametrize("limits", [(1, 1 << 30), (3, 1 << 30), (64, 2000)])
def test_batches_are_bounded_and_change_nothing(
    greys: str, offer: MakeFilter, job_of, monkeypatch: pytest.MonkeyPatch, limits
):
    """However many pictures a batch holds, a score stays with its row."""
    offer("bright = MODULE:brightness")
    monkeypatch.setattr(judge, "_BATCH", limits[0])
    monkeypatch.setattr(judge, "_BATCH_BYTES", limits[1])
    job = job_of(greys, filters=[FilterSection(name="bright", max={"mean": 100})])
    table = pq.read_table(run(job).outputs[0].url)
    assert table["bright.mean"].to_pylist() == [0, None, 80, 120, None, 200]
    assert table["outcome"].to_pylist() == ["alive", "dead", "alive", "dead", "deferred", "dead"]


def test_pictures_are_red_green_blue_and_of_their_row(make_part: MakePart, offer, job_of):
    """The tar's order need not be the table's, and a PNG in it is a picture, too."""
    code = """
    def make():
        def judge(images, texts, rows):
            assert all(image.dtype == "uint8" and image.shape[2] == 3 for image in images)
            assert texts == rows["text"].to_pylist()
            red = [float(image[..., 0].mean()) for image in images]
            blue = [float(image[..., 2].mean()) for image in images]
            return {"red": red, "blue": blue}, [None] * len(images)
        return judge
    """
    offer("colours = MODULE:make", code=code)
    red = bytes(cv2.imencode(".png", np.full((4, 4, 3), (0, 0, 250), np.uint8))[1])
    pictures = {f"{1:012d}": jpeg(50), f"{0:012d}": red}
    part = make_part([row(0), row(1)], pictures)
    done = run(job_of(part, filters=[FilterSection(name="colours")]))
    table = pq.read_table(done.outputs[0].url)
    assert table["colours.red"].to_pylist() == [250, 50]
    assert table["colours.blue"].to_pylist() == [0, 50]


def test_a_picture_that_does_not_decode_is_dead(make_part: MakePart, offer, job_of):
    """It is no filter's to judge."""
    offer("bright = MODULE:brightness")
    part = make_part([row(0), row(1)], {f"{0:012d}": b"\xff\xd8 no", f"{1:012d}": b""})
    done = run(job_of(part, filters=[FilterSection(name="bright")]))
    assert done.counts == {"dead": 2, "image_truncated": 2}


def test_a_missing_picture_is_an_error(make_part: MakePart, offer: MakeFilter, job_of):
    """A tar that is not its table's is never taken for one whose pictures are bad."""
    offer("bright = MODULE:brightness")
    part = make_part([row(0), row(1)], {f"{0:012d}": jpeg(1)})
    with pytest.raises(ShardFormatError, match=r"1 pictures are missing, the first is 0+1\.jpg"):
        run(job_of(part, filters=[FilterSection(name="bright")]))


def test_a_filter_that_fails_leaves_nothing(
    greys: str, make_part: MakePart, offer: MakeFilter, job_of, tmp_path: Path
):
    """The error names the part; tables of earlier parts are taken back."""
    code = """
    def make():
        def judge(images, texts, rows):
            return {"s": [1.0 / ("odd" not in text) for text in texts]}, [None] * len(images)
        return judge
    """
    offer("odd = MODULE:make", code=code)
    second = make_part([row(9, text="odd")], {f"{9:012d}": jpeg(1)}, "00001")
    job = job_of(greys, second, filters=[FilterSection(name="odd")])
    with pytest.raises(FilterError, match=r"odd fails on 1 .*ZeroDivisionError.*00001\.parquet"):
        run(job)
    assert list((tmp_path / "judged").iterdir()) == []


def test_a_flood_stops_the_unit(greys: str, offer: MakeFilter, job_of, tmp_path: Path):
    """A limit that nearly nothing passes is most likely a slip."""
    offer("bright = MODULE:brightness")
    section = FilterSection(name="bright", min={"mean": 1000})
    job = job_of(greys, filters=[section], flood_share=0.98, flood_min=4)
    with pytest.raises(RejectionFloodError, match="4 of 4 pictures were rejected as filtered"):
        run(job)
    assert list((tmp_path / "judged").iterdir()) == []
    assert run(msgspec.structs.replace(job, flood_min=5)).counts["filtered"] == 4


def test_the_same_parts_give_the_same_bytes(greys: str, offer: MakeFilter, job_of):
    """Judging is a function of its inputs."""
    offer("bright = MODULE:brightness")
    job = job_of(greys, filters=[FilterSection(name="bright", max={"mean": 100})])
    assert run(job).outputs[0].xxh3 == run(job).outputs[0].xxh3


def test_parts_on_remote_storage_are_judged_there(greys: str, offer: MakeFilter, job_of):
    """The table appears beside the part's, with the bytes that a local one would have."""
    offer("bright = MODULE:brightness")
    sections = [FilterSection(name="bright")]
    local = run(job_of(greys, filters=sections)).outputs[0]
    for name in (greys, greys.removesuffix(".parquet") + ".tar"):
        place = f"memory://judge/{storage.name_of(name)}"
        storage.publish_bytes(place, Path(name).read_bytes())
    remote = f"memory://judge/{storage.name_of(greys)}"
    done = run(job_of(remote, out="memory://judged", filters=sections))
    assert done.outputs[0].url == f"memory://judged/{storage.name_of(greys)}"
    assert done.outputs[0].xxh3 == local.xxh3
    storage.remove("memory://judge")
    storage.remove("memory://judged")


def test_the_filter_in_the_docs_works(greys: str, make_part: MakePart, offer, job_of):
    """As it stands there, with the recipe that stands there."""
    page = (Path(__file__).parents[2] / "docs" / "filters.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0]
    entry = re.findall(r"^sharpness = .*$", page, re.MULTILINE)[0]
    recipe = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[-1]
    filters = recipes.convert(tomllib.loads(recipe), Recipe).filters
    offer(entry.replace("my_package", "MODULE").replace('"', ""), code=code)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    sharp = bytes(cv2.imencode(".jpg", noise)[1])
    part = make_part([row(0)], {f"{0:012d}": sharp}, "00001")
    blank, kept = (pq.read_table(o.url) for o in run(job_of(greys, part, filters=filters)).outputs)
    assert set(blank["detail"].to_pylist()) == {"404", None, "sharpness: of one colour"}
    assert kept["outcome"].to_pylist() == ["alive"]
    assert kept["sharpness.variance"][0].as_py() > 20
