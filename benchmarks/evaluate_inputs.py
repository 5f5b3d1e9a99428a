"""What both contestants of ``evaluate.py`` are given: a test set, and a model as an export.

The pictures are those of the streaming benchmarks: their shorter side is 256 pixels, as JPEG of
quality 88 they take 22 KB on average. They are in clip_benchmark's layout, 1,000 to a tar. Neither
their classes nor the model's weights mean anything: speed does not depend on them.
"""

from __future__ import annotations

import csv
import io
import tarfile
import tomllib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import stream_shards
from wit_builder.shards.read import Dataset

CLASSES = 100
MODELS = ("tiny", "ViT-B-32")

PER_TAR = 1000
_REPOSITORY = Path(__file__).parent.parent
_QUERIES = _REPOSITORY / "queries" / "sample.csv"
_TINY = _REPOSITORY / "train" / "recipes" / "tiny.toml"
_GAIN = 4
"""Factor on all weights as they are drawn: the features of pictures lie farther apart."""


def test_set(folder: Path, data: Path, pictures: int, templates: Iterable[str]) -> str:
    """Write a test set in clip_benchmark's layout, and return its folder.

    Args:
        folder: that it is to be.
        data: where shards of pictures are, or are made.
        pictures: how many it is to have.
        templates: with ``{c}`` for the name.
    """
    split = folder / "test"
    split.mkdir(parents=True)
    (folder / "classnames.txt").write_text("\n".join(names()) + "\n", encoding="utf-8")
    prompts = folder / "zeroshot_classification_templates.txt"
    prompts.write_text("\n".join(templates) + "\n", encoding="utf-8")
    classes = np.random.default_rng(5).integers(0, CLASSES, pictures).tolist()
    rows = zip(_jpegs(data, max(pictures, stream_shards.SAMPLES)), classes, strict=False)
    tars = -(-pictures // PER_TAR)
    for number in range(tars):
        _write_tar(split / f"{number}.tar", islice(rows, PER_TAR))
    (split / "nshards.txt").write_text(f"{tars}\n", encoding="utf-8")
    return str(folder)


def names() -> list[str]:
    """Return the names of the classes: queries of the sample list."""
    with _QUERIES.open(encoding="utf-8") as lines:
        found = dict.fromkeys(row["surface"] for row in csv.DictReader(lines))
    return list(found)[:CLASSES]


def _jpegs(data: Path, samples: int) -> Iterator[bytes]:
    dataset = Dataset.open(stream_shards.shards(data, samples))
    for shard in range(dataset.info.shards):
        for sample in dataset.samples(shard):
            yield sample.members["jpg"]


def _write_tar(place: Path, pictures: Iterable[tuple[bytes, int]]) -> None:
    with tarfile.open(place, "w") as tar:
        for number, (jpeg, target) in enumerate(pictures):
            for ending, body in (("jpg", jpeg), ("cls", str(target).encode())):
                member = tarfile.TarInfo(f"s{number:07d}.{ending}")
                member.size = len(body)
                tar.addfile(member, io.BytesIO(body))


def exported(name: str, folder: Path) -> str:
    """Write a model that was never trained as `wit export` would, and return its folder.

    Args:
        name: "tiny", for that of ``train/recipes/tiny.toml``, or one of open_clip's.
        folder: for the checkpoint and for the export.
    """
    import torch  # noqa: PLC0415 - the set is made without

    from wit_train import model  # noqa: PLC0415 - beside it
    from wit_train.checkpoint import Checkpoints, Note  # noqa: PLC0415 - beside it
    from wit_train.export import Wishes, export  # noqa: PLC0415 - beside it

    config = config_of(name)
    network = model.build(model.checked(config), seed=3)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(_GAIN)
    note = Note(step=0, data="none", bound={}, model=config, precision="fp32")
    run, out = str(folder / "run"), str(folder / "model")
    with Checkpoints(run, keep=1) as checkpoints:
        checkpoints.save(note, {"model": network.state_dict()})
    export(run, out, Wishes())
    return out


def config_of(name: str) -> dict[str, Any]:
    """Return a model's config."""
    import open_clip  # noqa: PLC0415 - comes with torch

    if name == "tiny":
        return dict(tomllib.loads(_TINY.read_text(encoding="utf-8"))["model"]["config"])
    config = open_clip.get_model_config(name)
    if config is None:
        raise SystemExit(f"no model {name!r} in open_clip")
    return dict(config)
