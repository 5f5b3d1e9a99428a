"""The peers of ``stream.py``, each in a process of its own: ``python -m benchmarks.stream_peers``.

* ``open_clip``: its own trainer's pipeline (``open_clip_train.data``) with its own transform of
  training, its own tokenizer, its own shuffle.
* ``webdataset``, ``mosaic``, ``energon``: their readers and shuffles, and the quickest that torch
  has for the rest: torchvision decodes, crops and resizes bytes (antialiased bicubic) and no float
  is made. Captions through open_clip's tokenizer, for they bring none.

All hand over batches of pictures and tokens from torch's DataLoader processes. Nothing of ours is
imported: Mosaic's and Energon's Python may be another. They want a copy of the shards as they like
it, which ``--prepare`` makes.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from benchmarks import stream_meter

SIZE = 224
SCALE, RATIO = (0.9, 1.0), (3 / 4, 4 / 3)
"""The crop of open_clip's transform of training: share of the area, and aspect."""

PACKAGES = {
    "open_clip": "open_clip_torch",
    "webdataset": "webdataset",
    "mosaic": "mosaicml-streaming",
    "energon": "megatron-energon",
}


class Setting(NamedTuple):
    """What a contestant reads, with how many processes, in batches of how many."""

    shards: Path
    workers: int
    batch: int

    @property
    def tars(self) -> list[str]:
        """The tar files."""
        return sorted(str(path) for path in self.shards.glob("*.tar"))


class Encode:
    """A picture's and a caption's bytes to what a model takes: uint8 [3, S, S] and int64 [77]."""

    def __init__(self) -> None:
        from open_clip.tokenizer import SimpleTokenizer  # noqa: PLC0415 - takes seconds
        from torchvision.transforms import InterpolationMode, v2  # noqa: PLC0415 - likewise

        self._tokenize = SimpleTokenizer()
        self._crop = v2.RandomResizedCrop(
            SIZE, SCALE, RATIO, interpolation=InterpolationMode.BICUBIC, antialias=True
        )

    def __call__(self, jpg: bytes, caption: bytes) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the picture and the tokens."""
        from torchvision.io import ImageReadMode, decode_jpeg  # noqa: PLC0415 - see above

        data = torch.frombuffer(bytearray(jpg), dtype=torch.uint8)
        picture = self._crop(decode_jpeg(data, ImageReadMode.RGB))
        return picture, self._tokenize([caption.decode()])[0]


def open_clip(setting: Setting) -> Iterator[int]:
    """Yield batch sizes of open_clip's own training data."""
    from open_clip.tokenizer import SimpleTokenizer  # noqa: PLC0415 - takes seconds
    from open_clip.transform import AugmentationCfg, image_transform  # noqa: PLC0415 - likewise
    from open_clip_train.data import get_wds_dataset  # noqa: PLC0415 - likewise

    args = SimpleNamespace(
        train_data="::".join(setting.tars),
        train_num_samples=10**9,  # an epoch that outlasts the measurement
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        workers=setting.workers,
        world_size=1,
        batch_size=setting.batch,
    )
    crop = AugmentationCfg(scale=SCALE)  # its ratio is torchvision's default, which is ``RATIO``
    transform = image_transform(SIZE, is_train=True, aug_cfg=crop)
    info = get_wds_dataset(args, transform, is_train=True, tokenizer=SimpleTokenizer())
    for images, tokens in info.dataloader:
        assert tokens.shape == (len(images), 77)
        yield len(images)


def webdataset(setting: Setting) -> Iterator[int]:
    """Yield batch sizes of a pipeline as webdataset's documentation has it."""
    import webdataset as wds  # noqa: PLC0415 - takes seconds

    encode = Encode()
    dataset = wds.WebDataset(setting.tars, shardshuffle=100).shuffle(1000)
    dataset = dataset.to_tuple("jpg", "txt").map(lambda pair: encode(*pair))
    dataset = dataset.batched(setting.batch, partial=False).repeat()
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=setting.workers)
    for images, tokens in loader:
        assert tokens.shape == (len(images), 77)
        yield len(images)


def mosaic(setting: Setting) -> Iterator[int]:
    """Yield batch sizes of Mosaic's StreamingDataset over its own format, epoch after epoch."""
    from streaming import StreamingDataLoader, StreamingDataset  # noqa: PLC0415 - not always there
    from streaming.base.util import clean_stale_shared_memory  # noqa: PLC0415 - likewise

    clean_stale_shared_memory()
    encode = Encode()

    class Pictures(StreamingDataset):  # type: ignore[misc, unused-ignore] # untyped here
        def __getitem__(self, at: Any) -> Any:
            sample = super().__getitem__(at)
            return encode(sample["jpg"], sample["txt"])

    dataset = Pictures(
        local=str(_copy_of(setting, "mosaic")), shuffle=True, batch_size=setting.batch
    )
    loader = StreamingDataLoader(
        dataset,
        batch_size=setting.batch,
        num_workers=setting.workers,
        drop_last=True,
        persistent_workers=True,
    )
    while True:
        for images, tokens in loader:
            assert tokens.shape == (len(images), 77)
            yield len(images)


def energon(setting: Setting) -> Iterator[int]:
    """Yield batch sizes of Energon's loader over tar files with its index beside them."""
    from megatron import energon as me  # noqa: PLC0415 - not always there

    encode = Encode()

    class Encoder(me.TaskEncoder):  # type: ignore[misc, name-defined, unused-ignore] # see above
        decoder = None

        @me.stateless
        def encode_sample(self, sample: Any) -> Any:
            return encode(sample.image, sample.caption)

        def batch(self, samples: Any) -> Any:
            return tuple(torch.stack(column) for column in zip(*samples, strict=True))

    dataset = me.get_train_dataset(
        str(_copy_of(setting, "energon")),
        worker_config=me.WorkerConfig(rank=0, world_size=1, num_workers=setting.workers),
        batch_size=setting.batch,
        shuffle_buffer_size=1000,
        max_samples_per_sequence=100,
        task_encoder=Encoder(),
    )
    for images, tokens in me.get_loader(dataset):
        assert tokens.shape == (len(images), 77)
        yield len(images)


CONTESTANTS: dict[str, Callable[[Setting], Iterator[int]]] = {
    "open_clip": open_clip,
    "webdataset": webdataset,
    "mosaic": mosaic,
    "energon": energon,
}


# --- copies as the peers like them -------------------------------------------


def _copy_of(setting: Setting, name: str) -> Path:
    return setting.shards.with_name(f"{setting.shards.name}-{name}")


def prepare_mosaic(setting: Setting) -> None:
    """Write the samples in Mosaic's format, uncompressed."""
    import webdataset as wds  # noqa: PLC0415 - takes seconds
    from streaming import MDSWriter  # noqa: PLC0415 - not always there

    columns = {"jpg": "bytes", "txt": "bytes"}
    with MDSWriter(out=str(_copy_of(setting, "mosaic")), columns=columns) as out:
        for sample in wds.WebDataset(setting.tars, shardshuffle=False):
            out.write({name: sample[name] for name in columns})


def prepare_energon(setting: Setting) -> None:
    """Link the tar files into a folder of their own, and let Energon index them."""
    folder = _copy_of(setting, "energon")
    folder.mkdir()
    for tar in setting.tars:
        (folder / Path(tar).name).hardlink_to(tar)
    command = [str(Path(sys.executable).with_name("energon")), "prepare", str(folder)]
    command += ["--non-interactive", "--no-progress", "--split-ratio", "1,0,0"]
    command += ["--sample-type", "CaptioningSample", "--num-workers", "2"]
    command += ["--field-map", json.dumps({"image": "jpg", "caption": "txt"})]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


PREPARATIONS = {"mosaic": prepare_mosaic, "energon": prepare_energon}


def prepare(name: str, setting: Setting) -> None:
    """Make the copy that a peer wants, if it wants one and there is none."""
    copy = _copy_of(setting, name)
    done = copy / ".made-by-stream-peers"
    if name in PREPARATIONS and not done.exists():
        shutil.rmtree(copy, ignore_errors=True)
        PREPARATIONS[name](setting)
        done.touch()


def main() -> None:
    parser = argparse.ArgumentParser(description="One contestant of stream.py.")
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--version", action="store_true")
    options = parser.parse_args()
    setting = Setting(options.shards, options.workers, options.batch)
    if options.version:
        print(metadata.version(PACKAGES[options.name]))
    elif options.prepare:
        prepare(options.name, setting)
    else:
        random.seed(0)
        span = stream_meter.Span(
            warm_batches=6 * setting.workers, seconds=options.seconds, portion=setting.workers
        )
        stream_meter.report(stream_meter.measure(CONTESTANTS[options.name](setting), span))


if __name__ == "__main__":
    main()
