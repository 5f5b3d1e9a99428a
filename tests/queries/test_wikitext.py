"""Wikitext becomes the words a reader sees."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.queries.wikitext import plain

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
    "white space": ("  a \t b \n\n\n c  ", "a b\nc"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_cases(case):
    """Each construct leaves the words that MediaWiki would show."""
    wikitext, words = CASES[case]
    assert plain(wikitext) == words


def test_local_names_of_files():
    """Link prefixes of the wiki's own language can be hidden, too."""
    local = "\N{CYRILLIC CAPITAL LETTER EF}\N{CYRILLIC SMALL LETTER A}"
    assert plain(f"[[{local}:x|y]]a", frozenset({local.lower()})) == "a"


@given(
    st.lists(st.sampled_from(["{{", "}}", "[[", "]]", "\n{|", "\n|}", "<ref>", "</ref>", "|", "x"]))
)
def test_any_nesting(tokens):
    """Whatever is opened and closed in whatever order, the text comes out without markup."""
    text = plain("".join(tokens))
    assert not {"{{", "}}", "[[", "]]", "<ref>", "</ref>"} & set(text.split())


@given(st.text(alphabet="abc .,\n", max_size=60))
def test_plain_text_keeps_its_words(text):
    """Text without markup keeps all its words, in order."""
    assert plain(text).split() == text.split()


@pytest.mark.parametrize(
    "piece",
    ["{{", "[[", "<ref>", "<math>", "<!--", "{{[[", "<ref>[[}}", "''", "=", " ", "\n", " \n", "= "],
)
def test_time_is_linear(piece):
    """Ten times the hostile markup takes far less than a hundred times the time."""

    def seconds(text: str) -> float:
        started = time.process_time()
        plain(text)
        return time.process_time() - started

    assert seconds(piece * 50_000) < 40 * max(0.005, seconds(piece * 5_000))
