"""Wikitext becomes the words a reader sees."""

from __future__ import annotations

import bz2
import html
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from html.entities import html5
from xml.etree import ElementTree as ET

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.queries.wikitext import plain, plain_column

CASES = {
    "nested templates": ("a {{b {{c}} d}} e", "a e"),
    "a template that is never closed is text": ("{{convert 3 km", "convert 3 km"),
    "a stray end": ("a}} b]] c", "a b c"),
    "a link shows its target": ("see [[Dog]]s", "see Dogs"),
    "a link shows its label": ("[[Canis familiaris|dog]]s", "dogs"),
    "a link to a category page": ("[[:Category:Dogs|the dogs]]", "the dogs"),
    "an empty label": ("[[Mercury (planet)|]]", "Mercury (planet)"),
    "a file with links and templates in its caption": (
        "[[File:x.jpg|thumb|a [[dog]] {{by|me}}]] barks",
        "barks",
    ),
    "image is an alias of file": ("[[image:x.png]]a", "a"),
    "a category": ("a\n[[Category:Dogs|Dog]]\nb", "a\nb"),
    "a link to another language": ("a [[de:Hund]] b", "a b"),
    "an external link keeps its label": (
        "[https://example.org/a?b=c the page] ends",
        "the page] ends",
    ),
    "an external link without label": ("a [https://example.org/a] b", "a ] b"),
    "a bare address": ("at https://example.org/a?b=c today", "at today"),
    "notes": ("dog<ref>{{cite|a=[[b]]}}</ref> and<ref name=x /> cat", "dog and cat"),
    "a note with a loose template end": ("{{a<ref>}}</ref>b}}c", "c"),
    "comments": ("a<!-- [[b]] -->c", "ac"),
    "a comment that is never closed is text": ("a<!-- b", "a b"),
    "a table": ('before\n{| class="x"\n! a\n| b || {{c}}\n|}\nafter', "before\nafter"),
    "a table in a table": ("a\n{|\n|\n{|\n|b\n|}\n|c\n|}\nd", "a\nd"),
    "a template that ends like a table": ("{{infobox\n|a=1\n|}}text", "text"),
    "a table inside a template": ("{{a|\n{|\n|b\n|}\n}}c", "c"),
    "a table never closed inside a template": ("{{a|\n{|\n|b}}c", "c"),
    "bold and italic": ("'''''bold''''' ''l'''x", "bold lx"),
    "an apostrophe": ("dog's", "dog's"),
    "headings are lines of their own": ("a\n== Early life ==\nb", "a\nEarly life\nb"),
    "lists": ("* one\n** two\n# three\n: four\n; five", "one\ntwo\nthree\nfour\nfive"),
    "a rule": ("a\n----\nb", "a\nb"),
    "inline tags": ("H<sub>2</sub>O <small>x</small>", "H2O x"),
    "breaking tags": ("a<br />b<p>c", "a\nb\nc"),
    "not a tag": ("a < b and c > d", "a < b and c > d"),
    "entities": ("a &amp; b &lt;i&gt; &#233;", "a & b <i> \N{LATIN SMALL LETTER E WITH ACUTE}"),
    "formulas": ("<math>a_{b}</math>is", "is"),
    "a formula that is never closed": ("<math>a {{b}} c", "a c"),
    "galleries": ("a\n<gallery>\nFile:x.jpg|dog\n</gallery>\nb", "a\nb"),
    "nowiki": ("<nowiki>[[a]] {{b}}</nowiki>", "[[a]] {{b}}"),
    "magic words": ("__NOTOC__a", "a"),
    "a link that is never closed is text": ("[[a|b", "a|b"),
    "a link in the label of a link": ("[[a|b [[c]] d]]", "b c d"),
    "a line break in a target": ("[[dog] a\nb [[c|d]]", "dog] a\nb d"),
    "a file whose name has blanks around": ("a[[ File : x.jpg|b]]", "a"),
    "blanks of a title": ("a[[_\N{NO-BREAK SPACE}FILE_:x.jpg|b]]", "a"),
    "a file that is linked": ("[[ :File:x.jpg|b]]", "b"),
    "a file in a link": ("[[a|[[File:x.jpg]] b]]", "b"),
    "an address as a target": ("[[https://example.org|label]]", "label"),
    "an address before a wide space": (
        "b https://example.org\N{IDEOGRAPHIC SPACE}a",
        "b \N{IDEOGRAPHIC SPACE}a",
    ),
    "an address with a template": ("[https://example.org/{{a}}/b label]", "/b label]"),
    "an address at the end of a template": ("{{a|https://example.org}}b", "b"),
    "no address": ("shttp://a [mailto:b", "shttp://a [mailto:b"),
    "capitals": ("<MATH>a</Math>b<REF>c</rEF >d<BR/>e HTTP://a", "b d\ne"),
    "an end tag with a blank": ("<math>a</mathematics>b</math >c", "c"),
    "a tag that is never closed is text": ("a <b c", "a <b c"),
    "an entity without semicolon": ("a&amp b&copy=1", "a&amp b&copy=1"),
    "an entity of an entity": ("&amp;lt;", "&lt;"),
    "entities in nowiki": ("<nowiki>&lt;[[</nowiki>", "<[["),
    "a long unknown entity": (f"&{'a' * 50};", f"&{'a' * 50};"),
    "magic words of the language": ("__\N{CYRILLIC CAPITAL LETTER BE}__a __b__", "a __b__"),
    "a template that ends where a table would": ("{{a\n | b\n |}}c", "c"),
    "a table indented by colons": ("a\n:: {| b\n |}\nc", "a\nc"),
    "white space": ("  a \t b \n\n\n c  ", "a b\nc"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_cases(case):
    """Each construct leaves the words that MediaWiki would show."""
    wikitext, words = CASES[case]
    assert plain(wikitext) == words


@pytest.mark.parametrize(
    "wikitext",
    ["[[Файл:x|y]]a", "[[ФАЙЛ :x]]a", "[[файл:x]]a", "[[Thể_loại:x]]a", "[[THỂ LOẠI:x]]a"],
)
def test_local_names_of_files(wikitext):
    """Link prefixes of the wiki's own language can be hidden, in any case."""
    assert plain(wikitext, frozenset({"Файл", "thể loại"})) == "a"


def test_other_prefixes():
    """A prefix that only begins or ends as a hidden one hides no link."""
    hidden = frozenset({"файл", "a b"})
    words = plain("[[фай:x]] [[файлы:x]] [[ab:x|y]] [[a:x]]", hidden)
    assert words == "фай:x файлы:x y a:x"


NESTING = ["{{", "}}", "[[", "]]", "\n{|", "\n|}", "<ref>", "</ref>", "|", "x"]
TOKENS = [
    *(*NESTING, "[[File:", "[[de:", ":", "<ref", "</ref", "<br/>", "<", ">", "/", "-", "&", ";"),
    *("<!--", "-->", "<math>", "</math>", "<nowiki>", "</nowiki>", "http://", "[//", "__A__", "__"),
    *("&lt;", "&#x10FFFF;", "&#x1F600;", "&#1;", "''", "=", "*", " ", "\n", "é", "中", "😀"),
    *("\N{NO-BREAK SPACE}", "[[\N{IDEOGRAPHIC SPACE}", "http://\N{CYRILLIC SMALL LETTER A}"),
]
ANY = st.lists(st.sampled_from(TOKENS)).map("".join)


@given(st.lists(st.sampled_from(NESTING)))
def test_any_nesting(tokens):
    """Whatever is opened and closed in whatever order, the text comes out without markup."""
    text = plain("".join(tokens))
    assert not {"{{", "}}", "[[", "]]", "<ref>", "</ref>"} & set(text.split())


@given(st.text(alphabet="abc .,\n", max_size=60))
def test_plain_text_keeps_its_words(text):
    """Text without markup keeps all its words, in order."""
    assert plain(text).split() == text.split()


@given(st.lists(ANY | st.text()), st.integers(0, 5), st.integers(0, 5))
def test_columns(texts, first, size):
    """A column, and any slice of it, comes out as its texts one by one: valid, and no longer."""
    whole = pa.array(texts, pa.string())
    for column in (whole, whole.slice(first, size), whole.slice(len(texts))):
        words = plain_column(column)
        words.validate(full=True)
        assert words.to_pylist() == [plain(text) for text in column.to_pylist()]
        for before, after in zip(column.to_pylist(), words.to_pylist(), strict=True):
            assert len(after.encode()) <= len(before.encode())


def test_empty_column():
    """No text is no text, whatever buffers its array has."""
    assert len(plain_column(pa.array([], pa.string()))) == 0
    assert plain_column(pa.array(["", ""])).to_pylist() == ["", ""]


_IN_PYTHON = """
import json, sys
import pyarrow as pa
from wit_builder.queries.wikitext import plain, plain_column
texts = json.load(sys.stdin)
alone = [plain(text) for text in texts]
assert alone == plain_column(pa.array(texts)).to_pylist()
json.dump(alone, sys.stdout)
"""


def test_nothing_is_read_or_written_out_of_bounds():
    """The kernel as plain Python, where a wrong index is an error, gives what it gives compiled."""
    choose = random.Random(1)
    texts = ["".join(choose.choices(TOKENS, k=choose.randrange(40))) for _ in range(500)]
    run = subprocess.run(
        [sys.executable, "-c", _IN_PYTHON],
        input=json.dumps(texts),
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == plain_column(pa.array(texts)).to_pylist()


def test_entities():
    """Every entity of HTML that has a semicolon is what Python's own decoder makes of it."""
    numbers = [*range(0x180), 0x7FF, 0x800, 0xD7FF, 0xD800, 0xDFFF, 0xFDD0, 0xFDEF, 0xFFFE, 0xFFFF]
    numbers += [0x10000, 0x1F600, 0x1FFFE, 0x10FFFD, 0x10FFFF, 0x110000, 10**30]
    named = [f"&{name}" for name in html5 if name[-1] == ";" and name not in ("nGt;", "nLt;")]
    texts = [*named, *(f"&#{n};" for n in numbers), *(f"&#X{n:x};&#x{n:X};" for n in numbers)]
    column = plain_column(pa.array([f"x{text}x" for text in texts]))
    decoded = [html.unescape(f"x{text}x").split() for text in texts]
    assert [text.split() for text in column.to_pylist()] == decoded


def test_deeper_than_the_stack():
    """Templates deeper than the stack are no error, and the next page is none the worse."""
    pages = ["{{" * 25_000 + "x" + "}}" * 25_000, "{{" * 10_001 + "a", "{{b}}c"]
    assert plain_column(pa.array(pages)).to_pylist() == ["", "a", "c"]


@pytest.mark.parametrize(
    "piece",
    [
        *("{{", "[[", "<ref>", "<math>", "<!--", "{{[[", "<ref>[[}}", "''", "=", " ", "\n", " \n"),
        *("= ", "[[a|", "[[File:", "[[ ", "{{[[a|", "<a", "</math", "<nowiki>", "&#1", "&a", "__A"),
        *("_", "[http", "http://", "\n:", "\n{|", "-", "|", ":"),
    ],
)
def test_time_is_linear(piece):
    """Ten times the hostile markup takes far less than a hundred times the time."""

    def seconds(size: int) -> float:
        text = piece * size + "x" * size + "]]" * size + "}}" * size
        started = time.process_time()
        plain(text)
        return time.process_time() - started

    assert seconds(200_000) < 40 * max(0.005, seconds(20_000))


# --- the same by regular expressions, over and over -----------------------

_RAW = (
    "ce|chem|gallery|graph|hiero|imagemap|inputbox|mapframe|maplink|math|score|source"
    "|syntaxhighlight|templatedata|timeline"
)
_BREAKING = "blockquote|br|center|d[dlt]|div|h[1-6r]|li|[ou]l|p|poem|pre|table|t[dhr]"


def _shown(link):
    target, *labels = link[0][2:-2].split("|")
    if re.match(r"\s*(file|image|media|category)\s*:", target, re.IGNORECASE):
        return " "
    if not labels and re.match(r"[a-z]{2,3}(-[a-z]+)*:", target):
        return " "
    return labels[-1] if labels and labels[-1] else target.lstrip(":")


_STEPS: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"<!--.*?-->", ""),
    (rf"<({_RAW})\b[^<>]*(?<!/)>.*?</\1\s*>", " "),
    (r"<ref\b[^<>]*/>", ""),
    (r"<ref\b[^<>]*>(?:(?!<ref\b).)*?</ref\b[^<>]*>", " "),
    (r"\{\{(?:(?!\{\{|\}\}).)*\}\}", " "),
    (r"\n[ :]*\{\|(?:(?!\n[ :]*\{\|).)*?\n *\|\}(?!\})", " "),
    (r"\[\[(?:(?!\[\[|\]\]).)*\]\]", _shown),
    (r"\[(?:https?:|ftp:)?//[^\s\[\]<>\"{}]*", " "),
    (r"(?:https?|ftp)://[^\s\[\]<>\"{}|]*", " "),
    (rf"</?(?:{_BREAKING})\b[^<>]*>", "\n"),
    (r"</?[a-z][^<>]*>|'{2,}|__[A-Z]+__|\[\[|\]\]|\{\{|\}\}", ""),
]


def _by_expressions(text):
    """Return the text of a well-formed page, taking the innermost of each construct in turns."""
    text = "\n" + text
    for pattern, by in _STEPS:
        before = ""
        while text != before:
            before, text = text, re.sub(pattern, by, text, flags=re.DOTALL | re.IGNORECASE)
    return html.unescape(text)


@pytest.fixture(scope="module")
def articles(data_dir):
    """Wikitext of the articles of the excerpt."""
    with bz2.open(data_dir / "enwiki-excerpt.xml.bz2") as dump:
        return [
            page.findtext("{*}revision/{*}text")
            for page in ET.parse(dump).getroot().iterfind("{*}page")
            if page.findtext("{*}ns") == "0" and page.find("{*}redirect") is None
        ]


def test_words_of_real_articles(articles):
    """Of real articles, the words are those that much slower regular expressions leave."""
    assert len(articles) == 106
    for text, words in zip(articles, plain_column(pa.array(articles)).to_pylist(), strict=True):
        assert re.findall(r"\w+", words) == re.findall(r"\w+", _by_expressions(text))


def test_lines_of_real_articles(articles):
    """Of real articles, no line has markup around it, blanks to spare, or nothing."""
    text = "\n".join(plain_column(pa.array(articles)).to_pylist())
    left = r"\[\[|\]\]|\{\{|\}\}|</?ref\b|https?://|'{3}|^[ *#:;=]|  |[ =]$|\n\n"
    assert not re.search(left, text, re.MULTILINE)
    assert "Anarchism is a political philosophy that advocates self-governed societies" in text
