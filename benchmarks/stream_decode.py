"""Images per CPU-second of making training pictures, beside a bare loop and open_clip's transform.

    python benchmarks/stream_decode.py [--pictures 200] [--repeats 9]

The same JPEGs in memory, shorter side 256 px, of five shapes, in one thread and in turns:

* bare: ``simplejpeg.decode_jpeg``, a crop at the corner, and our resize; nothing else;
* ours: ``wit_train.decode.Decoder``, with the paper's square crop, and with open_clip's;
* open_clip's own training transform, up to the normalised tensor of floats it makes;
* what any of these takes for decoding alone, by library, and for resizing alone.

Then, in fresh processes, how long one that decodes takes from its start to its first picture.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch
from open_clip.transform import image_transform
from PIL import Image

from benchmarks.fetch_server import photograph
from benchmarks.web_turns import Works, versions
from wit_train.decode import Augment, Decoder
from wit_train.resize import Pixels, resized

SIZE = 224
SHAPES = [(256, 342), (256, 384), (256, 256), (342, 256), (256, 455)]

FIRST_PICTURE = r"""
import re, sys, time
import numpy as np
from wit_train.decode import Augment, Decoder
out = np.empty((224, 224, 3), np.uint8)
assert Decoder(224, Augment(), 0).decode(sys.stdin.buffer.read(), 0, 0, out)
peak_kb = re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]
print(time.process_time(), peak_kb)
"""


def jpegs(count: int) -> list[bytes]:
    """Return so many JPEGs, of about as many bytes a pixel as those of photographs."""
    rng = np.random.default_rng(0)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
    shapes = [SHAPES[number % len(SHAPES)] for number in range(count)]
    drawn = [photograph(rng, width, height) for height, width in shapes]
    return [cv2.imencode(".jpg", picture, quality)[1].tobytes() for picture in drawn]


def each(work: Callable[[Any], object], items: list[Any]) -> None:
    for item in items:
        work(item)


def bare(out: Pixels, data: bytes) -> None:
    picture = simplejpeg.decode_jpeg(data)
    side = min(picture.shape[:2])
    resized(picture[:side, :side], SIZE, SIZE, out)


def open_clips(transform: Callable[[Any], object], data: bytes) -> None:
    transform(Image.open(io.BytesIO(data)))


def by_opencv(data: bytes) -> object:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def by_pillow(data: bytes) -> object:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def whole(bodies: list[bytes]) -> Works:
    """Return what makes training pictures, by name."""
    out = np.empty((SIZE, SIZE, 3), np.uint8)
    square, crops = Decoder(SIZE, Augment(), 0), Decoder(SIZE, Augment(crop="resized"), 0)
    theirs = partial(open_clips, image_transform(SIZE, is_train=True))
    return {
        "bare loop": partial(each, partial(bare, out), bodies),
        "ours, square crop": partial(_numbered, square, out, bodies),
        "ours, resized crop": partial(_numbered, crops, out, bodies),
        "open_clip's transform": partial(each, theirs, bodies),
    }


def _numbered(decoder: Decoder, out: Pixels, bodies: list[bytes]) -> None:
    for number, body in enumerate(bodies):
        assert decoder.decode(body, 0, number, out)


def parts(bodies: list[bytes]) -> Works:
    """Return decoding alone, by library, and resizing alone, by name."""
    pictures = [simplejpeg.decode_jpeg(body)[:256, :256] for body in bodies]
    images = [Image.fromarray(np.ascontiguousarray(picture)) for picture in pictures]
    size, cubic = (SIZE, SIZE), cv2.INTER_CUBIC
    return {
        "decode, simplejpeg": partial(each, simplejpeg.decode_jpeg, bodies),
        "decode, OpenCV": partial(each, by_opencv, bodies),
        "decode, Pillow": partial(each, by_pillow, bodies),
        "resize, ours": partial(each, lambda picture: resized(picture, *size), pictures),
        "resize, OpenCV cubic": partial(
            each, lambda picture: cv2.resize(picture, size, interpolation=cubic), pictures
        ),
        "resize, Pillow": partial(
            each, lambda image: image.resize(size, Image.Resampling.BICUBIC), images
        ),
    }


def cpu_medians(works: Works, repeats: int) -> dict[str, float]:
    """Return the median CPU seconds of each, in turns, after a turn that is not counted."""
    took: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(1 + repeats):
        for name, work in works.items():
            begun = time.thread_time()
            work()
            took[name].append(time.thread_time() - begun)
    return {name: statistics.median(seconds[1:]) for name, seconds in took.items()}


def first_picture(body: bytes, cache: str) -> tuple[float, float]:
    """Return the CPU seconds of a process up to its first picture, and its peak memory in MB.

    ``cache`` is a folder for Python's bytecode, which installed packages have.
    """
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-c", FIRST_PICTURE]
    done = subprocess.run(command, input=body, capture_output=True, check=True, env=environ)
    seconds, peak_kb = done.stdout.split()
    return float(seconds), int(peak_kb) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    packages = "simplejpeg", "opencv-python-headless", "pillow", "numba", "open_clip_torch"
    print(versions(*packages))
    bodies = jpegs(options.pictures)
    print(f"{len(bodies)} JPEGs, {sum(map(len, bodies)) / len(bodies) / 1e3:.1f} KB each")
    took = cpu_medians(whole(bodies) | parts(bodies), options.repeats)
    for name, seconds in took.items():
        us = 1e6 * seconds / len(bodies)
        print(f"{name:24} {us:8.0f} us {1e6 / us:8.0f} images/s")
    base, peer = took["bare loop"], took["open_clip's transform"]
    for name in ("ours, square crop", "ours, resized crop"):
        print(f"{name}: {base / took[name]:.2f} of bare, {peer / took[name]:.2f} x open_clip's")
    with tempfile.TemporaryDirectory() as cache:
        seconds, peak = min(first_picture(bodies[0], cache) for _ in range(3))
    print(f"first picture of a fresh process: {seconds:.2f} CPU-s, {peak:.0f} MB at most")


if __name__ == "__main__":
    main()
