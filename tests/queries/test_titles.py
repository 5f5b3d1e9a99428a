"""Pages and views become ranked titles, however they are split over files and buckets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wit_builder import exchange, storage
from wit_builder.errors import QueryListError
from wit_builder.queries.titles import (
    PAGES,
    TITLES,
    ResolveJob,
    TitleListJob,
    TitlesJob,
    run_resolve,
    run_title_list,
    run_titles,
)
from wit_builder.queries.views import VIEWS
from wit_builder.text import normalise

Page = tuple[str, str | None]
View = tuple[str, int]

PAGES_GIVEN: list[Page] = [
    ("Dog", None),
    ("Cat", None),
    ("Bird", None),
    ("Hound", "Dog"),
    ("Kitty", "cat#Kittens"),
    ("Doggy", "Hound"),
    ("Gone", "No such page"),
    ("Broken", "{{target}}"),
    ("Quiet", "Nowhere"),
]
VIEWS_GIVEN: list[View] = [
    ("Dog", 5), ("Hound", 7), ("Kitty", 20), ("Doggy", 1), ("Gone", 2), ("Broken", 3),
    ("Talk:Dog", 50), ("Doog", 4), ("Dog", 1),
]  # fmt: skip


def scattered(place: Path, rows: list[Any], schema: pa.Schema, buckets: int) -> str:
    """Publish rows as an exchange file by title; return its place."""
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], []]
    table = pa.table([pa.array(c, t) for c, t in zip(columns, schema.types, strict=True)], schema)
    bucket = exchange.bucket_of(table["title"], buckets)
    exchange.scatter(table, bucket, buckets, str(place))
    return str(place)


def ranked(folder: Path, pages: list[list[Page]], views: list[list[View]], buckets: int = 3):
    """Return the tables of all buckets, and the counts."""
    page_files = [scattered(folder / f"p{i}", rows, PAGES, buckets) for i, rows in enumerate(pages)]
    view_files = [scattered(folder / f"v{i}", rows, VIEWS, buckets) for i, rows in enumerate(views)]
    return finished(folder, page_files, view_files, buckets)


def finished(folder: Path, pages: list[str], views: list[str], buckets: int = 3):
    """Resolve and rank exchange files."""
    counts: Counter[str] = Counter()
    resolved = [str(folder / f"r{bucket}") for bucket in range(buckets)]
    for bucket, out in enumerate(resolved):
        counts.update(
            run_resolve(ResolveJob(pages, views, bool(pages), bucket, buckets, out)).counts
        )
    tables = []
    for bucket in range(buckets):
        out = str(folder / f"t{bucket}.parquet")
        counts.update(run_titles(TitlesJob(resolved, bucket, bool(views), out)).counts)
        tables.append(storage.read_parquet(out))
    return tables, dict(counts)


def union(tables: list[pa.Table]) -> dict[str, int | None]:
    """Return all buckets' titles with their views."""
    rows = [row for table in tables for row in table.to_pylist()]
    assert len({row["title"] for row in rows}) == len(rows)
    return {row["title"]: row["views"] for row in rows}


def test_redirects(tmp_path):
    """Articles have their own views and those of redirects to them, across buckets."""
    tables, counts = ranked(tmp_path, [PAGES_GIVEN], [VIEWS_GIVEN])
    assert union(tables) == {"Dog": 13, "Cat": 20, "Bird": 0}
    assert counts == {
        "articles": 3, "redirects": 6, "unknown_titles": 2, "unknown_views": 54,
        "unresolved_redirects": 3, "titles": 3, "same_query": 0,
    }  # fmt: skip


def test_order(tmp_path):
    """A bucket's titles come most viewed first, equals in the order of their code points."""
    pages: list[Page] = [(title, None) for title in ("b", "é", "a", "Z", "top")]
    (table,), _ = ranked(tmp_path, [pages], [[("top", 9)]], buckets=1)
    assert table.schema.equals(TITLES)
    assert table["title"].to_pylist() == ["top", "Z", "a", "b", "é"]


def test_no_views(tmp_path):
    """Without any views, titles have none, and come in the order of their code points."""
    (table,), counts = ranked(tmp_path, [PAGES_GIVEN], [], buckets=1)
    assert table["title"].to_pylist() == ["Bird", "Cat", "Dog"]
    assert table["views"].to_pylist() == [None] * 3
    assert counts["unresolved_redirects"] == 0


def test_no_pages(tmp_path):
    """Without pages all that is viewed is an article, but for what is in another namespace."""
    others = [
        "Talk:Dog", "User talk:Dog", "special:Search", "File:Dog.jpg", "WP:Dogs",
        "Template talk: Dog", "Draft:Dog",
    ]  # fmt: skip
    articles = ["Dog", "2001: A Space Odyssey", "Talk show", "Help!", "Filet: a dish", "Talk"]
    tables, counts = ranked(tmp_path, [], [[(title, 2) for title in [*others, *articles]]])
    assert union(tables) == dict.fromkeys(articles, 2)
    assert (counts["unknown_titles"], counts["unknown_views"]) == (7, 14)


def test_several_dumps(tmp_path):
    """A page of several dumps counts once; an article in one of them is one."""
    pages: list[list[Page]] = [
        [("Dog", None), ("Cat", "Dog"), ("A", "Dog"), ("Fox", None)],
        [("Dog", None), ("Cat", None), ("A", "Fox")],
    ]
    views = [[("Dog", 1), ("Cat", 2), ("A", 4)]]
    expected = {"Dog": 5, "Cat": 2, "Fox": 0}
    for order in (pages, pages[::-1]):
        tables, counts = ranked(tmp_path, order, views)
        assert union(tables) == expected
        assert (counts["articles"], counts["redirects"]) == (3, 1)


def test_empty_buckets(tmp_path):
    """More buckets than titles, and nothing at all, work."""
    tables, _ = ranked(tmp_path, [[("Dog", None)], []], [[("Dog", 1)], []], buckets=9)
    assert union(tables) == {"Dog": 1}
    tables, _ = ranked(tmp_path, [[]], [[]], buckets=2)
    assert [table.num_rows for table in tables] == [0, 0]


NAMES = st.sampled_from(["Dog", "Dog (film)", "Fox", "Hound", "FOX", "Talk:Dog", "Owl", "É"])
ROWS = st.tuples(
    st.lists(st.tuples(NAMES, st.none() | NAMES)), st.lists(st.tuples(NAMES, st.integers(0, 9)))
)


def expected(pages: list[Page], views: list[View]) -> dict[str, int]:
    """Return the same as the stages, by a plain loop."""
    articles = {title for title, target in pages if target is None}
    targets = {
        title: min(t for other, t in pages if other == title and t is not None)
        for title, target in pages
        if target is not None and title not in articles
    }
    sums = dict.fromkeys(articles, 0)
    for title, count in views:
        article = targets.get(title, title)
        if article in sums:
            sums[article] += count
    best: dict[str, str] = {}
    for title in sorted(sums, key=lambda title: (-sums[title], title)):
        best.setdefault(normalise(title.removesuffix(" (film)")), title)
    return {title: sums[title] for title in best.values()}


def test_titles_that_ask_for_one_query(tmp_path):
    """Of titles that differ by what is in parentheses, or in case, the most viewed one stands."""
    pages: list[Page] = [(t, None) for t in ("Mercury (planet)", "Mercury (element)", "MERCURY")]
    views = [[("Mercury (element)", 5), ("Mercury (planet)", 7)]]
    tables, counts = ranked(tmp_path, [pages], views, buckets=4)
    [row] = [row for table in tables for row in table.to_pylist()]
    assert row == {"query": "mercury", "title": "Mercury (planet)", "views": 7}
    assert counts["same_query"] == 2


@settings(max_examples=40)
@given(ROWS, st.integers(1, 5), st.integers(1, 4), st.randoms(use_true_random=False))
def test_splits(tmp_path_factory, rows, buckets, files, random):
    """How pages and views are split over files, their order, and the buckets change nothing."""
    pages, views = rows
    folder = tmp_path_factory.mktemp("titles")

    def dealt(given: list[Any]) -> list[list[Any]]:
        shuffled = random.sample(given, len(given))
        return [shuffled[i::files] for i in range(files)]

    tables, _ = ranked(folder, dealt(pages), dealt(views), buckets)
    assert union(tables) == expected(pages, views)


def test_same_bytes(tmp_path):
    """The same pages and views give the same bytes."""
    made = []
    for name in ("a", "b"):
        folder = tmp_path / name
        ranked(folder, [PAGES_GIVEN], [VIEWS_GIVEN])
        made.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert made[0] == made[1]


def test_title_list(tmp_path):
    """A list's titles are articles in MediaWiki's form; its views add to those of other files."""
    place = tmp_path / "titles.csv"
    place.write_text('title,views\nhot_dog,3\n"Hot dog",4\nCat,\n{{x}},9\n')
    done = run_title_list(TitleListJob(str(place), 3, str(tmp_path / "l")))
    assert done.counts == {"listed_titles": 4, "no_title": 1, "viewed_titles": 2}
    urls = [output.url for output in done.outputs]
    names = [Path(url).name for url in urls]
    assert names == ["l.pages.arrow", "l.pages.arrow.index", "l.views.arrow", "l.views.arrow.index"]
    other = scattered(tmp_path / "v", [("Cat", 1), ("Hot dog", 1), ("Fox", 8)], VIEWS, 3)
    tables, counts = finished(tmp_path, urls[:1], [urls[2], other])
    assert union(tables) == {"Hot dog": 8, "Cat": 1}
    assert counts["articles"] == 2


@pytest.mark.parametrize("name", ["t.txt", "t.parquet"])
def test_title_list_without_views(tmp_path, name):
    """A list without views publishes none."""
    if name == "t.txt":
        (tmp_path / name).write_text("dog\ncat\n")
    else:
        pq.write_table(pa.table({"title": ["dog", "cat"]}), tmp_path / name)
    done = run_title_list(TitleListJob(str(tmp_path / name), 2, str(tmp_path / "l")))
    assert len(done.outputs) == 2
    tables, _ = finished(tmp_path, [done.outputs[0].url], [], 2)
    assert union(tables) == {"Dog": None, "Cat": None}


def test_bad_title_list(tmp_path):
    """A list that cannot be used is named, and nothing is published."""
    (tmp_path / "t.csv").write_text("title,views\na,-1\n")
    with pytest.raises(QueryListError, match=r"'-1' as views.*t\.csv, row 2"):
        run_title_list(TitleListJob(str(tmp_path / "t.csv"), 2, str(tmp_path / "l")))
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]
