"""All kinds of sources: what pieces a recipe's sources have, and how a piece is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wit_builder import storage
from wit_builder.crawl import archives, lists, site, wat, webdataset
from wit_builder.crawl.candidates import Piece
from wit_builder.crawl.site import NOTHING_BLOCKED
from wit_builder.errors import RecipeError
from wit_builder.sections import (
    BlockSection,
    CrawlSection,
    FetchSection,
    SiteSource,
    TablesSource,
    WarcSource,
    WatSource,
    WebDatasetSource,
)
from wit_builder.units import Done

READ: dict[str, Callable[[Any], Done]] = {
    "wat": wat.run,
    "warc": archives.run,
    "tables": lists.run,
    "webdataset": webdataset.run,
    "site": site.run,
}
"""What does the job of a piece, by its kind; the order of this table is that of the stages."""


def settings(kind: str, crawl: CrawlSection, fetch: FetchSection) -> Any:
    """Return what the candidates of a kind of source depend on, beside the source itself."""
    match kind:
        case "warc":
            return crawl.max_html_bytes
        case "site":
            return [crawl.max_html_bytes, fetch.max_redirects]
        case _:
            return None


def pieces(
    crawl: CrawlSection,
    fetch: FetchSection,
    loopback: dict[str, str],
    block: BlockSection = NOTHING_BLOCKED,
) -> list[Piece]:
    """Return the pieces of all sources, by kind and then in the order of the recipe, each once.

    Raises:
        ArchiveError: a source names nothing that can be read.
        RecipeError: a seed is not a URL that can be crawled, or two sources differ in how to read
            one file or domain.
        StorageError: a file is not there, or a pattern matches nothing.
    """
    found: dict[tuple[str, str], Piece] = {}
    for source in crawl.sources:
        for piece in _pieces(source, crawl, fetch, loopback, block):
            same = found.setdefault((piece.kind, piece.origin), piece)
            if same.inputs != piece.inputs:
                raise RecipeError(
                    f"two sources read {storage.redact(piece.key)}, each in its own way",
                    where="crawl.sources",
                    fix="put it into one of them (all seeds of a domain into one source)",
                )
    order = list(READ)
    return sorted(found.values(), key=lambda piece: order.index(piece.kind))


def _pieces(
    source: Any,
    crawl: CrawlSection,
    fetch: FetchSection,
    loopback: dict[str, str],
    block: BlockSection,
) -> Any:
    match source:
        case WatSource():
            return wat.pieces(source)
        case WarcSource():
            return archives.pieces(source, crawl.max_html_bytes)
        case TablesSource():
            return lists.pieces(source)
        case WebDatasetSource():
            return webdataset.pieces(source)
        case SiteSource():
            return site.pieces(source, fetch, crawl.max_html_bytes, loopback, block)
    raise AssertionError(source)
