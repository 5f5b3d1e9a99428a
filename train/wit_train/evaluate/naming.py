"""What classes are called: by the set itself, by a file of names, or as ImageNet's are."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from wit_builder import storage
from wit_builder.errors import GoneError, TrainingError

IMAGENET = "imagenet"
"""In place of a file of names: open_clip's names of ImageNet's classes."""

_WNID = re.compile(r"n[0-9]{8}")
_TOLD = 3


class Naming(NamedTuple):
    """Classes by number: what the set says of its pictures, and what models are told."""

    labels: list[str]
    shown: list[str]


def by_label(names: str, found: Sequence[str], place: str) -> Naming:
    """Return the classes of a set that says their names.

    Args:
        names: a file: a name a line, or a JSON object of label: name, in the order of the classes;
            ``imagenet``: what was found are the 1000 WordNet ids, and sorted they are ImageNet's
            classes; empty: the classes are what was found.
        found: what the set says of its pictures, sorted.
        place: of the set.

    Raises:
        TrainingError: ``names`` is unreadable, says a name twice, or not all that was found; or
            there is one class only.
        StorageError: it cannot be read.
    """
    if names == IMAGENET:
        return Naming(list(found), _imagenet_names(found, place))
    naming = listed(names) if names else Naming(list(found), list(found))
    _refuse_unlisted(found, naming.labels, names)
    refuse_single(naming.shown, names or place)
    return naming


def by_number(names: str, own: Sequence[str] | None, place: str) -> list[str]:
    """Return the classes of a set that numbers them.

    Args:
        names: a file: a name a line, in the set's order, or a JSON object whose keys are the set's
            own names, or numbers; ``imagenet``; empty: the set's own names.
        own: the set's own names, if it has some.
        place: of the set.

    Raises:
        TrainingError: there are no names, or not as many as the set has itself, or one.
        StorageError: ``names`` cannot be read.
    """
    if not names and own is None:
        fix = "name a file of the classes, in their order: --names FILE"
        raise TrainingError("no classnames.txt", where=storage.redact(place), fix=fix)
    shown = list(own or ()) if not names else _numbered(names, own)
    if own is not None and len(shown) != len(own):
        raise TrainingError(
            f"{len(shown)} names, and {len(own)} classes in the set",
            where=storage.redact(names),
            fix="name every class once, in the set's order",
        )
    refuse_single(shown, names or place)
    return shown


def listed(names: str) -> Naming:
    """Return the classes of a file of names, or of ImageNet.

    Raises:
        TrainingError: it is unreadable, or says a name twice.
        StorageError: it cannot be read.
    """
    if names == IMAGENET:
        shown = imagenet()
        return Naming(shown, shown)
    if names.endswith(".json"):
        table = _table(names)
        return Naming([*table], [*table.values()])
    seen: dict[str, int] = {}
    for number, name in read_lines(names):
        if name in seen:
            where = f"{storage.redact(names)} line {number}"
            fix = f"it is on line {seen[name]} too: keep one"
            raise TrainingError(f"class {name!r} is listed twice", where=where, fix=fix)
        seen[name] = number
    return Naming([*seen], [*seen])


def names_in_order(place: str) -> list[str]:
    """Return the lines of a file whose line numbers are those of classes; names may be the same.

    Raises:
        TrainingError: not UTF-8, or an empty line with names behind it.
        StorageError: it cannot be read.
    """
    lines = [line.strip() for line in read_text(place).rstrip().split("\n")]
    if "" in lines:
        where = f"{storage.redact(place)} line {lines.index('') + 1}"
        raise TrainingError("a class without a name", where=where, fix="write it there")
    return lines


def read_lines(place: str) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not blank, with their numbers from 1.

    Raises:
        TrainingError: not UTF-8.
        StorageError: it cannot be read.
    """
    lines = enumerate(read_text(place).split("\n"), 1)  # not at U+2028, as splitlines
    return [(number, line.strip()) for number, line in lines if line.strip()]


def read_text(place: str) -> str:
    """Return the text of a file in UTF-8, with or without a mark at its start.

    Raises:
        TrainingError: it is none.
        StorageError: it cannot be read.
    """
    try:
        return storage.read_bytes(place).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"{storage.redact(place)} byte {error.start}"
        raise TrainingError("not text in UTF-8", where=where, fix="name a text file") from error


def imagenet() -> list[str]:
    """Return open_clip's names of ImageNet's 1000 classes; two of them occur twice."""
    from open_clip.zero_shot_metadata import (  # noqa: PLC0415 - takes seconds
        IMAGENET_CLASSNAMES,
    )

    return list(IMAGENET_CLASSNAMES)


def repeated(shown: Sequence[str]) -> list[str]:
    """Return a note on the names that several classes have; none where all differ."""
    twice = [name for name, count in Counter(shown).items() if count > 1]
    if not twice:
        return []
    told = ", ".join(map(repr, twice[:_TOLD])) + (", ..." if len(twice) > _TOLD else "")
    answer = "of such classes the first is always the answer"
    return [f"names that stand for several classes each: {len(twice)} ({told}); {answer}"]


def refuse_missing(names: str) -> None:
    """Refuse a file of names that is not there; none, and ``imagenet``, are fine.

    Raises:
        GoneError: it is not there.
        StorageError: that cannot be found out.
    """
    if not names or names == IMAGENET or storage.exists(names):
        return
    meant = difflib.get_close_matches(names.lower(), [IMAGENET])
    known = f"{IMAGENET!r} is the one word that is known"
    raise GoneError(
        "no such file of names",
        where=storage.redact(names),
        fix=f"did you mean {IMAGENET!r}?" if meant else f"name a file; {known}",
    )


def refuse_no_text(names: Iterable[str], where: str) -> None:
    """Refuse names that cannot be written in UTF-8, having lone surrogates.

    Raises:
        TrainingError: one is such.
    """
    for name in names:  # 0.1 us each
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise TrainingError(
                f"a name that is no text in UTF-8: {name!r}",
                where=storage.redact(where),
                fix="write it in UTF-8",
            ) from error


def refuse_single(shown: Sequence[str], where: str) -> None:
    """Refuse a set with one class or none: there is nothing to tell apart.

    Raises:
        TrainingError: it is one.
    """
    if len(shown) < 2:
        raise TrainingError(
            f"one class, {shown[0]!r}: nothing to tell apart" if shown else "no classes",
            where=storage.redact(where),
            fix="give two classes at least; --names FILE can list some without pictures",
        )


def _imagenet_names(found: Sequence[str], place: str) -> list[str]:
    shown = imagenet()
    if len(found) != len(shown) or not all(_WNID.fullmatch(label) for label in found):
        raise TrainingError(
            f"{len(found)} classes such as {found[0]!r}, and not ImageNet's {len(shown)}",
            where=storage.redact(place),
            fix="name folders by WordNet id (n01440764); or list your classes: --names FILE",
        )
    return shown


def _numbered(names: str, own: Sequence[str] | None) -> list[str]:
    if names == IMAGENET:
        return imagenet()
    if not names.endswith(".json"):
        return names_in_order(names)
    table = _table(names)
    labels = own if own and set(own) & set(table) else [str(i) for i in range(len(table))]
    _refuse_unlisted(labels, [*table], names)
    return [table[label] for label in labels]


def _table(place: str) -> dict[str, str]:
    """Return a JSON object of label: name, in the file's order."""
    where, fix = storage.redact(place), 'write {"label": "name", ...}'
    try:
        pairs = json.loads(read_text(place), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"not readable: {error}", where=where, fix=fix) from error
    table: dict[str, str] = {}
    for label, name in pairs if isinstance(pairs, _Pairs) else [("", None)]:
        if not isinstance(name, str):
            raise TrainingError("not an object of strings", where=where, fix=fix)
        if label in table:
            fix = "keep one of the two"
            raise TrainingError(f"class {label!r} is listed twice", where=where, fix=fix)
        refuse_no_text([label, name], place)
        table[label] = name
    return table


class _Pairs(list[tuple[str, object]]):
    """A JSON object's members: a dict would keep the last of two with one label."""


def _refuse_unlisted(found: Sequence[str], known: Sequence[str], names: str) -> None:
    unlisted = sorted(set(found) - set(known))
    if unlisted:
        told = ", ".join(_beside(label, known) for label in unlisted[:_TOLD])
        more = ", ..." if len(unlisted) > _TOLD else ""
        raise TrainingError(
            f"{len(unlisted)} of the set's {len(found)} classes are not listed: {told}{more}",
            where=storage.redact(names),
            fix="list them there, each as the set says it",
        )


def _beside(label: str, known: Sequence[str]) -> str:
    """Return a label, and the one that may be meant."""
    near = difflib.get_close_matches(label, known, n=1)
    return f"{label!r} (near: {near[0]!r})" if near else repr(label)
