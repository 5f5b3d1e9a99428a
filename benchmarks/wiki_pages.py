"""The pages of a real MediaWiki dump, cut where their words may change and their paragraphs move.

Wikitext is read as it stands in the XML, with ``&lt;`` and ``&gt;`` for the tags in it. What is
markup is told by one regular expression and a stack of what is open: enough to keep its hands off
it, and no parser of wikitext.
"""

from __future__ import annotations

import bz2
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

COPY = "\0"
"""Stands where the number of the repetition goes; XML has no such character."""

_FRAME = re.compile(
    r"(?P<a>.*?<title>)(?P<title>.*?)(?P<b></title>.*?<id>)\d+(?P<c></id>.*?<revision>\s*<id>)\d+"
    r"(?P<d></id>.*?<text[^>]*>)(?P<text>.*?)(?P<rest></text>.*)",
    re.DOTALL,
)
_WORD = re.compile(r"((?<!\w)[^\W\d_]+(?:['\u2019][^\W\d_]+)*(?!\w))")
_ATTRIBUTES = r"(?:[^&<]|&(?!lt;|gt;))*"
# Wikitext as it stands in XML: with &lt; and &gt; for tags. Letters after a link belong to it.
_MARKUP = re.compile(
    rf"""
      (?P<whole>  &lt;!--.*?--&gt;
        | &lt;\w+{_ATTRIBUTES}/&gt;
        | &lt;(?P<name>ref|math|pre|code|nowiki|gallery|source|syntaxhighlight|timeline)\b
              {_ATTRIBUTES}&gt; .*? &lt;/(?P=name)\s*&gt;
        | &lt;(?:br|hr|references|p|li)\b{_ATTRIBUTES}&gt;
        | (?:https?|ftp):// (?:&amp;|[^\s&<>\[\]|{{}}])+
        | &(?!lt;)(?:amp;)?\#?\w+; | __\w+__ )
    | (?P<tag>     &lt;\w+{_ATTRIBUTES}&gt; )
    | (?P<tag_end> &lt;/\w+\s*&gt; )
    | (?P<template> \{{\{{ )  | (?P<template_end> \}}\}} )
    | (?P<table>    \{{\| )   | (?P<table_end>    \|\}}(?!\}}) )
    | (?P<hidden>  \[\[ :? [^\[\]|{{}}\n:]{{1,30}} : (?=\S) )
    | (?P<link>    \[\[ (?: [^\[\]|{{}}\n]* \| )? )
    | (?P<link_end> \]\] (?:['\u2019]?[^\W\d_]+)? )
    | (?P<broken>   &lt;/?\w* )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_CLOSES = {
    "tag_end": ("tag",),
    "template_end": ("template",),
    "table_end": ("table",),
    "link_end": ("link", "hidden"),
}
_HIDES = {"template", "table", "hidden"}


class Text(NamedTuple):
    """A page's wikitext, cut where it changes.

    Attributes:
        pieces: all of it but the ends of lines; a word that may be replaced is a piece by itself.
        words: where these are among the pieces.
        capital: which of these begin with a capital.
        lines: the text's lines as ranges of pieces; what is inside one construct is one line.
        paragraphs: which of the lines may change places.
    """

    pieces: list[str]
    words: npt.NDArray[np.int64]
    capital: npt.NDArray[np.bool_]
    lines: list[tuple[int, int]]
    paragraphs: npt.NDArray[np.int64]


class Page(NamedTuple):
    """A page of the excerpt.

    Attributes:
        title: escaped as in the XML.
        frame: XML before the text, with ``{title}``, ``{id}``, ``{revision}`` and ``{copy}``.
        text: what stands between.
        rest: XML after the text.
    """

    title: str
    frame: str
    text: Text
    rest: str


def split(excerpt: Path) -> tuple[str, list[str]]:
    """Return the XML before the first page, and the pages, each with its margin."""
    xml = bz2.decompress(excerpt.read_bytes()).decode()
    starts = [m.start() for m in re.finditer(r"^ *<page>", xml, re.MULTILINE)]
    ends = [*starts[1:], xml.rindex("</mediawiki>")]
    return xml[: starts[0]], [xml[a:b] for a, b in zip(starts, ends, strict=True)]


def page(xml: str, kept: frozenset[str]) -> Page:
    """Return a page cut up; nothing of a redirect's text may change but where it leads.

    Args:
        xml: the page.
        kept: words that may not be replaced, in lower case.
    """
    found = _FRAME.fullmatch(xml)
    assert found is not None, xml[:200]
    a, b, c, d = (found[part].replace("{", "{{").replace("}", "}}") for part in "abcd")
    frame = f"{a}{{title}} {{copy}}{b}{{id}}{c}{{revision}}{d}"
    text = found["text"]
    if "<redirect " not in frame:
        return Page(found["title"], frame, _pieces(_lines(text), kept), found["rest"])
    frame = re.sub(r'(<redirect title="[^"]*)"', r'\1 {copy}"', frame)
    text = re.sub(r"\[\[[^\[\]|#]*", f"\\g<0>{COPY}", text, count=1)
    return Page(found["title"], frame, _pieces([[(text, True)]], kept), found["rest"])


def _lines(text: str) -> list[list[tuple[str, bool]]]:
    """Return the lines, each as stretches with whether they are markup."""
    lines: list[list[tuple[str, bool]]] = [[]]
    for stretch, is_markup, is_open in _stretches(text):
        if is_markup or is_open:
            lines[-1].append((stretch, is_markup))
            continue
        first, *others = stretch.split("\n")
        lines[-1].append((first, False))
        lines += [[(other, False)] for other in others]
    return lines


def _stretches(text: str) -> Iterator[tuple[str, bool, bool]]:
    """Yield the text in stretches, whether each is markup, and whether a construct is open."""
    opened: list[str] = []
    at = 0
    for found in _MARKUP.finditer(text):
        if found.start() > at:
            yield text[at : found.start()], not _HIDES.isdisjoint(opened), bool(opened)
        kind = found.lastgroup
        assert kind is not None
        if kind in _CLOSES:
            match = [i for i, other in enumerate(opened) if other in _CLOSES[kind]]
            del opened[match[-1] if match else len(opened) :]
        elif kind not in ("whole", "broken"):
            opened.append(kind)
        yield found.group(), True, bool(opened)
        at = found.end()
    yield text[at:], not _HIDES.isdisjoint(opened), bool(opened)


def _pieces(cut: list[list[tuple[str, bool]]], kept: frozenset[str]) -> Text:
    """Return the lines with the words that may be replaced as pieces of their own."""
    pieces: list[str] = []
    words: list[int] = []
    lines: list[tuple[int, int]] = []
    for line in cut:
        first = len(pieces)
        for stretch, is_markup in line:
            parts = [stretch] if is_markup else _WORD.split(stretch)
            others = [i for i in range(1, len(parts), 2) if parts[i].lower() not in kept]
            words += [len(pieces) + i for i in others]
            pieces += parts
        lines.append((first, len(pieces)))
    capital = [pieces[i][0].isupper() for i in words]
    starts = ["".join(pieces[first:end])[:2] for first, end in lines]
    moves = [i for i, start in enumerate(starts) if start[:1].isalnum() or start == "''"]
    return Text(
        pieces, np.array(words, np.int64), np.array(capital, bool), lines, np.array(moves, np.int64)
    )


def prose(text: str) -> list[str]:
    """Return the runs of a page's text that are no markup, in which words can be counted.

    Args:
        text: as it stands in the XML.
    """
    return [stretch for stretch, is_markup, _ in _stretches(text) if not is_markup]
