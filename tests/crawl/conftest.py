"""A small site on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mock_web import MockWeb
from tests.site_crawls import small_site


@pytest.fixture
def web() -> Iterator[MockWeb]:
    with MockWeb() as running:
        running.pages = small_site()
        yield running
