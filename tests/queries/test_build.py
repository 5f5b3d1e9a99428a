"""From dumps, counts, views and lists to the files on disk: complete, or an error."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from wit_builder import storage, tables
from wit_builder.errors import QueryListError, StorageError, UnitsFailedError
from wit_builder.queries import build
from wit_builder.queries.build import BuildJob
from wit_builder.queries.sources import Counted
from wit_builder.sections import QueriesSection, WikipediaSource, WordNetSource
from wit_builder.units import Run

PAGE = "<page><title>{0}</title><ns>0</ns>{2}<revision><text>{1}</text></revision></page>"
PAGES = [
    ("Dog", "A '''dog''' barks. The [[hot dog]] is sold at New York."),
    ("Cat", "The cat sleeps in New York."),
    ("List of cats", "* Tom\n* Felix"),
    ("New York (city)", "{{infobox}}New York is a city."),
]
REDIRECT = PAGE.format("Hound", "", '<redirect title="Dog" />')


def dump_of(pages: list[tuple[str, str]], more: str = "") -> bytes:
    """Return a dump of pages as a bz2 file."""
    text = "".join(PAGE.format(*page, "") for page in pages)
    return bz2.compress(f"<mediawiki>{text}{more}</mediawiki>".encode())


@pytest.fixture
def dumps(tmp_path: Path) -> list[str]:
    """Four dumps of a page each, and a redirect in the last."""
    for i, page in enumerate(PAGES):
        data = dump_of([page], REDIRECT if i == 3 else "")
        (tmp_path / f"d{i}.xml.bz2").write_bytes(data)
    return [str(tmp_path / f"d{i}.xml.bz2") for i in range(len(PAGES))]


def section(dumps: list[str], **more: object) -> QueriesSection:
    """Return a recipe's section with floors for a few words."""
    wikipedia = WikipediaSource(
        dumps=dumps, unigram_min_count=2, bigram_min_count=2, bigram_budget=10
    )
    return QueriesSection(numbers=2, wikipedia=replace(wikipedia, **more))


def built(settings: QueriesSection, root: Path, run: Run | None = None) -> tuple[bytes, bytes]:
    """Build a list in a run; return the bytes of list and summary."""
    build.build(settings, run or Run(str(root)))
    return (root / build.LIST).read_bytes(), (root / build.SUMMARY).read_bytes()


def rows(root: Path) -> list[tuple[str, str]]:
    """Return the queries of a run with their sources."""
    table = storage.read_parquet(str(root / build.LIST))
    assert table.schema.equals(tables.QUERIES)
    return list(zip(table["query"].to_pylist(), table["source"].to_pylist(), strict=True))


def column(root: Path, name: str) -> dict[str, object]:
    """Return a column of a run's list by query, where it has a value."""
    table = storage.read_parquet(str(root / build.LIST))
    pairs = zip(table["query"].to_pylist(), table[name].to_pylist(), strict=True)
    return {query: value for query, value in pairs if value is not None}


def test_a_dump_named_twice_is_counted_once(dumps, tmp_path):
    """Patterns that overlap do not double any count; the index of a multistream dump is no dump."""
    (tmp_path / "d-multistream-index.txt.bz2").write_bytes(bz2.compress(b"600:1:Dog"))
    once = built(section(dumps), tmp_path / "once")
    assert built(section([*dumps, str(tmp_path / "d*.bz2")]), tmp_path / "twice") == once


def test_list_and_summary(dumps, tmp_path):
    """All sources are in the list, in order, and the summary counts them."""
    built(section(dumps), tmp_path / "run")
    assert rows(tmp_path / "run") == [
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
    told = build.read_summary(str(tmp_path / "run"))
    assert told.queries == 10
    assert told.read["count"]["articles"] == 4
    assert told.read["resolve"]["redirects"] == 1
    assert told.warnings == ["bigram adds 1 queries, fewer than its budget of 10"]


def test_order_of_dumps_changes_nothing(dumps, tmp_path):
    """The same dumps in another order give the same bytes of list and summary."""
    forward = built(section(dumps), tmp_path / "forward")
    assert built(section(dumps[::-1]), tmp_path / "backward") == forward
    assert built(section([str(tmp_path / "d*.xml.bz2")]), tmp_path / "pattern") == forward


@pytest.mark.parametrize("buckets", [1, 3, 16])
def test_buckets_change_nothing(dumps, tmp_path, buckets):
    """In how many parts counts are merged changes no byte."""
    settings = replace(section(dumps), buckets=buckets)
    assert built(settings, tmp_path / "parts") == built(section(dumps), tmp_path / "whole")


def test_floors_count_nothing_again(dumps, tmp_path):
    """Another floor makes the list anew from the same counts."""
    root = tmp_path / "run"
    built(section(dumps), root)
    counts = {path: path.stat().st_mtime_ns for path in root.glob("queries/parts/*")}
    assert counts
    built(replace(section(dumps, unigram_min_count=1), numbers=5), root)
    assert counts == {path: path.stat().st_mtime_ns for path in root.glob("queries/parts/*")}
    assert ("4", "number") in rows(root)
    assert ("barks", "unigram") in rows(root)


def test_longer_grams(dumps, tmp_path):
    """Runs of three words and more are counted and ranked when asked for."""
    settings = section(dumps, longest_gram=4, ngram_min_count=1, ngram_budget=3)
    built(settings, tmp_path / "run")
    found = [query for query, source in rows(tmp_path / "run") if source == "ngram"]
    assert len(found) == 3
    assert all(query.count(" ") in (2, 3) for query in found)
    assert column(tmp_path / "run", "pmi")[found[0]] is not None


def test_page_views_rank_titles(dumps, tmp_path):
    """Titles come by page views of several files, those of redirects included, above a floor."""
    hourly = (
        "en Dog 5 0\nen.m Dog 2 0\nen Hound 10 0\nen Cat 8 0\nen List_of_cats 99 0\nfr Dog 77 0\n"
    )
    monthly = (
        "en.wikipedia Cat 12 desktop 1 A1\nen.wikipedia New_York_(city) null mobile-web 30 B3\n"
    )
    (tmp_path / "pageviews-20260101-000000.gz").write_bytes(gzip.compress(hourly.encode()))
    (tmp_path / "pageviews-202601-user.bz2").write_bytes(bz2.compress(monthly.encode()))
    settings = section(
        dumps, pageviews=[str(tmp_path / "pageviews-*")], unigram_min_count=9, bigram_min_count=9
    )
    built(settings, tmp_path / "run")
    titles = [query for query, source in rows(tmp_path / "run") if source == "title"]
    assert titles == ["new york", "dog", "cat"]
    assert column(tmp_path / "run", "views") == {"new york": 30, "dog": 17, "cat": 9}
    wikipedia = settings.wikipedia
    assert wikipedia
    for changed, expected in (
        (replace(wikipedia, title_min_views=10), ["new york", "dog"]),
        (replace(wikipedia, title_budget=1), ["new york"]),
        (replace(wikipedia, views_of="desktop"), ["dog", "cat", "new york"]),
    ):
        built(replace(settings, wikipedia=changed), tmp_path / "run")
        titles = [query for query, source in rows(tmp_path / "run") if source == "title"]
        assert titles == expected, changed


def test_ready_counts_and_title_lists(dumps, tmp_path):
    """Counts made elsewhere add to those of the dumps, and listed titles to theirs."""
    (tmp_path / "words.csv").write_text("gram,count\nDog,3\nnew york,4\nzebra,2\n!,1\na b c,9\n")
    more = pa.table({"gram": ["zebra", "ox", "OX"], "count": [1, 1, 1]})
    pq.write_table(more, tmp_path / "more.parquet", row_group_size=1)
    (tmp_path / "titles.txt").write_text("Zebra crossing\nOx (animal)\n")
    settings = section(
        dumps,
        counts=[str(tmp_path / "words.csv"), str(tmp_path / "more.parquet")],
        title_lists=[str(tmp_path / "titles.txt")],
    )
    built(settings, tmp_path / "run")
    counts = column(tmp_path / "run", "count")
    assert (counts["dog"], counts["new york"], counts["zebra"], counts["ox"]) == (5, 7, 3, 2)
    assert {("zebra crossing", "title"), ("ox", "unigram")} <= set(rows(tmp_path / "run"))
    read = build.read_summary(str(tmp_path / "run")).read["count"]
    assert (read["ready_counts"], read["empty"], read["too_many_words"]) == (8, 1, 1)


def test_a_table_for_a_dump(dumps, tmp_path):
    """Articles in a parquet file, in several row groups, are counted as those of a dump."""
    plain = [
        ("Dog", "A dog barks. The hot dog is sold at New York."),
        ("Cat", "The cat sleeps in New York."),
        ("List of cats", "Tom\nFelix"),
        ("New York (city)", "New York is a city."),
    ]
    columns = {"title": [t for t, _ in plain], "text": [t for _, t in plain], "id": [1, 2, 3, 4]}
    place = str(tmp_path / "dump.parquet")
    pq.write_table(pa.table(columns), place, row_group_size=2)
    table, _ = built(section([place]), tmp_path / "table")
    assert table == built(section(dumps), tmp_path / "xml")[0]


@pytest.mark.parametrize(
    ("flaw", "columns", "message"),
    [
        ("no-text", {"title": ["a"]}, r"no column text .*it has title"),
        ("not-parquet", None, "not a readable Arrow or parquet file"),
    ],
)
def test_a_table_that_is_no_dump(tmp_path, flaw, columns, message):
    """A parquet file of another kind is refused with its name."""
    place = tmp_path / f"{flaw}.parquet"
    if columns is None:
        place.write_bytes(b"no parquet")
    else:
        pq.write_table(pa.table(columns), place)
    with pytest.raises(QueryListError, match=message) as caught:
        built(section([str(place)]), tmp_path / "run")
    assert str(place) in str(caught.value)


def test_only_an_index(tmp_path):
    """The index of a multistream dump, named alone, is not passed over in silence."""
    place = tmp_path / "enwiki-multistream-index.txt.bz2"
    place.write_bytes(bz2.compress(b"600:1:Dog"))
    with pytest.raises(QueryListError, match=r"the index of a dump is no dump.*index\.txt"):
        built(section([str(place)]), tmp_path / "run")


def test_no_article(tmp_path):
    """Dumps without any article are an error that names them."""
    (tmp_path / "talk.xml.bz2").write_bytes(dump_of([], REDIRECT))
    with pytest.raises(QueryListError, match=r"no article in the dumps.*talk\.xml\.bz2"):
        built(section([str(tmp_path / "talk.xml.bz2")]), tmp_path / "run")


def test_another_language_than_asked_for(data_dir, tmp_path):
    """A dump, or page views, of another language than the recipe's are warned about."""
    (tmp_path / "pageviews.gz").write_bytes(gzip.compress(b"fr Chien 5 0\n"))
    settings = section(
        [str(data_dir / "bgwiki-excerpt.xml.bz2")], pageviews=[str(tmp_path / "pageviews.gz")]
    )
    built(settings, tmp_path / "run")
    warnings = build.read_summary(str(tmp_path / "run")).warnings
    assert "3 pages of the dumps are in 'bg', and queries.language is 'en'" in warnings
    assert "no line of the page view files is of the Wikipedia 'en'" in warnings


def test_titles_beside_page_views_without_a_dump(tmp_path):
    """Without a dump, titles come from page views and from lists alike."""
    (tmp_path / "pageviews.gz").write_bytes(gzip.compress(b"en Dog 5 0\nen Talk:Dog 9 0\n"))
    (tmp_path / "titles.txt").write_text("Cat\n")
    wikipedia = WikipediaSource(
        pageviews=[str(tmp_path / "pageviews.gz")], title_lists=[str(tmp_path / "titles.txt")]
    )
    built(QueriesSection(numbers=0, wikipedia=wikipedia), tmp_path / "run")
    assert rows(tmp_path / "run") == [("dog", "title"), ("cat", "title")]


def test_scripts_take_no_room_from_titles(tmp_path):
    """Titles in refused scripts, however much viewed, leave the others their place."""
    lines = "".join(f"en \u732b{k} 99 0\n" for k in range(9)) + "en Dog 5 0\n"
    (tmp_path / "pageviews.gz").write_bytes(gzip.compress(lines.encode()))
    wikipedia = WikipediaSource(pageviews=[str(tmp_path / "pageviews.gz")])
    built(QueriesSection(numbers=0, size=1, wikipedia=wikipedia), tmp_path / "run")
    assert rows(tmp_path / "run") == [("dog", "title")]


def test_changed_recipes_give_what_a_fresh_run_gives(dumps, tmp_path):
    """One run under one recipe after another has, each time, the bytes of a run of its own."""
    (tmp_path / "pageviews.gz").write_bytes(gzip.compress(b"en Dog 5 0\n"))
    (tmp_path / "foreign.gz").write_bytes(gzip.compress(b"de Hund 5 0\n"))
    (tmp_path / "titles.csv").write_text("title,views\nOx,3\n")
    (tmp_path / "more.csv").write_text("gram,count\ndog,3\n")
    changes: list[dict[str, object]] = [
        {},
        {"pageviews": [str(tmp_path / "foreign.gz")]},
        {"pageviews": [str(tmp_path / "pageviews.gz")]},
        {"title_lists": [str(tmp_path / "titles.csv")]},
        {"titles": False},
        {"counts": [str(tmp_path / "more.csv")]},
        {"longest_gram": 3},
        {"unigram_min_count": 1},
    ]
    for number, change in enumerate(changes):
        settings = replace(section(dumps, **change), buckets=number % 3)
        changed = built(settings, tmp_path / "run")
        assert changed == built(settings, tmp_path / f"fresh{number}"), change
        left, fresh = (
            sorted(p.name for p in (tmp_path / root / "queries").rglob("*") if p.is_file())
            for root in ("run", f"fresh{number}")
        )
        assert left == fresh, change


def test_strict_budgets(dumps, tmp_path):
    """A source that falls short of its budget is an error when the recipe says so."""
    strict = replace(section(dumps), strict_budgets=True)
    with pytest.raises(UnitsFailedError, match=r"bigram adds 1 queries.*budget of 10"):
        built(strict, tmp_path / "run")
    assert not (tmp_path / "run" / build.LIST).exists()


def test_truncated_dump_publishes_no_list(dumps, tmp_path):
    """A dump that is cut short ends in an error that names it; the others are counted for later."""
    data = Path(dumps[0]).read_bytes()
    Path(dumps[0]).write_bytes(data[:-20])
    with pytest.raises(UnitsFailedError, match=r"cut short.*d0\.xml\.bz2, byte \d+"):
        built(section(dumps), tmp_path / "run")
    assert not (tmp_path / "run" / build.LIST).exists()
    Path(dumps[0]).write_bytes(data)
    assert built(section(dumps), tmp_path / "run") == built(section(dumps), tmp_path / "whole")


def test_missing_wordnet_is_told_in_its_own_words(tmp_path):
    """A folder that is no WordNet is refused with the file and the recipe key, before counting."""
    settings = QueriesSection(wordnet=WordNetSource(path=str(tmp_path / "none")))
    with pytest.raises(QueryListError, match=r"none/data\.noun.*queries\.wordnet\.path"):
        built(settings, tmp_path / "run")


def test_empty_list(tmp_path):
    """A recipe that yields no query is an error, and no list appears."""
    job = BuildJob(QueriesSection(numbers=0), Counted(), {}, str(tmp_path / "out"))
    with pytest.raises(QueryListError, match="the query list is empty"):
        build.run_build(job)
    assert not (tmp_path / "out").exists()


def test_a_summary_of_another_version(tmp_path):
    """A summary that cannot be read is named."""
    storage.publish_bytes(str(tmp_path / build.SUMMARY), b"{}")
    with pytest.raises(StorageError, match=r"summary\.json.*build the list again"):
        build.read_summary(str(tmp_path))


def test_another_language(data_dir, tmp_path):
    """Another Wikipedia works: its script, its namespaces and its page views."""
    first = "\u0413\u0440\u0438\u0433\u043e\u0440\u0438\u0430\u043d\u0441\u043a\u0438"
    second = "\u043a\u0430\u043b\u0435\u043d\u0434\u0430\u0440"
    day = "\u0434\u0435\u043d"
    views = f"bg.wikipedia {first}_{second} 7 desktop 12 A12\n"
    views += "en.wikipedia Calendar 8 desktop 99 A99\n"
    (tmp_path / "pageviews-202601-user.bz2").write_bytes(bz2.compress(views.encode()))
    settings = section(
        [str(data_dir / "bgwiki-excerpt.xml.bz2")],
        pageviews=[str(tmp_path / "pageviews-202601-user.bz2")],
        unigram_min_count=3,
    )
    built(replace(settings, language="bg", numbers=0), tmp_path / "run")
    found = dict(rows(tmp_path / "run"))
    assert found[day] == "unigram"
    assert found[f"{first} {second}".lower()] in ("title", "bigram")
    assert list(column(tmp_path / "run", "views").values()) == [12]
    assert not any(query.startswith("\u0444\u0430\u0439\u043b") for query in found)
