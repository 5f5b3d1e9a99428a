"""What the search for overlap finds of planted duplicates, and what it takes for one that is none.

    python benchmarks/overlap_recall.py --model RUN [--data .data] [--styles clipart,stamps]

Some pictures of ``learning_pictures.py`` are test pictures, the others training pictures. Copies of
test pictures are planted among the latter: one copy each, each kind as often; some test pictures
have none. All is written as shards, and ``wit_train.overlap`` does the rest, as in ``wit eval``. A
series of 1,375 star polygons is left out, and of pictures of equal hash all but one. That is all:
clip art comes in series, so pairs that a person would call the same, too, are counted as false.

RUN is any model that ``wit eval`` takes. The styles here are not those that variants, distance and
thresholds were chosen on (decision 0053).
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import learning_pictures
from benchmarks.web_turns import versions
from wit_builder import storage
from wit_builder.shards.layout import Metadata, key_of
from wit_builder.shards.manifest import finish
from wit_builder.shards.write import Pair, write_shard
from wit_train.decode import pixels
from wit_train.evaluate.item import Item, TestSet
from wit_train.evaluate.results import Overlap
from wit_train.resize import Pixels

PER_SHARD = 1000
SERIES = "shapes/stars/"
"""1,375 star polygons, drawn by a formula, that are hardly distinct: no test of finding copies."""

MAX_BLOCK_BYTES = 1 << 20
Copy = Callable[[Any, np.random.Generator], Any]


def _crop(picture: Any, drawn: np.random.Generator) -> Any:
    """Cut 10 % off each side's length, anywhere."""
    height, width = picture.shape[:2]
    h, w = round(0.9 * height), round(0.9 * width)
    top, left = drawn.integers(0, height - h + 1), drawn.integers(0, width - w + 1)
    return picture[top : top + h, left : left + w]


def _hue(picture: Any, drawn: np.random.Generator) -> Any:
    del drawn
    hsv: Any = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
    hsv[:, :, 0] = (hsv[:, :, 0].astype(int) + 20) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _grey(picture: Any, drawn: np.random.Generator) -> Any:
    del drawn
    return cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _scaled(across: float, down: float) -> Copy:
    way = cv2.INTER_AREA if across < 1 else cv2.INTER_CUBIC
    return lambda p, _: cv2.resize(p, None, fx=across, fy=down, interpolation=way)


def _level(alpha: float, beta: float) -> Copy:
    return lambda p, _: cv2.convertScaleAbs(p, alpha=alpha, beta=beta)


def _same(picture: Any, drawn: np.random.Generator) -> Any:
    del drawn
    return picture


KINDS: dict[str, tuple[Copy, int]] = {
    "JPEG quality 75": (_same, 75),
    "JPEG quality 50": (_same, 50),
    "JPEG quality 30": (_same, 30),
    "half the size": (_scaled(0.5, 0.5), 90),
    "twice the size": (_scaled(2, 2), 90),
    "narrowed to 80 %": (_scaled(0.8, 1), 90),
    "cropped 10 %": (_crop, 90),
    "test is its 10 % crop": (_same, 90),
    "grey": (
        lambda p, _: cv2.cvtColor(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
        90,
    ),
    "hue turned by 40 degrees": (_hue, 90),
    "brighter by a quarter": (_level(1.25, 0), 90),
    "contrast down by 30 %": (_level(0.7, 38), 90),
    "mirrored": (lambda p, _: p[:, ::-1], 90),
}
"""What is done to a test picture to make the planted one, and the quality that it is saved with."""

ENLARGED = "test is its 10 % crop"
"""Here the planted picture is whole, and the test picture is cropped."""


class Planted(TestSet):
    """Test pictures in memory."""

    def __init__(self, bodies: Sequence[bytes]) -> None:
        super().__init__("planted")
        self._bodies = bodies

    def items(self, rank: int = 0, world_size: int = 1) -> Iterator[Item]:
        """Yield all."""
        del rank, world_size
        for i, body in enumerate(self._bodies):
            yield Item(i, f"test {i}", lambda body=body: body)  # type: ignore[misc]

    def pictures(self, indices: Collection[int]) -> dict[int, bytes]:
        """Return some."""
        return {i: self._bodies[i] for i in indices}


def encoded(picture: Any, quality: int) -> bytes:
    """Return a JPEG."""
    bgr = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def plant(pictures: Sequence[Pixels], per_kind: int) -> tuple[list[bytes], dict[int, bytes]]:
    """Return the encoded test pictures, and the copies of the first of them, by index.

    The first ``per_kind`` have a copy of the first kind, and so on; the rest have none.
    """
    drawn = np.random.default_rng(0)
    tests, copies = [encoded(picture, 95) for picture in pictures], {}
    for number, (kind, (copy, quality)) in enumerate(KINDS.items()):
        for i in range(number * per_kind, (number + 1) * per_kind):
            copies[i] = encoded(copy(pictures[i], drawn), quality)
            if kind == ENLARGED:
                tests[i] = encoded(_crop(pictures[i], drawn), 95)
    return tests, copies


def write(folder: str, bodies: Sequence[tuple[str, bytes]]) -> None:
    """Write (name, JPEG) as a data set of shards; the name is in the URL."""
    shards = [bodies[i : i + PER_SHARD] for i in range(0, len(bodies), PER_SHARD)]
    for shard, part in enumerate(shards):
        pairs = [_pair(shard * PER_SHARD + i, *named) for i, named in enumerate(part)]
        write_shard(folder, shard, pairs, MAX_BLOCK_BYTES)
    finish(folder, len(shards), generation="g0", recipe="0", max_block_bytes=MAX_BLOCK_BYTES)


def _pair(number: int, name: str, jpg: bytes) -> Pair:
    picture = pixels(jpg)
    assert picture is not None
    height, width = picture.shape[:2]
    metadata = Metadata(
        url=f"https://pictures.example/{name}.jpg",
        page_url=None,
        caption=name,
        text_from="alt",
        width=width,
        height=height,
        original_width=width,
        original_height=height,
        sha256=hashlib.sha256(jpg).hexdigest(),
        queries=[],
        license=None,
        uid=hashlib.md5(name.encode()).hexdigest(),
    )
    return Pair(key_of(number), jpg, metadata)


def predictions(count: int) -> pa.Table:
    """Return predictions of which every other one is right."""
    return pa.table({"index": np.arange(count), "rank": (np.arange(count) % 2).astype(np.int32)})


def show(pairs: pa.Table, names: Sequence[str], tests: int, per_kind: int) -> None:
    """Print recall by kind, and false positives, before and after confirming."""
    index = pairs["index"].to_numpy()
    found = zip(index, pairs["key"].to_pylist(), strict=True)
    right = np.array([names[int(key)] == f"copy-{i}" for i, key in found], bool)
    confirmed = pairs["confirmed"].to_numpy(zero_copy_only=False)
    print("| planted copy | found by hash | and confirmed |\n| --- | --- | --- |")
    rows = [(kind, range(n * per_kind, (n + 1) * per_kind)) for n, kind in enumerate(KINDS)]
    for name, where in [*rows, ("all", range(len(KINDS) * per_kind))]:
        both = (right, right & confirmed)
        counts = [len(np.intersect1d(index[mask], np.array(where))) for mask in both]
        print(f"| {name} | " + " | ".join(f"{n / len(where):.1%} ({n})" for n in counts) + " |")
    for name, mask in (("by hash", ~right), ("confirmed", ~right & confirmed)):
        have, clean = np.unique(index[mask]), len(KINDS) * per_kind
        print(
            f"other pictures, {name}: {mask.sum():,} pairs; of {len(have):,} of {tests:,} test "
            f"pictures, {np.count_nonzero(have >= clean):,} of the {tests - clean:,} without a copy"
        )


def loaded(data: Path, styles: Sequence[str]) -> list[Pixels]:
    """Return the pictures of some styles, of equal hashes one, in a seeded order."""
    table = learning_pictures.pictures(data)
    table = table.filter(pc.is_in(table["style"], pa.array(styles)))
    table = table.filter(pc.invert(pc.starts_with(table["name"], SERIES)))
    first = dict(reversed(list(zip(table["phash"].to_pylist(), range(len(table)), strict=True))))
    rows = np.random.default_rng(0).permutation(sorted(first.values()))
    decoded = [pixels(table["jpeg"][int(row)].as_py()) for row in rows]
    return [picture for picture in decoded if picture is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="demo-run/model", help="by default that of `make demo`")
    parser.add_argument("--pretrained", default="")
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--styles", default="clipart,stamps")
    parser.add_argument("--per-kind", type=int, default=100)
    parser.add_argument("--without", type=int, default=500, help="test pictures without a copy")
    parser.add_argument("--threshold", type=float, default=None)
    parser.add_argument("--distance", type=int, default=10)
    parser.add_argument("--out", default="", help="keep the page and the table here")
    options = parser.parse_args()
    pictures = loaded(options.data, options.styles.split(","))
    tests = len(KINDS) * options.per_kind + options.without
    print(versions("torch", "opencv-python-headless", "numba", "scipy"))
    with tempfile.TemporaryDirectory() as folder:
        found, names = _run(pictures, tests, options, folder)
        table = storage.read_parquet(
            storage.join(options.out or folder, "overlap", "overlap.parquet")
        )
    print(f"{tests:,} test pictures, {found.hashed:,} training pictures of {options.styles}")
    print(f"model {options.model}, threshold {found.threshold:.3f}, {found.distance} bits")
    show(table, names, tests, options.per_kind)
    print(*found.notes, sep="\n")


def _run(
    pictures: Sequence[Pixels], tests: int, options: argparse.Namespace, folder: str
) -> tuple[Overlap, list[str]]:
    from wit_train import trained  # noqa: PLC0415 - torch, which processes that hash do without
    from wit_train.overlap.analysis import Options, search  # noqa: PLC0415 - likewise

    bodies, copies = plant(pictures[:tests], options.per_kind)
    others = [(f"other-{i}", encoded(p, 92)) for i, p in enumerate(pictures[tests:])]
    planted = [(f"copy-{i}", body) for i, body in copies.items()]
    rows = [*others, *planted]
    order = np.random.default_rng(1).permutation(len(rows))
    shards = str(Path(folder) / "shards")
    placed = [rows[i] for i in order]
    write(shards, placed)
    model = trained.load(options.model, options.pretrained)
    how = Options(
        threshold=options.threshold,
        distance=options.distance,
        cache=str(Path(folder) / "cache"),
        processes=2,
    )
    out = options.out or folder
    found = search(model, Planted(bodies), predictions(tests), [shards], how, out=out)
    return found, [name for name, _ in placed]


if __name__ == "__main__":
    main()
