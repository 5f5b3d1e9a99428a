"""The made pictures are the mix that is told, and the server's configuration the delays."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.fetch_server import Mix, Server, _config, photograph, pool


def test_longer_sides_are_within_limits_and_half_are_below_800():
    """The mix of 300 to 3000 px has its median where it is told, and no narrow pictures."""
    sides = np.array(Mix(pictures=5000).sizes())
    longer, shorter = sides.max(axis=1), sides.min(axis=1)
    assert longer.min() >= 300
    assert longer.max() <= 3000
    assert np.median(longer) == pytest.approx(800, rel=0.05)
    assert np.all(shorter >= longer // 2)


def test_a_photograph_takes_as_many_bytes_as_real_ones():
    """A JPEG of quality 85 has 0.1 to 0.2 bytes a pixel."""
    pixels = photograph(np.random.default_rng(0), 1200, 800)
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert 0.1 < data.size / (1200 * 800) < 0.2


def test_a_pool_has_the_kinds_and_sizes_of_its_mix_and_is_made_once(tmp_path):
    """Eight of ten files are JPEG, one PNG, one WebP; a second call finds them."""
    mix = Mix(pictures=10, shortest=100, longest=300)
    made = pool(tmp_path, mix)
    assert [name.rpartition(".")[2] for name in made.files] == ["jpg"] * 8 + ["png", "webp"]
    for name, (width, height) in zip(made.files, mix.sizes(), strict=True):
        pixels = cv2.imread(str(made.folder / name))
        assert pixels is not None
        assert pixels.shape[:2] == (height, width)
    before = [(made.folder / name).stat().st_mtime_ns for name in made.files]
    assert pool(tmp_path, mix) == made
    assert [(made.folder / name).stat().st_mtime_ns for name in made.files] == before


def test_every_path_is_another_one_and_all_files_are_used(tmp_path):
    """Paths go through the files in turns, each with a number of its own."""
    made = pool(tmp_path, Mix(pictures=3, shortest=20, longest=30))
    paths = made.paths(7)
    assert len(set(paths)) == 7
    assert {path.rpartition("/")[2] for path in paths} == set(made.files)


def test_delays_go_from_the_least_to_the_most_in_equal_ratios():
    """The steps that URLs are spread over are geometric, and cover all of them."""
    config = _config(Path("home"), 80, Path("pictures"), (20, 500))
    delays = [float(value) for value in re.findall(r"(?:%|\*) ([0-9.]+);", config)]
    assert (delays[0], delays[-1]) == (0.02, 0.5)
    assert np.diff(np.log(delays)) == pytest.approx(np.log(25) / (len(delays) - 1), abs=0.05)


def test_a_line_of_the_log_is_a_request_that_began_before_it_ended(tmp_path):
    """The beginning is the logged moment less the time that the request took."""
    log = tmp_path / "access.log"
    log.write_text("100.500\t0.250\th1.test\t/000001/0001.jpg\t200\n")
    (request,) = Server("127.0.0.1:80", log, 1).requests()
    assert request == (100.25, 0.25, "h1.test", "/000001/0001.jpg", 200)
