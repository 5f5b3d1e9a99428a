"""The recipes and the sample list that are in the repository."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from wit_builder import storage
from wit_builder.queries import build, show
from wit_builder.queries.build import BuildJob, CountJob
from wit_builder.recipe import Recipe, WikipediaSource, WordNetSource, load

QUERIES = Path(__file__).parents[2] / "queries"
RECIPES = sorted((QUERIES / "recipes").glob("*.toml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_recipe(recipe):
    """A recipe is valid, and opens with the command that runs it."""
    assert load(str(recipe), Recipe).queries.wordnet
    head = recipe.read_text().split("\n\n")[0]
    command = rf"^#   wit queries build queries/recipes/{recipe.name} --out "
    assert re.search(command, head, re.MULTILINE)


def test_sample_is_what_the_small_recipe_gives(data_dir, tmp_path):
    """``queries/sample.csv`` is, byte for byte, the sample of the list of ``small.toml``."""
    section = load(str(QUERIES / "recipes" / "small.toml"), Recipe).queries
    assert isinstance(section.wordnet, WordNetSource)
    assert isinstance(section.wikipedia, WikipediaSource)
    wordnet = msgspec.structs.replace(section.wordnet, path=str(data_dir / "wordnet"))
    counted = str(tmp_path / "counts")
    (dump,) = section.wikipedia.dumps
    build.run_count(CountJob(str(data_dir / Path(dump).name), counted))
    job = BuildJob(
        msgspec.structs.replace(section, wordnet=wordnet), [counted], str(tmp_path / "list")
    )
    build.run_build(job)
    table = storage.read_parquet(str(tmp_path / "list" / "queries.parquet"))
    assert show.as_csv(show.spread(table, 25)) == (QUERIES / "sample.csv").read_bytes()
