"""``wit stream bench`` measures, and says what holds the stream back."""

from __future__ import annotations

import re
import subprocess
import sys

import msgspec
import pytest

from wit_builder import cli
from wit_train.bench import Found, Shares, lines, verdict
from wit_train.stream import Stats

STATS = Stats(workers=2, readers=16)


@pytest.fixture
def bench(shards, capsys):
    """Give a function that runs the command on few shards and returns what it printed."""

    def run(*options: str) -> str:
        words = ["stream", "bench", shards, "--batch-size", "16", "--image-size", "32", *options]
        assert cli.status([*words, "--workers", "0"]) == cli.DONE
        return capsys.readouterr().out

    return run


def test_it_measures_as_many_batches_as_asked_for(bench):
    """Images, batches and shares are those of the batches after the first ones."""
    found = msgspec.json.decode(bench("--batches", "5", "--json"), type=Found)
    assert (found.batches, found.images) == (5, 80)
    assert found.images_per_s == pytest.approx(80 / found.seconds)
    assert found.first_batch_s > 0
    assert found.memory_bytes > 0
    assert 0 <= found.waiting <= 1
    assert 0 <= found.decoding <= 1
    assert 0 <= found.reading <= 1


def test_it_measures_one_rank_s_part(bench):
    """Of a world of four, a rank takes a quarter of each batch."""
    found = msgspec.json.decode(
        bench("--batches", "3", "--json", "--world-size", "4", "--rank", "2"), type=Found
    )
    assert (found.batches, found.images) == (3, 12)


def test_it_measures_for_some_seconds_and_says_what_it_found(bench):
    """Every figure has a line, and the last one is the verdict."""
    shown = bench("--seconds", "0.01", "--start-step", "100")
    assert re.search(r"^images a second +\d", shown, re.MULTILINE)
    assert re.search(r"^decoding .* of the calling process$", shown, re.MULTILINE)
    assert shown.rstrip().endswith(".")


def test_it_fills_a_cache_that_is_asked_for(bench, tmp_path):
    """The folder is made, and the stream runs with it."""
    bench("--batches", "1", "--cache", str(tmp_path / "cache"), "--cache-gb", "0.01")
    assert (tmp_path / "cache").is_dir()


def test_wrong_numbers_are_refused(shards, capsys):
    """A rank beyond the world, or lanes that do not divide the batch, are an error in one line."""
    command = ["stream", "bench", shards, "--batch-size", "16"]
    for wrong in (["--rank", "1"], ["--lanes", "5"]):
        assert cli.status([*command, *wrong]) == cli.FAILED
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("shares", "stats", "said"),
    [
        (Shares(0.1, 0.5, 0.5), STATS, "Nothing holds it back"),
        (Shares(1, 0.99, 0.1), STATS, "all 2 processes are busy. Give it --workers 8"),
        (Shares(1, 0.99, 0.9), Stats(workers=8, readers=16), "all 8 processes are busy. Give it m"),
        (Shares(1, 0.99, 0.1), Stats(workers=0, readers=16), "the calling process is busy"),
        (Shares(1, 0.99, 0.1), Stats(workers=1, readers=16), "its process is busy"),
        (Shares(1, 0.2, 0.95), STATS, "all 16 readers wait for bytes. Try --readers 32"),
        (Shares(1, 0.2, 0.25), STATS, "4 reads are under way"),
        (Shares(1, 0.2, 0.01), STATS, "the process that hands out the work"),
    ],
)
def test_the_verdict_names_what_is_busy(shares, stats, said):
    """The first part that works all the time is what the others wait for."""
    assert said in verdict(shares, stats, cores=8)


def test_every_figure_is_shown():
    """The lines stand under each other, and tell one from many."""
    found = Found(
        batches=3,
        images=3072,
        seconds=1.5,
        first_batch_s=0.5,
        images_per_s=2048,
        mb_per_s=45.06,
        waiting=1,
        decoding=0.99,
        reading=0.25,
        retries=2,
        substituted=1,
        workers=1,
        readers=4,
        memory_bytes=10,
        verdict="So it is.",
    )
    shown = lines(found)
    assert "images a second    2,048" in shown
    assert "decoding           99% of 1 process" in shown
    assert "reading            25% of 4 readers" in shown
    assert shown[-1] == "So it is."


def test_it_needs_no_torch():
    """Streaming does not import torch."""
    code = "import sys, wit_train.bench, wit_train.stream; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
