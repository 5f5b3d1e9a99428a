"""``wit queries build``: count in parts, merge in buckets, rank titles by views, and make the list.

Stages, each of units that any number of workers share: ``queries-count`` (parts of dumps, ready
counts), ``queries-merge`` (counts, by gram), ``queries-lists`` and ``queries-views`` (titles, page
views), ``queries-resolve`` and ``queries-titles`` (views, by title), ``queries`` (the list).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from wit_builder import storage
from wit_builder.errors import QueryListError, StorageError
from wit_builder.queries import count, merge, pageviews, sources, streams, titles, wordnet
from wit_builder.queries.assemble import (
    QueryList,
    Summary,
    assemble,
    check_budgets,
    without_places,
)
from wit_builder.queries.count import CountJob
from wit_builder.queries.scripts import Refusals
from wit_builder.queries.sources import Counted
from wit_builder.recipe import digest
from wit_builder.sections import QueriesSection, WikipediaSource
from wit_builder.storage import Published
from wit_builder.units import Done, Marker, Run, Stage, Unit, total

LIST = "queries/queries.parquet"
SUMMARY = "queries/summary.json"
COUNTS = "queries/counts"
"""Folder of merged counts: a table per bucket (``grams.GRAMS``)."""
TITLES = "queries/titles"
"""Folder of ranked titles: a table per bucket (``titles.TITLES``)."""

_GENERATION = "all"
"""Where the markers are: one list serves every generation of a run."""

_BUCKET_BYTES = 64 << 20
_MOST_BUCKETS = 1024


class BuildJob(msgspec.Struct, frozen=True):
    """Make the list.

    Attributes:
        section: the recipe's ``[queries]``.
        counted: where the counts are.
        read: what each stage before counted, by its name.
        out: folder for ``queries.parquet`` and ``summary.json``.
    """

    section: QueriesSection
    counted: Counted
    read: dict[str, dict[str, int]]
    out: str


def build(section: QueriesSection, run: Run) -> Marker:
    """Make the query list of a run, and return its marker.

    Raises:
        QueryListError: a pattern matches nothing; a dump is not there, or has no article; a custom
            list or a WordNet file cannot be used.
        UnitsFailedError: a source cannot be used, or the list would be empty.
    """
    return _Building(section, run).made()


class _Building:
    """The stages of one list; each method runs one, and hands on what it made."""

    def __init__(self, section: QueriesSection, run: Run) -> None:
        self._section, self._run = section, run
        self._wikipedia = section.wikipedia or WikipediaSource(titles=False)
        self._identities: dict[str, str] = {}
        self._read: dict[str, dict[str, int]] = {}
        sources.check(section)  # before hours of counting
        self._dumps = _dumps(self._wikipedia.dumps)
        self._ready = _places(self._wikipedia.counts, "counts")
        self._title_lists = _places(self._wikipedia.title_lists, "title_lists")
        self._pageviews = _places(self._wikipedia.pageviews, "pageviews")
        # in a byte, a page view file has some four times as many distinct texts as the others
        size = _size([*self._dumps, *self._ready, *self._title_lists]) + 4 * _size(self._pageviews)
        self._buckets = section.buckets or enough_buckets(size)

    def made(self) -> Marker:
        """Make the list of all that was counted."""
        counting = self._count()
        merged = self._merge(counting)
        ranked = self._rank_titles(counting)
        counted = Counted(
            grams=self._urls(merged),
            titles=self._urls(ranked),
            tokens=total(merged).get("tokens", 0),
        )
        job = BuildJob(self._section, counted, self._read, self._at())
        files = list(self._section.custom)
        if self._section.wordnet:
            folder = self._section.wordnet.path
            files += [storage.join(folder, file) for file in wordnet.FILES]
        inputs = [*map(self._identity, files), *(m.identity for m in [*merged, *ranked])]
        inputs.append(digest(self._read))  # what the summary tells, besides
        return self._do("queries", run_build, [Unit("list", inputs, job)], self._section)[0]

    def _count(self) -> list[Marker]:
        """Count the dumps, part by part, and take ready counts."""
        longest = self._wikipedia.longest_gram
        units: list[Unit] = []
        for part in self._parts():
            name = f"{len(units):05d}"
            job = CountJob(part, longest, self._buckets, self._at("parts", name))
            inputs = [self._identity(part.place), digest(part)]
            units.append(Unit(name, inputs, job))
        settings = [longest, self._buckets]
        counting = self._do("queries-count", count.run_count, units, settings)
        if self._dumps and not total(counting).get("articles"):
            raise QueryListError(
                "no article in the dumps",
                where=", ".join(self._dumps[:3]),
                fix="take pages-articles dumps; very old ones tell no namespace (<ns>) of a page",
            )
        return counting

    def _parts(self) -> Iterator[streams.Part | count.Rows | count.Ready]:
        for place in self._dumps:
            tabular = place.endswith(".parquet")
            yield from count.table_parts(place) if tabular else streams.parts(place)
        for place in self._ready:
            yield from count.ready_parts(place)

    def _merge(self, counting: Sequence[Marker]) -> list[Marker]:
        """Sum up the partial counts, a bucket at a time."""
        partials, inputs = self._urls(counting, ".grams-"), _together(counting)
        units = []
        for bucket in range(self._buckets if partials else 0):
            name = f"{bucket:05d}"
            job = merge.SumJob(partials, bucket, self._at("counts", f"{name}.parquet"))
            units.append(Unit(name, inputs, job))
        return self._do("queries-merge", merge.run_sum, units)

    def _rank_titles(self, counting: Sequence[Marker]) -> list[Marker]:
        """Sum up the page views of articles, those of redirects to them included."""
        dumped = self._urls(counting, ".pages") if self._wikipedia.titles else []
        listed, viewed = self._read_lists(), self._read_views()
        pages = dumped + self._urls(listed, ".pages")
        views = self._urls([*viewed, *listed], ".views.arrow")
        buckets = range(self._buckets if pages or views else 0)
        inputs = _together([*counting, *listed, *viewed])
        units = []
        for bucket in buckets:
            name = f"{bucket:05d}"
            out = self._at("resolved", f"{name}.arrow")
            resolve = titles.ResolveJob(
                pages=pages,
                views=views,
                all_pages=bool(dumped),
                bucket=bucket,
                buckets=self._buckets,
                out=out,
            )
            units.append(Unit(name, inputs, resolve))
        settings = [self._buckets, bool(dumped)]
        resolved = self._do("queries-resolve", titles.run_resolve, units, settings)
        units = []
        for bucket in buckets:
            name = f"{bucket:05d}"
            out = self._at("titles", f"{name}.parquet")
            job = titles.TitlesJob(self._urls(resolved), bucket, bool(views), out)
            units.append(Unit(name, _together(resolved), job))
        return self._do("queries-titles", titles.run_titles, units, bool(views))

    def _read_lists(self) -> list[Marker]:
        units = []
        for number, place in enumerate(self._title_lists if self._wikipedia.titles else []):
            name = f"{number:05d}"
            job = titles.TitleListJob(place, self._buckets, self._at("lists", name))
            units.append(Unit(name, [self._identity(place)], job))
        return self._do("queries-lists", titles.run_title_list, units, self._buckets)

    def _read_views(self) -> list[Marker]:
        language, access = self._section.language, self._wikipedia.views_of
        units = []
        for number, place in enumerate(self._pageviews if self._wikipedia.titles else []):
            name = f"{number:05d}"
            out = self._at("views", f"{name}.views.arrow")
            job = pageviews.ViewsJob(place, language, access, self._buckets, out)
            units.append(Unit(name, [self._identity(place)], job))
        settings = [language, access, self._buckets]
        return self._do("queries-views", pageviews.run_views, units, settings)

    def _identity(self, place: str) -> str:
        """Return a source's identity; a missing one is the unit's to report, in its own words."""
        if place not in self._identities:
            known = storage.identity(place) if storage.exists(place) else "missing"
            self._identities[place] = known
        return self._identities[place]

    def _do(
        self, name: str, function: Callable[[Any], Done], units: list[Unit], settings: Any = None
    ) -> list[Marker]:
        if not units:  # not a word about sources that the recipe has not, but nothing left of them
            self._run.retire(name, _GENERATION)
            return []
        markers = self._run.do(Stage(name, function, units, settings), _GENERATION)
        self._read[name.removeprefix("queries-")] = total(markers)
        return markers

    def _at(self, *parts: str) -> str:
        return storage.join(self._run.root, "queries", *parts)

    def _urls(self, markers: Sequence[Marker], kind: str = "") -> list[str]:
        """Return the places of tables of a kind, which their names tell; not of their indexes."""
        outputs = (o.url for m in markers for o in m.outputs)
        found = (url for url in outputs if kind in url and not url.endswith(".index"))
        return [storage.join(self._run.root, url) for url in found]


def _size(places: Sequence[str]) -> int:
    return sum(storage.size_of(place) for place in places if storage.exists(place))


def enough_buckets(size_bytes: int) -> int:
    """Return in how many buckets the counts of so many bytes of (packed) input are merged."""
    return min(_MOST_BUCKETS, max(1, -(-size_bytes // _BUCKET_BYTES)))


def _dumps(patterns: Sequence[str]) -> list[str]:
    """Return the dumps that patterns name, without the indexes of multistream ones."""
    found = _places(patterns, "dumps")
    dumps = [place for place in found if not streams.is_index(place)]
    if found and not dumps:
        fix = "name the dump itself; its index is not needed"
        raise QueryListError("the index of a dump is no dump", where=found[0], fix=fix)
    return dumps


def _places(patterns: Sequence[str], key: str) -> list[str]:
    """Return the files that patterns name, each once."""
    found: dict[str, None] = {}
    for pattern in patterns:
        try:
            found |= dict.fromkeys(storage.glob(pattern))
        except StorageError as error:
            fix = f"check queries.wikipedia.{key} in the recipe"
            raise QueryListError(error.what, where=error.where, fix=fix) from error
    return list(found)


def _together(markers: Sequence[Marker]) -> list[str]:
    """Return one identity for all of them: what a unit names that reads from every one."""
    return [digest([marker.identity for marker in markers])]


def run_build(job: BuildJob) -> Done:
    """Publish the query list and its summary.

    Raises:
        QueryListError: a source cannot be used, the list would be empty, or (with strict budgets) a
            source falls short of its budget.
    """
    made = make_list(job.section, job.counted, job.read)
    if not made.queries.num_rows:
        raise QueryListError(
            "the query list is empty",
            where="[queries] of the recipe",
            fix="name a source there (custom, numbers, wordnet, wikipedia), or lower its floors",
        )
    if job.section.strict_budgets:
        check_budgets(made.summary)
    outputs = [
        storage.write_parquet(storage.join(job.out, "queries.parquet"), made.queries),
        _publish_summary(storage.join(job.out, "summary.json"), made),
    ]
    return Done(outputs, {s.source: s.kept for s in made.summary.sources})


def make_list(
    section: QueriesSection, counted: Counted, read: dict[str, dict[str, int]]
) -> QueryList:
    """Return the list and its summary; ``BuildJob`` tells of the arguments.

    Raises:
        QueryListError: a source cannot be used.
        StorageError: a table of counts cannot be read.
    """
    refusals = Refusals()
    return assemble(
        sources.offers(section, counted, refusals),
        refusals,
        section,
        tokens=counted.tokens,
        read=read,
    )


def is_current(root: str, summary: Summary, section: QueriesSection) -> bool:
    """Return whether a run's list was made of its present counts, by the present recipe."""
    folder = storage.join(root, "units", _GENERATION, "queries-merge")
    data = storage.read_many(storage.list_files(folder, ".json")).values()
    merged = total([msgspec.json.decode(marker, type=Marker) for marker in data])
    return merged == summary.read.get("merge", {}) and summary.settings == without_places(section)


def read_summary(root: str) -> Summary:
    """Return the summary of a run's list.

    Raises:
        StorageError: there is none, or it is of another version.
    """
    place = storage.join(root, SUMMARY)
    try:
        return msgspec.json.decode(storage.read_bytes(place), type=Summary)
    except msgspec.DecodeError as error:
        fix = "build the list again"
        raise StorageError("not a summary of a query list", where=place, fix=fix) from error


def _publish_summary(url: str, made: QueryList) -> Published:
    text = msgspec.json.format(msgspec.json.encode(made.summary), indent=2)
    return storage.publish_bytes(url, text + b"\n")
