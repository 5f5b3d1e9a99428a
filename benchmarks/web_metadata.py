"""What Common Crawl's extractor tells of a WARC record: the JSON of a WAT.

The public extractor (``ia-web-commons``) reads a page tag by tag, without a tree, and lists what
its attributes refer to. What is here does as it does: which attributes of which tags, in which
order, how texts are cut and strings escaped. Since August 2019 keys stand in the order in which
they were found out, and character references are resolved; the real WAT of 2014 that a test
compares with has keys in another order, and references as they stood.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from typing import Any, NamedTuple

Json = dict[str, Any]


class Record(NamedTuple):
    """A WARC record: its header's fields as they were spelled, and its block."""

    fields: list[tuple[str, str]]
    block: bytes

    def header(self) -> bytes:
        """Return the bytes before the block."""
        lines = [f"{name}: {value}\r\n" for name, value in self.fields]
        return "".join(["WARC/1.0\r\n", *lines, "\r\n"]).encode()

    def raw(self) -> bytes:
        """Return the record as it stands in the file, unpacked."""
        return b"%b%b\r\n\r\n" % (self.header(), self.block)


class Member(NamedTuple):
    """Where a record stands: file, offset, and the length of its gzip member."""

    filename: str
    offset: int
    packed_length: int


# Tags, and what looks like some but is none. Possessive, so that nothing is read twice; a quote
# means something only where a value begins.
_TAG = re.compile(
    r"<!--.*?--\s*>"
    r"|<(?P<close>/)?(?P<name>[a-zA-Z][^\s/>]*+)"
    r"(?P<rest>(?:[^>=]++|=\s*+(?:\"[^\"]*+\"|'[^']*+')?+)*+)>"
    r"|<[!?/][^>]*+>",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(r"([^\s=>\"'/]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]*))")
_END_OF_RAW = {name: re.compile(f"</{name}\\s*>", re.IGNORECASE) for name in ("SCRIPT", "STYLE")}
_CSS_URL = re.compile(r"url\s*\(\s*([^)\s]{1,8000}?)\s*\)")
_SPACE = re.compile(r"[\x00-\x20\x7f\xa0]+")
_MAX_TEXT = 128

_PLAIN = {
    "APPLET": ("codebase", "cdata"), "AUDIO": ("src",), "BLOCKQUOTE": ("cite",),
    "BUTTON": ("formaction",), "DEL": ("cite",), "EMBED": ("src",), "FRAME": ("src",),
    "IFRAME": ("src",), "INPUT": ("src", "formaction"), "INS": ("cite",), "MENUITEM": ("icon",),
    "OBJECT": ("codebase", "cdata", "data"), "Q": ("cite",), "SOURCE": ("src",),
    "TRACK": ("src",), "VIDEO": ("src", "poster"),
}  # fmt: skip
"""Attributes that give a link without anything beside it."""

_WITH_MORE = {
    "A": ("href", ("target", "alt", "title", "rel", "hreflang", "type")),
    "AREA": ("href", ("rel",)),
    "FORM": ("action", ("target", "method")),
    "IMG": ("src", ("alt", "title")),
    "LINK": ("href", ("rel", "type")),
    "SCRIPT": ("src", ("type",)),
}
"""The attribute that gives a link, and those that stand beside it."""

_IN_HEAD = {"LINK": "Link", "SCRIPT": "Scripts"}
_META = ("name", "rel", "content", "http-equiv", "property")
_ANYWHERE = ("background", "data-href", "data-uri")
_BREAKING_NAMES = """
    ADDRESS ARTICLE ASIDE BLOCKQUOTE BODY BR BUTTON CAPTION CENTER CITE DD DIV DL DT FIELDSET
    FIGCAPTION FIGURE FOOTER FORM H1 H2 H3 H4 H5 H6 HEADER HR IFRAME IMG INPUT LABEL LI OL P PRE
    SECTION SELECT TABLE TBODY TD TEXTAREA TFOOT TH THEAD TIME TITLE TR UL VIDEO
"""
_BREAKING = frozenset(_BREAKING_NAMES.split())
"""Tags whose end separates words of an anchor's text."""


class _Page:
    """Takes a page's tags one by one."""

    def __init__(self) -> None:
        self.found: Json = {}
        self._anchors: list[tuple[Json, list[str]]] = []
        self._title: str | None = None
        self._in_title = False

    def _head(self) -> Json:
        head: Json = self.found.setdefault("Head", {})
        return head

    def _link(self, link: Json) -> None:
        self.found.setdefault("Links", []).append(link)

    def text(self, text: str) -> None:
        text = _SPACE.sub(" ", html.unescape(text))
        if self._in_title:
            self._title = text[:_MAX_TEXT].strip()
        for _, texts in self._anchors:
            texts.append(text)

    def close(self, name: str) -> None:
        if self._in_title:
            if self._title is not None:
                self._head()["Title"] = self._title
            self._in_title, self._title = False, None
        if name in _BREAKING:
            for _, texts in self._anchors:
                texts.append(" ")
        if name == "A" and self._anchors:
            link, texts = self._anchors.pop()
            if link:
                text = _SPACE.sub(" ", "".join(texts)).strip()[:_MAX_TEXT].strip()
                self._link({**link, "text": text} if text else link)

    def open(self, name: str, attributes: dict[str, str], *, empty: bool) -> None:
        if name == "TITLE":
            self._in_title = not empty
            return
        for attribute in _ANYWHERE:
            if attribute in attributes:
                self._link(_reference(name, attribute, attributes))
        if name in _WITH_MORE:
            self._with_more(name, attributes, empty=empty)
        for attribute in (*_PLAIN.get(name, ()), *(("longdesc",) if name == "IMG" else ())):
            if attribute in attributes:
                self._link(_reference(name, attribute, attributes))
        if name == "BASE" and "href" in attributes:
            self._head()["Base"] = attributes["href"]
        elif name == "META":
            self._meta({key: attributes[key] for key in _META if key in attributes})
        elif name == "HTML":
            for key in ("lang", "xml:lang"):
                if key in attributes:
                    self._meta({"name": f"HTML@/{key}", "content": attributes[key]})

    def _with_more(self, name: str, attributes: dict[str, str], *, empty: bool) -> None:
        attribute, beside = _WITH_MORE[name]
        link: Json = {}
        if attribute in attributes:
            link = _reference(name, attribute, attributes)
            link |= {key: attributes[key] for key in beside if key in attributes}
        if name == "A" and not empty:
            self._anchors.append((link, []))
        elif link and name in _IN_HEAD:
            self._head().setdefault(_IN_HEAD[name], []).append(link)
        elif link:
            self._link(link)

    def _meta(self, meta: Json) -> None:
        if len(meta) > 1:
            self._head().setdefault("Metas", []).append(meta)

    def style(self, css: str) -> None:
        for match in _CSS_URL.finditer(html.unescape(css)):
            if url := match[1].strip("\\\"'"):
                self._link({"path": "STYLE/#text", "href": _without_data(url)})


def _reference(name: str, attribute: str, attributes: dict[str, str]) -> Json:
    return {"path": f"{name}@/{attribute}", "url": _without_data(attributes[attribute])}


def _without_data(url: str) -> str:
    """Return the URL; of one that carries its data, what it is without them."""
    return url[: url.find(",", 0, 128) + 1 or 128] if url.startswith("data:") else url


def html_metadata(page: str) -> Json:
    """Return ``HTML-Metadata``: ``Head`` and ``Links``, what of it the page has, in its order.

    The head has ``Base``, ``Title``, ``Metas``, ``Link`` and ``Scripts``.
    """
    lexed, at = _Page(), 0
    while match := _TAG.search(page, at):
        if match.start() > at:
            lexed.text(page[at : match.start()])
        at = match.end()
        if match["name"] is None:
            continue
        name, empty = match["name"].upper(), match["rest"].endswith("/")
        if match["close"]:
            lexed.close(name)
            continue
        lexed.open(name, _attributes(match["rest"]), empty=empty)
        if name in _END_OF_RAW and not empty:
            end = _END_OF_RAW[name].search(page, at)
            inside, at = (
                (page[at:], len(page)) if end is None else (page[at : end.start()], end.end())
            )
            if name == "STYLE":
                lexed.style(inside)
    return lexed.found


def _attributes(text: str) -> dict[str, str]:
    """Return the attributes that have a value; of repeated ones the first."""
    found: dict[str, str] = {}
    for name, *values in _ATTRIBUTE.findall(text):
        found.setdefault(name.lower(), html.unescape("".join(values)))
    return found


def compact(value: Json) -> str:
    """Return JSON as the extractor writes it: a line without spaces, ``/`` after ``<`` escaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")


def describe(record: Record, member: Member, page: Json | None) -> Json:
    """Return what a WAT says of a record.

    Args:
        record: of type warcinfo, request, response or metadata.
        member: where it stands.
        page: ``HTML-Metadata``, if it is an HTML page.
    """
    header, inflated = record.header(), record.raw()
    crc = zlib.crc32(inflated)
    payload = _payload(dict(record.fields), record.block, page)
    payload["Actual-Content-Length"] = str(len(record.block))
    payload["Trailing-Slop-Length"] = "4"
    payload["Block-Digest"] = digest(record.block)
    return {
        "Container": {
            "Filename": member.filename,
            "Compressed": True,
            "Offset": str(member.offset),
            "Gzip-Metadata": {
                "Deflate-Length": str(member.packed_length),
                "Header-Length": "10",
                "Footer-Length": "8",
                "Inflated-CRC": str(crc - (crc >> 31 << 32)),  # as Java has it: signed
                "Inflated-Length": str(len(inflated)),
            },
        },
        "Envelope": {
            "Payload-Metadata": payload,
            "Format": "WARC/1.0",
            "WARC-Header-Length": str(len(header)),
            "WARC-Header-Metadata": dict(record.fields),
        },
    }


def digest(data: bytes) -> str:
    """Return the digest of WARC and WAT: SHA-1 in base 32."""
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


def _payload(fields: dict[str, str], block: bytes, page: Json | None) -> Json:
    kind = fields["WARC-Type"]
    if kind == "warcinfo":
        info = dict(_lines(block))
        return {"Actual-Content-Type": "application/warc-fields", "WARC-Info-Metadata": info}
    if kind == "metadata":
        records = [{"Name": name, "Value": value} for name, value in _lines(block)]
        more = {"Actual-Content-Length": str(len(block)), "Trailing-Slop-Length": "0"}
        told = {"Metadata-Records": records, **more}
        content_type = "application/metadata-fields"
        return {"Actual-Content-Type": content_type, "WARC-Metadata-Metadata": told}
    return {
        "Actual-Content-Type": f"application/http; msgtype={kind}",
        f"HTTP-{kind.capitalize()}-Metadata": _message(kind, block, page),
    }


def _message(kind: str, block: bytes, page: Json | None) -> Json:
    head, _, entity = block.partition(b"\r\n\r\n")
    first, *rest = head.decode("utf-8", "replace").split("\r\n")
    if kind == "request":
        line = dict(zip(("Method", "Path", "Version"), first.split(" "), strict=True))
    else:
        version, status, reason = first.split(" ", 2)
        line = {"Status": status, "Version": version, "Reason": reason}
    headers: Json = {}
    for name, value in _lines("\n".join(rest).encode()):
        before = headers.setdefault(name, [])
        before.append(value)
    return {
        f"{kind.capitalize()}-Message": line,
        "Headers-Length": str(len(head) + (2 if kind == "request" else 4)),  # as the extractor does
        "Headers": {name: v if len(v) > 1 else v[0] for name, v in headers.items()},
        **({} if page is None else {"HTML-Metadata": page}),
        "Entity-Length": str(len(entity)),
        "Entity-Digest": digest(entity),
        "Entity-Trailing-Slop-Length": "0",
    }


def _lines(block: bytes) -> list[tuple[str, str]]:
    """Return ``name: value`` lines."""
    pairs = (line.partition(":") for line in block.decode("utf-8", "replace").splitlines())
    return [(name, value.strip()) for name, colon, value in pairs if colon]
