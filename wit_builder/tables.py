"""The nouns: one Arrow schema per table on disk, every column documented.

``describe(SCHEMA)`` gives the documentation back as rows, so that the docs are made from here.
"""

from __future__ import annotations

from enum import StrEnum

import pyarrow as pa

FORMAT_VERSION = 4
"""Raised when a table's meaning changes; part of every unit's digest."""


class Source(StrEnum):
    """Where a query comes from, in order of precedence: a duplicate keeps the first."""

    CUSTOM = "custom"
    NUMBER = "number"
    WORDNET = "wordnet"
    UNIGRAM = "unigram"
    BIGRAM = "bigram"
    NGRAM = "ngram"
    TITLE = "title"


class TextFrom(StrEnum):
    """Which part of a page gave the text."""

    ALT = "alt"
    TITLE = "title"
    FIGCAPTION = "figcaption"
    GIVEN = "given"


class Outcome(StrEnum):
    """What became of a pair that was asked for."""

    ALIVE = "alive"
    DEAD = "dead"
    DEFERRED = "deferred"
    MOVED = "moved"


class Reason(StrEnum):
    """Why something was dropped: the closed list. A free ``detail`` may say more."""

    # extract
    ARCHIVE_MISSING = "archive_missing"
    BAD_RECORD = "bad_record"
    BAD_ROW = "bad_row"
    NOT_HTML = "not_html"
    TOO_LARGE_HTML = "too_large_html"
    OPT_OUT_PAGE = "opt_out_page"
    OPT_OUT_HEADER = "opt_out_header"
    BAD_URL = "bad_url"
    NO_TEXT = "no_text"
    # text filters and matching
    TEXT_TOO_SHORT = "text_too_short"
    TEXT_TOO_LONG = "text_too_long"
    FILE_NAME = "file_name"
    BOILERPLATE = "boilerplate"
    NO_QUERY = "no_query"
    LANGUAGE = "language"
    REPEATED_TEXT = "repeated_text"
    # dedup
    DUPLICATE_URL = "duplicate_url"
    DUPLICATE_IMAGE = "duplicate_image"
    SIMILAR_IMAGE = "similar_image"
    # the gate: no request was made
    SCHEME_REFUSED = "scheme_refused"
    CREDENTIALS_IN_URL = "credentials_in_url"
    PRIVATE_ADDRESS = "private_address"
    ROBOTS_DISALLOWED = "robots_disallowed"
    ROBOTS_UNREACHABLE = "robots_unreachable"
    DOMAIN_BUDGET = "domain_budget"
    DOMAIN_DOWN = "domain_down"
    BLOCKED = "blocked"
    REMOVED = "removed"
    # the request
    DNS_FAILED = "dns_failed"
    CONNECT_FAILED = "connect_failed"
    TLS_FAILED = "tls_failed"
    DEADLINE = "deadline"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    RATE_LIMITED = "rate_limited"
    REDIRECT_LOOP = "redirect_loop"
    MOVED = "moved"
    BODY_TOO_LARGE = "body_too_large"
    BODY_INCOMPLETE = "body_incomplete"
    OPT_OUT_IMAGE = "opt_out_image"
    # the picture
    PICTURE_MISSING = "picture_missing"
    NOT_AN_IMAGE = "not_an_image"
    IMAGE_TRUNCATED = "image_truncated"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_TOO_SMALL = "image_too_small"
    IMAGE_ASPECT = "image_aspect"
    FILTERED = "filtered"


def _field(name: str, kind: pa.DataType, doc: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"doc": doc})


_IDS = pa.list_(pa.field("element", pa.int32(), nullable=False))
_COUNTS = pa.list_(pa.field("element", pa.int64(), nullable=False))
_UID = pa.binary(16)

QUERIES = pa.schema(
    [
        _field("query_id", pa.int32(), "dense from 0, in list order"),
        _field("query", pa.string(), "normalised string, unique"),
        _field("surface", pa.string(), "as its source spells it"),
        _field("source", pa.string(), "custom, number, wordnet, unigram, bigram, ngram or title"),
        _field("also_in", pa.list_(pa.string()), "further sources that have it, sorted"),
        _field("count", pa.int64(), "occurrences in the text counted", nullable=True),
        _field("pmi", pa.float64(), "pointwise mutual information, bits", nullable=True),
        _field("views", pa.int64(), "page views of the article", nullable=True),
    ]
)

_FOUND_FIELDS = [
    _field("url", pa.string(), "URL of the image, normalised; wds:FOLDER/SHARD/KEY if unknown"),
    _field("text", pa.string(), "the text as found, white space collapsed"),
    _field("text_from", pa.string(), "alt, title, figcaption or given"),
    _field("page_url", pa.string(), "page it stood on", nullable=True),
    _field("license", pa.string(), "licence link of the page", nullable=True),
    _field("archive", pa.string(), "archive or site it came from"),
    _field("found_at", pa.timestamp("s", tz="UTC"), "when the page was captured", nullable=True),
    _field(
        "picture_at",
        pa.string(),
        "PLACE@OFFSET+SIZE: bytes of a shard that are the picture, if it need not be asked for",
        nullable=True,
    ),
]
FOUND = pa.schema(_FOUND_FIELDS)
"""What a source finds: a candidate before it has its uid."""

_CANDIDATE_FIELDS = [
    _field("uid", _UID, "xxh3-128 over length-prefixed normalised URL and text"),
    *_FOUND_FIELDS,
]
CANDIDATES = pa.schema(_CANDIDATE_FIELDS)

_MATCHED_FIELDS = [
    *_CANDIDATE_FIELDS,
    _field("language", pa.string(), "ISO 639 code, if languages are filtered", nullable=True),
    _field("query_ids", _IDS, "queries it contains; sorted, unique"),
]
MATCHED = pa.schema(_MATCHED_FIELDS)

_SELECTED_FIELDS = [*_MATCHED_FIELDS, _field("drawn_by", _IDS, "queries whose draw has it; sorted")]
SELECTED = pa.schema(_SELECTED_FIELDS)

VISITED = pa.schema(
    [
        _field("url", pa.string(), "what was asked for, normalised"),
        _field("kind", pa.string(), "what it was asked for as: page, sitemap or robots"),
        _field("depth", pa.int32(), "links from a seed"),
        _field("asked_at", pa.timestamp("s", tz="UTC"), "when"),
        _field("status", pa.int16(), "of the last response", nullable=True),
        _field("final_url", pa.string(), "URL after redirects, normalised"),
        _field("etag", pa.string(), "ETag of the response", nullable=True),
        _field("last_modified", pa.string(), "Last-Modified of the response", nullable=True),
        _field("digest", pa.string(), "of the body, decoded: sha1: and base32", nullable=True),
        _field("reason", pa.string(), "why it gave nothing, or not all", nullable=True),
        _field("detail", pa.string(), "free words on the reason", nullable=True),
        _field("base", pa.string(), "what addresses on the page are relative to", nullable=True),
        _field("license", pa.string(), "licence link of the page", nullable=True),
        _field("opt_outs", pa.list_(pa.string()), "opt-out signals in the page"),
        _field("without_text", pa.int32(), "pictures on the page that have no text"),
        _field("hrefs", pa.list_(pa.string()), "addresses of its pictures, as they stand there"),
        _field("texts", pa.list_(pa.string()), "the text that goes with each"),
        _field("texts_from", pa.list_(pa.string()), "alt, title or figcaption, of each"),
        _field("links", pa.list_(pa.string()), "pages that may be followed, of the same domain"),
        _field("sitemaps", pa.list_(pa.string()), "sitemaps that it names"),
        _field("warc_offset", pa.int64(), "first byte in the part's .warc.gz", nullable=True),
        _field("warc_length", pa.int64(), "bytes of the record there", nullable=True),
    ]
)
"""What a visit of a site has asked for: its frontier, and what a later visit starts from."""

IMAGES = pa.schema(
    [
        *_SELECTED_FIELDS,
        _field("key", pa.string(), "member stem in the part's tar; empty unless alive"),
        _field("outcome", pa.string(), "alive, dead, deferred, or moved: another row follows"),
        _field("reason", pa.string(), "why not alive (tables.Reason)", nullable=True),
        _field("detail", pa.string(), "free words on the reason", nullable=True),
        _field("http_status", pa.int16(), "status of the last response", nullable=True),
        _field("final_url", pa.string(), "URL after redirects", nullable=True),
        _field("redirects", pa.int16(), "redirects that led there", nullable=True),
        _field("fetched_at", pa.timestamp("s", tz="UTC"), "when it was asked for", nullable=True),
        _field("mime", pa.string(), "type of the body, sniffed", nullable=True),
        _field("width", pa.int32(), "pixels, as stored", nullable=True),
        _field("height", pa.int32(), "pixels, as stored", nullable=True),
        _field("original_width", pa.int32(), "pixels, as downloaded", nullable=True),
        _field("original_height", pa.int32(), "pixels, as downloaded", nullable=True),
        _field("size_bytes", pa.int64(), "bytes of the body as downloaded", nullable=True),
        _field("sha256", pa.string(), "hex digest of the body as downloaded", nullable=True),
        _field("md5", pa.string(), "hex digest of the body as downloaded", nullable=True),
        _field(
            "phash",
            pa.string(),
            "64-bit pHash of the picture, 16 hex digits; null if of one brightness",
            nullable=True,
        ),
        _field("opt_outs", pa.list_(pa.string()), "opt-out signals seen"),
        _field("caption", pa.string(), "the text, under img2dataset's name", nullable=True),
        _field(
            "status",
            pa.string(),
            "success, failed_to_download, failed_to_resize: likewise",
            nullable=True,
        ),
        _field("error_message", pa.string(), "reason and detail: likewise", nullable=True),
    ]
)

KEPT = pa.schema(
    [
        _field("uid", _UID, "the pair"),
        _field("query_ids", _IDS, "queries it contains; sorted, unique"),
        _field("kept_by", _IDS, "queries that keep it, at most the cap's pairs each; sorted"),
    ]
)

REJECTIONS = pa.schema(
    [
        _field("uid", _UID, "pair it concerns; null where none was formed yet", nullable=True),
        _field("stage", pa.string(), "stage that dropped it"),
        _field("reason", pa.string(), "tables.Reason"),
        _field("detail", pa.string(), "free words", nullable=True),
        _field("url", pa.string(), "URL it concerns", nullable=True),
    ]
)

REMOVED = pa.schema(
    [
        _field("by", pa.string(), "what the value is: uid, url, host, md5, sha256 or phash"),
        _field("value", pa.string(), "hex; of a URL its sha256, so that the list does not tell it"),
    ]
)

REMOVED_TABLE = "removed.parquet"
"""Where it lies in a run's folder."""

MANIFEST = pa.schema(
    [
        _field("shard", pa.string(), "file name of the tar"),
        _field("samples", pa.int32(), "samples in it, removed ones included"),
        _field("bytes", pa.int64(), "size of the tar"),
        _field("sha256", pa.string(), "hex digest of the tar"),
        _field("revision", pa.int32(), "0 when packed; raised by each removal"),
    ]
)

BLOCKS = pa.schema(
    [
        _field("shard", pa.int32(), "row of the manifest"),
        _field("first_sample", pa.int32(), "index in the shard of its first sample"),
        _field("samples", pa.int32(), "consecutive samples in it"),
        _field("offset", pa.int64(), "byte offset in the tar of its first header"),
        _field("length", pa.int64(), "bytes; at most 4 MiB unless one sample is larger"),
        _field("xxh3", pa.uint64(), "xxh3-64 of these bytes"),
    ]
)

_MEMBER = pa.struct(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("xxh3", pa.uint64(), nullable=False),
    ]
)
SHARD_SAMPLES = pa.schema(
    [
        _field("key", pa.string(), "nine digits, unique in the data set"),
        _field("uid", _UID, "the pair"),
        _field("jpg", _MEMBER, "offset, size and xxh3-64 of the picture's bytes"),
        _field("txt", _MEMBER, "offset, size and xxh3-64 of the caption's bytes"),
        _field("json", _MEMBER, "offset, size and xxh3-64 of the metadata's bytes"),
        _field("removed", pa.bool_(), "taken out: the bytes are zeroed, the slot stays"),
    ]
)

BALANCE = pa.schema(
    [
        _field("query_id", pa.int32(), "as in the query list"),
        _field("query", pa.string(), "normalised string"),
        _field("source", pa.string(), "source of the query"),
        _field("matched", pa.int64(), "pairs whose text contains it"),
        _field("drawn", pa.int64(), "pairs ever drawn by it, all rounds"),
        _field("drawn_per_round", _COUNTS, "pairs asked for by its draws, round by round"),
        _field("alive", pa.int64(), "of its drawn pairs, those fetched alive"),
        _field("kept", pa.int64(), "pairs it keeps: at most the cap"),
        _field("contained", pa.int64(), "kept pairs that contain it, whoever drew them"),
        _field("status", pa.string(), "full, short, exhausted or empty"),
    ]
)

ALL = {
    "queries": QUERIES,
    "visited": VISITED,
    "candidates": CANDIDATES,
    "matched": MATCHED,
    "selected": SELECTED,
    "images": IMAGES,
    "kept": KEPT,
    "rejections": REJECTIONS,
    "removed": REMOVED,
    "manifest": MANIFEST,
    "blocks": BLOCKS,
    "shard samples": SHARD_SAMPLES,
    "balance": BALANCE,
}


def describe(schema: pa.Schema) -> list[tuple[str, str, str]]:
    """Return (column, type, documentation) for every column, in order."""
    return [(f.name, str(f.type), (f.metadata or {})[b"doc"].decode()) for f in schema]


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the table with exactly the schema's columns, order, types and metadata.

    Raises:
        KeyError: a column is missing.
        pyarrow.ArrowInvalid: a value does not fit its column's type.
    """
    return pa.table([table[f.name].cast(f.type) for f in schema], schema=schema)
