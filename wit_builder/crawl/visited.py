"""From an answer of the web to the row that is kept of it: of a page, or of a sitemap.

A row says all that the crawl will ever need of the answer, so that no body is held longer than it
takes to read it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlsplit

import msgspec

from wit_builder.crawl import warc_record
from wit_builder.crawl.frontier import Kind, Row, Taken
from wit_builder.crawl.html import Page, Pair, TooDeepError, read_page
from wit_builder.crawl.records import HTML
from wit_builder.crawl.sitemap import MAX_BYTES, Sitemap, read_sitemap
from wit_builder.crawl.urls import BadUrlError, normalise
from wit_builder.tables import Reason, TextFrom
from wit_builder.web import body
from wit_builder.web.answer import Answer, Refusal
from wit_builder.web.domains import registrable
from wit_builder.web.optouts import forbids_following

_GZIP = b"\x1f\x8b"


class Site(msgspec.Struct, frozen=True):
    """What belongs to a crawl: its registrable domain, the hosts within it; whether to keep pages.

    ``hosts`` have their ports, as in a URL.
    """

    domain: str
    hosts: frozenset[str]
    keeps_pages: bool = False

    def has_host(self, url: str) -> bool:
        """Return whether the page is one of the seeds' hosts."""
        return urlsplit(url).netloc in self.hosts

    def has(self, url: str) -> bool:
        """Return whether the URL is the domain's."""
        return registrable(urlsplit(url).hostname or "") == self.domain


def now() -> datetime:
    """Return the time, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def of_page(url: str, depth: int, answer: Answer, site: Site) -> Taken:
    """Return what is kept of a page: its pictures' addresses and texts, its links; or why not.

    A page that opts out, or is none of the site's, is never kept as a whole.
    """
    row = _row("page", url, depth, answer)
    if row.reason is not None:
        return Taken(row)
    assert answer.body is not None
    kind = answer.headers.get("content-type", "")
    if not HTML.match(kind.strip()):
        return Taken(_refused(row, Reason.NOT_HTML, kind[:100]))
    if not site.has_host(row.final_url):
        return Taken(_refused(row, Reason.MOVED))
    try:
        page = read_page(answer.body, row.final_url, charset_of(kind), links=True)
    except TooDeepError as error:
        return Taken(_refused(row, Reason.TOO_LARGE_HTML, str(error) or "too deep"))
    follows = not forbids_following(answer.head)
    row = _read(row, page, [link for link in page.links if site.has(link)] if follows else [])
    row = msgspec.structs.replace(row, digest=warc_record.digest(answer.body))
    if not site.keeps_pages or page.opt_outs:
        return Taken(row)
    return Taken(row, _record(row, answer))


def _row(kind: Kind, url: str, depth: int, answer: Answer) -> Row:
    """Return a row without what is to be read of a body."""
    reason, detail, final_url = None, None, address_of(answer)
    if answer.refusal is not None:
        reason, detail = answer.refusal.reason.value, _printable(answer.refusal.detail)
        if answer.refusal.reason is Reason.BODY_TOO_LARGE and kind == "page":
            reason = Reason.TOO_LARGE_HTML.value
    headers = answer.headers
    return Row(
        url=url,
        kind=kind,
        depth=depth,
        asked_at=now(),
        final_url=url if final_url is None else final_url,
        status=answer.status,
        etag=validator(headers, "etag"),
        last_modified=validator(headers, "last-modified"),
        reason=reason,
        detail=detail,
    )


def address_of(answer: Answer) -> str | None:
    """Return the normalised URL that the answer came from; None if it cannot be had.

    That is so only where the client refused to ask for it.
    """
    try:
        return normalise(answer.final_url)
    except BadUrlError:
        return None


def _refused(row: Row, reason: Reason, detail: str = "") -> Row:
    return msgspec.structs.replace(row, reason=reason.value, detail=_printable(detail))


def validator(headers: dict[str, str], name: str) -> str | None:
    """Return what a server wants to be asked with next time; None if that cannot be sent."""
    value = headers.get(name, "")
    return value if value and value.isascii() and value.isprintable() else None


def _printable(text: str) -> str:
    """Return the text without what headers can have and tables cannot: bytes that are no UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _read(row: Row, page: Page, links: list[str]) -> Row:
    return msgspec.structs.replace(
        row,
        base=page.base,
        license=page.license,
        opt_outs=page.opt_outs,
        without_text=page.without_text,
        hrefs=[pair.href for pair in page.pairs],
        texts=[pair.text for pair in page.pairs],
        texts_from=[pair.text_from.value for pair in page.pairs],
        links=links,
    )


def page_of(row: Row) -> Page:
    """Return the page that a row was made of, as far as it was kept."""
    found = zip(row.hrefs, row.texts, row.texts_from, strict=True)
    pairs = [Pair(href, text, TextFrom(text_from)) for href, text, text_from in found]
    base = row.base or row.final_url
    return Page(pairs, base, row.without_text, row.opt_outs, row.license, row.links)


def _record(row: Row, answer: Answer) -> bytes:
    assert answer.body is not None
    assert answer.status is not None
    head = answer.head or list(answer.headers.items())
    return warc_record.response(row.final_url, row.asked_at, answer.status, head, answer.body)


def of_sitemap(url: str, answer: Answer, site: Site) -> Row:
    """Return what is kept of a sitemap: the pages of the domain that it names, and sitemaps."""
    row = _row("sitemap", url, 0, answer)
    if row.reason is not None:
        return row
    text = _unpacked(answer.body or b"")
    if isinstance(text, Refusal):
        return _refused(row, text.reason, text.detail)
    found = read_sitemap(text, row.final_url)
    if found.fault:
        reason = Reason.BODY_TOO_LARGE if found.is_too_large else Reason.BAD_RECORD
        row = _refused(row, reason, found.fault)
    return _named(row, found, site)


def _unpacked(data: bytes) -> bytes | Refusal:
    return body.decompress(data, "gzip", MAX_BYTES) if data.startswith(_GZIP) else data


def _named(row: Row, found: Sitemap, site: Site) -> Row:
    pages = [page for page in found.pages if site.has(page)]
    return msgspec.structs.replace(row, links=pages, sitemaps=found.sitemaps)


def charset_of(content_type: str) -> str | None:
    """Return the charset parameter of a ``Content-Type`` value."""
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip("\"'") or None
    return None
