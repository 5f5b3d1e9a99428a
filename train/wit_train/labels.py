"""Pictures with classes, for zero-shot classification: from a folder of folders, or from a list."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from wit_builder import storage
from wit_builder.errors import TrainingError

_NAMES = "classes.json"
_PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


class Labelled(NamedTuple):
    """Pictures, and the class of each.

    Attributes:
        places: of the pictures.
        targets: index of each picture's class.
        classes: names, sorted, or in the order of the file that lists them.
    """

    places: list[str]
    targets: list[int]
    classes: list[str]


def read(place: str, names: str = "") -> Labelled:
    """Return the pictures of a folder of class folders, or of a list.

    A list is a text file with ``PICTURE<tab>CLASS`` on each line, pictures relative to the file.
    In a folder, ``red apple/1.png`` is of class "red apple"; a ``classes.json`` in it
    stands for ``names``.

    Args:
        place: local folder, or local or remote list.
        names: file of all classes to choose from: a name a line, or a JSON object that maps what
            the folders or the list say to the names; without it the classes that occur.

    Raises:
        TrainingError: no pictures, a line without a tab, or a class missing from ``names``.
        StorageError: something cannot be read.
    """
    folder = Path(place)
    pairs = _from_folder(folder) if folder.is_dir() else _from_list(place)
    if not pairs:
        raise TrainingError("no pictures with classes", where=place, fix="see train/README.md")
    used = sorted({name for _, name in pairs})
    if not names and (folder / _NAMES).exists():
        names = str(folder / _NAMES)
    shown = _read_names(names) if names else {name: name for name in used}
    number = {name: i for i, name in enumerate(shown)}
    missing = [name for name in used if name not in number]
    if missing:
        raise TrainingError(f"class {missing[0]!r} is not listed", where=names, fix="list it there")
    return Labelled([p for p, _ in pairs], [number[name] for _, name in pairs], [*shown.values()])


def _read_names(place: str) -> dict[str, str]:
    """Return what classes are called, by what the pictures say, in the file's order."""
    if not place.endswith(".json"):
        return {name: name for name in _lines(place)}
    try:
        return msgspec.json.decode(storage.read_bytes(place), type=dict[str, str])
    except msgspec.MsgspecError as error:
        fix = "write an object of class: name"
        raise TrainingError(f"not readable: {error}", where=place, fix=fix) from error


def _from_folder(folder: Path) -> list[tuple[str, str]]:
    return [
        (str(picture), picture.parent.name)
        for picture in sorted(folder.glob("*/*"))
        if picture.suffix.lower() in _PICTURES
    ]


def _from_list(place: str) -> list[tuple[str, str]]:
    folder = place.rpartition("/")[0] or "."
    pairs = []
    for number, line in enumerate(_lines(place), 1):
        picture, tab, name = line.partition("\t")
        if not tab:
            fix = "write PICTURE<tab>CLASS"
            raise TrainingError("a line without a tab", where=f"{place} line {number}", fix=fix)
        whole = storage.is_remote(picture) or picture.startswith("/")
        pairs.append((picture if whole else storage.join(folder, picture), name))
    return pairs


def _lines(place: str) -> list[str]:
    text = storage.read_bytes(place).decode(errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]
