"""A mock web, and a quick way to ask it one question."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.mock_web import MockWeb
from wit_builder.sections import FetchSection
from wit_builder.web.answer import Answer
from wit_builder.web.client import Client

QUICK: dict[str, Any] = {"retries": 0, "deadline_s": 5.0, "per_domain_interval_s": 0.0}

Ask = Callable[..., Answer]


@pytest.fixture
def web() -> Iterator[MockWeb]:
    with MockWeb() as running:
        yield running


@pytest.fixture
def ask(web: MockWeb) -> Ask:
    """Ask a fresh client for one URL: ``ask(url, kind="image", **fetch_section)``."""

    def once(url: str, kind: Any = "image", lookup: Any = None, **limits: Any) -> Answer:
        async def go() -> Answer:
            fetch = FetchSection(**{**QUICK, **limits})
            async with Client(fetch, loopback=web.loopback, lookup=lookup) as client:
                return await client.get(url, kind=kind)

        return asyncio.run(go())

    return once
