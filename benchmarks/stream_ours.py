"""Our contestants of ``stream.py``: ``python -m benchmarks.stream_ours NAME SHARDS``.

* ``ours``: the stream, with the crop of open_clip's transform of training.
* ``ours, square crop``: the same with the paper's crop.
* ``bare loop``: simplejpeg decodes pictures that lie in memory, one after the other in one thread;
  a crop of the same distribution, our resize; no captions, no reading, no order. A floor.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from benchmarks import stream_meter
from wit_builder.shards.read import Dataset
from wit_train.decode import Augment
from wit_train.resize import Pixels, resized
from wit_train.stream import Look, Pace, Stream

SIZE = 224
SCALE, RATIO = (0.9, 1.0), (3 / 4, 4 / 3)
"""The crop of open_clip's transform of training: share of the area, and aspect."""


class Setting(NamedTuple):
    """What a contestant reads, with how many processes, in batches of how many."""

    shards: str
    workers: int
    batch: int


def ours(setting: Setting, augment: Augment) -> Iterator[int]:
    """Yield batch sizes of the stream."""
    stream = Stream(
        setting.shards,
        batch_size=setting.batch,
        look=Look(image_size=SIZE, augment=augment),
        pace=Pace(workers=setting.workers),
    )
    for batch in stream:
        assert batch.tokens.shape == (len(batch.images), 77)
        yield len(batch.images)


def bare(setting: Setting) -> Iterator[int]:
    """Yield batch sizes of a loop that does nothing but decode, crop and resize."""
    cv2.setNumThreads(1)
    dataset = Dataset.open(setting.shards)
    pictures = [
        sample.members["jpg"]
        for shard in range(dataset.info.shards)
        for sample in dataset.samples(shard)
    ]
    rng = random.Random(0)
    batch = np.empty((setting.batch, SIZE, SIZE, 3), np.uint8)
    while True:
        for row, jpg in enumerate(rng.choices(pictures, k=setting.batch)):
            resized(_crop(simplejpeg.decode_jpeg(jpg), rng), SIZE, SIZE, batch[row])
        yield len(batch)


def _crop(picture: Pixels, rng: random.Random) -> Pixels:
    """Return a random part of the picture, drawn as torchvision's RandomResizedCrop draws it."""
    height, width = picture.shape[:2]
    for _ in range(10):
        area = height * width * rng.uniform(*SCALE)
        aspect = math.exp(rng.uniform(*map(math.log, RATIO)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.randint(0, height - h), rng.randint(0, width - w)
            return picture[top : top + h, left : left + w]
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    top, left = (height - h) // 2, (width - w) // 2
    return picture[top : top + h, left : left + w]


CONTESTANTS: dict[str, Callable[[Setting], Iterator[int]]] = {
    "ours": lambda setting: ours(setting, Augment(crop="resized", scale=SCALE, ratio=RATIO)),
    "ours, square crop": lambda setting: ours(setting, Augment()),
    "bare loop": bare,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="One contestant of stream.py.")
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("shards")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    setting = Setting(options.shards, options.workers, options.batch)
    span = stream_meter.Span(seconds=options.seconds)
    stream_meter.report(stream_meter.measure(CONTESTANTS[options.name](setting), span))


if __name__ == "__main__":
    main()
