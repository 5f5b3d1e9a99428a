from __future__ import annotations

from collections.abc import Iterator

import pytest

from wit_builder.demo import site
from wit_builder.demo.site import Plan, Settings
from wit_builder.demo.web import DemoWeb


@pytest.fixture(scope="session")
def settings(tmp_path_factory) -> Settings:
    return Settings(data=str(tmp_path_factory.mktemp("data")), seed=7, concepts=40, variants=4)


@pytest.fixture(scope="session")
def plan(settings) -> Plan:
    return site.plan(settings)


@pytest.fixture(scope="session")
def running(settings) -> Iterator[DemoWeb]:
    with DemoWeb(settings) as web:
        yield web
