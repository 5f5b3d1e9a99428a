from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from wit_builder import cli, estimate, pipeline, recipe, storage, units
from wit_builder.errors import RecipeError
from wit_builder.estimate import Estimate

RECIPE = """
[queries]
numbers = 0
custom = ["queries.txt"]

[balance]
cap_per_query = 7

[fetch]
contact = "someone@example.org"
per_domain_interval_s = 2.0

[[crawl.sources]]
kind = "tables"
paths = ["*.csv"]
"""


@pytest.fixture
def place(tmp_path: Path) -> str:
    """Return the place of a recipe with two lists of ten pictures, of which six are of dogs."""
    (tmp_path / "queries.txt").write_text("dog\ncat\n")
    for number in range(2):
        lines = [
            f"https://{'big' if n % 5 else 'small'}.example/{number}/{n}.jpg,"
            f"a {'dog' if n % 5 < 3 else 'bird'} in the sun {n}"
            for n in range(10)
        ]
        (tmp_path / f"{number}.csv").write_text("\n".join(["url,text", *lines, ""]))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return str(tmp_path / "recipe.toml")


def build(place: str, root: str, until: pipeline.Until) -> None:
    pipeline.Build(recipe.read(place), units.Run(root))(until)


def counted(found: Estimate, stage: str, what: str) -> float:
    (cost,) = found.costs
    return float(cost.archives * getattr(cost, stage).counts[what])


def test_what_a_sample_tells(place: str, tmp_path: Path) -> None:
    """Archives and bytes are those of all files; candidates are scaled from the sample."""
    found = estimate.estimate(recipe.read(place))
    (cost,) = found.costs
    assert (cost.kind, cost.archives) == ("tables", 2)
    assert cost.bytes_in == sum(p.stat().st_size for p in tmp_path.glob("*.csv"))
    assert cost.crawl is not None
    assert cost.crawl.archives == 1
    assert cost.match is None
    assert counted(found, "crawl", "candidates") == 20
    assert found.requests is None
    assert found.core_hours("crawl") > 0
    assert not list(tmp_path.glob("g0"))


def test_with_a_query_list(place: str, tmp_path: Path) -> None:
    """Matching is measured, and what would be asked for, and by which domain it takes longest."""
    root = str(tmp_path / "run")
    build(place, root, "queries")
    found = estimate.estimate(recipe.read(place), root)
    assert counted(found, "match", "matched") == 12
    assert found.requests == 12
    assert found.slowest_domain == "big.example"
    assert found.days == pytest.approx(0.8 * 12 * 2 / 86_400)


def test_done_units_are_taken(place: str, tmp_path: Path) -> None:
    """What a build has done is not read again: its own counts and seconds tell."""
    root = str(tmp_path / "run")
    build(place, root, "match")
    for csv in tmp_path.glob("*.csv"):
        csv.write_bytes(bytes(csv.stat().st_size))  # reading it now would fail
    found = estimate.estimate(recipe.read(place), root)
    (cost,) = found.costs
    assert cost.crawl is not None
    assert cost.crawl.archives == 2
    assert counted(found, "crawl", "candidates") == 20
    assert counted(found, "match", "matched") == 12


def test_no_more_than_the_cap_is_asked_for(place: str, tmp_path: Path) -> None:
    """The cap and the number of queries bound the requests of the first round."""
    root = str(tmp_path / "run")
    settings = recipe.load(place, type(recipe.read(place)), ["balance.cap_per_query=3"])
    build(place, root, "queries")
    found = estimate.estimate(recipe.anchored(settings, str(tmp_path)), root)
    assert found.requests == 6


def test_nothing_to_crawl(tmp_path: Path) -> None:
    """A recipe without sources is refused."""
    (tmp_path / "r.toml").write_text("seed = 1")
    with pytest.raises(RecipeError, match="nothing to crawl"):
        estimate.estimate(recipe.read(str(tmp_path / "r.toml")))


def test_the_command(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``wit plan`` prints it as rows, or as JSON."""
    assert cli.status(["plan", place]) == cli.DONE
    rows = capsys.readouterr().out
    assert "2 archives" in rows
    assert "wit queries build first" in rows
    assert cli.status(["plan", place, "--json"]) == cli.DONE
    told = json.loads(capsys.readouterr().out)
    assert msgspec.convert(told, Estimate).costs[0].archives == 2


def test_shards_and_sites_are_planned_too(tmp_path: Path) -> None:
    """Of live sites only the number of domains and pages is known."""
    storage.write_parquet(str(tmp_path / "a.parquet"), pa.table({"url": ["x"], "text": ["y"]}))
    text = (
        '[[crawl.sources]]\nkind = "site"\nseeds = ["https://a.example/", "https://b.example/"]\n'
    )
    (tmp_path / "r.toml").write_text(text + "max_pages = 30\n")
    found = estimate.estimate(recipe.read(str(tmp_path / "r.toml")))
    (cost,) = found.costs
    assert (cost.kind, cost.archives, cost.bytes_in, found.pages) == ("site", 2, 0, 60)
    rows: list[tuple[str, Any]] = estimate.lines(found, 4)
    assert ("pages of live sites", "at most 60") in rows
