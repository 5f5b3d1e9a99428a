from __future__ import annotations

import bz2
import re
from collections import Counter
from xml.parsers import expat

import pyarrow.parquet as pq
import pytest

from benchmarks import wiki_corpus, wiki_growth, wiki_pages

_PAGE = re.compile(r"<title>(.*?) (\d+)</title>.*?<text[^>]*>(.*?)</text>", re.DOTALL)


@pytest.fixture(scope="session")
def sources(data_dir):
    return data_dir / "enwiki-excerpt.xml.bz2", data_dir / "enwiki-words.parquet"


@pytest.fixture(scope="session")
def multistream(sources, tmp_path_factory):
    place = tmp_path_factory.mktemp("multistream") / "dump.xml.bz2"
    return place, wiki_corpus.write(place, sources[0], sources[1], 7, 3, "multistream")


@pytest.fixture(scope="session")
def made(multistream):
    """The XML of the dump."""
    return bz2.decompress(multistream[0].read_bytes()).decode()


def _texts(sources):
    pages = wiki_pages.split(sources[0])[1]
    found = [
        re.search(r"<title>(.*?)</title>.*?<text[^>]*>(.*?)</text>", p, re.DOTALL) for p in pages
    ]
    return {f[1]: f[2] for f in found if f is not None}


def test_a_plain_dump_has_the_same_xml_in_one_stream(sources, multistream, made, tmp_path):
    """The blocks that were compressed apart make one stream with a right checksum."""
    place = tmp_path / "plain.xml.bz2"
    written = wiki_corpus.write(place, sources[0], sources[1], 7, 3, "plain")
    decompressor = bz2.BZ2Decompressor()
    assert decompressor.decompress(place.read_bytes()).decode() == made
    assert decompressor.eof
    assert decompressor.unused_data == b""
    assert written.xml_bytes == multistream[1].xml_bytes == len(made.encode())
    assert [p.name for p in tmp_path.iterdir()] == ["plain.xml.bz2"]


@pytest.mark.parametrize(("seed", "same"), [(3, True), (4, False)])
def test_the_seed_decides(seed, same, sources, multistream, tmp_path):
    """A smaller dump of the same seed is how a larger one begins; another seed gives another."""
    place = tmp_path / "dump.xml.bz2"
    wiki_corpus.write(place, sources[0], sources[1], 1, seed, "multistream")
    data = place.read_bytes()
    pages = data[: data.rindex(b"BZh9")]
    assert multistream[0].read_bytes().startswith(pages) is same


def test_the_index_leads_to_each_page(multistream):
    """Each stream has a hundred pages, and the index their ids and titles at its offset."""
    place, written = multistream
    lines = bz2.decompress(wiki_corpus.index_of(place).read_bytes()).decode().splitlines()
    pages = [line.split(":", 2) for line in lines]
    assert [int(number) for _, number, _ in pages] == list(range(1, written.pages + 1))
    data = place.read_bytes()
    for offset in {int(offset) for offset, _, _ in pages}:
        xml = bz2.BZ2Decompressor().decompress(data[offset:]).decode()
        found = re.findall(r"<title>(.*?)</title>.*?<id>(\d+)</id>", xml, re.DOTALL)
        assert found == [(t, n) for o, n, t in pages if int(o) == offset]
        assert len(found) == wiki_corpus.PAGES_PER_STREAM
    last = bz2.BZ2Decompressor().decompress(data[data.rindex(b"BZh9") :])
    assert last == b"</mediawiki>\n"


def test_it_is_well_formed_and_as_large_as_wanted(made):
    """The XML can be parsed, no title is there twice, and the size is not exceeded by much."""
    expat.ParserCreate().Parse(made, True)
    titles = re.findall("<title>(.*?)</title>", made)
    assert len(set(titles)) == len(titles)
    assert 7e6 <= len(made.encode()) < 12e6


def test_markup_is_that_of_the_excerpt(sources, made):
    """Brackets, tags, entities, addresses and templates of each page are as many as before."""
    originals = _texts(sources)
    kept = re.compile(r"&[lg]t;|&amp;|\{\{|\}\}|\[\[|\]\]|\{\||\|\}|''+|==+|://[^\s&|\]]*|\n")
    for title, _, text in _PAGE.findall(made):
        assert Counter(kept.findall(text)) == Counter(kept.findall(originals[title])), title


def test_a_redirect_leads_to_its_own_repetition(made):
    """Target and link of a redirect have the number that its title has."""
    numbers = re.compile(
        r'<title>[^<]* (\d+)</title>.*? title="[^"]* (\d+)" />.*?<text.*?\[\[[^]|#]* (\d+)[]|#]',
        re.DOTALL,
    )
    pages = [page for page in made.split("  <page>\n") if "<redirect " in page]
    found = [numbers.search(page[page.index("<title>") :]) for page in pages]
    assert len(found) > 100
    assert all(match is not None and len(set(match.groups())) == 1 for match in found)


def test_a_fifth_of_the_words_is_new(sources, made):
    """What is replaced is a fifth, but for the most frequent words, which stay."""
    originals = _texts(sources)
    frame = set(pq.read_table(sources[1])["gram"][:50].to_pylist())
    words = new = 0
    for title, _, text in _PAGE.findall(made):
        if text.upper().startswith("#REDIRECT"):
            continue  # nothing but its number is new
        before, after = _words(originals[title]), _words(text)
        assert {w: n for w, n in before.items() if w in frame} == {
            w: n for w, n in after.items() if w in frame
        }
        words += after.total()
        new += (after - before).total()
    assert 0.12 < new / words < 0.22


def _words(text):
    runs = " ".join(wiki_pages.prose(text))
    return Counter(re.findall(r"\w+(?:['\u2019]\w+)*", runs.lower()))


def test_cutting_a_page_up_loses_nothing(sources):
    """The pieces of each page, line by line, are its text."""
    originals = _texts(sources)
    for xml in wiki_pages.split(sources[0])[1]:
        page = wiki_pages.page(xml, frozenset())
        lines = ["".join(page.text.pieces[a:b]) for a, b in page.text.lines]
        assert "\n".join(lines).replace(wiki_pages.COPY, "") == originals[page.title]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("see {{cite|title=x {{y}} z}} there", ["see", "there"]),
        (
            "a &lt;ref name=&quot;b&quot;&gt;c d&lt;/ref&gt; e&lt;ref name=f /&gt; g",
            ["a", "e", "g"],
        ),
        ("[[File:dog.jpg|thumb|a [[dog|big dog]] runs]] end", ["end"]),
        ("a [[dog|big dog]] and [[cat]]s", ["a", "big", "dog", "and", "cat"]),
        ("{| class=x\n| cell\n|} after", ["after"]),
        ("[http://a.b/c?d=e&amp;f=g its name] &amp;nbsp; &quot;x&quot;", ["its", "name", "x"]),
        ("open {{ never closed", ["open"]),
        ("closed }} never ]] opened &lt;/ref broken", ["closed", "never", "opened", "broken"]),
    ],
)
def test_prose_is_what_is_no_markup(text, words):
    """Words of templates, tables, references, files, tags and addresses are none of the prose."""
    assert re.findall(r"\w+", " ".join(wiki_pages.prose(text))) == words


def test_growth_of_a_small_dump(tmp_path):
    """Words are counted in articles only, bigrams not across lines and markup."""
    place = tmp_path / "dump.xml.bz2"
    page = "  <page>\n<text>One two two\none two {{x}} three</text>\n  </page>\n"
    other = '  <page>\n<redirect title="x"/><text>four</text>\n  </page>\n'
    place.write_bytes(bz2.compress((page + other + page).encode()))
    assert list(wiki_growth.growth(place, [1, 1000])) == [
        wiki_growth.Growth(len(page), 6, 3, 2),
        wiki_growth.Growth(2 * len(page) + len(other), 12, 3, 2),
    ]
