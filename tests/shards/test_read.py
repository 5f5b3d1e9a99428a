from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import pytest
from PIL import Image

from wit_builder import storage
from wit_builder.errors import ShardFormatError
from wit_builder.shards import tar
from wit_builder.shards.read import Dataset, expand, samples_in

_TARS = "{000000..000002}.tar"


def test_samples_come_in_the_order_of_their_keys(sample_set: Path) -> None:
    """Reading shard after shard gives every sample once, keys counting up."""
    data = Dataset.open(str(sample_set))
    keys = [s.key for shard in range(data.info.shards) for s in data.samples(shard)]
    assert keys == [f"{i:09d}" for i in range(24)]


def test_plain_webdataset_reads_them(sample_set: Path) -> None:
    """Plain webdataset opens the shards by brace pattern and decodes all three members."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn, depending on what else is installed
        import webdataset

        pattern = f"{sample_set}/{_TARS}"
        samples = list(webdataset.WebDataset(pattern, shardshuffle=False).decode("pil"))
    assert [s["__key__"] for s in samples] == [f"{i:09d}" for i in range(24)]
    for sample in samples:
        assert sample["jpg"].size == (sample["json"]["width"], sample["json"]["height"])
        assert sample["txt"] == sample["json"]["caption"]


def test_plain_tarfile_reads_them(sample_set: Path) -> None:
    """Python's tarfile finds three members a sample, in order, with no times and no owners."""
    with tarfile.open(sample_set / "000001.tar") as opened:
        infos = opened.getmembers()
        bodies = {i.name: opened.extractfile(i).read() for i in infos}  # type: ignore[union-attr] # regular files
    keys = [f"{i:09d}" for i in range(8, 16)]
    assert [i.name for i in infos] == [f"{k}.{e}" for k in keys for e in ("jpg", "txt", "json")]
    assert {(i.mtime, i.uid, i.uname, i.mode) for i in infos} == {(0, 0, "", 0o444)}
    assert Image.open(io.BytesIO(bodies["000000008.jpg"])).format == "JPEG"


def test_layout_is_that_of_img2dataset(sample_set: Path) -> None:
    """File and member names, nine-digit keys and the common metadata keys are img2dataset's."""
    names = sorted(p.name for p in sample_set.glob("0*"))
    assert names == sorted(f"{i:06d}.{e}" for i in range(3) for e in ("tar", "parquet"))
    sample = next(Dataset.open(str(sample_set)).samples(0))
    assert re.fullmatch(r"\d{9}", sample.key)
    common = {"url", "caption", "width", "height", "original_width", "original_height", "sha256"}
    assert common <= set(json.loads(sample.members["json"]))


def test_opening_imports_neither_webdataset_nor_torch() -> None:
    """The reader stays light for the trainer's loader processes."""
    heavy = "{'webdataset', 'torch', 'cv2', 'PIL', 'numba'}"
    code = f"import sys, wit_builder.shards.read; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_expand_braces() -> None:
    """A brace pattern stands for its shards, with leading zeros kept."""
    assert expand("s3://b/{000009..000011}.tar") == [f"s3://b/{i:06d}.tar" for i in (9, 10, 11)]
    assert expand("a/plain.tar") == ["a/plain.tar"]


def test_a_zeroed_sample_is_a_removed_one(sample_set: Path) -> None:
    """A slot whose picture is all zero bytes is told as removed; a picture is not."""
    sample = next(Dataset.open(str(sample_set)).samples(0))
    data = b"".join(
        tar.header(f"000000000.{e}", len(b)) + bytes(tar.padded(len(b)))
        for e, b in sample.members.items()
    )
    (slot,) = samples_in(data)
    assert (sample.removed, slot.removed, slot.key) == (False, True, sample.key)


def test_samples_of_others_are_grouped_by_webdatasets_rule() -> None:
    """A key ends at the first dot after the last slash; other extensions are kept."""
    names = ["a.b/x1.jpg", "a.b/x1.cls.txt", "a.b/x2.jpg"]
    samples = list(samples_in(b"".join(tar.header(n, 0) for n in names) + tar.TRAILER))
    assert [(s.key, list(s.members)) for s in samples] == [
        ("a.b/x1", ["jpg", "cls.txt"]),
        ("a.b/x2", ["jpg"]),
    ]


def test_a_damaged_block_is_refused(copy_of_set: Path) -> None:
    """Bytes that differ from the block's digest are refused with the block's file and offset."""
    path = copy_of_set / "000000.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardFormatError, match=r"block 0 is damaged .*000000\.tar byte 0"):
        list(Dataset.open(str(copy_of_set)).samples(0))


def _drop(name: str):
    return lambda folder: (folder / name).unlink()


def _edit(key: str, value: object):
    def edit(folder: Path) -> None:
        path = folder / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    return edit


def _tables_of_another_set(folder: Path) -> None:
    table = storage.read_parquet(str(folder / "blocks.parquet"))
    storage.write_parquet(str(folder / "blocks.parquet"), table.slice(0, 4))


@pytest.mark.parametrize(
    ("flaw", "words"),
    [
        (_drop("dataset.json"), "packing has not finished"),
        (_drop("manifest.parquet"), "manifest.parquet"),
        (_drop("blocks.parquet"), "blocks.parquet"),
        (_edit("format", "other"), "another format"),
        (_edit("version", 2), "shard format 2"),
        (_edit("samples", "many"), "not readable"),
        (_edit("samples", 25), "counts"),
        (_edit("digest", "0" * 64), "not of one revision"),
        (_tables_of_another_set, "does not belong"),
        (lambda f: (f / "dataset.json").write_bytes(b"{"), "not readable"),
        (lambda f: (f / "manifest.parquet").write_bytes(b"PAR1"), "manifest.parquet"),
    ],
    ids=[
        "unfinished",
        "no-manifest",
        "no-blocks",
        "foreign",
        "newer",
        "wrong-type",
        "wrong-count",
        "wrong-digest",
        "half-block-table",
        "cut-json",
        "not-parquet",
    ],
)
def test_flawed_data_sets_are_refused(copy_of_set: Path, flaw, words: str) -> None:
    """An incomplete, foreign or inconsistent data set is refused in one line, with a fix."""
    flaw(copy_of_set)
    with pytest.raises(ShardFormatError, match=words) as caught:
        Dataset.open(str(copy_of_set))
    assert caught.value.fix
    assert "\n" not in str(caught.value)


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    """A folder with nothing of the kind in it is refused as such."""
    with pytest.raises(ShardFormatError, match="no data set"):
        Dataset.open(str(tmp_path))


@pytest.mark.s3
def test_a_data_set_on_s3_reads_as_the_local_one(sample_set: Path, s3_folder: str) -> None:
    """Copied to a bucket, the data set opens and gives the same samples."""
    for path in sample_set.iterdir():
        storage.publish_bytes(storage.join(s3_folder, path.name), path.read_bytes())
    local, remote = Dataset.open(str(sample_set)), Dataset.open(s3_folder)
    assert remote.info == local.info
    assert list(remote.samples(2)) == list(local.samples(2))
