"""Shards of 256-pixel pictures for the benchmarks of streaming.

    python benchmarks/stream_shards.py [--data .data] [--samples 10240]

The pictures are drawn from a seed, as those of ``fetch_server``: detail of all sizes, edges, grain.
Their shorter side is 256 pixels, their aspects are common ones; as JPEG of quality 88 they take 22
KB on average, as pictures of the web of that size do. Captions are 4 to 20 words, queries of the
sample list among them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks.fetch_server import photograph
from wit_builder.shards.layout import DATASET, MAX_BLOCK_BYTES, Metadata, key_of
from wit_builder.shards.manifest import finish
from wit_builder.shards.write import Pair, write_shard

SAMPLES = 10_240

_PER_SHARD = 1024
_SHORT = 256
_QUALITY = 88
_ASPECTS = (1, 4 / 3, 3 / 2, 16 / 9)
_UPRIGHT_SHARE = 0.3
_QUERIES = Path(__file__).parent.parent / "queries" / "sample.csv"
_FILLER = ["a", "the", "of", "in", "with", "and", "on", "photo", "near", "old", "new", "view", "at"]


def shards(data: Path, samples: int = SAMPLES) -> str:
    """Return a folder of shards, made on the first call: 5 ms and 24 KB a sample."""
    folder = data / f"stream-shards-{samples}"
    if not (folder / DATASET).exists():
        starts = range(0, samples, _PER_SHARD)
        with ProcessPoolExecutor() as pool:
            list(pool.map(partial(_write, str(folder), samples), starts))
        where = str(folder)
        finish(where, len(starts), generation="g0", recipe="0", max_block_bytes=MAX_BLOCK_BYTES)
    return str(folder)


def _write(folder: str, samples: int, start: int) -> None:
    with _QUERIES.open(encoding="utf-8") as lines:
        words = [row["surface"] for row in csv.DictReader(lines)] + _FILLER
    numbers = range(start, min(start + _PER_SHARD, samples))
    write_shard(folder, start // _PER_SHARD, _pairs(numbers, words), MAX_BLOCK_BYTES)


def _pairs(numbers: range, words: list[str]) -> Iterator[Pair]:
    for number in numbers:
        rng = np.random.default_rng([7, number])
        width, height = round(_SHORT * rng.choice(_ASPECTS)), _SHORT
        if rng.random() < _UPRIGHT_SHARE:
            width, height = height, width
        picture = photograph(rng, width, height)
        jpg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
        caption = " ".join(rng.choice(words, rng.integers(4, 21)))
        yield Pair(key_of(number), jpg, _metadata(number, jpg, caption, (width, height)))


def _metadata(number: int, jpg: bytes, caption: str, size: tuple[int, int]) -> Metadata:
    sha256 = hashlib.sha256(jpg).hexdigest()
    return Metadata(
        url=f"https://pictures.example/{number}.jpg",
        page_url=f"https://pages.example/{number}",
        caption=caption,
        text_from="alt",
        width=size[0],
        height=size[1],
        original_width=size[0] * 3,
        original_height=size[1] * 3,
        sha256=sha256,
        queries=caption.split()[:2],
        license=None,
        uid=sha256[:32],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--samples", type=int, default=SAMPLES)
    options = parser.parse_args()
    print(shards(options.data, options.samples))


if __name__ == "__main__":
    main()
