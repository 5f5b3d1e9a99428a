"""CPU time of making a picture, beside img2dataset's resizer, by kind and size.

    python benchmarks/fetch_pictures.py [--repeats 4] [--data .data]

The pictures are those that ``fetch.py`` serves. Both make the same of a body in memory: shorter
side 256 px, none enlarged, JPEG of quality 95; ours a perceptual hash besides. In turns, several
times; the least time of each picture counts.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
from PIL import Image

from benchmarks.fetch_server import Mix, pool
from benchmarks.web_turns import versions
from wit_builder.fetch.image import get_ready, prepare
from wit_builder.sections import ImageSection


def kind_of(body: bytes) -> str:
    """Return what kind of picture a body is: format, and for JPEG how large."""
    with Image.open(io.BytesIO(body)) as image:
        if image.format != "JPEG":
            return str(image.format)
        shorter = min(image.size)
        size = "below 512" if shorter < 512 else "below 1024" if shorter < 1024 else "1024 and more"
        return f"{'progressive' if 'progressive' in image.info else 'baseline'} JPEG, {size}"


def least_ms(make: Callable[[], object], best: float) -> float:
    """Return CPU milliseconds of this thread, if less than so far."""
    begun = time.thread_time()
    make()
    return min(best, (time.thread_time() - begun) * 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    from img2dataset.resizer import Resizer  # noqa: PLC0415 - it takes seconds

    print(versions("img2dataset", "pillow", "opencv-python-headless"))
    cv2.setNumThreads(1)
    get_ready()
    theirs, section = Resizer(256, "keep_ratio", True, encode_quality=95), ImageSection()
    pictures = pool(options.data, Mix())
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for name in pictures.files:
        body = (pictures.folder / name).read_bytes()
        peer = ours = float("inf")
        for _ in range(options.repeats):
            peer = least_ms(lambda body=body: theirs(io.BytesIO(body)), peer)  # type: ignore[misc]
            ours = least_ms(lambda body=body: prepare(body, section), ours)  # type: ignore[misc]
        found[kind_of(body)].append((peer, ours))
    found["all"] = [pair for kind in list(found.values()) for pair in kind]
    for kind, pairs in sorted(found.items()):
        peer, ours = (sum(ms) / len(pairs) for ms in zip(*pairs, strict=True))
        print(f"{kind:32} {len(pairs):4} {peer:7.2f} {ours:7.2f} {peer / ours:5.2f}")


if __name__ == "__main__":
    main()
