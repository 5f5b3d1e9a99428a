"""The recipes and the sample list that are in the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from wit_builder import storage
from wit_builder.queries import build, show
from wit_builder.recipe import load
from wit_builder.sections import Recipe, WikipediaSource, WordNetSource
from wit_builder.units import Run

QUERIES = Path(__file__).parents[2] / "queries"
RECIPES = sorted((QUERIES / "recipes").glob("*.toml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_recipe(recipe):
    """A recipe is valid, and opens with the command that runs it: a list's, or a data set's."""
    settings = load(str(recipe), Recipe)
    assert settings.queries.wordnet
    head = recipe.read_text().split("\n\n")[0]
    build = "build" if settings.crawl.sources else "queries build"
    command = rf"^#   wit {build} queries/recipes/{recipe.name} --out runs/{recipe.stem}\b"
    assert re.search(command, head, re.MULTILINE)


def build_from(recipe: str, data_dir: Path, root: Path) -> None:
    """Build the list of a recipe here, from the data that `make data` got."""
    section = load(str(QUERIES / "recipes" / recipe), Recipe).queries
    assert isinstance(section.wordnet, WordNetSource)
    assert isinstance(section.wikipedia, WikipediaSource)

    def found(places: list[str]) -> list[str]:
        return [str(data_dir / Path(place).name) for place in places]

    wikipedia = replace(
        section.wikipedia,
        dumps=found(section.wikipedia.dumps),
        counts=found(section.wikipedia.counts),
        title_lists=[],
    )
    wordnet = replace(section.wordnet, path=str(data_dir / "wordnet"))
    build.build(replace(section, wordnet=wordnet, wikipedia=wikipedia), Run(str(root)))


def test_sample_is_what_the_small_recipe_gives(data_dir, tmp_path):
    """``queries/sample.csv`` is, byte for byte, the sample of the list of ``small.toml``."""
    build_from("small.toml", data_dir, tmp_path)
    table = storage.read_parquet(str(tmp_path / build.LIST))
    assert show.as_csv(show.spread(table, 25)) == (QUERIES / "sample.csv").read_bytes()


def test_words_of_the_whole_wikipedia(data_dir, tmp_path):
    """WordNet and the real word counts make the list that the README tells of, but its titles."""
    build_from("packaged.toml", data_dir, tmp_path)
    summary = build.read_summary(str(tmp_path))
    kept = {source.source: source.kept for source in summary.sources if source.kept}
    assert kept == {"number": 100, "wordnet": 86_405, "unigram": 222_964}
    assert summary.tokens == 2_370_493_257
    readme = (QUERIES / "README.md").read_text()
    assert "unigram      222,964 queries of 262,267 offered" in readme
