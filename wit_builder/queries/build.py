"""``wit queries build``: one unit counts a dump, another makes the list of all that was counted.

What is counted does not depend on the recipe's floors and budgets, so changing these makes the list
anew and counts nothing again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import pyarrow as pa

from wit_builder import storage
from wit_builder.errors import QueryListError
from wit_builder.queries import bigrams, sources, wikipedia, wikitext, wordnet
from wit_builder.queries.assemble import QueryList, assemble
from wit_builder.recipe import QueriesSection
from wit_builder.storage import Published
from wit_builder.tables import Source
from wit_builder.units import Done, Marker, Run, Stage, Unit

LIST = "queries/queries.parquet"
SUMMARY = "queries/summary.json"

_GENERATION = "all"
"""Where the markers are: one list serves every generation of a run."""


class CountJob(msgspec.Struct, frozen=True):
    """Count one dump file.

    Attributes:
        dump: place of the file.
        out: how the names of what is published begin: ``OUT.grams.parquet`` (partial counts,
            ``bigrams.GRAMS``) and ``OUT.titles.parquet`` (titles of its articles, sorted).
    """

    dump: str
    out: str


class BuildJob(msgspec.Struct, frozen=True):
    """Make the list.

    Attributes:
        section: the recipe's ``[queries]``.
        partials: ``out`` of every ``CountJob``, in any order.
        out: folder for ``queries.parquet`` and ``summary.json``.
    """

    section: QueriesSection
    partials: list[str]
    out: str


def run_count(job: CountJob) -> Done:
    """Publish the partial counts and titles of one dump.

    Raises:
        QueryListError: the dump is missing, cut short, damaged, or no dump.
    """
    dump = wikipedia.Dump(job.dump)
    titles: list[str] = []
    grams = bigrams.count(_texts(dump, titles))
    counts = {"pages": dump.pages, "articles": len(titles), "oversized": dump.oversized}
    named = pa.table([pa.array(sorted(titles), pa.string())], schema=sources.TITLES)
    outputs = [
        storage.write_parquet(_grams_of(job.out), grams),
        storage.write_parquet(_titles_of(job.out), named),
    ]
    return Done(outputs, {**counts, "tokens": bigrams.tokens(grams)})


def _texts(dump: wikipedia.Dump, titles: list[str]) -> Iterator[str]:
    # A Python loop over articles: the excerpt's 106 (6 MB of XML) in about a second.
    for article in dump:
        titles.append(article.title)
        yield wikitext.plain(article.wikitext, dump.hidden_links)


def run_build(job: BuildJob) -> Done:
    """Publish the query list and its summary.

    Raises:
        QueryListError: a source cannot be used, or the list would be empty.
    """
    made = make_list(job.section, job.partials)
    if not made.queries.num_rows:
        raise QueryListError(
            "the query list is empty",
            where="[queries] of the recipe",
            fix="name a source there (custom, numbers, wordnet, wikipedia), or lower its floors",
        )
    outputs = [
        storage.write_parquet(storage.join(job.out, "queries.parquet"), made.queries),
        _publish_summary(storage.join(job.out, "summary.json"), made),
    ]
    return Done(outputs, {s.source: s.kept for s in made.summary.sources})


def make_list(section: QueriesSection, partials: Sequence[str]) -> QueryList:
    """Return the list and its summary; the order of the partial counts changes nothing.

    Raises:
        QueryListError: a source cannot be used.
    """
    grams = bigrams.merge([storage.read_parquet(_grams_of(partial)) for partial in partials])
    titles = pa.concat_tables(
        [sources.TITLES.empty_table(), *(storage.read_parquet(_titles_of(p)) for p in partials)]
    )
    budgets = {Source.BIGRAM: section.wikipedia.bigram_budget} if section.wikipedia else {}
    return assemble(
        sources.offers(section, grams, titles),
        budgets,
        tokens=bigrams.tokens(grams),
        articles=titles.num_rows,
    )


def _publish_summary(url: str, made: QueryList) -> Published:
    text = msgspec.json.format(msgspec.json.encode(made.summary), indent=2)
    return storage.publish_bytes(url, text + b"\n")


def _grams_of(out: str) -> str:
    return f"{out}.grams.parquet"


def _titles_of(out: str) -> str:
    return f"{out}.titles.parquet"


def build(section: QueriesSection, run: Run) -> Marker:
    """Make the query list of a run, and return its marker.

    Raises:
        StorageError: a pattern matches nothing.
        UnitsFailedError: a source cannot be used, or the list would be empty.
    """
    counting = count_stage(section, run.root)
    counted = run.do(counting, _GENERATION)
    return run.do(build_stage(section, run.root, counting, counted), _GENERATION)[0]


def count_stage(section: QueriesSection, root: str) -> Stage:
    """Return the stage that counts the recipe's dumps, a unit each; a pattern may name several.

    A dump that several patterns name is counted once.

    Raises:
        StorageError: a pattern matches nothing.
    """
    patterns = section.wikipedia.dumps if section.wikipedia else []
    dumps = dict.fromkeys(dump for pattern in patterns for dump in storage.glob(pattern))
    units = []
    for index, dump in enumerate(dumps):
        name = f"{index:05d}"
        job = CountJob(dump, storage.join(root, "queries", "counts", name))
        units.append(Unit(name, [_identity(dump)], job))
    return Stage("queries-count", run_count, units)


def build_stage(
    section: QueriesSection, root: str, counting: Stage, counted: Sequence[Marker]
) -> Stage:
    """Return the stage, of one unit, that makes the list of what ``counting`` counted."""
    files = list(section.custom)
    if section.wordnet:
        files += [storage.join(section.wordnet.path, file) for file in wordnet.FILES]
    inputs = [*map(_identity, files), *(marker.identity for marker in counted)]
    partials = [unit.job.out for unit in counting.units]
    job = BuildJob(section, partials, storage.join(root, "queries"))
    return Stage("queries", run_build, [Unit("list", inputs, job)], settings=section)


def _identity(place: str) -> str:
    """Return a source's identity; a missing one is the unit's to report, in its own words."""
    return storage.identity(place) if storage.exists(place) else "missing"
