"""Names of WordNet synsets, from a folder of Princeton database files.

The format is that of the manual page ``wndb(5WN)``: one synset a line, ``offset lex_filenum ss_type
w_cnt word lex_id [word lex_id ...] p_cnt ... | gloss``, where ``w_cnt`` is hexadecimal and words
have underscores for spaces. The licence heads each file on lines that begin with two spaces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from wit_builder import storage
from wit_builder.errors import QueryListError, StorageError

FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
"""The database files read, in this order."""

_SYNSET = re.compile(rb"\d{8} \d\d [nvasr] ([0-9a-f]{2}) ([^|]+)\|")

_SYNTACTIC_MARKER = re.compile(r"\((?:a|p|ip)\)$")
"""Where an adjective may stand: ``galore(ip)``. No part of the word (``wninput(5WN)``)."""


def names(folder: str, which: Literal["first", "all"] = "first") -> list[str]:
    """Return the lemma names of all synsets, in the order of the database, repeats included.

    Args:
        folder: place that holds ``data.noun``, ``data.verb``, ``data.adj`` and ``data.adv``.
        which: the first lemma of each synset, or all of them.

    Raises:
        QueryListError: a file is missing, or a line of it is no synset; names file and line.
    """
    return [name for file in FILES for name in _names_in(storage.join(folder, file), which)]


def check(folder: str) -> None:
    """Refuse a folder that lacks a database file.

    Raises:
        QueryListError: it does; names the file.
    """
    for file in FILES:
        place = storage.join(folder, file)
        if not storage.exists(place):
            raise _unreadable(place, "no such file")


def _names_in(place: str, which: Literal["first", "all"]) -> Iterator[str]:
    # A Python loop over lines: 117,659 synsets in about 0.6 s, once per list.
    for number, line in enumerate(_read(place).split(b"\n"), start=1):
        if not line or line.startswith(b"  "):
            continue
        words = _lemmas(line, f"{place}, line {number}")
        yield from words[:1] if which == "first" else words


def _read(place: str) -> bytes:
    try:
        return storage.read_bytes(place)
    except StorageError as error:
        raise _unreadable(place, error.what) from error


def _unreadable(place: str, why: str) -> QueryListError:
    return QueryListError(
        f"cannot read a WordNet database file: {why}",
        where=place,
        fix=f"point queries.wordnet.path to a folder that holds {', '.join(FILES)}",
    )


def _lemmas(line: bytes, where: str) -> list[str]:
    match = _SYNSET.match(line)
    count = int(match[1], 16) if match else 0
    words = match[2].split(b" ")[: 2 * count : 2] if match else []
    if not words or len(words) != count or not line.isascii():
        raise QueryListError(
            "not a synset of a WordNet database file",
            where=where,
            fix="unpack the Princeton files again; wndb(5WN) describes them",
        )
    return [_SYNTACTIC_MARKER.sub("", word.decode()).replace("_", " ") for word in words]
