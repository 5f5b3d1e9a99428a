"""Draw the project's own sample data set: three tiny shards, from a seed.

``python -m wit_builder.shards.sample DIR`` writes it. The pictures are shapes on coloured grounds,
drawn and encoded with Pillow; another version of Pillow's JPEG library may give other bytes.
"""

from __future__ import annotations

import hashlib
import io
import random
import sys
from collections.abc import Iterator

import xxhash
from PIL import Image, ImageDraw

from wit_builder.shards.layout import Metadata, key_of
from wit_builder.shards.manifest import finish
from wit_builder.shards.write import Pair, write_shard

SEED = 0
SHARDS = 3
SAMPLES_PER_SHARD = 8
MAX_BLOCK_BYTES = 16 << 10
"""Small, so that every shard has more than one block."""

_COLOURS = {
    "red": (200, 30, 40),
    "orange": (240, 140, 20),
    "yellow": (245, 215, 60),
    "green": (40, 150, 70),
    "blue": (40, 80, 190),
    "purple": (120, 50, 150),
    "white": (250, 250, 250),
    "black": (20, 20, 20),
}
_SHAPES = ("circle", "square", "triangle", "cross")


def write_sample(folder: str) -> None:
    """Publish the sample data set in a folder.

    Raises:
        StorageError: it cannot be written.
    """
    rng = random.Random(SEED)
    for shard in range(SHARDS):
        write_shard(folder, shard, list(_pairs(rng, shard)), MAX_BLOCK_BYTES)
    recipe = xxhash.xxh3_64_hexdigest(f"sample, seed {SEED}".encode())
    finish(folder, SHARDS, generation="g0", recipe=recipe, max_block_bytes=MAX_BLOCK_BYTES)


def _pairs(rng: random.Random, shard: int) -> Iterator[Pair]:
    for number in range(SAMPLES_PER_SHARD):
        key = key_of(shard * SAMPLES_PER_SHARD + number)
        shape, (colour, ground) = rng.choice(_SHAPES), rng.sample(list(_COLOURS), 2)
        width, height = rng.choice([(64, 64), (96, 64), (64, 96), (80, 80)])
        drawing = _draw(shape, colour, ground, (width * 2, height * 2), rng)
        yield _pair(key, drawing, (width, height), (shape, colour, ground))


def _pair(
    key: str, drawing: Image.Image, size: tuple[int, int], words: tuple[str, str, str]
) -> Pair:
    shape, colour, ground = words
    caption = f"{_article(colour)} {colour} {shape} on {_article(ground)} {ground} ground"
    url = f"https://pictures.example/{key}.ppm"
    uid = xxhash.xxh3_128_hexdigest(f"{len(url)}:{url}{len(caption)}:{caption}".encode())
    metadata = Metadata(
        url=url,
        page_url="https://pictures.example/",
        caption=caption,
        text_from="alt",
        width=size[0],
        height=size[1],
        original_width=drawing.width,
        original_height=drawing.height,
        sha256=hashlib.sha256(_encode(drawing, "PPM")).hexdigest(),
        queries=sorted({shape, colour}),
        license="https://www.apache.org/licenses/LICENSE-2.0",
        uid=uid,
    )
    return Pair(
        key, _encode(drawing.resize(size, Image.Resampling.BOX), "JPEG", quality=90), metadata
    )


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _draw(
    shape: str, colour: str, ground: str, size: tuple[int, int], rng: random.Random
) -> Image.Image:
    """Return a shape somewhere near the middle of a ground."""
    picture = Image.new("RGB", size, _COLOURS[ground])
    pen, ink = ImageDraw.Draw(picture), _COLOURS[colour]
    r = round(min(size) * rng.uniform(0.2, 0.35))
    x, y = (round(side * rng.uniform(0.4, 0.6)) for side in size)
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=ink)
    elif shape == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=ink)
    elif shape == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=ink)
    else:
        pen.rectangle((x - r, y - r // 3, x + r, y + r // 3), fill=ink)
        pen.rectangle((x - r // 3, y - r, x + r // 3, y + r), fill=ink)
    return picture


def _encode(picture: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def main(arguments: list[str]) -> None:
    """Write the sample data set into the folder named by the only argument."""
    if len(arguments) != 1:
        raise SystemExit("usage: python -m wit_builder.shards.sample DIR")
    write_sample(arguments[0])


if __name__ == "__main__":
    main(sys.argv[1:])
