"""Rounds of fetching in whole builds, on a web of a few hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.mock_web import MockWeb, jpeg, picture_reply, redirect
from wit_builder import pipeline, storage, units
from wit_builder.errors import RecipeError, RejectionFloodError
from wit_builder.sections import (
    BlockSection,
    CrawlSection,
    DomainSection,
    FetchSection,
    ImageSection,
    QueriesSection,
    Recipe,
    TablesSource,
)
from wit_builder.tables import Outcome

HOSTS, EACH = 6, 8
QUICK = FetchSection(
    per_domain_interval_s=0.0, deadline_s=3.0, retries=0, contact="", concurrency=32
)


@pytest.fixture
def web() -> Iterator[MockWeb]:
    with MockWeb() as running:
        yield running


@pytest.fixture
def recipe(web: MockWeb, tmp_path: Path) -> Recipe:
    """A recipe of pictures on six domains, a quarter of which redirect to another domain."""
    urls = [f"http://d{host}.test/{n}.jpg" for host in range(HOSTS) for n in range(EACH)]
    for place, url in enumerate(urls):
        name = url.removeprefix("http://")
        onward = redirect(f"http://cdn{place % 3}.test/{place}.jpg")
        picture = picture_reply(jpeg(120, 90, seed=place))
        web.pages[name] = onward if place % 4 == 0 else picture
        web.pages[f"cdn{place % 3}.test/{place}.jpg"] = picture
    table = pa.table({"url": urls, "text": [f"a dog, number {n}" for n in range(len(urls))]})
    storage.write_parquet(str(tmp_path / "pairs.parquet"), table)
    (tmp_path / "queries.txt").write_text("dog\n")
    return Recipe(
        buckets=2,
        queries=QueriesSection(numbers=0, custom=[str(tmp_path / "queries.txt")]),
        crawl=CrawlSection(sources=[TablesSource(paths=[str(tmp_path / "pairs.parquet")])]),
        fetch=QUICK,
        image=ImageSection(size_px=64),
    )


def build(recipe: Recipe, web: MockWeb, root: Path, until: pipeline.Until = "report") -> None:
    pipeline.Build(recipe, units.Run(str(root)), web.loopback)(until)


def changed(recipe: Recipe, **sections: Any) -> Recipe:
    return msgspec.structs.replace(recipe, **sections)


def images(root: Path, folder: str = "images") -> pa.Table:
    files = storage.list_files(str(root / "g0" / folder / "r0"), ".parquet")
    return pa.concat_tables(storage.read_parquet(file) for file in files)


def kept(root: Path) -> int:
    manifest = storage.read_parquet(str(root / "g0" / "shards" / "manifest.parquet"))
    return int(pc.sum(manifest["samples"]).as_py())


def test_who_is_redirected_to_asks_for_it(recipe: Recipe, web: MockWeb, tmp_path: Path) -> None:
    """A pair that moves to another domain has two rows, and is asked for once of each domain."""
    build(recipe, web, tmp_path / "run")
    table = images(tmp_path / "run")
    moved = table.filter(pc.equal(table["outcome"], Outcome.MOVED.value))
    assert len(moved) == HOSTS * EACH // 4
    final = table.filter(pc.is_in(table["uid"], moved["uid"]))
    assert sorted(final["outcome"].to_pylist()) == ["alive"] * len(moved) + ["moved"] * len(moved)
    assert kept(tmp_path / "run") == HOSTS * EACH
    assert len(web.asked()) == len(set(web.asked())) == len(table)


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2), (3, 7)])
def test_another_number_of_buckets(
    recipe: Recipe, web: MockWeb, tmp_path: Path, before: int, after: int
) -> None:
    """A run goes on with more buckets or fewer, moved pairs included."""
    build(changed(recipe, buckets=before), web, tmp_path / "run")
    build(changed(recipe, buckets=after), web, tmp_path / "run")
    assert kept(tmp_path / "run") == HOSTS * EACH
    table = images(tmp_path / "run")
    assert len(table.filter(pc.equal(table["outcome"], Outcome.ALIVE.value))) == HOSTS * EACH


def test_a_dead_network_is_not_the_pairs_fault(
    recipe: Recipe, web: MockWeb, tmp_path: Path
) -> None:
    """Where hardly anybody is reached the build stops, and asks them all when it starts again."""
    nobody = {"*.test": "127.0.0.1:9"}
    with pytest.raises(RejectionFloodError, match="could not be asked for"):
        pipeline.Build(recipe, units.Run(str(tmp_path / "run")), nobody)()
    build(recipe, web, tmp_path / "run")
    assert kept(tmp_path / "run") == HOSTS * EACH


def test_redirects_to_a_dead_host_are_no_dead_network(
    recipe: Recipe, web: MockWeb, tmp_path: Path
) -> None:
    """What is redirected to a host that is down is lost; the rest is kept."""
    for name in [name for name in web.pages if name.startswith("cdn")]:
        web.pages[name] = (500, {}, b"")
    build(recipe, web, tmp_path / "run")
    assert kept(tmp_path / "run") == HOSTS * EACH * 3 // 4


def test_a_list_that_comes_and_goes(recipe: Recipe, web: MockWeb, tmp_path: Path) -> None:
    """A block-list that is added takes effect without a request, and so does taking it away."""
    root = tmp_path / "run"
    build(recipe, web, root)
    (tmp_path / "hosts.txt").write_text("cdn0.test\nd1.test\n")
    web.log.clear()
    listed = changed(recipe, block=BlockSection(hosts=[str(tmp_path / "hosts.txt")]))
    build(listed, web, root)
    reasons = images(root, "judged")["reason"].to_pylist()
    blocked = reasons.count("blocked")
    assert blocked >= EACH
    assert kept(root) == HOSTS * EACH - blocked
    build(recipe, web, root)
    assert kept(root) == HOSTS * EACH
    assert web.log == []


def test_limits_of_a_host_are_refused(recipe: Recipe, web: MockWeb, tmp_path: Path) -> None:
    """Limits are those of a registrable domain; a host's would hold for nobody."""
    own = {"www.example.org": DomainSection(interval_s=9.0)}
    fetch = msgspec.structs.replace(QUICK, domains=own)
    with pytest.raises(RecipeError, match=r"registrable domain, example\.org"):
        build(changed(recipe, fetch=fetch), web, tmp_path / "run")
    assert web.log == []
