"""The list of what is to be removed: ``ROOT/removed.parquet``, in order, each entry once.

It is written before anything is removed, and says whether all of it was. The fetch reads it too:
what it names is never asked for again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from wit_builder import storage
from wit_builder.errors import GoneError, RecipeError
from wit_builder.tables import REMOVED
from wit_builder.web.listings import digest_of, host_of
from wit_builder.web.urls import BadUrlError, normalise

FILE = "removed.parquet"
NOTHING = REMOVED.empty_table()

_DONE = {b"wit_builder.removed": b"all"}
_HEX_DIGITS = {"uid": 32, "md5": 32, "sha256": 64, "phash": 16}
BY = (*_HEX_DIGITS, "url", "host")
_NAMELESS = "wds:"
_COMMENT = re.compile(r"(?:^|\s)\s*#.*")
_SHOWN = 100


class Entry(NamedTuple):
    """What is to be removed: a row of ``tables.REMOVED``."""

    by: str
    value: str


class Asked(NamedTuple):
    """An entry, and how it was asked for, in the words of who did: option or line, and value."""

    entry: Entry
    said: str


def entry(by: str, value: str) -> Entry:
    """Return an entry as it is listed: hex in lower case, a host as in URLs, a URL's sha256.

    Raises:
        RecipeError: ``by`` or ``value`` is not one.
    """
    text = value.strip()
    if by in _HEX_DIGITS:
        if not re.fullmatch(rf"[0-9a-fA-F]{{{_HEX_DIGITS[by]}}}", text):
            raise _wrong(by, text, f"{_HEX_DIGITS[by]} hex digits")
        return Entry(by, text.lower())
    try:
        if by == "url":
            return Entry(
                by, digest_of(text if text.startswith(_NAMELESS) else normalise(text)).hex()
            )
        if by == "host":
            return Entry(by, _host(text))
    except BadUrlError as error:
        raise _wrong(by, text, "a URL, http or https" if by == "url" else "a host name") from error
    raise RecipeError(f"pairs are not removed by {by!r}", where=text, fix=f"one of {', '.join(BY)}")


def _host(text: str) -> str:
    literal = text.strip("[]")
    name = f"[{literal}]" if literal.count(":") > 1 else text.removeprefix("*.").strip(".")
    if re.search(r"[/?#@\s]", name):
        raise BadUrlError("more than a host")
    host = host_of(normalise(f"http://{name}/"))
    if "." not in host and ":" not in host:  # a top-level domain would be half the web
        raise BadUrlError("no dot")
    return host


def _wrong(by: str, text: str, wants: str) -> RecipeError:
    shown = storage.redact_credentials(text)[:100]
    return RecipeError(f"not {wants}: {shown!r}", where=f"--{by}", fix="nothing was removed")


def asked(by: str, value: str) -> Asked:
    """Return what an option asks for.

    Raises:
        RecipeError: ``by`` or ``value`` is not one.
    """
    return Asked(entry(by, value), f"--{by} {_short(value)}")


def _short(value: str) -> str:
    shown = value[:_SHOWN]
    return (shown if shown.isprintable() else ascii(shown)) + "..." * (len(value) > _SHOWN)


def read_list(place: str) -> Iterator[Asked]:
    """Yield the entries of a text file, a line each: ``host example.org``.

    ``#`` at a line's start or after white space begins a comment.

    Raises:
        RecipeError: a line is not an entry.
        StorageError: the file cannot be read.
    """
    shown = storage.redact(place)
    try:
        data = storage.read_bytes(place).decode("utf-8-sig", errors="replace")
    except GoneError as error:
        raise GoneError(error.what, where=shown, fix="correct the path given as --list") from error
    for number, line in enumerate(data.splitlines(), start=1):
        if told := _COMMENT.sub("", line).split(maxsplit=1):
            by, value = told[0], "".join(told[1:])
            try:
                found = entry(by, value)
            except RecipeError as error:
                where = f"{shown} line {number}"
                raise RecipeError(error.what, where=where, fix=error.fix) from error
            yield Asked(found, f"{shown} line {number}: {by} {_short(value.strip())}")


def joined(listed: pa.Table, entries: Iterable[Entry]) -> pa.Table:
    """Return a list with further entries, in order, each once."""
    added = list(entries)
    columns = [pa.array([getattr(e, name) for e in added], pa.string()) for name in REMOVED.names]
    every = pa.concat_tables([listed.cast(REMOVED), pa.table(columns, schema=REMOVED)])
    unique = every.group_by(REMOVED.names).aggregate([])
    return unique.sort_by([(name, "ascending") for name in REMOVED.names]).cast(REMOVED)


def read(root: str) -> pa.Table:
    """Return the list of a run; empty if there is none.

    Raises:
        StorageError: it cannot be read.
    """
    place = storage.join(root, FILE)
    if not storage.exists(place):
        return NOTHING
    return storage.read_parquet(place, REMOVED.names).cast(REMOVED)


def add(root: str, entries: Iterable[Entry]) -> pa.Table:
    """Add entries to the list of a run, which says from now on that it is not finished with.

    Raises:
        StorageError: it cannot be read or written.
    """
    listed = joined(read(root), entries)
    storage.write_parquet(storage.join(root, FILE), listed)
    return listed


def finish(root: str) -> None:
    """Let the list of a run say that all of it was removed.

    Raises:
        StorageError: it cannot be read or written.
    """
    listed = read(root).replace_schema_metadata(_DONE)
    storage.write_parquet(storage.join(root, FILE), listed)


def is_unfinished(root: str) -> bool:
    """Return whether a removal was begun and not finished.

    Raises:
        StorageError: the list cannot be read.
    """
    place = storage.join(root, FILE)
    if not storage.exists(place):
        return False
    with storage.open_arrow(place) as file:
        metadata = pq.read_schema(file).metadata or {}
    return not _DONE.items() <= metadata.items()
