"""From dumps and lists to the files on disk: complete, independent of order, or an error."""

from __future__ import annotations

import bz2
from pathlib import Path

import msgspec
import pytest

from wit_builder import storage, tables
from wit_builder.errors import QueryListError, UnitsFailedError
from wit_builder.queries import build
from wit_builder.queries.build import BuildJob, CountJob
from wit_builder.recipe import QueriesSection, WikipediaSource, WordNetSource
from wit_builder.units import Run

PAGE = "<page><title>{0}</title><ns>0</ns><revision><text>{1}</text></revision></page>"
PAGES = [
    ("Dog", "A '''dog''' barks. The [[hot dog]] is sold at New York."),
    ("Cat", "The cat sleeps in New York."),
    ("List of cats", "* Tom\n* Felix"),
    ("New York (city)", "{{infobox}}New York is a city."),
]


@pytest.fixture
def dumps(tmp_path: Path) -> list[str]:
    """Four dumps of a page each."""
    for i, page in enumerate(PAGES):
        text = f"<mediawiki>{PAGE.format(*page)}</mediawiki>"
        (tmp_path / f"d{i}.xml.bz2").write_bytes(bz2.compress(text.encode()))
    return [str(tmp_path / f"d{i}.xml.bz2") for i in range(len(PAGES))]


def section(dumps: list[str]) -> QueriesSection:
    """Return a recipe's section with floors for a few words."""
    wikipedia = WikipediaSource(
        dumps=dumps, unigram_min_count=2, bigram_min_count=2, bigram_budget=10
    )
    return QueriesSection(numbers=2, wikipedia=wikipedia)


def built(settings: QueriesSection, root: Path) -> tuple[bytes, bytes]:
    """Build a list in a run; return the bytes of list and summary."""
    run = Run(str(root))
    counting = build.count_stage(settings, run.root)
    run.do(build.build_stage(settings, run.root, counting, run.do(counting, "all")), "all")
    return (root / build.LIST).read_bytes(), (root / build.SUMMARY).read_bytes()


def test_a_dump_named_twice_is_counted_once(dumps, tmp_path):
    """Patterns that overlap do not double any count."""
    counting = build.count_stage(section([*dumps, str(tmp_path / "d*.bz2")]), "ROOT")
    assert [unit.job.dump for unit in counting.units] == dumps


def test_list_and_summary(dumps, tmp_path):
    """All sources are in the list, in order, and the summary counts them."""
    _, summary = built(section(dumps), tmp_path / "run")
    rows = storage.read_parquet(str(tmp_path / "run" / build.LIST))
    assert rows.schema.equals(tables.QUERIES)
    assert list(zip(rows["query"].to_pylist(), rows["source"].to_pylist(), strict=True)) == [
        ("0", "number"),
        ("1", "number"),
        ("new", "unigram"),
        ("york", "unigram"),
        ("a", "unigram"),
        ("dog", "unigram"),
        ("is", "unigram"),
        ("the", "unigram"),
        ("new york", "bigram"),
        ("cat", "title"),
    ]
    told = msgspec.json.decode(summary)
    assert told["queries"] == 10
    assert told["articles"] == 4


def test_order_of_dumps_changes_nothing(dumps, tmp_path):
    """The same dumps in another order give the same bytes of list and summary."""
    forward = built(section(dumps), tmp_path / "forward")
    assert built(section(dumps[::-1]), tmp_path / "backward") == forward
    assert built(section([str(tmp_path / "d*.xml.bz2")]), tmp_path / "pattern") == forward


def test_floors_count_nothing_again(dumps, tmp_path):
    """Another floor makes the list anew from the same counts."""
    root = tmp_path / "run"
    built(section(dumps), root)
    counts = {path: path.stat().st_mtime_ns for path in root.glob("queries/counts/*")}
    other = msgspec.structs.replace(section(dumps), numbers=5)
    built(other, root)
    assert counts == {path: path.stat().st_mtime_ns for path in root.glob("queries/counts/*")}
    assert storage.read_parquet(str(root / build.LIST))["query"][4].as_py() == "4"


def test_truncated_dump_publishes_nothing(dumps, tmp_path):
    """A dump that is cut short ends in an error that names it, and no counts of it appear."""
    data = Path(dumps[0]).read_bytes()
    Path(dumps[0]).write_bytes(data[:-20])
    with pytest.raises(QueryListError, match=r"cut short.*d0\.xml\.bz2"):
        build.run_count(CountJob(dumps[0], str(tmp_path / "out" / "0")))
    assert not (tmp_path / "out").exists()


def test_missing_wordnet_is_told_in_its_own_words(tmp_path):
    """A folder that is no WordNet fails its unit with the file and the recipe key."""
    settings = QueriesSection(wordnet=WordNetSource(path=str(tmp_path / "none")))
    with pytest.raises(UnitsFailedError, match=r"none/data\.noun.*queries\.wordnet\.path"):
        built(settings, tmp_path / "run")


def test_empty_list(tmp_path):
    """A recipe that yields no query is an error, and no list appears."""
    job = BuildJob(QueriesSection(numbers=0), [], str(tmp_path / "out"))
    with pytest.raises(QueryListError, match="the query list is empty"):
        build.run_build(job)
    assert not (tmp_path / "out").exists()


def test_first_lemmas_of_wordnet(data_dir, tmp_path):
    """First lemmas of WordNet 3.0 make 86,405 queries after the numbers 0 to 99."""
    settings = QueriesSection(wordnet=WordNetSource(path=str(data_dir / "wordnet")))
    done = build.run_build(BuildJob(settings, [], str(tmp_path)))
    assert done.counts == {"number": 100, "wordnet": 86_405}
