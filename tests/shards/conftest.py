"""The project's own sample data set: once for reading, or a copy to damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from wit_builder.shards.sample import write_sample


@pytest.fixture(scope="session")
def sample_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small shards of nine blocks in all; read only."""
    folder = tmp_path_factory.mktemp("shards") / "sample"
    write_sample(str(folder))
    return folder


@pytest.fixture
def copy_of_set(sample_set: Path, tmp_path: Path) -> Path:
    """A copy of the sample data set that a test may damage."""
    return Path(shutil.copytree(sample_set, tmp_path / "set"))
