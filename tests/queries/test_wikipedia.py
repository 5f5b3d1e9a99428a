"""A dump is streamed to its articles; a broken one says where."""

from __future__ import annotations

import bz2
import gzip
import tracemalloc
from pathlib import Path
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import pyarrow as pa
import pytest

from wit_builder.errors import QueryListError
from wit_builder.queries import wikipedia
from wit_builder.queries.streams import Part
from wit_builder.queries.wikipedia import Article, Dump, Redirect
from wit_builder.queries.wikitext import MEDIA_AND_CATEGORY

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" xml:lang="xx">
<siteinfo><namespaces><namespace key="-1">Special</namespace><namespace key="0" />
<namespace key="6">Bild</namespace><namespace key="14">Kategorie</namespace></namespaces></siteinfo>
"""
TAIL = "</mediawiki>\n"


def page(title: str, text: str, ns: int = 0, extra: str = "") -> str:
    """Return one page as MediaWiki exports it."""
    return (
        f"<page><title>{escape(title)}</title><ns>{ns}</ns><id>1</id>{extra}<revision><id>2</id>"
        f"<contributor><username>title</username></contributor><comment>text</comment>"
        f'<text xml:space="preserve">{escape(text)}</text></revision></page>\n'
    )


def written(folder: Path, body: str, name: str = "dump.xml") -> str:
    """Write a dump of these pages; return its place."""
    data = (HEAD + body + TAIL).encode()
    if name.endswith(".bz2"):
        data = bz2.compress(data)
    elif name.endswith(".gz"):
        data = gzip.compress(data)
    elif name.endswith(".zst"):
        data = pa.Codec("zstd").compress(data, asbytes=True)
    (folder / name).write_bytes(data)
    return str(folder / name)


KINDS = ["dump.xml", "dump.xml.bz2", "dump.xml.gz", "dump.xml.zst"]


@pytest.mark.parametrize("name", KINDS)
def test_articles_and_redirects(tmp_path, name):
    """Articles and redirects come as they are, from every kind of file; other pages do not."""
    body = page("Cats & dogs", "a <b> [[c]]\n&amp;") + page("Talk:Cat", "hm", ns=1)
    body += page("Kitty", "#redirect [[Cat#Young|x]]")
    body += page("Cat2", "x", extra='<redirect title="Cat" />')
    dump = Dump(Part(written(tmp_path, body, name)))
    assert list(dump) == [
        Article("Cats & dogs", "a <b> [[c]]\n&amp;"),
        Redirect("Kitty", "Cat"),
        Redirect("Cat2", "Cat"),
    ]
    assert dump.pages == 4


def test_redirect_without_its_target(tmp_path):
    """A redirect whose element has no title leads where its text says."""
    body = page("A", "#REDIRECT [[B]]", extra="<redirect />") + page("C", "x", extra="<redirect />")
    found = list(Dump(Part(written(tmp_path, body))))
    assert found == [Redirect("A", "B"), Redirect("C", "")]


def test_an_unusual_encoding(tmp_path):
    """A dump in an encoding that cannot be read is refused in a line."""
    place = tmp_path / "dump.xml"
    place.write_bytes(b'<?xml version="1.0" encoding="euc-jp"?><mediawiki></mediawiki>')
    with pytest.raises(QueryListError, match=r"unusual encoding.*dump\.xml"):
        list(Dump(Part(str(place))))


def test_hidden_links(tmp_path):
    """Link prefixes of files and categories are known in the dump's own language."""
    dump = Dump(Part(written(tmp_path, page("a", "b"))))
    list(dump)
    assert dump.hidden_links == MEDIA_AND_CATEGORY | {"bild", "kategorie"}


def test_multistream(tmp_path):
    """A file of several bz2 streams, as multistream dumps are, is read to its end."""
    streams = [HEAD, page("a", "x"), page("b", "y"), TAIL]
    (tmp_path / "m.xml.bz2").write_bytes(b"".join(bz2.compress(s.encode()) for s in streams))
    assert [a.title for a in Dump(Part(str(tmp_path / "m.xml.bz2")))] == ["a", "b"]


@pytest.mark.parametrize("name", KINDS[1:])
def test_cut_short(tmp_path, name):
    """A compressed file that ends too early is named with the byte where it ends."""
    place = Path(written(tmp_path, page("a", "x" * 9000), name))
    data = place.read_bytes()
    place.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(QueryListError, match=rf"cut short.*{name}, byte {len(data) * 2 // 3}\]"):
        list(Dump(Part(str(place))))


@pytest.mark.parametrize("name", KINDS[1:])
def test_damaged(tmp_path, name):
    """A compressed file with flipped bytes is named."""
    place = Path(written(tmp_path, "".join(page(str(i), "x" * i) for i in range(500)), name))
    data = bytearray(place.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8] = b"\xff" * 8
    place.write_bytes(data)
    with pytest.raises(QueryListError, match=name):
        list(Dump(Part(str(place))))


@pytest.mark.parametrize(
    ("flaw", "content", "message"),
    [
        ("unclosed", HEAD + page("a", "x"), r"broken XML: no element found.*line 5"),
        ("mismatched", HEAD + "<page></title>", r"broken XML: mismatched tag.*line 4, column 9"),
        ("not-utf8", (HEAD + page("a", "x")).encode().replace(b">x<", b">\xff<"), "invalid token"),
        ("empty", "", "no element found"),
        ("no-page", HEAD + TAIL, "no page in the dump"),
        ("html", "<html><body/></html>", "its root is <html>"),
        (
            "entity-bomb",
            '<!DOCTYPE m [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + HEAD + TAIL,
            "declares a document type",
        ),
    ],
)
def test_malformed(tmp_path, flaw, content, message):
    """What is not a whole dump is refused with file and line."""
    place = tmp_path / f"{flaw}.xml"
    place.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(QueryListError, match=message) as caught:
        list(Dump(Part(str(place))))
    assert str(place) in str(caught.value)


def test_missing(tmp_path):
    """A missing dump is named with the recipe key to correct."""
    with pytest.raises(QueryListError, match=r"no such file.*queries\.wikipedia\.dumps"):
        list(Dump(Part(str(tmp_path / "none.xml.bz2"))))


def test_oversized_page(tmp_path, monkeypatch):
    """A page beyond the limit is skipped and counted; the others come."""
    monkeypatch.setattr(wikipedia, "MAX_PAGE_CHARS", 100)
    dump = Dump(Part(written(tmp_path, page("big", "x" * 200) + page("small", "y"))))
    assert [a.title for a in dump] == ["small"]
    assert dump.oversized == 1


def test_too_many_oversized_pages(tmp_path, monkeypatch):
    """A dump of which many pages are too long is refused, with one of them."""
    monkeypatch.setattr(wikipedia, "MAX_PAGE_CHARS", 100)
    monkeypatch.setattr(wikipedia, "MAX_OVERSIZED", 2)
    pages = "".join(page(f"big{k}", "x" * 200) for k in range(4))
    with pytest.raises(QueryListError, match=r"3 pages of more than 100 .*page 'big2'"):
        list(Dump(Part(written(tmp_path, pages))))


def test_memory_is_flat(tmp_path):
    """Four times the dump takes no more memory."""

    def peak(pages: int) -> int:
        place = written(tmp_path, page("a", "dog " * 2500) * pages, "dump.xml.gz")
        tracemalloc.start()
        assert sum(1 for _ in Dump(Part(place))) == pages
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(1600) < 1.2 * peak(400)


def test_real_excerpt(data_dir):
    """The excerpt's articles are those that a plain tree parse finds."""
    place = data_dir / "enwiki-excerpt.xml.bz2"
    with bz2.open(place) as stream:
        root = ET.parse(stream).getroot()
    space = "{http://www.mediawiki.org/xml/export-0.10/}"
    expected = [
        (p.findtext(f"{space}title"), p.findtext(f"{space}revision/{space}text"))
        for p in root.iter(f"{space}page")
        if p.findtext(f"{space}ns") == "0" and p.find(f"{space}redirect") is None
    ]
    assert len(expected) == 106
    found = list(Dump(Part(str(place))))
    assert [tuple(page) for page in found if isinstance(page, Article)] == expected
    redirects = [page for page in found if isinstance(page, Redirect)]
    assert len(redirects) == 99
    assert Redirect("AccessibleComputing", "Computer accessibility") in redirects


def test_bulgarian_excerpt(data_dir):
    """A dump in another language, in UTF-16, is read with its own names for files."""
    dump = Dump(Part(str(data_dir / "bgwiki-excerpt.xml.bz2")))
    [article] = dump
    assert article.title.startswith("\u0413\u0440\u0438\u0433")  # the Gregorian calendar
    assert "\u0444\u0430\u0439\u043b" in dump.hidden_links
    assert dump.pages == 3
