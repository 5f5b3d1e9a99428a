"""What the benchmark of evaluation gives both sides is what it says, and its clock is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import evaluate, evaluate_command, evaluate_inputs, stream_shards
from benchmarks.evaluate import Turn, table
from benchmarks.evaluate_command import Clocked
from wit_train.decode import pixels
from wit_train.evaluate.sets import opened


def test_the_test_set_is_one_of_clip_benchmark_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It opens with its classes and prompts; all pictures are there, in tars of so many."""
    monkeypatch.setattr(stream_shards, "SAMPLES", 25)
    monkeypatch.setattr(evaluate_inputs, "PER_TAR", 10)
    place = evaluate_inputs.test_set(tmp_path / "set", tmp_path, 25, ["a photo of a {c}"])
    found = opened(place)
    items = list(found.items())
    assert (len(found.classes), found.templates) == (100, ["a photo of a {c}"])
    assert [item.name.partition("/")[0] for item in items[9:11]] == ["0.tar", "1.tar"]
    assert (len(items), found.left_out) == (25, {})
    assert len({item.target for item in items}) > 10
    sizes = [(picture := pixels(item.read())) is not None and picture.shape for item in items]
    assert all(size and min(size[:2]) == 256 for size in sizes)


def test_what_a_command_took_is_read_from_what_it_prints(capsys: pytest.CaptureFixture[str]):
    """Whatever is printed beside it; the function returns what it did."""
    print("loading", end="")
    assert evaluate_command.clocked(lambda a, b: a + b)(1, b=2) == 3
    print("{}")
    assert 0 <= evaluate_command.read(capsys.readouterr().out).seconds < 1


def test_scores_are_read_by_our_names(tmp_path: Path):
    """Of both commands; the file is gone then, and cannot be taken for that of the next turn."""
    place = tmp_path / "scores.json"
    wanted = {"top1": 0.1, "top5": 0.5, "mean_per_class": 0.2}
    theirs = {"metrics": {evaluate.SCORES[name]: value for name, value in wanted.items()}}
    ours = {"zero_shot": {"scores": {name: {"value": value} for name, value in wanted.items()}}}
    for content in (theirs, ours):
        place.write_text(json.dumps(content))
        assert evaluate.scores_in(place) == wanted
        assert not place.exists()


def test_the_table_compares_turn_by_turn():
    """Each with the one of ours that it is beside; the ratio is the median of the turns' ratios."""

    def turn(seconds: float) -> Turn:
        return Turn(2 * seconds, seconds, 1 << 20, Clocked(seconds, seconds), {})

    turns = {"ours": [turn(1), turn(2), turn(4)], "peer": [turn(3), turn(2), turn(8)]}
    *_, ours, peer = table(turns, dict.fromkeys(turns, "ours"), 100)
    assert ours.split()[1:] == ["4.0", "2.0", "1", "1.00", "2.0", "2.0", "50", "1.00"]
    assert peer.split()[1:] == ["6.0", "3.0", "1", "2.00", "3.0", "3.0", "33", "2.00"]
