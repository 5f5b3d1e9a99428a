"""Candidates from WARC files: one unit a file."""

from __future__ import annotations

from functools import partial

import msgspec

from wit_builder import storage
from wit_builder.crawl.candidates import Collector, Output, Piece, Source, collecting, done
from wit_builder.crawl.listings import archives
from wit_builder.crawl.records import Rejected, Response, responses
from wit_builder.crawl.urls import BadUrlError, normalise
from wit_builder.sections import WarcSource
from wit_builder.storage import Published
from wit_builder.tables import Reason
from wit_builder.units import Done
from wit_builder.web.optouts import opt_outs


class ArchiveJob(msgspec.Struct, frozen=True):
    """One WARC file, and where its candidates go."""

    place: str
    max_html_bytes: int
    output: Output


def pieces(source: WarcSource, max_html_bytes: int) -> list[Piece]:
    """Return a piece for every file of a source, in the order of its paths.

    Args:
        source: names the files.
        max_html_bytes: larger pages are rejected.

    Raises:
        ArchiveError: it names none.
        StorageError: a file is not there, or a pattern matches nothing.
    """
    return [
        Piece("warc", place, [identity], partial(ArchiveJob, place, max_html_bytes))
        for place, identity in archives(source)
    ]


def run(job: ArchiveJob) -> Done:
    """Write the candidates of one WARC file; what is broken in it is rejected, the rest is kept.

    Counts ``pages``, ``candidates``, ``repeated`` (the same pair again) and ``rejected:REASON``.

    Raises:
        ArchiveError: there is no WARC record in it, or none of a response.
        StorageError: it cannot be read, or the output cannot be written.
    """
    published: list[Published] = []
    archive = storage.name_of(job.place)
    with collecting(job.output, published) as collector:
        for found in responses(job.place, job.max_html_bytes):
            if isinstance(found, Rejected):
                collector.reject(found.reason, found.detail, found.url)
            else:
                _collect(found, archive, collector)
    return done(collector, published)


def _collect(response: Response, archive: str, collector: Collector) -> None:
    try:
        page_url = normalise(response.url)
    except BadUrlError as error:
        collector.reject(Reason.BAD_URL, f"of the page: {error}", None)
        return
    if seen := opt_outs(response.headers):
        collector.reject(Reason.OPT_OUT_HEADER, ", ".join(seen), page_url)
        return
    source = Source(page_url, archive, response.captured)
    collector.add_html(response.body, response.charset, source)
