"""From pages and page views to the titles of articles, most viewed first.

Two exchanges, so that memory is bounded by a bucket. Pages and views lie scattered by title.
*Resolving* a bucket joins them: an article keeps its views, a redirect gives its own to its target,
and both are scattered anew, by the query that the article's title asks for. *Ranking* a bucket of
that sums them up, and of titles that ask for one query keeps the most viewed. What comes out
depends neither on how pages and views are split over files, nor on the buckets.

A title asks for itself without a last word in parentheses, which only tells pages apart ("Mercury
(planet)", "Mercury (element)"), normalised as all queries are.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import storage
from wit_builder.exchange import bucket_of, gather, scatter
from wit_builder.queries import lists
from wit_builder.queries.title_form import forms
from wit_builder.queries.views import VIEWS, publish, summed
from wit_builder.text import normalise_column
from wit_builder.units import Done

PAGES = pa.schema([pa.field("title", pa.string(), nullable=False), pa.field("target", pa.string())])
"""Pages of dumps: an article has no target, a redirect has the title it leads to, as written."""

RESOLVED = pa.schema(
    [
        pa.field("title", pa.string(), nullable=False),
        pa.field("views", pa.int64(), nullable=False),
        pa.field("article", pa.bool_(), nullable=False),
    ]
)
"""Views of a title: an article's own, or (not ``article``) those of a redirect to it."""

TITLES = pa.schema(
    [
        pa.field("query", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("views", pa.int64()),
    ]
)
"""Queries, the most viewed article that asks for each, and its views with those of redirects to it;
null if none were counted."""

_DISAMBIGUATION = r"\s+\([^()]*\)$"

NAMESPACES = (
    "Media", "Special", "Talk", "User", "Project", "Wikipedia", "WP", "File", "Image", "MediaWiki",
    "Template", "Help", "Category", "Portal", "Draft", "Module", "TimedText", "Book",
)  # fmt: skip
"""Names of namespaces that are no articles, English as every MediaWiki understands them.

With their talk pages (``Talk:``, ``User talk:``) they tell what is no article where no dump does
(https://www.mediawiki.org/wiki/Manual:Namespace and https://en.wikipedia.org/wiki/Wikipedia:Namespace).
Names of other languages are not known, so page views of another Wikipedia want a dump beside them.
"""

_NO_ARTICLE = rf"(?i)^(?:{'|'.join(NAMESPACES)})(?: talk)? ?:"


class ResolveJob(msgspec.Struct, frozen=True):
    """Resolve one bucket.

    Attributes:
        pages: exchange files of ``PAGES`` by title.
        views: exchange files of ``VIEWS`` by title.
        all_pages: whether the pages are those of dumps, too; else what is viewed is a page as well.
        bucket: which to do.
        buckets: how many there are, before and after.
        out: place of the exchange file (``RESOLVED`` by title).
    """

    pages: list[str]
    views: list[str]
    all_pages: bool
    bucket: int
    buckets: int
    out: str


class TitlesJob(msgspec.Struct, frozen=True):
    """Rank one bucket.

    Attributes:
        resolved: ``out`` of all ``ResolveJob``.
        bucket: which to do.
        has_views: whether views were counted at all.
        out: place of the parquet file (``TITLES``).
    """

    resolved: list[str]
    bucket: int
    has_views: bool
    out: str


class TitleListJob(msgspec.Struct, frozen=True):
    """Take a list of titles (see ``lists``) for pages, all of them articles.

    Attributes:
        place: the list, with a column ``title`` and perhaps ``views``.
        buckets: of the exchange.
        out: how the names of what is published begin: ``OUT.pages.arrow`` (``PAGES``) and, if a
            title has views, ``OUT.views.arrow`` (``VIEWS``).
    """

    place: str
    buckets: int
    out: str


def run_resolve(job: ResolveJob) -> Done:
    """Publish a bucket's views by the title of the article that they belong to.

    Counted are ``articles`` and ``redirects`` (pages), ``unknown_titles`` and ``unknown_views``
    (viewed titles that no page has: deleted pages, other namespaces, typing errors; they are
    dropped) and ``unresolved_redirects`` (to what can be no title). Without dumps, what is viewed
    is taken for an article, but for those of ``NAMESPACES``, which are counted as unknown.

    Raises:
        StorageError: a file is missing or damaged, or cannot be written.
    """
    views = summed([_bucket(job.views, job.bucket, VIEWS)])
    pages = _bucket(job.pages, job.bucket, PAGES)
    if not job.all_pages:
        pages = pa.concat_tables([pages, _by_namespace(views)])
    resolved, counts = _resolve(pages, views)
    bucket = bucket_of(_asked(resolved["title"]), job.buckets)
    return Done(scatter(resolved, bucket, job.buckets, job.out), counts)


def _asked(titles: pa.ChunkedArray) -> pa.Array:
    return normalise_column(plain(titles))


def plain(titles: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return titles without what only tells pages apart."""
    return pc.replace_substring_regex(titles, _DISAMBIGUATION, "")


def run_titles(job: TitlesJob) -> Done:
    """Publish a bucket's articles, most viewed first; equally viewed ones in code-point order.

    Counted are ``titles``, ``same_query`` (articles that ask for what a more viewed one asks for)
    and ``unresolved_redirects``: viewed ones to what is no article, another redirect among it
    (MediaWiki follows one redirect, too).

    Raises:
        StorageError: a file is missing or damaged, or cannot be written.
    """
    rows = _bucket(job.resolved, job.bucket, RESOLVED)
    articles = rows.filter(rows["article"])["title"].combine_chunks()
    known = pc.is_in(rows["title"], value_set=articles)
    lost = pc.invert(pc.or_(known, rows["article"]))
    titles = summed([rows.filter(known).select(VIEWS.names)])
    ranked = _ranked(titles)
    if not job.has_views:
        nothing = pa.nulls(ranked.num_rows, pa.int64())
        ranked = ranked.set_column(2, TITLES.field("views"), nothing)
    counts = {
        "titles": ranked.num_rows,
        "same_query": titles.num_rows - ranked.num_rows,
        "unresolved_redirects": _count(lost),
    }
    return Done([storage.write_parquet(job.out, ranked.cast(TITLES))], counts)


def _ranked(titles: pa.Table) -> pa.Table:
    """Return the queries that titles ask for, most viewed first, each once with its best title."""
    rows = titles.sort_by([("views", "descending"), ("title", "ascending")])
    query = _asked(rows["title"])
    codes = query.dictionary_encode().indices.to_numpy()
    first = np.sort(np.unique(codes, return_index=True)[1])
    return rows.add_column(0, TITLES.field("query"), query).take(pa.array(first, pa.int64()))


def run_title_list(job: TitleListJob) -> Done:
    """Publish a list's titles as pages, and the views it gives; the list must fit into memory.

    Titles get MediaWiki's form. Counted are ``listed_titles`` (repeated ones too), ``no_title``
    (rows whose text can be no title) and ``viewed_titles``.

    Raises:
        QueryListError: the list cannot be used.
    """
    given = lists.read(job.place, "title", "views")
    listed = given.set_column(0, "title", forms(given["title"]))
    listed = listed.filter(listed["title"].is_valid())
    viewed = listed.filter(listed["views"].is_valid()).cast(VIEWS)
    pages = pa.table([listed["title"], pa.nulls(listed.num_rows, pa.string())], schema=PAGES)
    bucket = bucket_of(pages["title"], job.buckets)
    outputs = scatter(pages, bucket, job.buckets, f"{job.out}.pages.arrow")
    if viewed.num_rows:
        outputs += publish([viewed], job.buckets, f"{job.out}.views.arrow")
    counts = {
        "listed_titles": given.num_rows,
        "no_title": given.num_rows - listed.num_rows,
        "viewed_titles": viewed.num_rows,
    }
    return Done(outputs, counts)


def _bucket(urls: list[str], bucket: int, schema: pa.Schema) -> pa.Table:
    return gather(urls, bucket).cast(schema) if urls else schema.empty_table()


def _resolve(given: pa.Table, views: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """Return ``RESOLVED`` of pages and the sums of their views, and counts."""
    pages = _each_once(given)
    at = pc.index_in(views["title"], value_set=pages["title"].combine_chunks())
    known = at.is_valid()
    viewed = np.zeros(pages.num_rows, np.int64)
    viewed[at.drop_null().to_numpy()] = views["views"].filter(known).to_numpy()
    article = pages["target"].is_null()
    title = pc.if_else(article, pages["title"], forms(pages["target"]))
    rows = pa.table([title, pa.array(viewed), article], RESOLVED.names)
    moved = pc.and_(pc.invert(article), pc.greater(rows["views"], 0))
    lost = pc.and_(moved, title.is_null())
    unknown = views["views"].filter(pc.invert(known))
    counts = {
        "articles": _count(article),
        "redirects": pages.num_rows - _count(article),
        "unknown_titles": len(unknown),
        "unknown_views": _count(unknown),
        "unresolved_redirects": _count(lost),
    }
    wanted = pc.and_not(pc.or_(article, moved), lost)
    return rows.filter(wanted).cast(RESOLVED), counts


def _each_once(pages: pa.Table) -> pa.Table:
    """Return each title once, in code-point order.

    Where files disagree it is an article if one says so, else leads to the first of its targets.
    """
    marked = pages.append_column("redirect", pages["target"].is_valid())
    order = [(name, "ascending") for name in ("title", "redirect", "target")]
    rows = marked.sort_by(order).select(PAGES.names)
    titles = rows["title"].combine_chunks()
    first = np.ones(len(titles), np.bool_)
    first[1:] = pc.not_equal(titles[1:], titles[:-1]).to_numpy(zero_copy_only=False)
    return rows.filter(pa.array(first))


def _by_namespace(views: pa.Table) -> pa.Table:
    """Return the titles of views as ``PAGES``: articles, where their namespace is no other."""
    other = pc.match_substring_regex(views["title"], _NO_ARTICLE)
    title = views["title"].filter(pc.invert(other))
    return pa.table([title, pa.nulls(len(title), pa.string())], schema=PAGES)


def _count(column: pa.ChunkedArray) -> int:
    return int(pc.sum(column).as_py() or 0)
