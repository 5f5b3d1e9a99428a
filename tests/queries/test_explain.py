"""Why a query is in a list, and why another is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from wit_builder import cli, storage
from wit_builder.errors import StorageError
from wit_builder.queries.explain import explain

RECIPE = """
[queries]
custom = ["own.txt"]
numbers = 2
buckets = {buckets}
[queries.wikipedia]
counts = ["counts.csv"]
title_lists = ["titles.csv"]
unigram_min_count = 5
unigram_budget = 2
bigram_min_count = 3
bigram_budget = 1
title_min_views = 10
title_budget = 1
"""
COUNTS = """gram,count
the,50
dog,20
cat,9
fox,5
owl,4
the dog,6
the cat,3
dog fox,3
cat owl,1
the zebra,3
"""
TITLES = "title,views\nGerman shepherd,90\nPersian cat,50\nRed fox (animal),4\nList of cats,99\n"


@pytest.fixture(scope="module", params=[1, 3])
def root(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> str:
    """A run whose list leaves out something for every reason there is."""
    folder = tmp_path_factory.mktemp("explain")
    (folder / "own.txt").write_text("C++\n")
    (folder / "counts.csv").write_text(COUNTS)
    (folder / "titles.csv").write_text(TITLES)
    (folder / "recipe.toml").write_text(RECIPE.format(buckets=request.param))
    run = str(folder / "run")
    command = ["queries", "build", str(folder / "recipe.toml"), "--out", run, "--workers", "1"]
    assert cli.status(command) == 0
    return run


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("The!", ["query 3", "unigram", "50 occurrences; unigram ends at 20 occurrences"]),
        ("c#", ["query 0", "custom has it, and no source before"]),
        ("dog fox", ["PMI", "bigram ends at PMI"]),
        ("german SHEPHERD", ["90 views; title ends at 90 views"]),
        ("cat", ["not in the list", "9 occurrences; the cut is at 20 occurrences"]),
        ("owl", ["4 occurrences, fewer than the floor of 5", "no article has this title"]),
        ("zebra", ["0 occurrences, fewer than the floor of 5", "custom none of the 1 taken"]),
        ("list of cats", ["'List of cats' names a list, not a thing"]),
        ("the dog", ["6 occurrences, PMI", "the cut is at PMI"]),
        ("cat owl", ["1 occurrences, fewer than the floor of 3"]),
        ("the zebra", ["3 occurrences, but a word of it was not counted"]),
        ("the dog fox", ["runs of 3 words were not counted"]),
        ("persian cat", ["'Persian cat': 50 views; the cut is at 90 views"]),
        ("red fox", ["'Red fox (animal)' has 4 views, fewer than the floor of 10"]),
        ("\u732b", ["script without spaces"]),
        ("?!", ["normalises to nothing"]),
    ],
)
def test_explanations(root, asked, expected):
    """A text is explained however it is written: its figures, and the rule that decided."""
    told = "\n".join(f"{heading} {text}" for heading, text in explain(root, asked))
    for part in expected:
        assert part in told


@pytest.mark.parametrize(
    ("change", "asked", "expected"),
    [
        ("queries.wikipedia.bigram_min_pmi=30", "the dog", "less than the floor of 30"),
        ("queries.wikipedia.bigram_budget=0", "the dog", "the budget of bigrams is 0"),
        ("queries.wikipedia.titles=false", "red fox", "titles were not asked for"),
        ("queries.wikipedia.title_budget=0", "persian cat", "the budget of titles is 0"),
        ("queries.size=3", "the dog", "the list was full before"),
        ("queries.size=1", "cat", "number none of the 0 taken; 2 are beyond the cut"),
        ("queries.custom_budget=0", "c", "custom none of the 0 taken; 1 are beyond the cut"),
    ],
)
def test_rules_of_the_recipe(root, capsys, change, asked, expected):
    """Whichever rule leaves a query out is the one that is told."""
    recipe = str(Path(root).parent / "recipe.toml")
    command = ["queries", "build", recipe, "--out", root, "--workers", "1", "--set", change]
    assert cli.status(command) == 0
    told = "\n".join(f"{heading.strip()} {text}" for heading, text in explain(root, asked))
    assert expected in told
    assert "build it again" not in told
    capsys.readouterr()


def test_a_list_of_an_earlier_recipe(root):
    """A list that a later, failed build has left behind is told from one of the present recipe."""
    recipe = str(Path(root).parent / "recipe.toml")
    command = ["queries", "build", recipe, "--out", root, "--workers", "1"]
    assert cli.status(command) == 0
    wrong = ["--set", "queries.wikipedia.bigram_budget=99", "--set", "queries.strict_budgets=true"]
    assert cli.status([*command, *wrong]) == 1
    told = dict(explain(root, "owl"))
    assert told["  but"] == "counts or recipe changed since the list was made: build it again"
    assert cli.status(command) == 0


def test_no_list(tmp_path):
    """Where there is no list, the missing file is named."""
    with pytest.raises(StorageError, match=r"queries\.parquet"):
        list(explain(str(tmp_path), "dog"))


def test_the_command_line(root, capsys):
    """Both forms of `wit queries show` print what there is."""
    assert cli.status(["queries", "show", root]) == 0
    assert "unigram" in capsys.readouterr().out
    assert cli.status(["queries", "show", root, "owl"]) == 0
    assert "fewer than the floor" in capsys.readouterr().out
    assert storage.exists(storage.join(root, "recipe.toml"))
