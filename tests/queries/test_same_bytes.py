"""The same list, byte for byte: with any number of workers, anywhere, killed or not."""

from __future__ import annotations

import bz2
import gzip
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.killing import killed_in
from wit_builder import recipe as recipes
from wit_builder import storage
from wit_builder.queries import build, streams
from wit_builder.runners import LocalPool, RayCluster
from wit_builder.sections import Recipe
from wit_builder.units import Run

pytestmark = pytest.mark.slow

PART_BYTES = 300_000
MAIN = f"""
from wit_builder.queries import streams
streams.PART_BYTES = {PART_BYTES}
from wit_builder.cli import main
main()
"""


@pytest.fixture(scope="module")
def recipe(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recipe with every kind of source; its dump is the real excerpt as a multistream file."""
    folder = tmp_path_factory.mktemp("recipe")
    text = bz2.decompress((data_dir / "enwiki-excerpt.xml.bz2").read_bytes()).decode()
    head, *pages = text.removesuffix("</mediawiki>\n").split("  <page>\n")
    tens = [
        "".join("  <page>\n" + page for page in pages[i : i + 10]) for i in range(0, len(pages), 10)
    ]
    streams_ = [bz2.compress(piece.encode()) for piece in [head, *tens, "</mediawiki>\n"]]
    (folder / "enwiki-multistream.xml.bz2").write_bytes(b"".join(streams_))
    titles = [page.split("<title>")[1].split("</title>")[0].replace(" ", "_") for page in pages]
    lines = "".join(f"en {title} {len(title)} 0\n" for title in titles)
    (folder / "pageviews-20260101-000000.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "words.csv").write_text("gram,count\nzebra,7\nred panda,9\n")
    (folder / "own.txt").write_text("C++\nred panda\n")
    place = folder / "recipe.toml"
    place.write_text(
        f"""
        [queries]
        custom = ["own.txt"]
        buckets = 3
        [queries.wordnet]
        path = "{data_dir / "wordnet"}"
        [queries.wikipedia]
        dumps = ["enwiki-multistream.xml.bz2"]
        counts = ["words.csv"]
        pageviews = ["pageviews-*.gz"]
        unigram_min_count = 5
        bigram_min_count = 5
        bigram_budget = 1000
        longest_gram = 3
        ngram_min_count = 5
        ngram_budget = 100
        """
    )
    return str(place)


def list_of(root: str) -> tuple[bytes, bytes]:
    """Return the bytes of a run's list and summary."""
    places = (storage.join(root, name) for name in (build.LIST, build.SUMMARY))
    first, second = map(storage.read_bytes, places)
    return first, second


@pytest.fixture(scope="module")
def alone(recipe: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """The list, made by one worker and from the dump as one part."""
    root = str(tmp_path_factory.mktemp("alone"))
    build.build(recipes.read(recipe).queries, Run(root))
    return list_of(root)


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the dump into several parts."""
    monkeypatch.setattr(streams, "PART_BYTES", PART_BYTES)


@pytest.mark.usefixtures("in_parts")
def test_two_workers(recipe, alone, tmp_path):
    """Two workers, each with parts of the dump, give the bytes of one with the whole."""
    pool = LocalPool(2)
    build.build(recipes.read(recipe).queries, Run(str(tmp_path), pool))
    pool.close()
    assert len(list(tmp_path.glob("units/all/queries-count/*.json"))) > 5
    assert list_of(str(tmp_path)) == alone


@pytest.mark.s3
def test_a_bucket(recipe, alone, s3_folder):
    """A run on an S3 server gives the same bytes, and so does a dump that lies there."""
    local = recipes.load(recipe, Recipe).queries.wikipedia
    assert local
    for name in (
        "enwiki-multistream.xml.bz2",
        "words.csv",
        "pageviews-20260101-000000.gz",
        "own.txt",
    ):
        storage.publish_bytes(f"{s3_folder}/{name}", (Path(recipe).parent / name).read_bytes())
    storage.publish_bytes(f"{s3_folder}/recipe.toml", Path(recipe).read_bytes())
    root = f"{s3_folder}/run"
    build.build(recipes.read(f"{s3_folder}/recipe.toml").queries, Run(root))
    assert list_of(root) == alone


@pytest.mark.usefixtures("in_parts")
def test_ray(recipe, alone, tmp_path):
    """Ray tasks give the same bytes."""
    cluster = RayCluster("local")
    try:
        build.build(recipes.read(recipe).queries, Run(str(tmp_path), cluster))
    finally:
        cluster.close()
    assert list_of(str(tmp_path)) == alone


def started(recipe: str, root: str) -> subprocess.Popen[str]:
    """Start the command line with small parts and two workers."""
    command = [sys.executable, "-c", MAIN, "queries", "build", recipe, "--out", root]
    command += ["--workers", "2", "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_and_resumed(recipe, alone, tmp_path):
    """SIGKILL in the middle of several stages, and starting again, changes no byte in the end."""
    moments = random.Random(7)
    stages = ["queries-count", "queries-count", "queries-merge", "queries-resolve", "queries"]
    ended = [
        killed_in(started(recipe, str(tmp_path)), stage, moments.uniform(0.02, 0.5))
        for stage in stages
    ]
    assert sum(ended) >= 3
    with started(recipe, str(tmp_path)) as process:
        _, said = process.communicate()
    assert process.returncode == 0, said
    assert list_of(str(tmp_path)) == alone
    assert not list(tmp_path.rglob(".*.part"))
