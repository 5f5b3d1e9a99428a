"""Page view files of both kinds give the views of one Wikipedia's titles."""

from __future__ import annotations

import bz2
import gzip
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder import exchange
from wit_builder.errors import QueryListError
from wit_builder.queries import compressed, pageviews
from wit_builder.queries import views as views_module
from wit_builder.queries.pageviews import ViewsJob, run_views

HOURLY = """\
aa Main_Page 8 0
de Wikipedia:Hauptseite 900 0
en - 55 0
en "Heroes"_(David_Bowie_song) 12 0
en Caf%C3%A9 2 0
en Café 3 0
en Main_Page 42 0
en Special:Search 70 0
en dog 1 0
en.b Main_Page 5 0
en.m Main_Page 30 0
en.m.b Main_Page 6 0
en.zero Main_Page 7 0
en.mw en 99 0
eng Main_Page 100 0
"""

COMPLETE = r"""aa.wikibooks - null mobile-web 4 I1O2R1
ab.wikipedia 1759 7945 desktop 11 U11
en.wikibooks Main_Page 5 desktop 9 A9
en.wikipedia ABC_(band) 207485 desktop 225 A12B9C5D5E7
en.wikipedia ABC_(band) 207485 mobile-web 152 A7B6C5
en.wikipedia ABC_(band) 207485 mobile-app 3 A3
en.wikipedia ABC_(U.S._TV_network) mobile-web 1 U1
en.wikipedia "\"Heroes\"_(David_Bowie_song)" 1 desktop 26 C1D1L4[6\\3^3_1
en.wikipedia "\"" null desktop 1 B1
en.wikipedia AC\DC 3 desktop 2 B2
en.wikipedia Special:WantedPages null desktop 3 A1Q1^1
"""

GOOD = "en Dog 1 0\n" * 1000

FLAWS = {
    "missing_field": b"en Dog 1",
    "further_field": b"en Dog 1 0 0 0 0",
    "space_in_title": b"en Hot Dog 1 0",
    "no_number": b"en Dog one 0",
    "negative": b"en Dog -1 0",
    "no_size": b"en Dog 1 A1",
    "number_too_long": b"en Dog 1234567890123456789 0",
    "unknown_access": b"en.wikipedia Dog 4 tablet 1 A1",
    "total_no_number": b"en.wikipedia Dog 4 desktop x A1",
    "blank": b"",
    "not_utf8": b"en caf\xe9 1 0",
    "cut_utf8": b"en.m caf\xc3 1 0",
    "not_utf8_in_quotes": b'en.wikipedia "\\"\xff" 4 desktop 1 A1',
}


def views(tmp_path, text: str | bytes, access="all", language="en", name="pageviews.txt"):
    """Return the views that a file gives by title, and the counts."""
    data = text.encode() if isinstance(text, str) else text
    if name.endswith(".gz"):
        data = gzip.compress(data)
    elif name.endswith(".bz2"):
        data = bz2.compress(data)
    (tmp_path / name).write_bytes(data)
    out = str(tmp_path / "out.arrow")
    done = run_views(ViewsJob(str(tmp_path / name), language, access, 3, out))
    rows = [exchange.gather([out], bucket).to_pydict() for bucket in range(3)]
    flat = [pair for row in rows for pair in zip(row["title"], row["views"], strict=True)]
    assert len(dict(flat)) == len(flat)
    return dict(flat), done.counts


@pytest.mark.parametrize(
    ("access", "main", "dog"), [("all", 79, 1), ("desktop", 42, 1), ("mobile", 37, None)]
)
def test_hourly(tmp_path, access, main, dog):
    """Hourly lines count for the wanted Wikipedia and its mobile sites, not for its neighbours."""
    found, counts = views(tmp_path, HOURLY, access, name="pageviews-20210101-000000.gz")
    assert found["Main Page"] == main
    assert found.get("Dog") == dog
    assert counts["lines"] == 15
    assert counts["views"] == sum(found.values())


def test_hourly_titles(tmp_path):
    """Titles get their form; quotation marks stand as they are; a dash is no title."""
    found, counts = views(tmp_path, HOURLY, "desktop")
    assert found == {
        '"Heroes" (David Bowie song)': 12,
        "Café": 5,
        "Main Page": 42,
        "Special:Search": 70,
        "Dog": 1,
    }
    assert counts == {
        "lines": 15, "lines_of_project": 7, "malformed": 0, "no_title": 1, "views": 130,
    }  # fmt: skip


def test_complete(tmp_path):
    """Daily and monthly lines count with or without a page id, and quoted titles are unquoted."""
    found, counts = views(tmp_path, COMPLETE, name="pageviews-20210101-user.bz2")
    assert found == {
        "ABC (band)": 380,
        "ABC (U.S. TV network)": 1,
        '"Heroes" (David Bowie song)': 26,
        '"': 1,
        "AC\\DC": 2,
        "Special:WantedPages": 3,
    }
    assert counts["lines_of_project"] == 8
    assert views(tmp_path, COMPLETE, "mobile")[0] == {
        "ABC (band)": 155, "ABC (U.S. TV network)": 1,
    }  # fmt: skip


def test_kind_is_told_by_the_line(tmp_path):
    """A file may hold both kinds of line, whatever its name, and end without a line break."""
    found, counts = views(tmp_path, COMPLETE + HOURLY.rstrip("\n"))
    assert found["Main Page"] == 79
    assert found['"Heroes" (David Bowie song)'] == 38
    assert counts["lines"] == 26


def test_other_language(tmp_path):
    """A language whose code begins another's is not taken for it."""
    assert views(tmp_path, HOURLY, language="e")[0] == {}
    assert views(tmp_path, HOURLY, language="de")[0] == {"Wikipedia:Hauptseite": 900}
    assert views(tmp_path, "be-tarask Пёс 3 0\n", language="be-tarask")[0] == {"Пёс": 3}


@pytest.mark.parametrize("flaw", FLAWS)
def test_malformed_line(tmp_path, flaw):
    """A malformed line is counted, and the others are read."""
    found, counts = views(tmp_path, GOOD.encode() + FLAWS[flaw] + b"\nen.m Dog 1 0\n")
    assert found == {"Dog": 1001}
    assert (counts["lines"], counts["malformed"]) == (1002, 1)


def test_many_malformed_lines(tmp_path):
    """More than one malformed line in a hundred is an error that names the first of them."""
    bad = "en Cat many 0\n" * 11
    place = r"of 1,011 lines are no page view counts, first 'en Cat many 0' \[.*, line 1001\]"
    with pytest.raises(QueryListError, match=rf"11 {place}"):
        views(tmp_path, GOOD + bad)
    assert views(tmp_path, GOOD + bad[: len(bad) // 11 * 10])[1]["malformed"] == 10


def test_few_lines(tmp_path):
    """Of very few lines a single one may be malformed."""
    assert views(tmp_path, "en Dog 1 0\nen Dog\n")[1]["malformed"] == 1
    with pytest.raises(QueryListError, match="2 of 3 lines"):
        views(tmp_path, "en Dog 1 0\nen Dog\nen\n")


def test_nothing_published_of_a_bad_file(tmp_path):
    """A file that is refused leaves nothing behind."""
    with pytest.raises(QueryListError):
        views(tmp_path, "<html>\n<body>\n</html>\n")
    assert [p.name for p in tmp_path.iterdir()] == ["pageviews.txt"]


@pytest.mark.parametrize("name", ["empty.txt", "empty.gz", "empty.bz2"])
def test_empty(tmp_path, name):
    """A file without lines is an error, packed or not."""
    with pytest.raises(QueryListError, match=rf"empty \[.*{name}\]"):
        views(tmp_path, "", name=name)


@pytest.mark.parametrize("kind", ["gz", "bz2"])
def test_cut_short(tmp_path, kind):
    """A file that ends too early is named with the byte where it ends."""
    pack = gzip.compress if kind == "gz" else bz2.compress
    place = tmp_path / f"v.{kind}"
    place.write_bytes(pack(HOURLY.encode())[:-12])
    size = place.stat().st_size
    with pytest.raises(QueryListError, match=rf"cut short \[.*v\.{kind}, byte {size}\]"):
        run_views(ViewsJob(str(place), "en", "all", 1, str(tmp_path / "out")))


def test_endless_line(tmp_path, monkeypatch):
    """A file without line breaks is refused before it fills memory."""
    monkeypatch.setattr(pageviews, "_MAX_LINE_BYTES", 1 << 20)
    with pytest.raises(QueryListError, match="a line of over 1 MiB"):
        views(tmp_path, "x" * (9 << 20))


@given(
    lines=st.lists(st.sampled_from((HOURLY + COMPLETE).splitlines()), min_size=1),
    chunk=st.integers(1, 60),
)
def test_chunks(tmp_path_factory, lines, chunk):
    """Where a file is cut into chunks changes nothing."""
    text = "\n".join(lines)
    folder = tmp_path_factory.mktemp("views")
    whole = views(folder, text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compressed, "CHUNK_BYTES", chunk)
        assert views(folder, text) == whole


def test_same_bytes(tmp_path):
    """The same file gives the same bytes."""
    outputs = []
    (tmp_path / "v.txt").write_text(HOURLY + COMPLETE)
    for name in ("a", "b"):
        run_views(ViewsJob(str(tmp_path / "v.txt"), "en", "all", 4, str(tmp_path / name)))
        outputs.append((tmp_path / name).read_bytes())
    assert outputs[0] == outputs[1]


def test_memory(tmp_path, monkeypatch):
    """Memory does not grow with a file, beyond what is summed at once."""
    monkeypatch.setattr(views_module, "WAVE_ROWS", 50_000)
    peaks = []
    for times in (1, 8):
        text = "".join(f"en T{i} 1 0\nen.m T{i} 1 0\n" for i in range(1000)) * 200 * times
        (tmp_path / "v.gz").write_bytes(gzip.compress(text.encode(), 1))
        del text
        job = ViewsJob(str(tmp_path / "v.gz"), "en", "all", 1, str(tmp_path / "out"))
        run_views(job)
        tracemalloc.start()
        run_views(job)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
