"""Packing what img2dataset downloaded: a real download, from a web on loopback."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from webdataset import tariterators

from tests.fetch.conftest import selection
from tests.foreign_tar import tar_of
from tests.mock_web import MockWeb, jpeg, picture_reply
from wit_builder import cli
from wit_builder.adopt import build
from wit_builder.adopt import download as download_of
from wit_builder.errors import RecipeError, ShardFormatError, UnitsFailedError
from wit_builder.exchange import scatter
from wit_builder.fetch import run as fetch
from wit_builder.runners import make_runner
from wit_builder.sections import FetchSection, ImageSection
from wit_builder.shards.read import Dataset
from wit_builder.shards.verify import verify
from wit_builder.units import Run

PICTURES = 25
UNTOLD = 7
"""The picture that has no caption."""

_DOWNLOAD = """
import json, sys
sys.modules.update(torch=None, ray=None)  # it would import them for nothing
import img2dataset
if __name__ == "__main__":
    img2dataset.download(**json.loads(sys.argv[1]))
"""


@pytest.fixture(scope="session")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A download by img2dataset itself: three shards, with failures and a pair that comes twice."""
    folder = tmp_path_factory.mktemp("download")
    (folder / "download.py").write_text(_DOWNLOAD)
    with MockWeb() as web:
        site = f"http://127.0.0.1:{web.port}"
        rows = [(f"{site}/{i}.jpg", f"picture\n number {i}") for i in range(PICTURES)]
        rows[UNTOLD] = (rows[UNTOLD][0], None)  # type: ignore[assignment]
        rows += [(f"{site}/{name}.jpg", name) for name in ("gone", "html", "noai")]
        rows.append(rows[3])
        web.pages |= {f"/{i}.jpg": picture_reply(jpeg(100 + i, 90, i)) for i in range(PICTURES)}
        web.pages["/html.jpg"] = picture_reply(b"<!DOCTYPE html><html>")
        web.pages["/noai.jpg"] = picture_reply(jpeg(), X_Robots_Tag="noai")
        urls, captions = zip(*rows, strict=True)
        pq.write_table(pa.table({"url": urls, "caption": captions}), folder / "urls.parquet")
        arguments = {
            "url_list": str(folder / "urls.parquet"),
            "input_format": "parquet",
            "caption_col": "caption",
            "output_folder": str(folder / "images"),
            "output_format": "webdataset",
            "processes_count": 1,
            "thread_count": 8,
            "image_size": 64,
            "resize_mode": "keep_ratio",
            "number_sample_per_shard": 10,
        }
        command = [sys.executable, str(folder / "download.py"), json.dumps(arguments)]
        environment = os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"}
        subprocess.run(command, check=True, env=environment, capture_output=True, cwd=folder)
    return folder / "images"


@pytest.fixture
def download(downloaded: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(downloaded, tmp_path / "download"))


def packed(folder: Path, out: Path, workers: int = 1, *settings: str) -> dict[str, int]:
    """Pack a download into ``out``, and return what was counted."""
    runner = make_runner(workers, None)
    try:
        settings = ("pack.samples_per_shard=10", *settings)
        return build.build(str(folder), Run(str(out), runner), build.settings(settings))
    finally:
        runner.close()


def samples(out: Path) -> dict[str, tuple[bytes, dict[str, Any]]]:
    """Return picture and metadata of every sample, by caption."""
    data = Dataset.open(str(out / "g0" / "shards"))
    found = [s.members for shard in range(data.info.shards) for s in data.samples(shard)]
    return {m["txt"].decode(): (m["jpg"], json.loads(m["json"])) for m in found}


def files(out: Path) -> dict[str, str]:
    folder = out / "g0" / "shards"
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def rejected(out: Path) -> list[tuple[str, str, str | None]]:
    tables = [pq.read_table(p) for p in sorted((out / "g0" / "rejected").iterdir())]
    rows = pa.concat_tables(tables).to_pylist()
    return [(row["reason"], row["detail"], row["url"]) for row in rows]


def members(tar: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(tar) as opened:
        return [(m.name, opened.extractfile(m).read()) for m in opened]  # type: ignore[union-attr]


def test_a_download(download, tmp_path, capsys):
    """All its pairs are packed once, their pictures untouched; what failed is counted by reason."""
    place = tmp_path / "out"
    arguments = ["pack", str(download), "--out", str(place), "--workers", "1"]
    assert cli.status([*arguments, "--set", "pack.samples_per_shard=10"]) == 0
    told = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert told["samples"] == "24"
    assert {k.removeprefix("rejected:"): v for k, v in told.items() if "rejected" in k} == {
        "no_text": "1",
        "http_4xx": "1",
        "not_an_image": "1",
        "opt_out_image": "1",
        "duplicate_url": "1",
    }
    assert verify(str(place / "g0" / "shards")).faults == []
    found = samples(place)
    expected = [i for i in range(PICTURES) if i != UNTOLD]
    assert sorted(found) == sorted(f"picture number {i}" for i in expected)
    theirs = dict(member for tar in download.glob("*.tar") for member in members(tar))
    for i in expected:
        picture, metadata = found[f"picture number {i}"]
        said = json.loads(theirs[f"{i:06d}.json"])
        assert picture == theirs[f"{i:06d}.jpg"]
        for name in ("url", "width", "height", "original_width", "original_height", "sha256"):
            assert metadata[name] == said[name]
        assert (metadata["queries"], metadata["text_from"]) == ([], "given")
    assert ("no_text", "00000: 000007", json.loads(theirs["000007.json"])["url"]) in rejected(place)


def test_webdataset_reads_it(download, tmp_path):
    """Plain webdataset reads the shards that come of it."""
    packed(download, tmp_path / "out")
    read = []
    for tar in sorted((tmp_path / "out" / "g0" / "shards").glob("*.tar")):
        with tar.open("rb") as stream:
            expanded = tariterators.tar_file_expander([{"url": tar.name, "stream": stream}])
            read += list(tariterators.group_by_keys(expanded))
    assert [sample["__key__"] for sample in read] == [f"{i:09d}" for i in range(24)]
    assert all(Image.open(io.BytesIO(sample["jpg"])).height == 64 for sample in read)


def test_the_same_bytes(download, tmp_path):
    """Workers, and the format that img2dataset wrote, do not change a byte of the shards."""
    packed(download, tmp_path / "out")
    expected = files(tmp_path / "out")
    packed(download, tmp_path / "two", workers=2)
    assert files(tmp_path / "two") == expected
    for name, rewrite in {"files": as_files, "table": as_table}.items():
        folder = tmp_path / name
        folder.mkdir()
        for tar in sorted(download.glob("*.tar")):
            rewrite(tar, folder)
        packed(folder, tmp_path / f"{name}-out")
        assert files(tmp_path / f"{name}-out") == expected


def as_files(tar: Path, folder: Path) -> None:
    """Write a shard as ``output_format = files`` does."""
    shutil.copy(tar.with_suffix(".parquet"), folder)
    (folder / tar.stem).mkdir()
    for name, data in members(tar):
        (folder / tar.stem / name).write_bytes(data)


def as_table(tar: Path, folder: Path) -> None:
    """Write a shard as ``output_format = parquet`` does."""
    table = pq.read_table(tar.with_suffix(".parquet"))
    inside = dict(members(tar))
    for ending in ("jpg", "txt"):
        values = [inside.get(f"{key}.{ending}") for key in table["key"].to_pylist()]
        kind = pa.binary() if ending == "jpg" else pa.string()
        table = table.append_column(ending, pa.array(values, pa.binary()).cast(kind))
    pq.write_table(table, folder / f"{tar.stem}.parquet")


def test_starting_again(download, tmp_path):
    """What is done is not done again; a shard that is added, or another size, is."""
    packed(download, tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "g0").rglob("*.*")}
    packed(download, tmp_path / "out")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "g0").rglob("*.*")} == before
    for file in download.glob("00001*"):
        file.unlink()
    assert packed(download, tmp_path / "out")["samples"] == 14
    assert verify(str(tmp_path / "out" / "g0" / "shards")).faults == []


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_other_pictures(download, tmp_path, kind):
    """Pictures in another format become JPEG."""
    rewrite(download, lambda name, data: _in_format(name, data, kind))
    counts = packed(download, tmp_path / "out")
    assert counts["samples"] == 24
    assert {Image.open(io.BytesIO(p)).format for p, _ in samples(tmp_path / "out").values()} == {
        "JPEG"
    }


@pytest.mark.parametrize("endings", ["json png txt", "txt json png", "json txt webp", "png txt"])
def test_pictures_before_and_behind_their_texts(tmp_path, endings):
    """However the members of a sample stand, each text comes with its own picture."""
    order = endings.split()
    tar, colours = [], {f"caption {i}": 40 * i for i in range(6)}
    for i, (caption, colour) in enumerate(colours.items()):
        url = f"http://a.test/{i}.png"
        said = {"url": url, "caption": caption, "width": 1000 + i}
        made = {"json": json.dumps(said).encode(), "txt": caption.encode()}
        made |= dict.fromkeys(("png", "webp"), _plain(colour, order))
        tar += [(f"{i:09d}.{ending}", made[ending]) for ending in order]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "00000.tar").write_bytes(tar_of(tar))
    read = list(download_of.read(*download_of.shards(str(tmp_path / "in"))))
    pairs = [(f.key, f.text, _colour(f.picture)) for f in read if isinstance(f, download_of.Found)]
    assert pairs == [(f"{i:09d}", text.encode(), c) for i, (text, c) in enumerate(colours.items())]
    if "json" in order:
        assert packed(tmp_path / "in", tmp_path / "out")["samples"] == len(colours)
        found = samples(tmp_path / "out")
        assert {text: _colour(picture) for text, (picture, _) in found.items()} == colours
        assert {text: said["url"][-5] for text, (_, said) in found.items()} == {
            text: text[-1] for text in colours
        }


def _plain(grey: int, order: list[str]) -> bytes:
    out = io.BytesIO()
    kind = "png" if "png" in order else "webp"
    Image.new("RGB", (70, 50), (grey,) * 3).save(out, kind, lossless=True)
    return out.getvalue()


def _colour(picture: bytes) -> int:
    """Return the grey of a picture, whatever decoding has changed of it."""
    return round(np.asarray(Image.open(io.BytesIO(picture)))[25, 35].mean() / 40) * 40


def _in_format(name: str, data: bytes, kind: str) -> tuple[str, bytes]:
    if not name.endswith(".jpg"):
        return name, data
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).save(out, kind, lossless=True)
    return name.replace(".jpg", f".{kind}"), out.getvalue()


def rewrite(folder: Path, change: Callable[[str, bytes], tuple[str, bytes]]) -> None:
    """Write every tar anew, its members changed."""
    for tar in folder.glob("*.tar"):
        tar.write_bytes(tar_of(change(name, data) for name, data in members(tar)))


def test_without_digests_and_tables(download, tmp_path):
    """Tars alone will do; a picture whose digest is not known has that of what was downloaded."""
    for table in download.glob("*.parquet"):
        table.unlink()

    def bare(name: str, data: bytes) -> tuple[str, bytes]:
        if not name.endswith(".json"):
            return name, data
        said = json.loads(data)
        kept = {"url": said["url"], "caption": float("nan"), "sha256": None, "width": None}
        return name, json.dumps(kept).encode()

    rewrite(download, bare)
    assert packed(download, tmp_path / "out")["samples"] == 24
    for picture, metadata in samples(tmp_path / "out").values():
        assert metadata["sha256"] == hashlib.sha256(picture).hexdigest()
        assert metadata["original_height"] == 64


def test_metadata_are_left_out(download, tmp_path):
    """Where somebody was when a picture was taken does not reach a shard."""
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"

    def located(name: str, data: bytes) -> tuple[str, bytes]:
        if not name.endswith(".jpg"):
            return name, data
        out = io.BytesIO()
        Image.open(io.BytesIO(data)).save(out, "JPEG", exif=exif)
        return name, out.getvalue()

    rewrite(download, located)
    packed(download, tmp_path / "out")
    for picture, _ in samples(tmp_path / "out").values():
        assert not Image.open(io.BytesIO(picture)).getexif()


def test_a_damaged_tar(download, tmp_path):
    """What is lost of a tar is counted, by table and tar; the rest is packed."""
    whole = (download / "00001.tar").read_bytes()
    (download / "00001.tar").write_bytes(whole[: len(whole) // 2])
    counts = packed(download, tmp_path / "out")
    lost = counts["rejected:picture_missing"]
    assert lost > 0
    assert counts["rejected:bad_record"] >= 1
    assert counts["samples"] == 24 - lost
    assert verify(str(tmp_path / "out" / "g0" / "shards")).faults == []


def test_a_damaged_picture(download, tmp_path):
    """A picture that cannot be decoded is not packed."""
    rewrite(download, lambda name, data: (name, data[:200] if name == "000004.jpg" else data))
    counts = packed(download, tmp_path / "out")
    assert counts["rejected:image_truncated"] == 1
    assert counts["samples"] == 23


def test_a_table_that_disagrees(download, tmp_path):
    """A sample that its table does not have is left out, and counted."""
    table = pq.read_table(download / "00000.parquet")
    rows = table.select(["status", "caption"]).to_pylist()  # in the order in which they came
    # not the pair that comes twice: another shard would stand in for it
    once = [n for n, r in enumerate(rows) if r["caption"] != "picture\n number 3"]
    good = next(n for n in once if rows[n]["status"] == "success" and rows[n]["caption"])
    others = [n for n in range(len(rows)) if n != good]
    pq.write_table(table.take(others), download / "00000.parquet")
    counts = packed(download, tmp_path / "out")
    assert counts["rejected:bad_record"] == 1
    assert counts["samples"] == 23


@pytest.mark.parametrize("form", ["webdataset", "files"])
def test_a_lost_shard(download, tmp_path, form):
    """Pictures whose shard is gone are counted by its table, and so is what failed in it."""
    if form == "files":
        (tmp_path / "files").mkdir()
        for tar in sorted(download.glob("*.tar")):
            as_files(tar, tmp_path / "files")
        download = tmp_path / "files"
        shutil.rmtree(download / "00002")
    else:
        (download / "00002.tar").unlink()
    shutil.copy(download / "00002.parquet", download / "all-of-them.parquet")  # not a shard's
    states = pq.read_table(download / "00002.parquet")["status"].to_pylist()
    counts = packed(download, tmp_path / "out")
    left_out = {name: n for name, n in counts.items() if name.startswith("rejected:")}
    assert left_out == {
        "rejected:no_text": 1,
        "rejected:http_4xx": 1,
        "rejected:not_an_image": 1,
        "rejected:opt_out_image": 1,
        "rejected:picture_missing": states.count("success"),
    }
    assert counts["samples"] + sum(left_out.values()) == PICTURES + 4
    assert counts["shards"] == 2
    assert verify(str(tmp_path / "out" / "g0" / "shards")).faults == []


def test_a_download_that_was_stopped(download, tmp_path):
    """A shard whose table has no end is named, with what to do."""
    (download / "00002.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        UnitsFailedError, match=r"not complete.*00002\.parquet.*let img2dataset finish"
    ):
        packed(download, tmp_path / "out")


def test_no_captions(download, tmp_path):
    """A download without texts gives no pairs, and says how to have some."""
    rewrite(download, lambda name, data: (name, b"" if name.endswith((".txt", ".json")) else data))
    with pytest.raises(ShardFormatError, match=r"no pair is left.*caption_col"):
        packed(download, tmp_path / "out")


def test_no_download(tmp_path):
    """A folder with nothing of img2dataset's is refused."""
    (tmp_path / "pictures").mkdir()
    with pytest.raises(ShardFormatError, match="nothing here that img2dataset downloaded"):
        packed(tmp_path / "pictures", tmp_path / "out")


def test_nothing_there(tmp_path, capsys):
    """Of a place with nothing in it, it is told that it is neither a recipe nor a download."""
    place = str(tmp_path / "nowhere")
    assert cli.status(["pack", place, "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "neither a recipe nor a download" in told
    assert "name a recipe (TOML), or the folder that img2dataset" in told


def test_verifying_the_root(tmp_path):
    """Who names the folder given to ``wit pack`` is told where its shards are."""
    for generation in ("g10", "g2", "g3x"):
        (tmp_path / generation / "shards").mkdir(parents=True)
    (tmp_path / "g11").mkdir()
    with pytest.raises(ShardFormatError, match=r"no data set") as refused:
        verify(str(tmp_path))
    assert refused.value.fix == f"name {tmp_path}/g2/shards or {tmp_path}/g10/shards"


def test_the_folder_of_a_build(download, tmp_path):
    """The shards of a build are not replaced by those of a download."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "recipe.toml").write_text("")
    with pytest.raises(RecipeError, match="folder of a build"):
        packed(download, tmp_path / "out")


def test_settings_that_do_not_matter():
    """A key of a stage that a download does not go through is refused, not ignored."""
    with pytest.raises(RecipeError, match=r"fetch does not matter.*seed, image, pack"):
        build.settings(["fetch.deadline_s=3"])
    assert build.settings(["image.mode=center_crop"]).image.mode == "center_crop"


def test_our_own_parts(tmp_path):
    """The parts that our own fetch publishes are such a download, too."""
    with MockWeb() as web:
        web.pages |= {f"/{i}.jpg": picture_reply(jpeg(100 + i, 90, i)) for i in range(5)}
        urls = [f"http://a.test/{i}.jpg" for i in range(6)]
        source = str(tmp_path / "selected.arrow")
        scatter(selection(urls), np.zeros(len(urls), np.int64), 1, source)
        job = fetch.FetchJob(
            sources=[source],
            bucket=0,
            number=0,
            out=str(tmp_path / "images"),
            fetch=FetchSection(retries=0),
            image=ImageSection(size_px=64),
            loopback=web.loopback,
        )
        fetch.run(job)
    counts = packed(tmp_path / "images", tmp_path / "out")
    assert (counts["samples"], counts["rejected:http_4xx"]) == (5, 1)
    found = samples(tmp_path / "out")
    assert {metadata["text_from"] for _, metadata in found.values()} == {"alt"}
