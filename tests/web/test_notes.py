"""What outlives a worker."""

from __future__ import annotations

import time

import pytest

from wit_builder.errors import StorageError
from wit_builder.tables import Reason
from wit_builder.web.notes import Notes, RobotsFile
from wit_builder.web.pace import Pause

SOON = time.time() + 40_000  # later than the end of the tests, and within the day
OVER = time.time() - 1


def test_what_is_added_is_found_by_the_next(tmp_path):
    """robots.txt files and pauses come back, the latest of each, but for those that are over."""
    folder = str(tmp_path / "web")
    notes = Notes(folder)
    notes.add(RobotsFile("http://a.test", SOON, b"first"))
    notes.add(RobotsFile("http://b.test", OVER, b"old"))
    notes.publish([Pause("a.test", SOON, 3, Reason.DOMAIN_DOWN)])
    notes.add(RobotsFile("http://a.test", SOON, b"second"))
    notes.add(RobotsFile("http://c.test", SOON, None, "http_5xx 503"))
    notes.publish([Pause("b.test", OVER, 1, Reason.RATE_LIMITED)])
    again = Notes(folder)
    assert again.robots("http://a.test") == RobotsFile("http://a.test", SOON, b"second")
    assert again.robots("http://b.test") is None
    assert again.robots("http://c.test") == RobotsFile("http://c.test", SOON, None, "http_5xx 503")
    assert again.pauses == [Pause("a.test", SOON, 3, Reason.DOMAIN_DOWN)]


def test_the_folder_stays_small(tmp_path):
    """Who begins puts what still holds into one file."""
    folder = tmp_path / "web"
    for number in range(4):
        notes = Notes(str(folder))
        for part in "xy":
            notes.add(RobotsFile(f"http://{part}{number}.test", SOON, b""))
            notes.publish([])
    assert len(list(folder.iterdir())) == 3
    last = Notes(str(folder))
    assert all(last.robots(f"http://{p}{n}.test") for n in range(4) for p in "xy")


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    """Where no folder is named nothing is written."""
    monkeypatch.chdir(tmp_path)
    notes = Notes()
    notes.add(RobotsFile("http://a.test", SOON, b""))
    notes.publish([])
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_table_is_named(tmp_path):
    """A table that cannot be read is an error that names it."""
    (tmp_path / "000000.parquet").write_bytes(b"PAR1, cut")
    with pytest.raises(StorageError, match=r"000000\.parquet"):
        Notes(str(tmp_path))


def test_what_is_remembered_is_bounded(tmp_path, monkeypatch):
    """A large file is not remembered; of too many the newest are."""
    monkeypatch.setattr("wit_builder.web.notes._MOST_BYTES", 30_000)
    for number in range(6):
        notes = Notes(str(tmp_path))
        notes.add(RobotsFile(f"http://{number}.test", SOON, b"x" * 10_000))
        notes.add(RobotsFile(f"http://large{number}.test", SOON, b"x" * 70_000))
        notes.publish([])
    last = Notes(str(tmp_path))
    found = [n for n in range(6) if last.robots(f"http://{n}.test")]
    assert found == [4, 5]
    assert not last.robots("http://large5.test")
