"""Golden: `shards/sample/` is what `python -m wit_builder.shards.sample shards/sample` writes."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from wit_builder.shards.sample import main
from wit_builder.shards.verify import verify

_COMMITTED = Path(__file__).parents[2] / "shards" / "sample"


def test_the_committed_sample_is_what_its_generator_writes(sample_set: Path) -> None:
    """Regenerated from its seed, it has the committed bytes; parquet is compared by value."""
    names = sorted(p.name for p in sample_set.iterdir())
    assert sorted(p.name for p in _COMMITTED.iterdir()) == names
    for name in names:
        if name.endswith(".parquet"):  # its bytes also name the version of Arrow
            fresh, old = (pq.read_table(folder / name) for folder in (sample_set, _COMMITTED))
            assert fresh.equals(old, check_metadata=True), name
        else:
            assert (sample_set / name).read_bytes() == (_COMMITTED / name).read_bytes(), name


def test_the_committed_sample_is_small_and_whole() -> None:
    """The sample verifies, and takes less than 300 kB."""
    assert verify(str(_COMMITTED)).ok
    assert sum(p.stat().st_size for p in _COMMITTED.iterdir()) < 300_000


def test_the_generator_is_a_command(tmp_path: Path) -> None:
    """It writes into the folder that is its only argument, and leaves other files alone."""
    (tmp_path / "mine.txt").write_text("keep")
    main([str(tmp_path)])
    assert verify(str(tmp_path)).samples == 24
    assert (tmp_path / "mine.txt").exists()
    with pytest.raises(SystemExit, match="usage"):
        main([])
