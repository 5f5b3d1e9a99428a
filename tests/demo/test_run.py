"""`wit demo`, small: the whole of it in one go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wit_builder import demo

SMALL = demo.Size(
    concepts=30,
    training=("steps=6", "data.batch_size=16", "data.lanes=4", "optimiser.warmup_steps=1"),
    building=("fetch.deadline_s=3.0",),  # which the slow host of the web uses up
)


@pytest.mark.slow
def test_the_demo_runs_to_its_end(
    tmp_path: Path, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A small web becomes shards, a model and scores beside chance; a second start goes on."""
    demo.run(str(tmp_path), str(data_dir), workers=2, size=SMALL)
    said = capfd.readouterr().out
    for words in ("candidates", "lost in fetch", "zero-shot top1", "chance", "index.html"):
        assert words in said
    scores = json.loads((tmp_path / "eval/results.json").read_text())["zero_shot"]
    assert scores["pictures"] == scores["classes"] == 30
    assert scores["scores"]["top1"]["chance"] == pytest.approx(1 / 30)
    shards = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "g0" / "shards").iterdir()}
    demo.run(str(tmp_path), str(data_dir), workers=2, size=SMALL)
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "g0" / "shards").iterdir()} == shards
