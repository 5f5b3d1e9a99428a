"""Titles of much-read articles of the English Wikipedia, for who has Node.js.

``python -m wit_builder.demo.fetch_data DIR --popular-titles`` leaves ``DIR/popular-titles.txt``: a
title a line, lower case, in the order of their code points. The 38,041 titles are those that the
npm package ``compromise-wikipedia`` (MIT) chose by page views; it tells no counts. They are packed
with the npm package ``efrt``, which comes with it, so Node.js has to unpack them. Both are put into
a scratch folder, their install scripts do not run, and nothing else stays.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from wit_builder.demo import npm
from wit_builder.errors import DemoError

POPULAR_TITLES = "popular-titles.txt"

_PACKAGE = "compromise-wikipedia@0.1.1"
_PACKED = "the popular titles are packed in an npm package"
_INSTALL = ["install", "--no-save", "--ignore-scripts", "--legacy-peer-deps", "--no-audit"]
_INSTALL += ["--no-fund", "--loglevel=error"]

# The package exports its plugin only, so the packed titles are imported by their file's place;
# both places are relative to the folder that Node.js runs in.
_UNPACK = """
const { unpack } = await import("./node_modules/efrt/src/index.js");
const packed = await import("./node_modules/compromise-wikipedia/src/_model.js");
process.stdout.write(Object.keys(unpack(packed.default)).join("\\n"));
"""


def fetch(folder: str) -> None:
    """Make ``popular-titles.txt`` in the data folder; if it is there it stays as it is.

    Raises:
        DemoError: no npm or Node.js, no connection to a package index, an unusual package, or a
            folder that cannot be written.
    """
    root = Path(folder).resolve()  # npm takes its folder from the one it runs in
    if (root / POPULAR_TITLES).exists():
        return
    packager, node = (npm.tool(name, _PACKAGE, _PACKED) for name in ("npm", "node"))
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as scratch:
            npm.run([packager, *_INSTALL, "--prefix", scratch, _PACKAGE], _PACKAGE, scratch)
            unpack = [node, "--input-type=module", "--eval", _UNPACK]
            unpacked = npm.run(unpack, _PACKAGE, scratch)
            made = Path(scratch) / POPULAR_TITLES
            made.write_bytes("".join(f"{t}\n" for t in _titles(unpacked)).encode())
            made.replace(root / POPULAR_TITLES)
    except OSError as error:
        raise DemoError(
            f"cannot keep the popular titles: {error.strerror or error}",
            where=str(error.filename or folder),
            fix="choose another folder",
        ) from error


def _titles(unpacked: str) -> list[str]:
    """Return the titles, sorted: JavaScript has keys that look like numbers come first."""
    titles = sorted(set(unpacked.split("\n")) - {""})
    if not titles:
        raise DemoError(
            "the package has no titles",
            where=_PACKAGE,
            fix="report it: the package is not what it was",
        )
    return titles
