"""Test sets of single files: a folder of class folders, or a list of pictures."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from wit_builder import storage
from wit_builder.errors import GoneError, StorageError, TrainingError
from wit_train.evaluate import naming
from wit_train.evaluate.item import Item, TestSet

CLASSES = "classes.json"
TEMPLATES = "templates.txt"

_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
_SPLITS = {"train", "test", "val", "valid", "validation"}

_LISTED_AT_ONCE = 16
"""A bucket takes some 30 ms to list a folder, and ImageNet has a thousand."""


class _Files(NamedTuple):
    """The pictures of a set: names below its root, or whole places."""

    root: str
    names: list[str]
    targets: Sequence[int]
    """Their classes; empty: they have captions."""
    texts: list[tuple[str, ...]]
    """Their captions; empty: they have classes."""
    left_out: dict[str, int]
    lines: Sequence[int] = ()
    """Where the list names them first, from 1; empty: there is no list."""


class FileSet(TestSet):
    """A set of single files; the first rank tells of all that was left out."""

    def __init__(
        self, place: str, files: _Files, classes: Sequence[str] = (), templates: Sequence[str] = ()
    ) -> None:
        super().__init__(place, classes, templates)
        self._files = files

    def items(self, rank: int = 0, world_size: int = 1) -> Iterator[Item]:
        """Yield a rank's items; their bytes are read when asked for."""
        self.left_out = {} if rank else dict(self._files.left_out)
        _, names, targets, texts, _, _ = self._files
        for index in range(rank, len(names), world_size):
            target = targets[index] if targets else -1
            captions = texts[index] if texts else ()
            yield Item(index, names[index], partial(self._read, index), target, captions)

    def pictures(self, indices: Collection[int]) -> dict[int, bytes]:
        """Return the bytes of those there are; their files are read."""
        return {i: self._read(i) for i in sorted(indices) if 0 <= i < len(self._files.names)}

    def _read(self, index: int) -> bytes:
        place = self._place_of(index)
        try:
            return storage.read_bytes(place)
        except StorageError as error:
            if not self._files.lines:
                raise
            fix = "correct the line; relative places start from the list's folder"
            raise type(error)(
                f"{error.what}: {storage.redact(place)}",
                where=f"{storage.redact(self.place)} line {self._files.lines[index]}",
                fix=fix if isinstance(error, GoneError) else error.fix,
            ) from error

    def _place_of(self, index: int) -> str:
        name = self._files.names[index]
        is_whole = "://" in name or name.startswith("/")
        return name if is_whole else storage.join(self._files.root, name)


def is_picture(name: str) -> bool:
    """Return whether a file is a picture, by the ending of its name."""
    return name.lower().endswith(_PICTURES)


# --- a folder of class folders ------------------------------------------------


def of_folder(place: str, names: str = "") -> FileSet:
    """Return the pictures of a folder of class folders: ``red apple/1.png`` is a "red apple".

    So is ``red apple/green/1.png``, at any depth. A ``classes.json`` in it stands for ``names``;
    ``templates.txt`` are its prompts. Files whose ending is no picture's, and pictures in no class
    folder, are left out and counted; hidden files and folders are passed over.

    Args:
        place: local or remote.
        names: see ``naming.by_label``.

    Raises:
        TrainingError: there is no picture, the folders are splits, the classes are not in order,
            or a name is not in UTF-8.
        StorageError: something cannot be read.
    """
    folders, loose = _directly_in(place)
    _refuse_splits(place, folders)
    with ThreadPoolExecutor(_LISTED_AT_ONCE) as pool:
        listed = list(pool.map(_below, [storage.join(place, name) for name in folders]))
    files = _sorted_out(place, folders, listed, loose)
    if not files.names:
        raise TrainingError(
            f"no pictures in class folders{_told(files.left_out)}",
            where=storage.redact(place),
            fix="lay them out as FOLDER/red apple/1.png; see docs/evaluation.md",
        )
    naming.refuse_no_text([*folders, *files.names], place)
    own = storage.join(place, CLASSES)
    names = names or (own if storage.exists(own) else "")
    filled = sorted({folders[target] for target in files.targets})
    found = filled if names and names != naming.IMAGENET else folders
    labels, shown = naming.by_label(names, found, place)
    number = {label: i for i, label in enumerate(labels)}
    targets = [number[folders[target]] for target in files.targets]
    return FileSet(place, files._replace(targets=targets), shown, _templates_of(place))


def _refuse_splits(place: str, folders: list[str]) -> None:
    """Refuse folders that are parts of a set, not classes.

    Raises:
        TrainingError: they all are called so.
    """
    if folders and {name.lower() for name in folders} <= _SPLITS:
        one = next((name for name in folders if name.lower() != "train"), folders[0])
        raise TrainingError(
            f"the folders look like splits, not like classes: {', '.join(folders)}",
            where=storage.redact(place),
            fix=f"name one, such as {storage.redact(storage.join(place, one))}",
        )


def _sorted_out(
    place: str, folders: list[str], listed: list[list[str]], loose: list[str]
) -> _Files:
    """Return the pictures by folder and name; targets are numbers of folders."""
    names, targets, left_out = list[str](), list[int](), Counter[str]()
    for number, (folder, files) in enumerate(zip(folders, listed, strict=True)):
        for name in sorted(files):  # 1 us each
            if is_picture(name):
                names.append(f"{folder}/{name}")
                targets.append(number)
            else:
                left_out["not a picture by its name"] += 1
    if homeless := sum(map(is_picture, loose)):
        left_out["in no class folder"] = homeless
    return _Files(place, names, targets, [], dict(left_out))


def _directly_in(place: str) -> tuple[list[str], list[str]]:
    """Return the names of folders and files in a folder, sorted, without hidden ones."""
    if storage.is_remote(place):
        folders, files = storage.list_folders(place), sorted(storage.sizes(place))
    else:
        with storage.translated(place, "list"), os.scandir(_path(place)) as found:
            entries = sorted(found, key=lambda entry: entry.name)
            folders = [entry.name for entry in entries if _is_folder(entry)]
            files = [entry.name for entry in entries if not _is_folder(entry)]
    return [n for n in folders if n[0] != "."], [n for n in files if n[0] != "."]


def _below(folder: str) -> list[str]:
    """Return the paths of the files below a folder, at any depth, without hidden ones."""
    path = _path(folder)
    with storage.translated(folder, "list"):
        if not storage.is_remote(folder):
            return list(_walked(path))
        found = storage.filesystem(folder)[0].find(path)
    below = [str(name)[len(path) :].lstrip("/") for name in found]
    return [name for name in below if not name.startswith(".") and "/." not in name]


def _walked(path: str) -> Iterator[str]:
    """Yield the files below a local folder; a link counts even where it leads nowhere.

    A link to a folder that it is in itself, or to the one of the class folders, is not followed.
    """
    waiting = [(path, "", frozenset([_identity(str(Path(path).parent))]))]
    while waiting:
        folder, below, above = waiting.pop()
        here = _identity(folder)
        if here in above:
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name[0] == ".":
                    continue
                if _is_folder(entry):
                    waiting.append((entry.path, f"{below}{entry.name}/", above | {here}))
                else:
                    yield below + entry.name


def _identity(folder: str) -> tuple[int, int]:
    """Return what is the same of a folder by whatever links it is reached."""
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether it is a folder, or a link to one; a link to itself is none."""
    if entry.is_symlink():
        return Path(entry.path).is_dir()  # entry.is_dir() raises of a link to itself
    return entry.is_dir()


def _path(place: str) -> str:
    return str(storage.filesystem(place)[1]).rstrip("/")


def _templates_of(folder: str) -> list[str]:
    place = storage.join(folder, TEMPLATES)
    return [line for _, line in naming.read_lines(place)] if storage.exists(place) else []


def _told(left_out: dict[str, int]) -> str:
    return "".join(f"; {count} files are {why}" for why, count in left_out.items())


# --- a list ---------------------------------------------------------------------


def of_list(place: str, names: str = "", *, captions: bool = False) -> FileSet:
    """Return the pictures of a text file of lines PICTURE<tab>CLASS, or PICTURE<tab>CAPTION.

    Pictures are places, relative ones to the file's folder. Several lines of one picture are its
    captions; of classes it can have one.

    Args:
        place: of the file, local or remote.
        names: see ``naming.by_label``.
        captions: behind the tab stand captions.

    Raises:
        TrainingError: there is no line, one without a tab, or a picture of two classes.
        StorageError: it cannot be read, or a place in it carries credentials.
    """
    root, said = place.rpartition("/")[0] or ".", _said(place)
    lines = array("q", (line.number for line in said.values()))
    files = _Files(root, list(said), (), [], {}, lines)
    if captions:
        return FileSet(place, files._replace(texts=[tuple(line.told) for line in said.values()]))
    repeats = _refuse_two_classes(said, place)
    labels, shown = naming.by_label(names, sorted({n.told[0] for n in said.values()}), place)
    number = {label: i for i, label in enumerate(labels)}
    targets = [number[line.told[0]] for line in said.values()]
    found = FileSet(place, files._replace(targets=targets), shown)
    if repeats:
        found.notes.append(f"lines of the list that repeat others: {repeats:,}")
    return found


class _Line(NamedTuple):
    """A picture's first line in a list, and what this and later ones say of it."""

    number: int
    told: list[str]


def _said(place: str) -> dict[str, _Line]:
    """Return what the lines of a list say of each picture, in the order of the first ones."""
    said: dict[str, _Line] = {}
    shown = storage.redact(place)
    for number, line in naming.read_lines(place):  # 4 us each
        picture, tab, told = line.partition("\t")
        if not tab:
            raise _no_tab(line, f"{shown} line {number}")
        if "@" in picture or "?" in picture:  # looking costs 5 us
            _refuse_credentials(picture, f"{shown} line {number}")
        said.setdefault(picture.strip(), _Line(number, [])).told.append(told.strip())
    if not said:
        fix = "write lines of PICTURE<tab>CLASS, or PICTURE<tab>CAPTION"
        raise TrainingError("no pictures in the list", where=shown, fix=fix)
    return said


def _no_tab(line: str, where: str) -> TrainingError:
    if line.startswith("<"):
        fix = "class folders cannot be listed over https: download them"
        return TrainingError("a web page, not a list", where=where, fix=fix)
    fix = "write PICTURE<tab>CLASS, or PICTURE<tab>CAPTION"
    return TrainingError("a line without a tab", where=where, fix=fix)


def _refuse_credentials(picture: str, where: str) -> None:
    try:
        storage.refuse_credentials(picture)
    except StorageError as error:
        raise StorageError(f"{error.what}: {error.where}", where=where, fix=error.fix) from error


def _refuse_two_classes(said: dict[str, _Line], place: str) -> int:
    """Return how many lines say again what another one did.

    Raises:
        TrainingError: two lines say different classes of a picture.
    """
    repeated = 0
    for picture, (number, told) in said.items():
        if len(set(told)) > 1:
            other = next(label for label in told if label != told[0])
            raise TrainingError(
                f"{storage.redact(picture)} is of class {told[0]!r} and of class {other!r}",
                where=f"{storage.redact(place)} line {number}",
                fix="give each picture one class; lists of captions are for --pairs",
            )
        repeated += len(told) - 1
    return repeated
