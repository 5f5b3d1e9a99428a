"""TOML becomes frozen structs, or one line that names the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from wit_builder import recipe, sections, storage
from wit_builder.errors import RecipeError, StorageError
from wit_builder.sections import Recipe


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "r.toml"
    path.write_text(text)
    return str(path)


BAD = {
    "unknown key": (
        "[balance]\ncap_per_qury = 3",
        r"cap_per_qury.*balance.*did you mean 'cap_per_query'",
    ),
    "unknown section": ("[balanse]\n", r"balanse.*did you mean 'balance'"),
    "unknown key in a source": (
        "[[crawl.sources]]\nkind = 'warc'\npths = ['x']",
        r"pths.*crawl\.sources\[0\].*did you mean 'paths'",
    ),
    "unknown kind of source": (
        "[[crawl.sources]]\nkind = 'ftp'",
        r"ftp.*crawl\.sources\[0\]\.kind",
    ),
    "wrong type": ("seed = 'one'", r"Expected `int`.*seed"),
    "impossible value": ("[balance]\ncap_per_query = 0", r">= 1.*balance\.cap_per_query"),
    "not TOML": ("seed = ", r"not valid TOML.*r\.toml"),
}


@pytest.mark.parametrize(("text", "pattern"), BAD.values(), ids=BAD.keys())
def test_a_wrong_recipe_is_refused_with_its_key(tmp_path: Path, text: str, pattern: str) -> None:
    """The error names file and key, and how to put it right, in one line."""
    with pytest.raises(RecipeError, match=pattern) as caught:
        recipe.load(write(tmp_path, text), Recipe)
    assert "r.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    """A path that is not there is said so."""
    with pytest.raises(RecipeError, match=r"cannot read the recipe.*gone\.toml"):
        recipe.load(str(tmp_path / "gone.toml"), Recipe)


def test_overrides_take_toml_values_and_bare_words(tmp_path: Path) -> None:
    """--set reaches any key; what is not TOML is a string."""
    sets = [
        "balance.cap_per_query=7",
        "name=mine",
        "queries.wordnet.path=/w",
        "queries.custom=['a']",
    ]
    loaded = recipe.load(write(tmp_path, "seed = 1"), Recipe, sets)
    assert (loaded.balance.cap_per_query, loaded.name, loaded.seed) == (7, "mine", 1)
    assert loaded.queries.wordnet == sections.WordNetSource(path="/w")
    assert loaded.queries.custom == ["a"]


@pytest.mark.parametrize("override", ["seed", "=1", "a..b=1", "seed.x=1"])
def test_an_override_of_another_form_is_refused(tmp_path: Path, override: str) -> None:
    """What is not key.path=value is refused by name."""
    with pytest.raises(RecipeError, match="--set"):
        recipe.load(write(tmp_path, "seed = 1"), Recipe, [override])


def test_a_dumped_recipe_loads_to_the_same(tmp_path: Path) -> None:
    """The resolved recipe has every default written out, and reads back equal."""
    text = "[queries.wordnet]\npath = '/w'\n[[crawl.sources]]\nkind = 'warc'\npaths = ['x']"
    loaded = recipe.load(write(tmp_path, text), Recipe)
    dumped = recipe.dump(loaded)
    assert "over_draw" in dumped
    assert recipe.digest(loaded) in dumped.splitlines()[0]
    assert recipe.load(write(tmp_path, dumped), Recipe) == loaded


def test_the_digest_depends_on_content_alone() -> None:
    """Order of keys does not matter; a changed value does."""
    assert recipe.digest({"a": 1, "b": 2}) == recipe.digest({"b": 2, "a": 1})
    assert recipe.digest(Recipe()) != recipe.digest(Recipe(seed=1))


@pytest.mark.parametrize(
    "place",
    ["https://joe:hunter2@example.org/words.csv", "https://example.org/words.csv?X-Sig=hunter2"],
)
def test_secrets_are_refused_before_anything_is_written(tmp_path, place):
    """An input whose URL carries a secret is refused, and the secret is not repeated."""
    path = write(tmp_path, f"[queries.wikipedia]\ncounts = ['{place}']")
    with pytest.raises(StorageError, match="a URL must not carry") as caught:
        recipe.read(path)
    assert "hunter2" not in str(caught.value)


def test_a_folder_with_brackets_in_its_name(tmp_path):
    """A file below a folder whose name looks like a pattern is found as it is."""
    folder = tmp_path / "a[x]"
    folder.mkdir()
    (folder / "words.csv").write_text("")
    assert storage.glob(str(folder / "words.csv")) == [str(folder / "words.csv")]
