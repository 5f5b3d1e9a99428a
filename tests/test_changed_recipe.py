"""A recipe that changes between two starts: the folder ends as if it had only seen the last one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.small_web import SmallWeb, shards_of
from wit_builder import lock, pipeline, storage, units
from wit_builder import recipe as recipes
from wit_builder.errors import QueryListError, StorageError
from wit_builder.shards.verify import verify

pytestmark = pytest.mark.slow


@pytest.fixture
def web(small_web: SmallWeb, tmp_path: Path) -> SmallWeb:
    """The small web, with a recipe and a query list of this test's own."""
    own = shutil.copytree(Path(small_web.recipe).parent, tmp_path / "web")
    return SmallWeb(str(own / "recipe.toml"), small_web.web)


def build(web: SmallWeb, root: Path, *overrides: str) -> None:
    recipe = recipes.read(web.recipe, overrides)
    pipeline.Build(recipe, units.Run(str(root)), web.loopback)()


def rewrite(web: SmallWeb, old: str, new: str) -> None:
    queries = Path(web.recipe).parent / "queries.txt"
    queries.write_text(queries.read_text().replace(old, new))


def test_a_query_put_first_renumbers_what_is_fetched_already(web: SmallWeb, tmp_path: Path) -> None:
    """Pictures are not asked for again, and carry the ids of the new list."""
    build(web, tmp_path / "changed")
    rewrite(web, "drawing", "never heard of\ndrawing")
    build(web, tmp_path / "changed")
    build(web, tmp_path / "fresh")
    assert shards_of(str(tmp_path / "changed")) == shards_of(str(tmp_path / "fresh"))


def test_a_query_that_draws_the_same_under_another_name(web: SmallWeb, tmp_path: Path) -> None:
    """What the shards say of their queries follows, though the same pairs are kept."""
    rewrite(web, "picture", "zebra crossing\na picture")
    build(web, tmp_path / "changed", "balance.cap_per_query=1000")
    rewrite(web, "zebra crossing\na picture", "zebra crossing\na picture of")
    build(web, tmp_path / "changed", "balance.cap_per_query=1000")
    build(web, tmp_path / "fresh", "balance.cap_per_query=1000")
    assert shards_of(str(tmp_path / "changed")) == shards_of(str(tmp_path / "fresh"))


def test_what_killed_units_left_is_not_read_under_another_recipe(
    web: SmallWeb, tmp_path: Path
) -> None:
    """Tables and shards without a marker go; a file of the user's own stays."""
    root = tmp_path / "changed"
    build(web, root)
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


def test_nothing_kept_is_said_in_one_line(web: SmallWeb, tmp_path: Path) -> None:
    """A list that matches nothing is not blamed on the shards."""
    (Path(web.recipe).parent / "queries.txt").write_text("qqqqq")
    with pytest.raises(QueryListError, match=r"no pair was kept.*->"):
        build(web, tmp_path / "run")


def test_two_builds_do_not_work_in_one_folder(web: SmallWeb, tmp_path: Path) -> None:
    """The second is refused as long as the first is at work, and no longer."""
    root = str(tmp_path / "run")
    recipe = recipes.read(web.recipe)
    with lock.alone(root), pytest.raises(StorageError, match="another wit is at work"):
        pipeline.Build(recipe, units.Run(root), web.loopback)("queries")
    pipeline.Build(recipe, units.Run(root), web.loopback)("queries")
