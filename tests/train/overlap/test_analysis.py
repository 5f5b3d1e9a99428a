"""The analysis of overlap as a whole."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

import msgspec
import pyarrow as pa
import pytest

from benchmarks.overlap_recall import ENLARGED, KINDS, Planted, encoded, predictions
from tests.train.overlap.drawn import PER_KIND, TESTS, Pixels, picture, plant_in
from wit_builder import storage
from wit_builder.errors import ShardFormatError, TrainingError
from wit_builder.removal.wanted import read_list
from wit_builder.sections import BlockSection
from wit_builder.shards.removal import remove
from wit_builder.web.blocklists import Blocklists
from wit_train.embedding import Embedding
from wit_train.evaluate.results import Overlap
from wit_train.overlap import hashed
from wit_train.overlap.analysis import Options, search

MODEL = cast("Embedding", Pixels())


class World:
    """Shards with planted copies, and the analysis of their test pictures."""

    def __init__(self, folder: Path) -> None:
        self.shards, self.out = str(folder / "shards"), str(folder / "eval")
        self.how = Options(cache=str(folder / "cache"), processes=1)
        self.bodies, self.names = plant_in(self.shards)
        self.found = self.search()
        self.pairs = storage.read_parquet(storage.join(self.out, "overlap", "overlap.parquet"))

    def search(self, bodies: list[bytes] | None = None, **changes: Any) -> Overlap:
        """Analyse test pictures, by default its own."""
        test = Planted(self.bodies if bodies is None else bodies)
        how = msgspec.structs.replace(self.how, **changes)
        told = list[str]()
        return search(
            MODEL, test, predictions(TESTS), [self.shards], how, out=self.out, told=told.append
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return a world that no test changes."""
    return World(tmp_path_factory.mktemp("world"))


def test_planted_copies_are_found_and_nothing_else(world: World):
    """All copies are found, but some that are cropped or of other colours; nothing falsely is."""
    confirmed = world.pairs.filter(world.pairs["confirmed"]).to_pylist()
    found = {row["index"]: world.names[int(row["key"])] for row in confirmed}
    assert all(name == f"copy-{index}" for index, name in found.items())
    kinds = list(KINDS)
    missed = [kinds[i // PER_KIND] for i in range(len(kinds) * PER_KIND) if i not in found]
    assert set(missed) <= {ENLARGED, "cropped 10 %", "hue turned by 40 degrees"}
    assert len(missed) <= 3
    assert world.found.overlapping == len(found)


def test_result_tells_what_was_compared(world: World):
    """Counts, threshold and accuracies stand in the result, which is one of ``results``."""
    found = world.found
    assert (found.hashed, found.pictures) == (len(world.names), TESTS)
    assert 0 < found.threshold < 1
    assert found.overlap
    assert found.clean
    assert found.inflation == pytest.approx(found.all.value - found.clean.value)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Overlap) == found


def test_page_shows_pairs_and_escapes_names(world: World):
    """The page carries its thumbnails inside, both pictures of a pair, and asks for nothing."""
    page = storage.read_bytes(storage.join(world.out, "overlap", "overlap.html")).decode()
    assert page.count("data:image/jpeg") >= 2 * world.found.overlapping
    assert "https://pictures.example/copy-0.jpg" in page
    assert 'src="http' not in page


def test_lists_are_taken_by_the_next_build(world: World):
    """The block-lists that are written refuse the planted pictures, and none of the others."""
    block = storage.join(world.out, "overlap", "block")
    section = BlockSection(
        sha256=[storage.join(block, "sha256.txt")], phash=[storage.join(block, "phash.txt")]
    )
    listed = Blocklists.load(section)
    confirmed = world.pairs.filter(world.pairs["confirmed"]).to_pylist()
    assert confirmed
    for row in confirmed:
        assert listed.of_picture(None, row["sha256"], None)
        assert listed.of_picture(None, None, row["training_phash"])
        assert listed.of_picture(None, None, row["phash"])
    removals = list(read_list(storage.join(block, "uid.txt")))
    assert {asked.entry.value for asked in removals} == {row["uid"] for row in confirmed}
    other = encoded(picture(1000), 92)
    assert not listed.of_picture(None, hashlib.sha256(other).hexdigest(), None)


def test_same_question_gives_same_bytes_without_hashing_again(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """A second analysis decodes no training picture for its hash, and writes the same files."""
    folder = Path(world.out, "overlap")
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert len(before) == 5
    monkeypatch.setattr(hashed, "run_hash", None)
    assert world.search() == world.found
    assert all(file.read_bytes() == data for file, data in before.items())


def test_threshold_given_is_the_one_that_counts(world: World, tmp_path: Path):
    """A cosine beyond reach leaves all clean, and says so in numbers that JSON can hold."""
    world_out, world.out = world.out, str(tmp_path)
    found = world.search(threshold=1.5)
    world.out = world_out
    assert (found.overlapping, found.threshold) == (0, 1.5)
    assert (found.overlap, found.p_value, found.inflation) == (None, None, 0)


def test_removed_samples_are_not_found_and_only_their_shard_is_hashed_anew(tmp_path: Path):
    """After a removal the cache's other tables stay, and the pair is gone from the result."""
    world = World(tmp_path)
    row = world.pairs.filter(world.pairs["confirmed"]).to_pylist()[0]
    remove(world.shards, pa.array([bytes.fromhex(row["uid"])], pa.binary(16)))
    found = world.search()
    assert found.overlapping == world.found.overlapping - 1
    assert any("1 removed" in note for note in found.notes)
    assert len(list((tmp_path / "cache").rglob("*.parquet"))) == 2


def test_what_cannot_be_compared_is_counted(world: World):
    """Test pictures of one brightness are told of, and count as clean."""
    flat = encoded(picture(0) * 0, 90)
    found = world.search([*world.bodies[:2], b"no picture", flat])
    assert (found.pictures, found.overlapping) == (TESTS, 2)
    assert any("of one brightness, not compared" in note for note in found.notes)


def test_a_damaged_table_of_hashes_is_made_again(tmp_path: Path):
    """It is only a cache; a set that is named twice counts once."""
    world = World(tmp_path)
    for table in (tmp_path / "cache").rglob("*.parquet"):
        table.write_bytes(table.read_bytes()[:100])
    assert world.search() == world.found
    test = Planted(world.bodies)
    twice = [world.shards, world.shards + "/"]
    found = search(MODEL, test, predictions(TESTS), twice, world.how, told=lambda _: None)
    assert found.hashed == world.found.hashed


def test_crowded_pictures_are_told_of(world: World):
    """Where more pictures are near than are looked at, the nearest are, and a note says so."""
    found = world.search(distance=32, most=1)
    assert any("more are near" in note for note in found.notes)


@pytest.mark.parametrize(
    ("bodies", "shards", "kind", "words"),
    [
        ([], None, TrainingError, "no picture"),
        (None, "nowhere", ShardFormatError, "no data set"),
    ],
)
def test_refuses_what_cannot_be_analysed(world: World, bodies, shards, kind, words: str):
    """An empty test set, and shards that are none, are errors that say what to do."""
    test = Planted(world.bodies if bodies is None else bodies)
    with pytest.raises(kind, match=words):
        search(MODEL, test, predictions(1), [shards or world.shards], world.how)
