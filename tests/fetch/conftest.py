"""A mock web, and selections of its pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from tests.mock_web import MockWeb
from wit_builder.exchange import scatter
from wit_builder.fetch.run import FetchJob
from wit_builder.sections import FetchSection, ImageSection
from wit_builder.tables import SELECTED


@pytest.fixture
def web() -> Iterator[MockWeb]:
    with MockWeb() as running:
        yield running


def selection(urls: list[str]) -> pa.Table:
    """Return rows of ``tables.SELECTED`` for some URLs."""
    rows = [
        {
            "uid": xxhash.xxh3_128_digest(url.encode()),
            "url": url,
            "text": f"a picture, {url[-6:]}",
            "text_from": "alt",
            "page_url": "http://a.test/",
            "archive": "test",
            "query_ids": [1, 2],
            "drawn_by": [2],
        }
        for url in urls
    ]
    return pa.Table.from_pylist(rows, schema=SELECTED)


JobOf = Callable[..., FetchJob]


@pytest.fixture
def job_of(web: MockWeb, tmp_path: Path) -> JobOf:
    """Make a job of URLs: ``job_of(urls, **fetch_section)``."""

    def make(urls: list[str], image: ImageSection | None = None, **limits: Any) -> FetchJob:
        source = str(tmp_path / "selected.arrow")
        scatter(selection(urls), np.zeros(len(urls), np.int64), 1, source)
        return FetchJob(
            sources=[source],
            bucket=0,
            number=0,
            out=str(tmp_path / "images"),
            fetch=FetchSection(
                **{"retries": 0, "deadline_s": 5.0, "per_domain_interval_s": 0.0, **limits}
            ),
            image=image or ImageSection(size_px=64),
            loopback=web.loopback,
        )

    return make
