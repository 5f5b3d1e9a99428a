"""The texts beside the demo's pictures, as people write them: helpful, lazy, or useless.

Half of the captions have the word "drawing" in them, and a good many say little else: that query is
far over the demo's cap, while most concepts have a handful of pairs each, as on the real web.
"""

from __future__ import annotations

import random
from enum import StrEnum

_DRAWING = [
    "a drawing of {a}",
    "{n} drawing",
    "drawing of {a}",
    "{n}, colour drawing",
    "simple drawing showing {a}",
    "{n} (drawing)",
    "Drawing: {n}",
    "a small drawing of {a} for the classroom",
    "free drawing of {a} to print",
    "{n} - digital drawing",
]
_OTHER = [
    "{a}",
    "{n}",
    "{n}",
    "clip art of {a}",
    "sticker showing {a}",
    "{n} icon",
    "{n} sticker",
    "a picture of {a}",
    "illustration of {a}",
    "{n} emoji",
    "{n}, vector clip art",
    "This is {a}.",
    "a cartoon of {a} by one of our readers",
    "The one about {a} that everybody asks for",
]
_ON_PAPER = [
    "{a} on a {b} background",
    "{n} drawing, {b} background",
    "drawing of {a} on {b} paper",
    "clip art: {n}, {b} background",
]
_GENERIC = [
    "drawing",
    "a drawing",
    "free drawing",
    "our new drawing",
    "drawing of the day",
    "another drawing from the collection",
    "nice drawing",
    "drawing, click to enlarge",
    "icon",
    "picture",
]
_CREDITS = [
    "Fig. {i}: {n}",
    "{n}, plate {i}",
    "No. {i} is {a}, a drawing by our own hand",
    "Above: {a} (drawing {i} of the series)",
    "{n}. Drawing from the collection",
    "You asked for {a}; here it is.",
]
_FILES = ["IMG_{i:04d}.JPG", "dsc{i:05d}.jpg", "DSCF{i:04d}.jpeg", "pxl_{i:06d}_v2.png"]


class Text(StrEnum):
    """What kind of text a picture has."""

    CAPTION = "caption"
    """names what it shows"""
    GENERIC = "generic"
    """says that it is a drawing, and not of what"""
    FILE_NAME = "file_name"
    """what the camera called it; matches nothing"""
    SHORT = "short"
    """one or two characters"""
    LONG = "long"
    """a caption, and then keywords without end: more than 4,096 characters"""
    NONE = "none"
    """no alt at all"""


TEXT_SHARES = {
    Text.CAPTION: 0.845,
    Text.GENERIC: 0.10,
    Text.FILE_NAME: 0.025,
    Text.SHORT: 0.01,
    Text.LONG: 0.005,
    Text.NONE: 0.015,
}
"""Of the pictures, by where they stand."""


def write(rng: random.Random, kind: Text, name: str, background: str) -> str | None:
    """Return a text of a kind for a picture of ``name``; None for no text.

    Args:
        rng: decides the wording.
        kind: what kind of text.
        name: of what the picture shows.
        background: a word for the background's colour, or empty.
    """
    number = rng.randrange(1, 10_000)
    if kind is Text.NONE:
        return None
    if kind is Text.FILE_NAME:
        return rng.choice(_FILES).format(i=number)
    if kind is Text.SHORT:
        return rng.choice(["x", "-", "..", "a"])
    if kind is Text.GENERIC:
        return rng.choice(_GENERIC)
    text = _caption(rng, name, background)
    return text + 400 * f", {name}, free" if kind is Text.LONG else text


def credit(rng: random.Random, name: str) -> str:
    """Return a text as it stands below a picture: it names what the picture shows."""
    return rng.choice(_CREDITS).format(n=name, a=with_article(name), i=rng.randrange(1, 400))


def with_article(name: str) -> str:
    """Return the name as it stands in a sentence: "an owl", "grapes"."""
    if name[0].isdigit() or (name.endswith("s") and not name.endswith("ss")):
        return name
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _caption(rng: random.Random, name: str, background: str) -> str:
    if background and rng.random() < 0.15:
        form = rng.choice(_ON_PAPER)
    else:
        form = rng.choice(_DRAWING if rng.random() < 0.5 else _OTHER)
    text = form.format(n=name, a=with_article(name), b=background)
    return text[0].upper() + text[1:] if rng.random() < 0.3 else text
