"""A recipe that changes between two starts: the folder ends as if it had only seen the last one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.small_web import SmallWeb, shards_of
from wit_builder import lock, pipeline, storage, units
from wit_builder import recipe as recipes
from wit_builder.errors import QueryListError, StorageError
from wit_builder.shards.verify import verify

pytestmark = pytest.mark.slow


@pytest.fixture
def web(small_web: SmallWeb, tmp_path: Path) -> Web:
    """The small web, with a query list of this test's own."""
    place = Path(small_web.recipe)
    return Web(small_web, Path(shutil.copy(place.with_name("queries.txt"), tmp_path)))


@pytest.fixture
def changed(small_run: Path, tmp_path: Path) -> Path:
    """The folder of a run that is finished, and will be started under another recipe."""
    return Path(shutil.copytree(small_run, tmp_path / "changed"))


class Web(NamedTuple):
    """The small web, and the query list that builds of it take."""

    small: SmallWeb
    queries: Path


def build(web: Web, root: Path, *overrides: str) -> None:
    recipe = recipes.read(web.small.recipe, [f'queries.custom=["{web.queries}"]', *overrides])
    pipeline.Build(recipe, units.Run(str(root)), web.small.loopback)()


def rewrite(web: Web, old: str, new: str) -> None:
    web.queries.write_text(web.queries.read_text().replace(old, new))


def test_a_query_put_first_renumbers_what_is_fetched_already(
    web: Web, changed: Path, tmp_path: Path
) -> None:
    """Pictures are not asked for again, and carry the ids of the new list."""
    rewrite(web, "drawing", "never heard of\ndrawing")
    build(web, changed)
    build(web, tmp_path / "fresh")
    assert shards_of(str(changed)) == shards_of(str(tmp_path / "fresh"))


def test_a_query_that_draws_the_same_under_another_name(
    web: Web, changed: Path, tmp_path: Path
) -> None:
    """What the shards say of their queries follows, though the same pairs are kept."""
    rewrite(web, "picture", "zebra crossing\na picture")
    build(web, changed, "balance.cap_per_query=1000")
    rewrite(web, "zebra crossing\na picture", "zebra crossing\na picture of")
    build(web, changed, "balance.cap_per_query=1000")
    build(web, tmp_path / "fresh", "balance.cap_per_query=1000")
    assert shards_of(str(changed)) == shards_of(str(tmp_path / "fresh"))


def test_what_killed_units_left_is_not_read_under_another_recipe(
    web: Web, changed: Path, tmp_path: Path
) -> None:
    """Tables and shards without a marker go; a file of the user's own stays."""
    root = changed
    for stage, unit in (("fetch-r1", "*"), ("dedup", "00002"), ("pack", "000001")):
        for marker in (root / "units" / "g0" / stage).glob(f"{unit}.json"):
            marker.unlink()
    notes = root / "g0" / "shards" / "notes.tar"
    notes.write_text("mine")
    smaller = ["balance.rounds=1", "buckets=2", "pack.samples_per_shard=1000"]
    build(web, root, *smaller)
    assert notes.read_text() == "mine"
    notes.unlink()
    build(web, tmp_path / "fresh", *smaller)
    assert shards_of(str(root)) == shards_of(str(tmp_path / "fresh"))
    assert not verify(str(root / "g0" / "shards")).faults
    reports = [
        storage.read_bytes(str(r / "report" / "summary.json")) for r in (root, tmp_path / "fresh")
    ]
    assert reports[0] == reports[1]


def test_nothing_kept_is_said_in_one_line(web: Web, tmp_path: Path) -> None:
    """A list that matches nothing is not blamed on the shards."""
    web.queries.write_text("qqqqq")
    with pytest.raises(QueryListError, match=r"no pair was kept.*->"):
        build(web, tmp_path / "run")


def test_two_builds_do_not_work_in_one_folder(small_web: SmallWeb, tmp_path: Path) -> None:
    """The second is refused as long as the first is at work, and no longer."""
    root = str(tmp_path / "run")
    recipe = recipes.read(small_web.recipe)
    with lock.alone(root), pytest.raises(StorageError, match="another wit is at work"):
        pipeline.Build(recipe, units.Run(root), small_web.loopback)("queries")
    pipeline.Build(recipe, units.Run(root), small_web.loopback)("queries")
