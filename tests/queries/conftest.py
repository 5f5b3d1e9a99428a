from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir():
    return Path("/tmp/qdata/data")
