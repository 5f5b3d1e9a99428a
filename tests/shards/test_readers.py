"""Other programs read our shards: webdataset, open_clip's loader, and readers of img2dataset's."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.foreign_tar import jpeg
from wit_builder.progress import Silent
from wit_builder.runners import InProcess
from wit_builder.shards.index import Asked, index, members
from wit_builder.shards.read import Dataset, Sample

PATTERN = "{000000..000002}.tar"


@contextmanager
def quiet() -> Iterator[None]:
    """The imports of these packages warn, and they leave open files to the collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def samples(sample_set: Path) -> list[Sample]:
    """What our own reader finds."""
    data = Dataset.open(str(sample_set))
    return [sample for shard in range(data.info.shards) for sample in data.samples(shard)]


def test_webdataset_reads_our_shards(sample_set: Path, samples: list[Sample]) -> None:
    """Keys, pictures, captions and metadata, in our order."""
    with quiet():
        import webdataset

        data = webdataset.WebDataset(f"{sample_set}/{PATTERN}", shardshuffle=False)
        found = list(data.decode("pil"))
    assert [f["__key__"] for f in found] == [s.key for s in samples]
    for theirs, ours in zip(found, samples, strict=True):
        assert theirs["txt"] == ours.members["txt"].decode()
        assert theirs["json"] == json.loads(ours.members["json"])
        picture = Image.open(io.BytesIO(ours.members["jpg"])).convert("RGB")
        assert np.array_equal(np.asarray(theirs["jpg"]), np.asarray(picture))


def test_open_clips_loader_reads_our_shards(sample_set: Path, samples: list[Sample]) -> None:
    """Its own pipeline finds their number in sizes.json, every picture, and every caption."""
    captions: list[str] = []

    def tokenizer(text: str) -> list[int]:
        captions.append(text)
        return [len(captions)]

    def small(picture: Image.Image) -> np.ndarray:
        return np.asarray(picture.resize((8, 8)))

    with quiet():
        from open_clip_train import data

        args = SimpleNamespace(
            val_data=f"{sample_set}/{PATTERN}",
            val_num_samples=None,
            train_data_upsampling_factors=None,
            seed=0,
            batch_size=5,
            workers=0,
            world_size=1,
        )
        assert data.get_dataset_size(args.val_data) == (len(samples), 3)
        loader = data.get_wds_dataset(args, small, is_train=False, tokenizer=tokenizer)
        batches = list(loader.dataloader)
    assert [len(images) for images, _ in batches] == [5, 5, 5, 5, 4]
    assert captions == [s.members["txt"].decode() for s in samples]


def of_img2dataset(folder: Path, pairs: list[tuple[bytes, str]]) -> str:
    """Write a shard with img2dataset's own writer; return its place."""
    with quiet():
        from img2dataset.writer import WebDatasetSampleWriter

        columns = ["url", "key", "caption", "status", "width", "height", "sha256"]
        schema = pa.schema([(name, pa.string()) for name in columns])
        writer = WebDatasetSampleWriter(0, str(folder), True, 5, schema, "jpg")
        for number, (picture, caption) in enumerate(pairs):
            key = f"{number:09d}"
            told: dict[str, Any] = {**dict.fromkeys(columns, "x"), "key": key, "caption": caption}
            writer.write(picture, key, caption, told)
        writer.close()
    return f"{folder}/00000.tar"


def test_a_reader_of_img2datasets_shards_reads_ours(sample_set: Path, tmp_path: Path) -> None:
    """What reads the one reads the other: same members, same kind of key, same metadata."""
    theirs = of_img2dataset(tmp_path, [(jpeg(n), f"caption {n}") for n in range(3)])

    def read(place: str) -> list[dict[str, Any]]:
        with quiet():
            import webdataset

            data = webdataset.WebDataset(place, shardshuffle=False).decode("pil")
            return list(data.select(lambda s: {"jpg", "txt", "json"} <= s.keys()))

    ours = read(f"{sample_set}/000000.tar")
    assert len(ours) == 8
    for sample in [*read(theirs), *ours]:
        assert sample["__key__"].isdigit()
        assert len(sample["__key__"]) == 9
        assert sample["json"]["caption"] == sample["txt"]
        assert {"url", "width", "height", "sha256"} <= sample["json"].keys()
        assert sample["jpg"].mode == "RGB"


def test_what_img2dataset_writes_can_be_indexed(tmp_path: Path) -> None:
    """Its writer's shard becomes a data set, with its pictures and captions as they are."""
    pairs = [(jpeg(n), f"caption {n}") for n in range(5)]
    place = of_img2dataset(tmp_path, pairs)
    found = index(
        Asked([place], members("jpg", "txt")), str(tmp_path / "out"), InProcess(), Silent()
    )
    assert (found.samples, found.counts, found.faults) == (5, {}, [])
    read = Dataset.open(str(tmp_path / "out")).samples(0)
    assert [(s.members["jpg"], s.members["txt"].decode()) for s in read] == pairs
